"""Gene names to approved symbols: aliases, previous symbols, ids, any letter case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import pandas as pd

from pertwise.knowledge.types import Resolution

#: Ensembl, HGNC and UniProt ids (the pattern of uniprot.org/help/accession_numbers), with what may
#: stand around them: STRING's taxon, version, isoform, copy on Y.
_ID = re.compile(
    r"(?:9606\.|UniProtKB:)?"
    r"((ENS[GTP]\d{11})|(HGNC:\d{1,6})|[OPQ]\d[A-Z0-9]{3}\d|[A-NR-Z]\d(?:[A-Z][A-Z0-9]{2}\d){1,2})"
    r"(?:[.-]\d+)?(?:_PAR_Y)?$",
    re.IGNORECASE,
)
#: Entrez ids; the three hundred below 100 are left out: as names, such numbers count rows.
_ENTREZ = re.compile(r"(?:(?:entrez|GeneID|NCBIGene):)?(\d{3,9})(?:\.0)?\Z", re.IGNORECASE)
#: Kinds of names that are identifiers.
ID_KINDS = ("ensembl", "hgnc", "uniprot")


def plain_id(name: str) -> tuple[str, str]:
    """(identifier without version, isoform and prefix; its kind), ("", "") for any other name."""
    found = _ID.match(name.strip())
    if found is None:
        return "", ""
    return found[1].upper(), "ensembl" if found[2] else "hgnc" if found[3] else "uniprot"


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
        alias or previous symbol -> approved symbols it stands for.
    other_upper
        The same by upper-case spelling.
    ids
        Ensembl id or UniProt accession, without version -> approved symbols it stands for.
    genes
        Makes the table with columns symbol and entrez; only called for a number.
    """

    approved: frozenset[str]
    approved_upper: dict[str, tuple[str, ...]]
    other: dict[str, tuple[str, ...]]
    other_upper: dict[str, tuple[str, ...]]
    ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    genes: Callable[[], pd.DataFrame] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_table(cls, symbols: pd.DataFrame) -> SymbolIndex:
        """From the `symbols` table: columns name, approved, kind."""
        approved = frozenset(symbols["approved"])
        upper: dict[str, set[str]] = {}
        for symbol in approved:
            upper.setdefault(symbol.upper(), set()).add(symbol)
        other: dict[str, set[str]] = {}
        other_upper: dict[str, set[str]] = {}
        ids: dict[str, set[str]] = {}
        rest = symbols[symbols["kind"] != "approved"]
        for name, symbol, kind in zip(rest["name"], rest["approved"], rest["kind"], strict=True):
            if kind in ID_KINDS:
                ids.setdefault(name, set()).add(symbol)
                continue
            other.setdefault(name, set()).add(symbol)
            other_upper.setdefault(name.upper(), set()).add(symbol)
        return cls(approved, _freeze(upper), _freeze(other), _freeze(other_upper), _freeze(ids))

    @classmethod
    def from_symbols(cls, symbols: Iterable[str]) -> SymbolIndex:
        """An index that knows approved symbols only."""
        approved = sorted(set(symbols))
        return cls.from_table(
            pd.DataFrame({"name": approved, "approved": approved, "kind": "approved"})
        )

    def with_entrez(self, genes: Callable[[], pd.DataFrame]) -> SymbolIndex:
        """This index, which also knows the Entrez ids of `genes`."""
        return replace(self, genes=genes)

    @cached_property
    def entrez(self) -> dict[str, tuple[str, ...]]:
        """Entrez id -> approved symbols."""
        found: dict[str, set[str]] = {}
        table = None if self.genes is None else self.genes()
        if table is not None and "entrez" in table:
            for number, symbol in zip(table["entrez"], table["symbol"], strict=True):
                found.setdefault(str(number).strip(), set()).add(symbol)
        return _freeze(found)

    def candidates(self, name: str) -> tuple[str, ...]:
        """Approved symbols a name can mean: one when it is clear, none when unknown.

        Order of trust: the approved symbol as spelt, the approved symbol in another letter case,
        an alias as spelt, an alias in another case, an Ensembl or UniProt id whatever its version
        or isoform, an Entrez id. Only within one step can it be ambiguous.
        """
        text = name.strip()
        if text in self.approved:
            return (text,)
        upper = text.upper()
        plain, _ = plain_id(text)
        for table, key in (
            (self.approved_upper, upper),
            (self.other, text),
            (self.other_upper, upper),
            (self.ids, plain),
            (self.approved_upper, plain),
            (self.other_upper, plain),
        ):
            if key in table:
                return table[key]
        number = _ENTREZ.match(text)
        return self.entrez.get(number[1], ()) if number else ()

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
