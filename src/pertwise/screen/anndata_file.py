"""AnnData layouts of all ages and writers: which matrix, which table, which names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pertwise._files import looks_like
from pertwise.errors import InputError, unknown_name
from pertwise.screen.celltable import CellTable, table_of
from pertwise.screen.flags import texts
from pertwise.screen.labels import fold_label

#: A column-compressed matrix up to this many stored values is turned round in memory.
CSC_LIMIT = 60_000_000
#: Bytes of decompressed chunks kept per data set.
CHUNK_CACHE = 4 << 20
#: The name under which ``.raw`` is asked for; a layer of that name goes before.
RAW = "raw"
_LOG1P = "log1p"
#: Columns of var that hold symbols, marks and letter case folded away, best known first.
_SYMBOLS = (
    "genename", "genenames", "genesymbol", "genesymbols", "featurename", "symbol", "symbols",
    "hgncsymbol", "mgisymbol", "geneshortname",
)  # fmt: skip


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An open HDF5 file.

    Raises
    ------
    pertwise.errors.InputError
        If it is none, cut short, locked or unreadable; says which.
    """
    import h5py

    try:
        with open(path, "rb") as raw:
            start = raw.read(512)
        empty = not start
        if empty or not h5py.is_hdf5(path):
            packed = "gzipped: unpack it with gunzip" if start[:2] == b"\x1f\x8b" else ""
            looks = packed or looks_like(start).partition(";")[0]
            looks = f"not an h5ad file (it is {looks or 'not HDF5'})"
            raise InputError(
                f"{path} is {'empty' if empty else looks}; cells are "
                "read from h5ad, 10x h5 or mtx, zarr or parquet, means also from csv and tsv"
            )
        # A chunk that lies across two blocks of cells is decompressed once.
        handle = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE)
    except (OSError, RuntimeError) as error:
        said = str(error)
        cut = re.search(r"eof = (\d+).{0,80}stored_eof = (\d+)", said)
        if cut:
            sizes = f"{int(cut[1]):,} of {int(cut[2]):,} bytes"
            raise InputError(f"{path} is cut short ({sizes}): copy it again") from error
        if "lock" in said:
            raise InputError(f"{path} is being written by another program: close it") from error
        raise InputError(f"{path} cannot be opened: {said.splitlines()[0][:200]}") from error
    with handle:
        yield handle


def choose_layer(
    asked: str | None, layers: tuple[str, ...], has_x: bool, has_raw: bool, prefer: bool, where: str
) -> str:
    """Which matrix to read: "X", "raw" or a layer.

    Raises
    ------
    pertwise.errors.InputError
        If what was asked for is not there, or nothing was asked for and there is no X.
    """
    there = (*(("X",) if has_x else ()), *layers, *((RAW,) if has_raw else ()))
    if asked is None or (asked == "X" and not has_x):
        if "counts" in layers and (prefer or not has_x):
            return "counts"
        if has_x:
            return "X"
        others = f"there are {', '.join(there)}: name one with --layer" if there else "nor a layer"
        raise InputError(f"{where} has no X; {others}")
    if asked not in there:
        raise unknown_name("layer", asked, there, f"in {where} (there are {', '.join(there)})")
    return asked


def pick_matrix(
    root: Any, layer: str | None, prefer: bool, path: Path
) -> tuple[str, tuple[str, ...], Any, Any]:
    """(layer, layers, matrix node, var node) of an open h5ad file or zarr store."""
    missing = [k for k in ("obs", "var") if k not in root]
    if missing:
        raise InputError(f"{path} is not an h5ad file: it has no {' and no '.join(missing)}")
    layers = tuple(root["layers"].keys()) if "layers" in root else ()
    has_x = "X" in root and _holds_values(root["X"])
    # AnnData 0.6 wrote "raw.X" and "raw.var".
    raw = (root["raw"].get("X"), root["raw"].get("var")) if _is_group(root, RAW) else (None, None)
    if raw[0] is None and "raw.X" in root:
        raw = root["raw.X"], root["raw.var"] if "raw.var" in root else root["var"]
    chosen = choose_layer(layer, layers, has_x, raw[0] is not None, prefer, str(path))
    if chosen == RAW and RAW not in layers:
        listed = raw[1] if raw[1] is not None else root["var"]
        return chosen, layers, raw[0], listed
    return chosen, layers, root["X"] if chosen == "X" else root["layers"][chosen], root["var"]


