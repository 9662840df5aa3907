"""Writing HDF5 so that a full disk is an error and not the end of the process."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pertwise._io import atomic_path
from pertwise.errors import InputError

if TYPE_CHECKING:
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
