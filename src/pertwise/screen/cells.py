"""Files of single cells, read in blocks of rows that fit a small, fixed amount of memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from pertwise._io import optional_import
from pertwise.errors import InputError, suggest, unknown_name
from pertwise.screen.celltable import CellTable, FrameTable, table_of

if TYPE_CHECKING:
    from anndata import AnnData

#: Entries (stored values; cells x genes for dense data) of one block: about 100 MB at work.
BLOCK_ENTRIES = 3_000_000
#: A column-compressed matrix up to this many stored values is turned round in memory.
CSC_LIMIT = 60_000_000


@dataclass(frozen=True)
class CellFile:
    """An open file of cells: little is in memory until it is asked for.

    Attributes
    ----------
    path
        Where it lies.
    table
        One row per cell; read by column and row range.
    features
        Names of the columns, unique.
    uns
        What else the file states (scalars, and names of entries).
    layer
        Which matrix `blocks` reads: "X", or the name of a layer.
    layers
        Names of the layers that exist.
    notes
        Repairs made on opening (feature names made unique, for example).
    matrix
        Open handle of the values; use `rows` and `blocks`.
    """

    path: Path
    table: CellTable
    features: tuple[str, ...]
    uns: Mapping[str, Any] = field(default_factory=dict)
    layer: str = "X"
    layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    matrix: Any = None

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def obs(self) -> pd.DataFrame:
        """The whole table with the names of the rows; for large files read `table` instead."""
        return self.table.whole()

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows start..stop as csr (n, n_features)."""
        return _rows(self.matrix, start, stop, len(self.features))

    def blocks(
        self, start: int = 0, stop: int | None = None, entries: int | None = None
    ) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """(first row, csr block) over rows start..stop, each block of about `entries` values."""
        entries = BLOCK_ENTRIES if entries is None else entries
        stop = len(self) if stop is None else stop
        bounds = _bounds(self.matrix, start, stop, len(self.features), entries)
        for lo, hi in itertools.pairwise(bounds):
            yield lo, self.rows(lo, hi)

    def sample(self, n: int = 60) -> sparse.csr_matrix:
        """Up to `n` rows spread evenly over the file, for judging its scale."""
        picks = np.unique(np.linspace(0, max(len(self) - 1, 0), min(n, len(self))).astype(int))
        parts = [self.rows(int(i), int(i) + 1) for i in picks]
        empty = sparse.csr_matrix((0, len(self.features)))
        return sparse.vstack(parts, format="csr") if parts else empty


class _Sparse:
    """A csr group of h5py or zarr; reads contiguous rows by its index pointer."""

    def __init__(self, group: Any) -> None:
        self.indptr = np.asarray(group["indptr"][:], dtype=np.int64)
        self.indices, self.data = group["indices"], group["data"]


def _rows(matrix: Any, start: int, stop: int, width: int) -> sparse.csr_matrix:
    if hasattr(matrix, "rows"):
        return matrix.rows(start, stop)
    if isinstance(matrix, _Sparse):
        lo, hi = int(matrix.indptr[start]), int(matrix.indptr[stop])
        return sparse.csr_matrix(
            (matrix.data[lo:hi], matrix.indices[lo:hi], matrix.indptr[start : stop + 1] - lo),
            shape=(stop - start, width),
        )
    return sparse.csr_matrix(matrix[start:stop])


