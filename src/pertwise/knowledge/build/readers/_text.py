"""Reading tables of text strictly."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd

from pertwise._files import open_text
from pertwise.errors import InputError
from pertwise.knowledge.genes.species import species_of
from pertwise.knowledge.genes.symbols import plain_id


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


class SourceReader(Protocol):
    """What a kind of source must be: a function, or a class of one's own without settings.

    A class says by plain attributes ``about`` (title) and ``licence`` what goes into the manifest.
    """

    def __call__(self, path: Path) -> Parsed:
        """Read one file.

        Raises
        ------
        pertwise.errors.InputError
            When the file does not have the form of its kind; names the row or column.
        """
        ...


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
        When there is no row, a required column is missing, or a row has more fields than the
        header.
    """
    first = head(path, 1)
    if not first:
        raise InputError(f"{path}: the file is empty")
    line = first[0]
    separator = sep or ("\t" if "\t" in line else "," if "," in line else " ")
    with open_text(path, "a table") as text:
        table = pd.read_csv(
            text,
            sep=separator,
            dtype=str,
            keep_default_na=False,
            na_filter=False,
            # Tab tables of NCBI, STRING and OmniPath hold lone quotes that mean nothing.
            quoting=0 if separator == "," else 3,
        )
    table.columns = [str(c).lstrip("#").strip().strip('"') for c in table.columns]
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise InputError(f"{path}: the column {twice[0]!r} stands in it twice")
    if not isinstance(table.index, pd.RangeIndex):
        n = len(table.columns)
        raise InputError(f"{path}: rows have more fields than the {n} of the header")
    if len(table) and table.iat[-1, -1] == "":
        with open_text(path) as text:
            last = [line for line in deque(text, 2) if line.strip()][-1]
        if last.rstrip("\r\n").count(separator) < len(table.columns) - 1:
            raise InputError(
                f"{path}: the last row has fewer fields than the {len(table.columns)} of the "
                "header; if the file was cut, get it again"
            )
    if table.empty:
        raise InputError(
            f"{path}: there is a header but no row below it; get the file again, or leave it out"
        )
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
    values = pd.to_numeric(table[column], errors="coerce").astype("float64")
    # Positions and scores are far below: a larger number would not stay one as an integer.
    bad = ~(values.abs() < 2.0**53).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{path}, data row {row + 1}: {column} is {table[column].iloc[row]!r}, not a number"
        )
    return values
