"""Cells in parquet files: a column per gene, or lists of gene tokens and values per cell."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from pertwise._tables import read_frame
from pertwise.errors import InputError
from pertwise.screen.cells import CellFile
from pertwise.screen.celltable import ParquetTable
from pertwise.screen.columns import is_row_column
from pertwise.screen.layouts import PERTURBATION_KEYS


class ParquetRows:
    """A parquet file read one row group at a time; `read` turns a row group into csr."""

    def __init__(self, meta: Any, read: Callable[[int], sparse.csr_matrix]) -> None:
        sizes = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._read = read
        self._last: tuple[int, sparse.csr_matrix] | None = None

    def rows(self, start: int, stop: int) -> sparse.csr_matrix:
        """Rows start..stop; the row group read last is kept, because blocks come in order."""
        parts = []
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        for group in range(first, len(self.starts) - 1):
            lo, hi = int(self.starts[group]), int(self.starts[group + 1])
            if lo >= stop:
                break
            if self._last is None or self._last[0] != group:
                self._last = (group, self._read(group))
            parts.append(self._last[1][max(start - lo, 0) : min(stop, hi) - lo])
        return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")


def open_parquet(path: Path, gene_table: str | os.PathLike[str] | None) -> CellFile:
    """Cells of a wide table (a column per gene) or of gene tokens (as Tahoe-100M is published).

    Raises
    ------
    pertwise.errors.InputError
        If the file is not parquet, has no gene, or its tokens need a table that is not given.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except pa.ArrowException as error:
        raise InputError(f"{path} is not a parquet file: {error}") from error
    lists = [f.name for f in schema if pa.types.is_list(f.type) or pa.types.is_large_list(f.type)]
    if {"genes", "expressions"} <= set(lists):
        return _open_tokens(path, schema, gene_table)
    features = [
        f.name
        for f in schema
        if not is_row_column(f.name)
        and f.name not in PERTURBATION_KEYS
        and not f.name.startswith("__")
        and (pa.types.is_integer(f.type) or pa.types.is_floating(f.type))
    ]
    if not features:
        raise InputError(f"{path}: no numeric column that could be a gene")
    file = pq.ParquetFile(path)
    other = [f.name for f in schema if f.name not in features]

    def read(group: int) -> sparse.csr_matrix:
        return sparse.csr_matrix(file.read_row_group(group, columns=features).to_pandas())

    return CellFile(
        path=path,
        table=ParquetTable(path, other, file.metadata.num_rows),
        features=tuple(features),
        matrix=ParquetRows(file.metadata, read),
    )


def _open_tokens(path: Path, schema: Any, gene_table: Any) -> CellFile:
    import pyarrow.parquet as pq

    if gene_table is None:
        raise InputError(
            f"{path} names genes by token; give the table of tokens (token_id, gene_symbol) with "
            "--gene-table (gene_metadata.parquet of Tahoe-100M)"
        )
    genes = read_frame(gene_table)
    missing = [c for c in ("token_id", "gene_symbol") if c not in genes.columns]
    if missing:
        raise InputError(f"{gene_table} lacks the columns {missing}")
    symbols = genes["gene_symbol"].astype(str)
    # Repeated symbols keep their token, which is unique.
    names = np.where(
        symbols.duplicated(keep=False), symbols + ":" + genes["token_id"].astype(str), symbols
    )
    column_of = np.full(int(genes["token_id"].max()) + 1, -1, dtype=np.int64)
    column_of[genes["token_id"].to_numpy()] = np.arange(len(genes))
    file = pq.ParquetFile(path)

    def read(group: int) -> sparse.csr_matrix:
        table = file.read_row_group(group, columns=["genes", "expressions"])
        tokens = table["genes"].combine_chunks()
        flat_tokens = tokens.flatten().to_numpy()
        flat_values = table["expressions"].combine_chunks().flatten().to_numpy()
        lengths = np.diff(tokens.offsets.to_numpy())
        # The files put a start token with a negative value before the genes of each cell.
        keep = flat_values >= 0
        flat_tokens, flat_values = flat_tokens[keep], flat_values[keep]
        known = (flat_tokens >= 0) & (flat_tokens < len(column_of))
        columns = column_of[np.where(known, flat_tokens, 0)]
        if not known.all() or (columns < 0).any():
            bad = flat_tokens[~known | (columns < 0)][0]
            raise InputError(f"{path} holds gene token {bad}, which {gene_table} does not list")
        row = np.repeat(np.arange(len(lengths)), lengths)[keep]
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(lengths)))])
        return sparse.csr_matrix((flat_values, columns, indptr), shape=(len(lengths), len(names)))

    other = [n for n in schema.names if n not in ("genes", "expressions")]
    return CellFile(
        path=path,
        table=ParquetTable(path, other, file.metadata.num_rows),
        features=tuple(map(str, names)),
        matrix=ParquetRows(file.metadata, read),
    )