def _bounds(matrix: Any, start: int, stop: int, width: int, entries: int) -> list[int]:
    """Cut points of blocks with at most `entries` values (but at least one row) each."""
    if hasattr(matrix, "starts"):
        inside = matrix.starts[(matrix.starts > start) & (matrix.starts < stop)]
        return [start, *map(int, inside), stop] if stop > start else [start]
    if not isinstance(matrix, _Sparse) and not sparse.issparse(matrix):
        step = max(1, entries // max(width, 1))
        return [*range(start, stop, step), stop] if stop > start else [start]
    indptr = np.asarray(matrix.indptr)
    bounds = [start]
    while bounds[-1] < stop:
        limit = indptr[bounds[-1]] + entries
        nxt = int(np.searchsorted(indptr, limit, side="right")) - 1
        # Very sparse rows still cost memory per row.
        bounds.append(min(stop, max(bounds[-1] + 1, nxt), bounds[-1] + 200_000))
    return bounds


def check_exists(path: str | os.PathLike[str]) -> Path:
    """The path, if something is there.

    Raises
    ------
    pertwise.errors.InputError
        If nothing is; names the files of that folder that look most like it.
    """
    path = Path(path)
    if path.exists():
        return path
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    near = suggest(path.name, (p.name for p in beside))
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise InputError(f"no such file: {path}{hint}")


@contextmanager
def open_cells(
    path: str | os.PathLike[str] | AnnData,
    *,
    layer: str | None = None,
    feature_key: str | None = None,
    gene_table: str | os.PathLike[str] | None = None,
) -> Iterator[CellFile]:
    """Open cells of an h5ad file, a zarr folder or a parquet file (or an AnnData in memory).

    Parameters
    ----------
    layer
        "X" or the name of a layer; None takes a layer called "counts" when there is one, else X.
    feature_key
        Column of var with the feature names; None takes gene symbols where the index holds
        Ensembl ids and a column ``gene_name`` (or ``gene_symbol``, ``feature_name``) exists.
    gene_table
        For parquet files of gene tokens: a parquet or csv table with ``token_id`` and
        ``gene_symbol``.

    Raises
    ------
    pertwise.errors.InputError
        If the file is missing, is none of these formats, or lacks what was asked for.
    """
    if not isinstance(path, (str, os.PathLike)):
        yield _in_memory(path, layer, feature_key)
        return
    path = check_exists(path)
    if path.suffix == ".parquet":
        from pertwise.screen.cells_parquet import open_parquet

        yield open_parquet(path, gene_table)
        return
    if path.is_dir():
        zarr = optional_import("zarr", "dask", "reading zarr")
        try:
            root = zarr.open_group(str(path), mode="r")
        except Exception as error:  # zarr raises many kinds for "this is no zarr group"
            raise InputError(f"{path} is a folder, but not a zarr store: {error}") from error
        yield _open_anndata(root, path, layer, feature_key)
        return
    import h5py

    if not h5py.is_hdf5(path):
        raise InputError(
            f"{path} is not an h5ad file (it is not HDF5); cells are read from h5ad, zarr or "
            "parquet, means also from csv and tsv"
        )
    with h5py.File(path, "r") as handle:
        yield _open_anndata(handle, path, layer, feature_key)


def _in_memory(data: AnnData, layer: str | None, feature_key: str | None) -> CellFile:
    layers = tuple(data.layers.keys())
    layer = _layer(layer, layers, "the AnnData")
    names, notes = _feature_names(data.var, feature_key, Path("AnnData"))
    return CellFile(
        path=Path("AnnData"),
        table=FrameTable(data.obs),
        features=names,
        uns={k: v if isinstance(v, (str, int, float, bool)) else None for k, v in data.uns.items()},
        layer=layer,
        layers=layers,
        notes=notes,
        matrix=sparse.csr_matrix(data.X if layer == "X" else data.layers[layer]),
    )


def _layer(layer: str | None, layers: tuple[str, ...], where: str) -> str:
    if layer is None:
        return "counts" if "counts" in layers else "X"
    if layer != "X" and layer not in layers:
        raise unknown_name("layer", layer, ("X", *layers), f"in {where}")
    return layer


def _open_anndata(root: Any, path: Path, layer: str | None, feature_key: str | None) -> CellFile:
    from anndata.io import read_elem

    missing = [k for k in ("X", "obs", "var") if k not in root]
    if missing:
        raise InputError(f"{path} is not an h5ad file: it has no {' and no '.join(missing)}")
    var = read_elem(root["var"])
    layers = tuple(root["layers"].keys()) if "layers" in root else ()
    layer = _layer(layer, layers, str(path))
    node = root["X"] if layer == "X" else root["layers"][layer]
    names, notes = _feature_names(var, feature_key, path)
    matrix = _matrix(node, path)
    n = len(matrix.indptr) - 1 if isinstance(matrix, _Sparse) else int(matrix.shape[0])
    return CellFile(
        path=path,
        table=table_of(root["obs"], n),
        features=names,
        uns=_uns(root),
        layer=layer,
        layers=layers,
        notes=notes,
        matrix=matrix,
    )


def _matrix(node: Any, path: Path) -> Any:
    encoding = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
    if encoding in ("csr_matrix", "csr"):
        return _Sparse(node)
    if encoding in ("csc_matrix", "csc"):
        stored = int(node["data"].shape[0])
        if stored > CSC_LIMIT:
            raise InputError(
                f"{path} stores its matrix by columns (csc, {stored:,} values): cells cannot be "
                "read one block at a time. Rewrite it once by rows: "
                "data.X = data.X.tocsr(); data.write_h5ad(...)"
            )
        from anndata.io import read_elem

        return sparse.csr_matrix(read_elem(node))
    return node


def _uns(root: Any) -> dict[str, Any]:
    """Scalars of uns; anything bigger is only noted as present (None)."""
    found: dict[str, Any] = {}
    if "uns" not in root:
        return found
    for key in root["uns"]:
        node = root["uns"][key]
        value = node[()] if getattr(node, "shape", None) == () else None
        found[key] = value.decode() if isinstance(value, bytes) else value
    return found


def _feature_names(
    var: pd.DataFrame, feature_key: str | None, path: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    notes: list[str] = []
    index = var.index.astype(str)
    if feature_key is not None:
        if feature_key not in var.columns:
            raise unknown_name("var column", feature_key, map(str, var.columns), f"in {path}")
        names = var[feature_key].astype(str).to_numpy()
    else:
        names = index.to_numpy()
        ensembl = len(index) > 0 and index.str.match(r"ENS[A-Z]*G\d+").mean() > 0.5
        for column in ("gene_name", "gene_symbol", "gene_symbols", "feature_name"):
            if ensembl and column in var.columns:
                names = var[column].astype(str).to_numpy()
                notes.append(f"feature names from var[{column!r}]")
                break
    series = pd.Series(names)
    twice = series.duplicated(keep=False) | series.isin(["nan", ""])
    if twice.any():
        # One symbol for two Ensembl genes: the id, which is unique, says which is meant.
        repaired = np.where(twice, index.to_numpy(), names)
        if pd.Index(repaired).is_unique:
            names = repaired
            notes.append(
                f"{int(twice.sum())} repeated or empty feature names replaced by row names"
            )
        else:
            example = pd.Index(repaired)[pd.Index(repaired).duplicated()][0]
            raise InputError(
                f"{path}: feature {example!r} occurs twice; make var_names unique, or choose a "
                "unique column with --feature-key"
            )
    return tuple(map(str, names)), tuple(notes)
