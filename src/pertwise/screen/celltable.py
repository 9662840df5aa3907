"""Tables of cells read by column and by row range: millions of barcodes are not worth reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._files import reading
from pertwise.errors import InputError
from pertwise.screen.flags import texts


class CellTable(Protocol):
    """The table of a file of cells."""

    columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Some columns of rows start..stop, indexed by row number."""
        ...

    def whole(self) -> pd.DataFrame:
        """Everything, with the names of the rows."""
        ...

    def name(self, row: int) -> str:
        """Name of one row."""
        ...


class FrameTable:
    """A table that is in memory already."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self.columns = tuple(map(str, frame.columns))

    def __len__(self) -> int:
        return len(self._frame)

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Some columns of rows start..stop, indexed by row number."""
        stop = len(self) if stop is None else stop
        part = self._frame[list(columns)].iloc[start:stop]
        return part.set_axis(pd.RangeIndex(start, stop), axis=0)

    def whole(self) -> pd.DataFrame:
        """The frame itself."""
        return self._frame

    def name(self, row: int) -> str:
        """Name of one row."""
        return str(self._frame.index[row])


class GroupTable:
    """A table of an h5ad file or zarr store, read when asked; layouts of AnnData 0.7 and later.

    Files of other writers may lack the attributes that name the index and the columns.

    Raises
    ------
    pertwise.errors.InputError
        If a column that the file lists is missing, or has not `n` rows.
    """

    def __init__(self, group: Any, n: int, where: str = "the file") -> None:
        self._group, self._n, self._where = group, n, where
        there = [str(k) for k in group if str(k) != "__categories"]
        self.index = _index_of(group)
        order = group.attrs.get("column-order")
        listed = there if order is None else [as_text(c) for c in np.atleast_1d(order)]
        missing = [c for c in listed if c not in there]
        if missing:
            raise InputError(
                f"{where} lists the column {missing[0]!r} but does not hold it; the file is "
                "incomplete: write it again from its source"
            )
        self.columns = tuple(c for c in listed if c != self.index)
        if there and length_of(group) != n:
            raise InputError(f"{where} has {length_of(group)} rows, the matrix {n}")

    def __len__(self) -> int:
        return self._n

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Some columns of rows start..stop, indexed by row number."""
        stop = self._n if stop is None else stop
        index = pd.RangeIndex(start, stop)
        with reading(self._where, "a table"):
            return pd.DataFrame({c: self._column(c, start, stop) for c in columns}, index=index)

    def _column(self, name: str, start: int, stop: int) -> Any:
        node = self._group[name]
        if hasattr(node, "keys"):
            if "codes" in node and "categories" in node:
                ordered = bool(node.attrs.get("ordered", False))
                return _categorical(node["codes"][start:stop], node["categories"], ordered)
            if "values" in node and "mask" in node and "encoding-type" not in node.attrs:
                values = _values(node["values"][start:stop]).astype(object)
                values[np.asarray(node["mask"][start:stop], dtype=bool)] = None
                return values
            from anndata.io import read_elem

            return read_elem(node)[start:stop]
        categories = node.attrs.get("categories")
        if categories is not None:
            # AnnData 0.7 keeps a reference to the categories.
            return _categorical(node[start:stop], self._group[categories])
        if "__categories" in self._group and name in self._group["__categories"]:
            return _categorical(node[start:stop], self._group["__categories"][name])
        return _values(node[start:stop])

    def whole(self) -> pd.DataFrame:
        """Everything, with the names of the rows."""
        frame = self.read(self.columns)
        if self.index:
            names = self.read([self.index])[self.index]
            # Other tools recognise files by the name of the index; "_index" stands for none.
            name = None if self.index == "_index" else self.index
            frame.index = pd.Index(texts(names), name=name)
        return frame

    def name(self, row: int) -> str:
        """Name of one row."""
        return str(self.read([self.index], row, row + 1).iloc[0, 0]) if self.index else f"row {row}"


def as_text(value: Any) -> str:
    """Text of a value as HDF5 holds it; bytes that are no UTF-8 are replaced."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _index_of(group: Any) -> str:
    names = (as_text(group.attrs.get("_index", "")), "_index", "index")
    return next((k for k in names if k and k in group), "")


def length_of(node: Any) -> int:
    """Rows of an open ``obs`` or ``var``; 0 when nothing in it says so."""
    if hasattr(node, "keys"):
        first = next((str(k) for k in node if str(k) != "__categories"), "")
        node = node[_index_of(node) or first] if first else None
        while hasattr(node, "keys"):
            node = next((node[k] for k in ("codes", "values") if k in node), None)
    shape = getattr(node, "shape", None)
    return int(shape[0]) if shape else 0


def _values(raw: Any) -> NDArray[Any]:
    values = np.asarray(raw)
    if values.ndim != 1 or values.dtype.kind == "V":
        raise ValueError(f"a column of shape {values.shape} and type {values.dtype}")
    if values.dtype.kind in "SOUT":
        return np.array([as_text(v) if v is not None else None for v in values], dtype=object)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _categorical(codes: Any, categories: Any, ordered: bool = False) -> pd.Categorical:
    return pd.Categorical.from_codes(
        np.asarray(codes).astype(np.int64),
        categories=pd.Index(_values(categories[:])),
        ordered=ordered,
    )


def records_table(records: Any, uns: Any, where: str) -> FrameTable:
    """The table of AnnData 0.6: one record a row; ``uns`` holds the categories of the codes."""
    with reading(where, "a table of AnnData 0.6"):
        raw = records[()]
        columns: dict[str, Any] = {}
        for name in raw.dtype.names:
            listed = f"{name}_categories"
            if listed in uns and raw[name].dtype.kind in "iu":
                columns[name] = _categorical(raw[name], uns[listed])
            else:
                columns[name] = _values(raw[name])
        frame = pd.DataFrame(columns)
    index = next((c for c in ("index", "_index") if c in frame), None)
    if index is not None:
        frame.index = pd.Index(frame.pop(index).astype(str), name=None)
    return FrameTable(frame)


class ParquetTable:
    """Columns of a parquet file; the rows are few enough to read a column whole."""

    def __init__(self, path: Path, columns: Sequence[str], n: int) -> None:
        self._path, self._n = path, n
        self.columns = tuple(columns)

    def __len__(self) -> int:
        return self._n

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Some columns of rows start..stop, indexed by row number."""
        import pyarrow.parquet as pq

        stop = self._n if stop is None else stop
        with reading(self._path, "a parquet table"):
            table = pq.read_table(self._path, columns=list(columns)).slice(start, stop - start)
            frame = table.to_pandas(ignore_metadata=True)
        return frame.set_axis(pd.RangeIndex(start, stop), axis=0)

    def whole(self) -> pd.DataFrame:
        """All columns that describe cells."""
        return self.read(self.columns)

    def name(self, row: int) -> str:
        """Rows of parquet files have numbers only."""
        return f"row {row}"


def table_of(node: Any, n: int, uns: Any = (), where: str = "the file") -> CellTable:
    """The table in an open h5ad or zarr ``obs`` or ``var``.

    Raises
    ------
    pertwise.errors.InputError
        If it is no table, or its length is not `n`.
    """
    if hasattr(node, "keys"):
        with reading(where, "a table"):
            return GroupTable(node, n, where)
    if getattr(node, "dtype", None) is None or node.dtype.names is None:
        raise InputError(f"{where} is no table; write the file again with anndata")
    table = records_table(node, uns, where)
    if len(table) != n:
        raise InputError(f"{where} has {len(table)} rows, the matrix {n}")
    return table
