"""Facts about perturbations from a user's table, and conditions on them."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pertwise._names import canonical_perturbation
from pertwise._tables import columns_of, read_frame
from pertwise._text import one_line
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.ratings import SUBJECTS

#: Longest text of one fact.
LONGEST = 80
#: Most columns of one table: each of them stands in the prompt and on the page.
MOST_COLUMNS = 20
#: Spelling of a comparison -> its function; the longer spellings first, `=` is `==`.
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


@dataclass(frozen=True)
class FactTable:
    """What is known about perturbations, one column a fact.

    Attributes
    ----------
    table
        Indexed by perturbation; numbers as float, everything else as text; missing = NaN or None.
    source
        Where it comes from.
    """

    table: pd.DataFrame
    source: str = ""

    def take(self, names: Sequence[str], approved: Mapping[str, str] | None = None) -> pd.DataFrame:
        """Facts of `names`, in their order; a row without any value for a name that is not there.

        `approved` (name -> approved form, of `names` and of the names of the table) lets another
        spelling of a perturbation count.
        """
        known = dict(approved or {})
        of_form: dict[str, str] = {}
        for row in self.table.index:
            of_form.setdefault(known.get(row, row), row)
        there = set(self.table.index)
        rows = [n if n in there else of_form.get(known.get(n, n), n) for n in names]
        found = self.table.reindex(rows)
        found.index = pd.Index(list(names))
        return found


def read_facts(path: str | os.PathLike[str]) -> FactTable:
    """Facts from a csv, tsv or parquet table.

    The first column called perturbation, gene, drug, compound, symbol or name names the
    perturbation; every other column is a fact, a number where all its values are, else text.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and what is wrong: no column of names, no fact, an empty name, a
        perturbation in two rows, more than `MOST_COLUMNS` facts.
    """
    file = Path(path)
    frame = read_frame(file)
    frame.columns = pd.Index([one_line(str(c), LONGEST).strip() for c in frame.columns])
    lower = {c.casefold(): c for c in frame.columns}
    subject = next((lower[n] for n in SUBJECTS if n in lower), None)
    if subject is None:
        raise InputError(
            f"{file}: no column of perturbations ({', '.join(SUBJECTS)}); there are "
            f"{columns_of(frame)}"
        )
    columns = [c for c in frame.columns if c != subject]
    if not columns or not len(frame):
        raise InputError(f"{file}: no fact beside the column {subject!r}")
    if len(columns) > MOST_COLUMNS:
        raise InputError(
            f"{file}: {len(columns)} columns of facts, at most {MOST_COLUMNS} are shown: keep "
            f"those that decide (there are {columns_of(frame)})"
        )
    missing = frame[subject].isna() | (frame[subject].astype(str).str.strip() == "")
    if missing.any():
        row = int(missing.to_numpy().argmax())
        raise InputError(f"{file}, row {row + 2}: no name in the column {subject!r}")
    names = pd.Index([canonical_perturbation(str(n)) for n in frame[subject]])
    twice = names[names.duplicated()]
    if len(twice):
        rows = ", ".join(str(i + 2) for i, n in enumerate(names) if n == twice[0])
        raise InputError(f"{file}: {twice[0]!r} stands in several rows ({rows}); keep one")
    table = pd.DataFrame({c: _values(frame[c]) for c in columns})
    table.index = names
    return FactTable(table, file.name)


def _values(column: pd.Series) -> list[Any] | pd.Series:
    if pd.api.types.is_bool_dtype(column):
        return ["yes" if v else "no" for v in column]
    if pd.api.types.is_numeric_dtype(column):
        return [float(v) if pd.notna(v) else float("nan") for v in column]
    texts = [one_line(str(v), LONGEST).strip() or None if pd.notna(v) else None for v in column]
    # pandas 3 would make strings of them, with NaN for None.
    return pd.Series(texts, dtype=object)


def joined(tables: Sequence[FactTable]) -> FactTable | None:
    """Several tables as one; None without any.

    Raises
    ------
    pertwise.errors.InputError
        Names a fact that two of them have.
    """
    if not tables:
        return None
    seen: dict[str, str] = {}
    for table in tables:
        for column in table.table.columns:
            if column in seen:
                raise InputError(
                    f"the fact {column!r} stands in {seen[column]} and in {table.source}: rename "
                    "one of them"
                )
            seen[column] = table.source
    together = pd.concat([t.table for t in tables], axis=1)
    return FactTable(together, ", ".join(t.source for t in tables))


@dataclass(frozen=True)
class Condition:
    """One comparison of a fact with a value, as `parse_conditions` reads it."""

    column: str
    sign: str
    value: float | str

    def __str__(self) -> str:
        shown = f"{self.value:g}" if isinstance(self.value, float) else self.value
        return f"{self.column} {self.sign} {shown}"

    def holds(self, value: Any) -> bool | None:
        """Whether a value of the column satisfies it; None where the value is missing."""
        if value is None or value is pd.NA or value != value:
            return None
        if isinstance(self.value, str):
            value = str(value).casefold()
            return _OPERATORS[self.sign](value, self.value.casefold())
        return bool(_OPERATORS[self.sign](float(value), self.value))


def parse_conditions(text: str, table: pd.DataFrame) -> tuple[Condition, ...]:
    """`COLUMN SIGN VALUE [and COLUMN SIGN VALUE ...]`, read and checked, never evaluated.

    Signs are >, >=, <, <=, =, == and !=. A column or value with one of them, or with the word
    `and`, stands in quotes. Columns are compared without regard to case, texts too.

    Raises
    ------
    pertwise.errors.InputError
        Names the part that is no comparison, an unknown column (nearest suggested), or an order
        asked of text.
    """
    return tuple(_condition(part, text, table) for part in _parts(text))


def _parts(text: str) -> list[str]:
    """Cut at the word `and` outside of quotes."""
    parts: list[list[str]] = [[]]
    quote = ""
    for word in text.replace("\n", " ").split(" "):
        if not quote and word.casefold() == "and":
            parts.append([])
            continue
        for c in word:
            if quote:
                quote = "" if c == quote else quote
            elif c in "'\"":
                quote = c
        parts[-1].append(word)
    if quote:
        raise InputError(f"--require {one_line(text, 120)}: a quote {quote} is not closed")
    return [" ".join(words).strip() for words in parts]


def _condition(part: str, text: str, table: pd.DataFrame) -> Condition:
    where, sign = _sign(part)
    column, value = (
        (_unquoted(part[:where]), _unquoted(part[where + len(sign) :])) if sign else ("", "")
    )
    if not column or not value:
        raise InputError(
            f"--require {one_line(text, 120)}: {one_line(part, 60)!r} is no comparison; write "
            "COLUMN SIGN VALUE with one of > >= < <= = !=, several joined by 'and'"
        )
    lower = {str(c).casefold(): str(c) for c in table.columns}
    name = column if column in table.columns else lower.get(column.casefold())
    if name is None:
        known = list(map(str, table.columns))
        told = f"(--require; known are {', '.join(known)}; --facts FILE gives others)"
        raise unknown_name("fact", column, known, told)
    if pd.api.types.is_numeric_dtype(table[name]):
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not math.isfinite(number):
            raise InputError(f"--require {part}: {name!r} holds numbers, {value!r} is none")
        return Condition(name, sign, number)
    if sign not in ("=", "==", "!="):
        some = next((str(v) for v in table[name] if v is not None), "")
        raise InputError(
            f"--require {part}: {name!r} holds text (e.g. {some!r}), which takes = or !="
        )
    return Condition(name, sign, value)


def _sign(part: str) -> tuple[int, str]:
    """Place and spelling of the first comparison outside of quotes; (-1, "") without one."""
    quote = ""
    for i, c in enumerate(part):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        else:
            sign = next((s for s in _OPERATORS if part.startswith(s, i)), "")
            if sign:
                return i, sign
    return -1, ""


def _unquoted(text: str) -> str:
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text
