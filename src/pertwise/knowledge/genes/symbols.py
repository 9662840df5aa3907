"""Gene names to approved symbols: aliases, previous symbols, Ensembl ids, any letter case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from pertwise.knowledge.types import Resolution

_ENSEMBL = re.compile(r"^(ENSG\d{11})(\.\d+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class SymbolIndex:
    """Look-up tables for names.

    Attributes
    ----------
    approved
        All approved symbols.
    approved_upper
        upper-case spelling -> approved symbols spelt so.
    other
        alias, previous symbol or Ensembl id -> approved symbols it stands for.
    other_upper
        The same by upper-case spelling.
    """

    approved: frozenset[str]
    approved_upper: dict[str, tuple[str, ...]]
    other: dict[str, tuple[str, ...]]
    other_upper: dict[str, tuple[str, ...]]

    @classmethod
    def from_table(cls, symbols: pd.DataFrame) -> SymbolIndex:
        """From the `symbols` table: columns name, approved, kind."""
        approved = frozenset(symbols["approved"])
        upper: dict[str, set[str]] = {}
        for symbol in approved:
            upper.setdefault(symbol.upper(), set()).add(symbol)
        other: dict[str, set[str]] = {}
        other_upper: dict[str, set[str]] = {}
        rest = symbols[symbols["kind"] != "approved"]
        for name, symbol in zip(rest["name"], rest["approved"], strict=True):
            other.setdefault(name, set()).add(symbol)
            other_upper.setdefault(name.upper(), set()).add(symbol)
        return cls(approved, _freeze(upper), _freeze(other), _freeze(other_upper))

    @classmethod
    def from_symbols(cls, symbols: Iterable[str]) -> SymbolIndex:
        """An index that knows approved symbols only."""
        approved = sorted(set(symbols))
        return cls.from_table(
            pd.DataFrame({"name": approved, "approved": approved, "kind": "approved"})
        )

    def candidates(self, name: str) -> tuple[str, ...]:
        """Approved symbols a name can mean: one when it is clear, none when unknown.

        Order of trust: the approved symbol as spelt, the approved symbol in another letter case,
        an alias as spelt, an alias in another case. Only within one step can it be ambiguous.
        """
        text = name.strip()
        if text in self.approved:
            return (text,)
        ensembl = _ENSEMBL.match(text)
        if ensembl:
            return self.other.get(ensembl.group(1).upper(), ())
        upper = text.upper()
        for table, key in (
            (self.approved_upper, upper),
            (self.other, text),
            (self.other_upper, upper),
        ):
            if key in table:
                return table[key]
        return ()

    def resolve(self, names: Sequence[str]) -> Resolution:
        """Resolve names; see `Resolution`. An approved symbol is never ambiguous."""
        approved: dict[str, str] = {}
        unknown: list[str] = []
        ambiguous: dict[str, tuple[str, ...]] = {}
        for name in dict.fromkeys(names):
            found = self.candidates(name)
            if len(found) == 1:
                approved[name] = found[0]
            elif found:
                ambiguous[name] = found
            else:
                unknown.append(name)
        return Resolution(approved, tuple(unknown), ambiguous)

    def map_column(self, names: pd.Series) -> pd.Series:
        """Approved symbol for every entry, "" where unknown or ambiguous."""
        resolved = self.resolve([str(n) for n in names.unique()]).approved
        return names.map(lambda n: resolved.get(str(n), ""))


def _freeze(table: dict[str, set[str]]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(sorted(values)) for key, values in table.items()}