def _is_group(root: Any, key: str) -> bool:
    return key in root and hasattr(root[key], "keys")


def _holds_values(node: Any) -> bool:
    if hasattr(node, "keys"):
        return "data" in node and "indptr" in node
    return bool(getattr(node, "shape", None))


class SparseRows:
    """A csr group of h5py or zarr; reads contiguous rows by its index pointer."""

    def __init__(self, group: Any, n_rows: int, where: str) -> None:
        self.indptr = np.asarray(group["indptr"][:]).astype(np.int64)
        self.indices, self.data = group["indices"], group["data"]
        stored = int(self.data.shape[0])
        broken = len(self.indptr) == 0 or self.indptr[0] != 0 or (np.diff(self.indptr) < 0).any()
        if broken or self.indptr[-1] > stored or self.indices.shape[0] != stored:
            raise InputError(f"{where}: the sparse matrix is damaged (indptr, indices, data)")
        if len(self.indptr) - 1 != n_rows:
            raise InputError(
                f"{where}: the sparse matrix is stored as {len(self.indptr) - 1} rows (or columns, "
                f"csc), but the table of those has {n_rows}; write the file again with anndata"
            )


def open_matrix(node: Any, n_rows: int, width: int, path: Path, layer: str) -> Any:
    """Something whose rows `pertwise.screen.cells.CellFile` can read block by block.

    Raises
    ------
    pertwise.errors.InputError
        If shape or type do not fit, or a matrix by columns is too large to turn round.
    """
    where = f"{path}: {layer}"
    if not hasattr(node, "keys"):
        if tuple(node.shape) != (n_rows, width):
            raise InputError(f"{where} is {node.shape}, but obs has {n_rows} rows and var {width}")
        if node.dtype.kind not in "biuf":
            raise InputError(f"{where} holds {node.dtype} values, which are no numbers")
        return node
    lacking = [k for k in ("data", "indices", "indptr") if k not in node]
    if lacking:
        raise InputError(f"{where} is no matrix: it has no {lacking[0]}")
    if node["data"].dtype.kind not in "biuf" or node["indices"].dtype.kind not in "iu":
        raise InputError(f"{where} holds {node['data'].dtype} values, which are no numbers")
    attrs = node.attrs
    kind = str(attrs.get("encoding-type", attrs.get("h5sparse_format", "")))[:3]
    pointers = int(node["indptr"].shape[0]) - 1
    if kind not in ("csr", "csc"):
        if n_rows == width or pointers not in (n_rows, width):
            raise InputError(
                f"{where} does not say whether it is stored by rows or by columns; write the file "
                "again with anndata"
            )
        kind = "csr" if pointers == n_rows else "csc"
    if kind == "csr":
        return SparseRows(node, n_rows, where)
    stored = int(node["data"].shape[0])
    if stored > CSC_LIMIT:
        raise InputError(
            f"{path} stores its matrix by columns (csc, {stored:,} values): cells cannot be "
            "read one block at a time. Rewrite it once by rows: "
            "data.X = data.X.tocsr(); data.write_h5ad(...)"
        )
    columns = SparseRows(node, width, where)
    turned = make_csr(columns.data[:], columns.indices[:], columns.indptr, n_rows, where)
    return sparse.csr_matrix(turned.T)


