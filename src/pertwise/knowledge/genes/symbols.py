"""Gene names to approved symbols: aliases, previous symbols, ids, any letter case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pertwise.knowledge.types import Resolution

if TYPE_CHECKING:
    import pandas as pd

Meant = dict[str, tuple[str, ...]]

#: Ensembl, HGNC, MGI and UniProt ids (the pattern of uniprot.org/help/accession_numbers), with what
#: may stand around them: STRING's taxon, version, isoform, copy on Y.
_ID = re.compile(
    r"(?:9606\.|10090\.|UniProtKB:|MGI:(?=MGI:))?"
    r"((ENS(?:MUS)?[GTP]\d{11})|(HGNC:\d{1,6})|(MGI:\d{1,8})|[OPQ]\d[A-Z0-9]{3}\d|[A-NR-Z]\d(?:[A-Z][A-Z0-9]{2}\d){1,2})"
    r"(?:[.-]\d+)?(?:_PAR_Y)?$",
    re.IGNORECASE,
)
#: Entrez ids; the three hundred below 100 are left out: as names, such numbers count rows.
_ENTREZ = re.compile(r"(?:(?:entrez|GeneID|NCBIGene):)?(\d{3,9})(?:\.0)?\Z", re.IGNORECASE)
#: Kinds of names that are identifiers.
ID_KINDS = ("ensembl", "hgnc", "mgi", "uniprot")
NO_ALIAS = frozenset({"approved", *ID_KINDS})


def plain_id(name: str) -> tuple[str, str]:
    """(identifier without version, isoform and prefix; its kind), ("", "") for any other name."""
    found = _ID.match(name.strip())
    if found is None:
        return "", ""
    kinds = zip(ID_KINDS, (found[2], found[3], found[4], True), strict=True)
    return found[1].upper(), next(kind for kind, hit in kinds if hit)


class SymbolIndex:
    """Look-up tables for names, from the columns of the `symbols` table; each made when needed.

    An approved symbol as spelt needs none of them, and a folder has 200,000 names.
    """

    def __init__(
        self,
        names: Sequence[str],
        approved: Sequence[str],
        kinds: Sequence[str],
        numbers: Callable[[], Iterable[tuple[object, str]]] | None = None,
    ) -> None:
        self._rows = (names, approved, kinds)
        self._numbers = numbers
        #: All approved symbols.
        self.approved = frozenset(approved)

    @classmethod
    def from_table(cls, symbols: pd.DataFrame) -> SymbolIndex:
        """From the `symbols` table: columns name, approved, kind."""
        return cls(*(symbols[c].tolist() for c in ("name", "approved", "kind")))

    @cached_property
    def approved_upper(self) -> Meant:
        """Upper-case spelling -> approved symbols spelt so."""
        return _meant((symbol.upper(), symbol) for symbol in self.approved)

    @cached_property
    def other(self) -> Meant:
        """Alias or previous symbol -> approved symbols it stands for."""
        return _meant(
            (name, symbol)
            for name, symbol, kind in zip(*self._rows, strict=True)
            if kind not in NO_ALIAS
        )

    @cached_property
    def other_upper(self) -> Meant:
        """The same by upper-case spelling."""
        return _meant(
            (name.upper(), symbol) for name, symbols in self.other.items() for symbol in symbols
        )

    @cached_property
    def ids(self) -> Meant:
        """Ensembl id or UniProt accession, without version -> approved symbols it stands for."""
        return _meant(
            (name, symbol)
            for name, symbol, kind in zip(*self._rows, strict=True)
            if kind in ID_KINDS
        )

    def with_entrez(self, numbers: Callable[[], Iterable[tuple[object, str]]]) -> SymbolIndex:
        """This index, which also knows the pairs (Entrez id, symbol); asked for with a number."""
        return SymbolIndex(*self._rows, numbers=numbers)

    @cached_property
    def entrez(self) -> Meant:
        """Entrez id -> approved symbols."""
        pairs = self._numbers() if self._numbers else ()
        return _meant((str(number).strip(), symbol) for number, symbol in pairs)

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
            ("approved_upper", upper),
            ("other", text),
            ("other_upper", upper),
            ("ids", plain),
            ("approved_upper", plain),
            ("other_upper", plain),
        ):
            meant: Meant = getattr(self, table)
            if key in meant:
                return meant[key]
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


def _meant(pairs: Iterable[tuple[str, str]]) -> Meant:
    """Name -> all it stands for, sorted. Nearly all names stand for one."""
    listed = list(pairs)
    last = dict(listed)
    found: Meant = {name: (symbol,) for name, symbol in last.items()}
    for name, symbol in listed:
        if symbol not in found[name]:
            found[name] = tuple(sorted((*found[name], symbol)))
    return found
