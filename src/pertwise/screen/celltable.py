"""Tables of cells read by column and by row range: millions of barcodes are not worth reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd


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
    """A table of an h5ad file or zarr store, read when asked."""

    def __init__(self, group: Any, n: int) -> None:
        self._group, self._n = group, n
        order = group.attrs["column-order"]
        self.columns = tuple(c.decode() if isinstance(c, bytes) else str(c) for c in order)
        self._index = str(group.attrs["_index"])

    def __len__(self) -> int:
        return self._n

    def read(self, columns: Sequence[str], start: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Some columns of rows start..stop, indexed by row number."""
        stop = self._n if stop is None else stop
        index = pd.RangeIndex(start, stop)
        return pd.DataFrame({c: self._column(c, start, stop) for c in columns}, index=index)

    def _column(self, name: str, start: int, stop: int) -> Any:
        from anndata.io import read_elem

        node = self._group[name]
        kind = node.attrs.get("encoding-type", "")
        if kind == "categorical":
            return pd.Categorical.from_codes(
                np.asarray(node["codes"][start:stop]),
                categories=pd.Index(read_elem(node["categories"])),
                ordered=bool(node.attrs.get("ordered", False)),
            )
        if kind == "array":
            return np.asarray(node[start:stop])
        # Strings and nullable columns: rare for keys, so simply read whole.
        return read_elem(node)[start:stop]

    def whole(self) -> pd.DataFrame:
        """Everything, with the names of the rows."""
        from anndata.io import read_elem

        return read_elem(self._group)

    def name(self, row: int) -> str:
        """Name of one row."""
        value = self._group[self._index][row]
        return value.decode() if isinstance(value, bytes) else str(value)


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
        table = pq.read_table(self._path, columns=list(columns)).slice(start, stop - start)
        frame = table.to_pandas(ignore_metadata=True)
        return frame.set_axis(pd.RangeIndex(start, stop), axis=0)

    def whole(self) -> pd.DataFrame:
        """All columns that describe cells."""
        return self.read(self.columns)

    def name(self, row: int) -> str:
        """Rows of parquet files have numbers only."""
        return f"row {row}"


def table_of(group: Any, n: int) -> CellTable:
    """The table of an open h5ad or zarr ``obs``; old layouts are read whole at once."""
    from anndata.io import read_elem

    modern = getattr(group, "attrs", {}).get("encoding-type", "") == "dataframe"
    if modern and "__categories" not in group:
        return GroupTable(group, n)
    return FrameTable(read_elem(group))
