"""Tables as people have them: csv, tsv and parquet of any separator, with one clear error."""

from __future__ import annotations

import io
import itertools
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pertwise._files import looks_like, reading
from pertwise._io import csv_cells, csv_text, optional_import, text_of_csv
from pertwise._text import clean_text, one_line
from pertwise.errors import InputError

_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SEPARATORS = (",", "\t", ";", "|")
#: R's write.table.
_SPACES = r"\s+"
#: Lines looked at for the separator.
_TOP = 50
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")


def columns_of(frame: pd.DataFrame) -> str:
    """The columns of a table for a message: one line of bounded length."""
    return one_line(", ".join(map(str, frame.columns)), 300)


def read_frame(path: str | os.PathLike[str], **options: Any) -> pd.DataFrame:
    """A csv, tsv, txt (plain or compressed) or parquet table; options go to `pandas.read_csv`.

    Text may be UTF-8 or UTF-16, separated by comma, tab, semicolon, bar or blanks, with a decimal
    comma where the separator is none, and comments (#) above it. An
    unnamed column of row numbers, as ``to_csv`` writes it, and unnamed empty columns are dropped;
    ``frame.attrs["notes"]`` says what was done.

    Raises
    ------
    pertwise.errors.InputError
        If there is no such file, it is something else, a column occurs twice, or it is damaged.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.name.lower().endswith((".parquet", ".pq")):
        with reading(file, "a parquet table"):
            frame = pd.read_parquet(file)
        frame.attrs = {}
        twice = frame.columns[frame.columns.duplicated()]
        if len(twice):
            raise InputError(f"{file}: column {twice[0]!r} occurs twice")
        return _without_index(_named_index(frame), ())
    with reading(file, "a table"):
        encoding, separator, skipped = _dialect(file)
        given = {"sep": separator, "encoding": encoding, "low_memory": False, **options}
        if skipped:
            given["skiprows"] = skipped
        header = pd.read_csv(file, **given | {"header": None, "nrows": 1, "dtype": str}).iloc[0]
        twice = header[header.duplicated() & header.notna()]
        if len(twice):
            raise InputError(f"{file}: column {twice.iloc[0]!r} occurs twice in the header")
        _check_end(file, encoding, separator, len(header))
        frame = csv_cells(pd.read_csv(file, **given), text_of_csv)
        frame.attrs = {}
        if separator != ",":
            frame = _decimal_comma(file, frame, given)
    if not isinstance(frame.index, pd.RangeIndex):
        if frame.iloc[:, -1].isna().all():
            raise InputError(
                f"{file}: every row has one field more than the header, and the last one is empty: "
                f"either rows end with {separator!r} (remove that), or the first field is a row "
                "name and the last column has no value (name all columns in the header)"
            )
        # R's write.table: one field more in the rows than in the header.
        notes = frame.attrs
        frame = _named_index(frame)
        frame.attrs = notes
    return _without_index(frame, () if separator in (",", "\t", _SPACES) else (separator,))


def _check_end(file: Path, encoding: str, separator: str, n_fields: int) -> None:
    """A copy that broke off ends within a row; pandas would fill that row up with NaN."""
    if file.suffix.lower() in _PACKED or encoding == "utf-16":
        return
    with open(file, "rb") as raw:
        raw.seek(max(0, file.stat().st_size - (1 << 20)))
        tail = raw.read()
    lines = tail.rstrip().splitlines()
    last = lines[-1].decode(encoding, "replace") if len(lines) > 1 else ""
    fields = len(last.split()) if separator == _SPACES else last.count(separator) + 1
    if last and '"' not in last and not tail.endswith((b"\n", b"\r")) and fields < n_fields:
        raise InputError(
            f"{file} ends in the middle of a row ({fields} of {n_fields} fields): copy it again"
        )


def check_widths(path: str | os.PathLike[str]) -> None:
    """Refuse a text table with a row shorter than its header, which pandas fills up with gaps.

    Rows with quotation marks are passed over.

    Raises
    ------
    pertwise.errors.InputError
        Names the line.
    """
    from pandas.io.common import get_handle

    file = Path(path)
    encoding, separator, skipped = _dialect(file)
    with get_handle(file, "r", encoding=encoding, compression="infer") as opened:
        wanted = 0
        for number, line in enumerate(opened.handle, start=1):
            text = str(line).rstrip("\r\n")
            if number <= skipped or not text.strip() or '"' in text:
                continue
            fields = len(text.split()) if separator == _SPACES else text.count(separator) + 1
            wanted = wanted or fields
            if fields < wanted:
                raise InputError(
                    f"{file}: line {number} has {fields} of {wanted} fields; complete it, and "
                    "leave a field empty where nothing was measured"
                )


def _dialect(file: Path) -> tuple[str, str, int]:
    """Encoding, separator and lines of comment, from the first bytes and lines."""
    from pandas.io.common import get_handle

    with get_handle(file, "rb", compression="infer", is_text=False) as opened:
        first = bytes(opened.handle.read(512)).lstrip()
    if not first:
        raise InputError(f"{file} is empty: it cannot be read as a table")
    encoding = next((name for bom, name in _BOMS if first.startswith(bom)), "utf-8")
    if encoding != "utf-16" and (looks := looks_like(first)):
        raise InputError(f"{file} cannot be read as a table: it is {looks}")
    if first.startswith(b"\x1f\x8b"):
        raise InputError(f"{file} cannot be read as a table: it is gzipped; name it {file.name}.gz")
    if encoding != "utf-16" and b"\0" in first:
        raise InputError(f"{file} cannot be read as a table: it holds binary data, not text")
    with get_handle(file, "r", encoding=encoding, compression="infer") as opened:
        lines = [str(opened.handle.readline(1 << 20)) for _ in range(_TOP)]
    filled = [i for i, text in enumerate(lines) if text.strip()]
    if not filled:
        raise InputError(f"{file} is empty: it cannot be read as a table")
    skipped = 0
    for i, after in itertools.pairwise(filled):
        # "#gene<tab>..." is a header: it has as many fields as the row below it.
        if not lines[i].startswith("#") or _fields(lines[i]) == _fields(lines[after]):
            break
        skipped = after
    line = lines[skipped or filled[0]]
    below = next((lines[i] for i in filled if i > (skipped or filled[0])), "")
    usual = "," if ".csv" in file.name.lower() else "\t"
    counts = {s: line.count(s) for s in _SEPARATORS}
    if not any(counts.values()) and _is_spaced(line.split(), below.split()):
        return encoding, _SPACES, skipped
    if counts[usual]:
        # A semicolon table may hold commas in its names.
        other = max((";", "\t", ",", "|"), key=lambda s: counts[s])
        best = other if counts[other] > 2 * counts[usual] and usual == "," else usual
    else:
        best = max(_SEPARATORS, key=lambda s: (counts[s], s == usual))
    return encoding, best, skipped


def _fields(line: str) -> list[int]:
    return [line.count(s) for s in _SEPARATORS]


def _is_spaced(header: list[str], row: list[str]) -> bool:
    """Whether blanks separate numbers from names, not the words of a name."""
    numbers = [f for f in row if f.replace(".", "", 1).lstrip("+-").isdigit()]
    return len(header) > 1 and len(row) - len(header) in (0, 1) and bool(numbers)


def _decimal_comma(file: Path, frame: pd.DataFrame, options: dict[str, Any]) -> pd.DataFrame:
    """Read again with a decimal comma where that turns columns of text into numbers."""
    texts = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
    looks = [
        c
        for c in texts
        if len(v := frame[c].dropna().astype(str))
        and v.str.fullmatch(r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?").all()
    ]
    if not looks:
        return frame
    again = csv_cells(pd.read_csv(file, **options, decimal=","), text_of_csv)
    again.attrs["notes"] = ["decimal comma"]
    return again


def _named_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Names kept as the index of a parquet table become a column; numbers are no names."""
    if isinstance(frame.index, pd.MultiIndex):
        return frame.reset_index()
    if pd.api.types.is_numeric_dtype(frame.index):
        return frame.reset_index(drop=True)
    name = frame.index.name or ("row" if "perturbation" in frame.columns else "perturbation")
    return frame.reset_index(drop=name in frame.columns, names=name)