def numbers(values: Any, where: str) -> NDArray[Any]:
    """Values of any type that h5py can hold, as one that scipy can work with.

    Raises
    ------
    pertwise.errors.InputError
        If they are no real numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where} holds {array.dtype} values, which are no numbers")
    if array.dtype.kind == "b" or (array.dtype.itemsize < 4 and array.dtype.kind == "f"):
        return array.astype(np.float32)
    if array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def make_csr(
    data: Any, indices: Any, indptr: NDArray[np.int64], width: int, where: str
) -> sparse.csr_matrix:
    """Checked csr with sorted entries, those of one cell and gene added up (as scipy reads them).

    Raises
    ------
    pertwise.errors.InputError
        If an entry lies outside the matrix.
    """
    columns = np.asarray(indices)
    if columns.dtype != np.int32:
        columns = columns.astype(np.int64)
    if columns.size and (columns.min() < 0 or columns.max() >= width):
        bad = columns[(columns < 0) | (columns >= width)][0]
        raise InputError(f"{where}: the sparse matrix is damaged (position {bad} of {width})")
    shape = (len(indptr) - 1, width)
    if columns.dtype == np.int32 and len(columns) < 2**31:
        indptr = indptr.astype(np.int32)
    x = sparse.csr_matrix((numbers(data, where), columns, indptr), shape=shape)
    x.sum_duplicates()
    return x


def scalars(uns: Mapping[str, Any] | Any) -> dict[str, Any]:
    """Scalars of ``uns``; of anything bigger only the name (None), of ``log1p`` its base."""
    found: dict[str, Any] = {}
    for key in uns if hasattr(uns, "keys") else ():
        node = uns[key]
        if key == _LOG1P and hasattr(node, "keys"):
            base = _scalar(node["base"]) if "base" in node else None
            found[key] = float(base) if isinstance(base, (int, float, np.number)) else None
        else:
            found[str(key)] = _scalar(node)
    return found


def _scalar(node: Any) -> Any:
    if hasattr(node, "dtype") and getattr(node, "shape", None) == ():
        node = node[()]
    if isinstance(node, bytes):
        return node.decode("utf-8", "replace")
    return node if isinstance(node, (str, int, float, bool, np.generic)) else None


def read_var(node: Any, width: int, uns: Any, path: Path) -> pd.DataFrame:
    """The table of features, with their names.

    Raises
    ------
    pertwise.errors.InputError
        If no column says how the features are called.
    """
    table: CellTable = table_of(node, width, uns, f"{path}: var")
    frame = table.whole()
    if isinstance(frame.index, pd.RangeIndex) and not len(frame.columns):
        raise InputError(f"{path}: var has no names of features (no _index); write it with anndata")
    return frame


def feature_names(
    var: pd.DataFrame, feature_key: str | None, path: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Unique names of the features, and what was done to make them so.

    Raises
    ------
    pertwise.errors.InputError
        If names repeat, or the column that was asked for is missing.
    """
    notes: list[str] = []
    index = var.index.astype(str)
    if feature_key is not None:
        if feature_key not in var.columns:
            raise unknown_name("var column", feature_key, map(str, var.columns), f"in {path}")
        names = texts(var[feature_key])
    else:
        names = index.to_numpy()
        ensembl = len(index) > 0 and index.str.match(r"ENS[A-Z]*G\d+").mean() > 0.5
        unnamed = isinstance(var.index, pd.RangeIndex)
        numbered = unnamed or (len(index) > 0 and index.str.fullmatch(r"\d+").all())
        folded = {fold_label(str(c)): c for c in reversed(var.columns)}
        column = next((folded[n] for n in _SYMBOLS if n in folded), None)
        if (ensembl or numbered) and column is not None:
            names = texts(var[column])
            notes.append(f"feature names from var[{column!r}]")
        else:
            if unnamed:
                raise InputError(
                    f"{path}: var has no names of features (no _index); name one of its columns "
                    f"with --feature-key: {', '.join(map(str, var.columns))}"
                )
    series = pd.Series(names)
    twice = series.duplicated(keep=False) | series.isin(["nan", "None", "<NA>", ""])
    if twice.any():
        # One symbol for two Ensembl genes: the id, which is unique, says which is meant.
        repaired = np.where(twice, index.to_numpy(), names)
        if not pd.Index(repaired).is_unique:
            example = pd.Index(repaired)[pd.Index(repaired).duplicated()][0]
            raise InputError(
                f"{path}: feature {example!r} occurs twice; make var_names unique, or choose a "
                "unique column with --feature-key"
            )
        names = repaired
        notes.append(f"{int(twice.sum())} repeated or empty feature names replaced by row names")
    return tuple(map(str, names)), tuple(notes)
