"""Names and cards of genes, from a folder of tables.

Neither pandas nor scipy is imported here: looking a gene up takes less than importing them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import compress
from typing import TYPE_CHECKING

from pertwise.knowledge.genes import go
from pertwise.knowledge.genes.species import TAXA
from pertwise.knowledge.genes.text import one_sentence
from pertwise.knowledge.tables import Tables, lists_of
from pertwise.knowledge.types import GeneCard, GoTerm, Resolution

if TYPE_CHECKING:
    import pandas as pd


class GeneCards:
    """What a folder says about single genes; `Knowledge` without drugs, graphs and features."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def table_names(self) -> tuple[str, ...]:
        """Names of the tables of this folder."""
        return self._tables.names()

    def has(self, name: str) -> bool:
        """Whether the folder holds a table."""
        return self._tables.has(name)

    def table(self, name: str) -> pd.DataFrame:
        """A raw table by name (cached: do not change it in place).

        Raises
        ------
        InputError
            When this folder was built without it; says which file brings it.
        """
        return self._tables.table(name)

    @property
    def species(self) -> str:
        """Whose genes the folder is about: "human" (also without a folder) or "mouse"."""
        return TAXA[str(self._tables.manifest.get("taxon", "9606"))]

    def genes(self) -> tuple[str, ...]:
        """All genes with any text, annotation, set or edge, as approved symbols, sorted."""

        def make() -> tuple[str, ...]:
            found: set[str] = set()
            for name in self.table_names():
                if name in ("symbols", "positions", "summaries_llm"):
                    continue
                table = self.table(name)
                for column in ("symbol", "a", "b"):
                    if column in table:
                        found.update(table[column].unique())
            return tuple(sorted(found or self._tables.symbols().approved))

        return self._tables.keep("genes", make)

    def resolve(self, names: Sequence[str]) -> Resolution:
        """Names, previous symbols, aliases and Ensembl ids -> approved symbols, in any case."""
        return self._tables.symbols().resolve(names)

    def cards(self, genes: Sequence[str]) -> dict[str, GeneCard]:
        """A card for every input name (keyed by the input name); unknown ones have known=False."""
        approved = self.resolve(genes).approved
        return {
            name: self._tables.keep(
                ("card", approved[name]), functools.partial(self._card, approved[name])
            )
            if name in approved
            else GeneCard(name, known=False)
            for name in genes
        }

    def _card(self, symbol: str) -> GeneCard:
        full_name, refseq, annotation = self._tables.keep("gene_rows", self._gene_rows).get(
            symbol, ("", "", "")
        )
        written = self._tables.keep("written", self._written).get(symbol, "")
        summary = written or one_sentence(refseq, annotation, full_name)
        aliases = self._tables.keep("aliases", self._aliases).get(symbol, ())
        return GeneCard(symbol, full_name, summary, self.go_terms(symbol), tuple(aliases))

    def _gene_rows(self) -> dict[str, tuple[str, str, str]]:
        if not self.has("genes"):
            return {}
        symbols, *rest = self._tables.columns(
            "genes", "symbol", "full_name", "refseq_summary", "string_annotation"
        )
        return dict(zip(symbols, zip(*rest, strict=True), strict=True))

    def _written(self) -> dict[str, str]:
        if not self.has("summaries_llm"):
            return {}
        return dict(zip(*self._tables.columns("summaries_llm", "symbol", "summary"), strict=True))

    def _aliases(self) -> dict[str, list[str]]:
        names, symbols, kinds = self._tables.columns("symbols", "name", "approved", "kind")
        wanted = [kind in ("alias", "previous") for kind in kinds]
        return lists_of(compress(symbols, wanted), compress(names, wanted))

    def go_terms(self, symbol: str) -> tuple[GoTerm, ...]:
        """GO terms of an approved symbol, most specific (fewest genes) first.

        Terms implied by a more specific one of the same gene, the three roots and "protein
        binding" are left out. Empty when the folder has no GO.
        """
        return go.terms_of(self._tables, symbol)
