"""Writing HDF5 so that a full disk is an error and not the end of the process."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pertwise._io import atomic_path
from pertwise.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: Bytes left free on top of what a file takes: its headers, and other programs.
SPARE = 16 << 20


@contextlib.contextmanager
def atomic_hdf5(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Yield an empty `h5py.File`; what the block puts into it is at `path` when it succeeds.

    The file is made in memory (of the size it will have on disk). Where a write fails, HDF5 cannot
    close what it opened: it prints traces and crashes when the interpreter ends.

    Raises
    ------
    pertwise.errors.InputError
        When the file cannot be written; see `atomic_path`.
    """
    import h5py

    with h5py.File(os.fspath(path), "w", driver="core", backing_store=False) as handle:
        yield handle
        handle.flush()
        image = handle.id.get_file_image()
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)


def check_room(path: str | os.PathLike[str], n_bytes: int) -> None:
    """Whether a file too large to be made in memory first will fit on the disk.

    Raises
    ------
    pertwise.errors.InputError
        When it will not.
    """
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < n_bytes + SPARE:
        raise InputError(
            f"{path} cannot be written: it needs {n_bytes >> 20:,} MB, {free >> 20:,} MB are free "
            "there; make room there or choose another place"
        )


def write_h5ad_atomic(path: str | os.PathLike[str], data: AnnData) -> None:
    """`AnnData.write_h5ad` with gzip, by `atomic_hdf5`."""
    from anndata.io import write_elem

    data.strings_to_categoricals()
    with atomic_hdf5(path) as handle:
        write_elem(handle, "/", data, dataset_kwargs={"compression": "gzip"})


def write_content_atomic(
    path: str | os.PathLike[str],
    *,
    X: NDArray[Any],
    obs: pd.DataFrame,
    var: pd.DataFrame,
    uns: Mapping[str, str | bool],
    layers: Mapping[str, NDArray[Any]],
) -> None:
    """`write_h5ad_atomic` of ``AnnData(X, obs, var, uns, layers=layers)``, without the import.

    That takes a quarter of the time of a prediction. Columns that anndata might write in another
    way than here are left to it. Format: anndata's "on-disk format", dataframe 0.2.0.
    """
    columns = [c for table in (obs, var) for _, c in table.items()]
    names = [*obs.columns, *var.columns, *uns, *layers]
    if not all(map(_is_plain, columns)) or any("/" in str(n) for n in names):
        from anndata import AnnData

        write_h5ad_atomic(path, AnnData(X=X, obs=obs, var=var, uns=dict(uns), layers=dict(layers)))
        return
    with atomic_hdf5(path) as handle:
        _marked(handle, "anndata", "0.1.0")
        _put(handle, "X", X)
        _put_table(handle, "obs", obs)
        _put_table(handle, "var", var)
        for group in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            _marked(handle.create_group(group), "dict", "0.1.0")
        for name, values in layers.items():
            _put(handle["layers"], name, values)
        for name, value in uns.items():
            kind = "string" if isinstance(value, str) else "numeric-scalar"
            _marked(handle["uns"].create_dataset(name, data=value), kind)


def _marked(node: Any, kind: str, version: str = "0.2.0") -> None:
    node.attrs.update({"encoding-type": kind, "encoding-version": version})


def _put(group: Any, name: str, values: Any) -> None:
    import h5py

    texts, options = values.dtype.kind not in "biuf", {}
    if texts:
        options, values = {"dtype": h5py.string_dtype()}, np.asarray(values, dtype=object)
    made = group.create_dataset(name, data=values, compression="gzip", **options)
    _marked(made, "string-array" if texts else "array")


def _put_table(root: Any, name: str, table: pd.DataFrame) -> None:
    import h5py

    group = root.create_group(name)
    _marked(group, "dataframe")
    columns = np.array(table.columns, dtype=h5py.string_dtype())
    group.attrs.update({"_index": "_index", "column-order": columns})
    _put(group, "_index", table.index.to_numpy())
    for column, values in table.items():
        held = values.astype("category") if values.dtype.kind not in "biuf" else None
        if held is None or len(held.cat.categories) >= len(held):
            _put(group, column, values.to_numpy())
            continue
        part = group.create_group(column)
        _marked(part, "categorical")
        part.attrs["ordered"] = False
        _put(part, "categories", held.cat.categories.to_numpy())
        _put(part, "codes", held.cat.codes.to_numpy())


def _is_plain(values: pd.Series[Any]) -> bool:
    """Numbers, or texts throughout."""
    import pandas as pd

    return isinstance(values.dtype, np.dtype | pd.StringDtype) and (
        values.dtype.kind in "biuf" or all(isinstance(v, str) for v in values)
    )