def _without_index(frame: pd.DataFrame, separators: tuple[str, ...]) -> pd.DataFrame:
    notes = [f"columns separated by {s!r}" for s in separators]
    notes += frame.attrs.get("notes", [])
    gone = []
    for place, column in enumerate(frame.columns):
        values, name = frame.iloc[:, place], str(column)
        unnamed = name.startswith("Unnamed:") or not name.strip()
        if unnamed and values.isna().all():
            gone.append(column)
        elif unnamed or (place == len(gone) and name in ("index", "level_0", "__index_level_0__")):
            whole = pd.api.types.is_integer_dtype(values) and values.is_unique
            counted = whole and bool((values.diff().dropna() > 0).all())
            if whole and (unnamed or counted):
                gone.append(column)
    if gone and len(gone) < len(frame.columns):
        notes.append(f"columns without a name left out (row numbers): {', '.join(map(str, gone))}")
        frame = frame.drop(columns=gone)
    frame.attrs["notes"] = notes
    return frame


#: Characters that a cell of a workbook may have.
_CELL = 32_000


def workbook_bytes(sheets: Mapping[str, pd.DataFrame]) -> bytes:
    """Tables as the sheets of an xlsx file: the same bytes for the same tables.

    Neutral cells: a name or a reason must not run as a formula (`_io.csv_text`), and characters
    that a workbook cannot hold are left out. Tables without a column are left out, too.

    Raises
    ------
    pertwise.errors.MissingDependencyError
        Without openpyxl.
    """
    optional_import("openpyxl", "excel", "Writing an Excel workbook")
    made = io.BytesIO()
    with pd.ExcelWriter(made, engine="openpyxl") as writer:
        for name, table in sheets.items():
            if len(table.columns):
                safe = csv_cells(csv_cells(table, _fitting), csv_text)
                safe.to_excel(writer, sheet_name=name, index=False, freeze_panes=(1, 0))
    return _undated(made.getvalue())


def _fitting(value: object) -> object:
    return clean_text(value)[:_CELL] if isinstance(value, str) else value


def _undated(book: bytes) -> bytes:
    """The workbook without the time of its making."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "docProps/core.xml":
                data = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"1980-01-01T00:00:00Z", data)
            new.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()
