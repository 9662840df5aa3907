"""Opening plain, gzipped and zipped text, and reading tables strictly."""

from __future__ import annotations

import contextlib
import gzip
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pandas as pd

from pertwise.errors import InputError
from pertwise.knowledge.species import species_of
from pertwise.knowledge.symbols import plain_id


@dataclass
class Parsed:
    """What one source file gave.

    Attributes
    ----------
    tables
        Partial tables by name; gene names are still those of the file.
    version, date
        As the file states them, "" where it does not.
    counts
        What was left out or changed while reading, by reason.
    """

    tables: dict[str, pd.DataFrame]
    version: str = ""
    date: str = ""
    counts: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open text that may be gzipped, or the one file of a zip archive."""
    try:
        with open(path, "rb") as handle:
            magic = handle.read(4)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
                yield text
        elif magic == b"PK\x03\x04":
            with zipfile.ZipFile(path) as archive:
                names = [n for n in archive.namelist() if not n.endswith("/")]
                if len(names) != 1:
                    raise InputError(f"{path}: expected one file in the zip, found {len(names)}")
                with archive.open(names[0]) as raw:
                    yield io.TextIOWrapper(raw, encoding="utf-8", newline="")
        else:
            with open(path, encoding="utf-8", newline="") as text:
                yield text
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); download it again") from error


def head(path: Path, n: int = 30) -> list[str]:
    """The first lines, without line ends."""
    lines: list[str] = []
    with open_text(path) as text:
        for line in text:
            lines.append(line.rstrip("\r\n"))
            if len(lines) == n:
                break
    return lines


def split_header(line: str) -> list[str]:
    """Column names of a header line (tab, comma or blank separated; a leading # is dropped)."""
    line = line.lstrip("#").strip()
    separator = "\t" if "\t" in line else "," if "," in line else None
    return [c.strip().strip('"') for c in line.split(separator)]


def read_table(path: Path, required: Sequence[str], sep: str | None = None) -> pd.DataFrame:
    """A table of strings ("" for empty), with a leading # of the header removed.

    Raises
    ------
    InputError
        When a required column is missing or a row has more fields than the header.
    """
    first = head(path, 1)
    if not first:
        raise InputError(f"{path}: the file is empty")
    line = first[0]
    separator = sep or ("\t" if "\t" in line else "," if "," in line else " ")
    with open_text(path) as text:
        try:
            table = pd.read_csv(
                text,
                sep=separator,
                dtype=str,
                keep_default_na=False,
                na_filter=False,
                # Tab tables of NCBI, STRING and OmniPath hold lone quotes that mean nothing.
                quoting=0 if separator == "," else 3,
            )
        except pd.errors.ParserError as error:
            raise InputError(f"{path}: not a regular table: {error}") from error
    table.columns = [str(c).lstrip("#").strip().strip('"') for c in table.columns]
    missing = [c for c in required if c not in table.columns]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]!r} is missing; found {', '.join(table.columns[:12])}"
        )
    return table


def ids_of(symbols: pd.Series, table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Ensembl ids and UniProt accessions in some columns: name, symbol (as the file spells it).

    A field may hold several, separated by "|", ",", ";" or blanks; columns that are not there and
    fields that are no such id are passed over.
    """
    parts = [
        pd.DataFrame({"name": table[c].str.split(r"[|,;\s]+", regex=True), "symbol": symbols})
        for c in columns
        if c in table
    ]
    if not parts:
        return pd.DataFrame({"name": [], "symbol": []}, dtype=str)
    long = pd.concat(parts).explode("name").drop_duplicates()
    named = long["name"].map(lambda n: bool(plain_id(str(n))[1] or species_of(str(n))))
    return long[named.astype(bool)].reset_index(drop=True)


def numeric(path: Path, table: pd.DataFrame, column: str) -> pd.Series:
    """A column as float64.

    Raises
    ------
    InputError
        Naming the first row that is not a number.
    """
    values = pd.to_numeric(table[column], errors="coerce")
    bad = values.isna().to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{path}, data row {row + 1}: {column} is {table[column].iloc[row]!r}, not a number"
        )
    return values
