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
from numpy.typing import NDArray
from scipy import sparse

from pertwise._files import reading
from pertwise._io import optional_import
from pertwise.errors import InputError, suggest
from pertwise.screen.anndata_file import (
    RAW,
    SparseRows,
    choose_layer,
    feature_names,
    make_csr,
    numbers,
    open_hdf5,
    open_matrix,
    pick_matrix,
    read_var,
    scalars,
)
from pertwise.screen.celltable import CellTable, FrameTable, length_of, table_of

if TYPE_CHECKING:
    from anndata import AnnData

#: Entries (stored values; cells x genes for dense data) of one block: about 40 MB at work.
BLOCK_ENTRIES = 700_000


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
    raw
        Values of ``.raw`` and their number of features, when another matrix is read.
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
    raw: tuple[Any, int] | None = None

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def obs(self) -> pd.DataFrame:
        """The whole table with the names of the rows; for large files read `table` instead."""
        return self.table.whole()

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows start..stop as csr (n, n_features), entries sorted and none repeated."""
        with reading(self.path, "cells"):
            return _rows(self.matrix, start, stop, len(self.features), str(self.path))

    def blocks(
        self,
        start: int = 0,
        stop: int | None = None,
        entries: int | None = None,
        wanted: NDArray[np.bool_] | None = None,
    ) -> Iterator[tuple[int, sparse.csr_matrix]]:
        """(first row, csr block) over rows start..stop, each block of about `entries` values.

        With `wanted` (stop - start,) no rows before the first and after the last wanted one of a
        block are read: in a file sorted by perturbation that is most of them.
        """
        entries = BLOCK_ENTRIES if entries is None else entries
        stop = len(self) if stop is None else stop
        bounds = _bounds(self.matrix, start, stop, len(self.features), entries)
        for lo, hi in itertools.pairwise(bounds):
            if wanted is not None:
                rows = np.flatnonzero(wanted[lo - start : hi - start])
                if not len(rows):
                    continue
                lo, hi = lo + int(rows[0]), lo + int(rows[-1]) + 1
            yield lo, self.rows(lo, hi)

    def sample(self, n: int = 60) -> sparse.csr_matrix:
        """Up to `n` rows spread evenly over the file, for judging its scale."""
        return self._sample(self.matrix, len(self.features), n)

    def sample_raw(self) -> sparse.csr_matrix | None:
        """Such rows of ``.raw``, when the file has it and another matrix is read."""
        return None if self.raw is None else self._sample(self.raw[0], self.raw[1], 60)

    def _sample(self, matrix: Any, width: int, n: int) -> sparse.csr_matrix:
        picks = np.unique(np.linspace(0, max(len(self) - 1, 0), min(n, len(self))).astype(int))
        with reading(self.path, "cells"):
            parts = [_rows(matrix, int(i), int(i) + 1, width, str(self.path)) for i in picks]
        return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, width))


def _rows(matrix: Any, start: int, stop: int, width: int, where: str) -> sparse.csr_matrix:
    if isinstance(matrix, SparseRows):
        lo, hi = int(matrix.indptr[start]), int(matrix.indptr[stop])
        pointers = matrix.indptr[start : stop + 1] - lo
        return make_csr(matrix.data[lo:hi], matrix.indices[lo:hi], pointers, width, where)
    block = matrix.rows(start, stop) if hasattr(matrix, "rows") else matrix[start:stop]
    if hasattr(block, "compute"):
        block = block.compute()
    if not sparse.issparse(block):
        return sparse.csr_matrix(numbers(block, where))
    x = sparse.csr_matrix(block)
    return make_csr(x.data, x.indices, x.indptr.astype(np.int64), width, where)


def _bounds(matrix: Any, start: int, stop: int, width: int, entries: int) -> list[int]:
    """Cut points of blocks with at most `entries` values (but at least one row) each."""
    if hasattr(matrix, "starts"):
        inside = matrix.starts[(matrix.starts > start) & (matrix.starts < stop)]
        return [start, *map(int, inside), stop] if stop > start else [start]
    if not isinstance(matrix, SparseRows) and not sparse.issparse(matrix):
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
    prefer_counts: bool = True,
) -> Iterator[CellFile]:
    """Open cells: h5ad, h5mu, 10x h5 or mtx folder, zarr, parquet, or an AnnData in memory.

    Parameters
    ----------
    layer
        "X", the name of a layer, or "raw"; None takes a layer called "counts" when there is one,
        else X.
    feature_key
        Column of var with the feature names; None takes gene symbols where the index holds
        Ensembl ids and a column ``gene_name`` (or ``gene_symbol``, ``feature_name``) exists.
    gene_table
        For parquet files of gene tokens: a parquet or csv table with ``token_id`` and
        ``gene_symbol``.
    prefer_counts
        False: with `layer` None, X goes before a layer called "counts".

    Raises
    ------
    pertwise.errors.InputError
        If the file is missing, damaged, none of these formats, or lacks what was asked for.
    """
    if not isinstance(path, (str, os.PathLike)):
        yield _in_memory(path, layer, feature_key, prefer_counts)
        return
    path = check_exists(path)
    if path.suffix == ".parquet":
        from pertwise.screen.cells_parquet import open_parquet

        with reading(path, "a parquet file"):
            cells = open_parquet(path, gene_table)
        yield cells
        return
    if path.is_dir():
        from pertwise.screen.tenx import is_mtx_folder, open_mtx

        if is_mtx_folder(path):
            with reading(path, "a 10x folder"):
                cells = open_mtx(path)
            yield cells
            return
        zarr = optional_import("zarr", "dask", "reading zarr")
        try:
            root = zarr.open_group(str(path), mode="r")
        except Exception as error:  # zarr raises many kinds for "this is no zarr group"
            raise InputError(
                f"{path} is a folder, but neither a zarr store nor 10x mtx files: {error}"
            ) from error
        with reading(path, "a zarr store"):
            cells = _open_anndata(root, path, layer, feature_key, prefer_counts)
        yield cells
        return
    with open_hdf5(path) as handle:
        with reading(path, "an h5ad file"):
            cells = _open_file(handle, path, layer, feature_key, prefer_counts)
        yield cells


def _open_file(
    handle: Any, path: Path, layer: str | None, feature_key: str | None, prefer: bool
) -> CellFile:
    if "obs" not in handle or "var" not in handle or "mod" in handle:
        from pertwise.screen.tenx import open_other, with_labels

        other = open_other(handle, path)
        if isinstance(other, CellFile):
            return other
        part, labels = other
        cells = _open_anndata(part, path, layer, feature_key, prefer)
        return cells if labels is None else with_labels(cells, labels)
    return _open_anndata(handle, path, layer, feature_key, prefer)


def _in_memory(data: AnnData, layer: str | None, feature_key: str | None, prefer: bool) -> CellFile:
    if not hasattr(data, "obs") or not hasattr(data, "layers"):
        raise InputError(f"a file or an AnnData is needed, got {type(data).__name__}")
    if data.isbacked and data.is_view:
        raise InputError(
            "this AnnData is a view of one opened with backed: give the path of its file, or load "
            "it with .to_memory()"
        )
    layers = tuple(map(str, data.layers.keys()))
    raw = data.raw
    has_x = data.isbacked or data.X is not None
    layer = choose_layer(layer, layers, has_x, raw is not None, prefer, "the AnnData")
    var = raw.var if raw is not None and layer == RAW and RAW not in layers else data.var
    names, notes = feature_names(var, feature_key, Path("AnnData"))
    with reading("the AnnData", "cells"):
        if layer in layers:
            matrix = data.layers[layer]
        elif layer == RAW and raw is not None:
            matrix = raw.X
        elif data.isbacked:
            matrix = open_matrix(data.file["X"], data.n_obs, len(names), Path("AnnData"), "X")
        else:
            matrix = data.X
    return CellFile(
        path=Path("AnnData"),
        table=FrameTable(data.obs),
        features=names,
        uns=scalars(data.uns),
        layer=layer,
        layers=layers,
        notes=notes,
        matrix=_by_rows(matrix),
        raw=None if raw is None or layer == RAW else (_by_rows(raw.X), int(raw.shape[1])),
    )


def _by_rows(matrix: Any) -> Any:
    return matrix.tocsr() if sparse.issparse(matrix) and matrix.format != "csr" else matrix


def _open_anndata(
    root: Any, path: Path, layer: str | None, feature_key: str | None, prefer: bool
) -> CellFile:
    layer, layers, node, var = pick_matrix(root, layer, prefer, path)
    uns = root["uns"] if "uns" in root and hasattr(root["uns"], "keys") else {}
    n_rows, width = length_of(root["obs"]), length_of(var)
    if not n_rows or not width:
        raise InputError(f"{path} holds no {'feature' if n_rows else 'cell'} (obs or var is empty)")
    names, notes = feature_names(read_var(var, width, uns, path), feature_key, path)
    raw = None
    kept = root[RAW] if RAW in root and hasattr(root[RAW], "keys") else ()
    if layer != RAW and "X" in kept and "var" in kept:
        n_raw = length_of(root[RAW]["var"])
        raw = (open_matrix(root[RAW]["X"], n_rows, n_raw, path, RAW), n_raw)
    return CellFile(
        path=path,
        table=table_of(root["obs"], n_rows, uns, f"{path}: obs"),
        features=names,
        uns=scalars(uns),
        layer=layer,
        layers=layers,
        notes=notes,
        matrix=open_matrix(node, n_rows, width, path, layer),
        raw=raw,
    )
