"""`Knowledge`: a folder of typed parquet tables, opened lazily."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pertwise.knowledge.types import (
    Embedding,
    GeneCard,
    Graph,
    Pathway,
    Relation,
    Resolution,
)


class Knowledge:
    """What is already known about genes, read from a folder made by `build_knowledge`."""

    path: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Knowledge:
        """Open a knowledge folder (reads only its manifest)."""
        raise NotImplementedError

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Manifest: format, tables with source, version, date, licence, sha256, from_screen."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Short hash over all tables: goes into plans and reports."""
        raise NotImplementedError

    def table(self, name: str) -> pd.DataFrame:
        """A raw table by name (cached)."""
        raise NotImplementedError

    def resolve(self, names: Sequence[str]) -> Resolution:
        """Names, old symbols and aliases -> approved symbols."""
        raise NotImplementedError

    def cards(self, genes: Sequence[str]) -> dict[str, GeneCard]:
        """A card for every input name (keyed by the input name); unknown ones have known=False."""
        raise NotImplementedError

    def pathway_names(self) -> tuple[str, ...]:
        """Names of all gene sets."""
        raise NotImplementedError

    def pathway(self, name: str) -> Pathway:
        """A gene set by name (case-insensitive; the misspelt get a suggestion), with modules."""
        raise NotImplementedError

    def pathway_from_genes(self, name: str, genes: Sequence[str]) -> Pathway:
        """A user's own gene list as a pathway with computed modules."""
        raise NotImplementedError

    def relations(self, genes: Sequence[str], pathway: Pathway) -> dict[str, Relation]:
        """How each gene stands to the pathway (keyed by the input name)."""
        raise NotImplementedError

    def graph_names(self) -> tuple[str, ...]:
        """Names of the graphs that can be asked for."""
        raise NotImplementedError

    def graph(self, name: str) -> Graph:
        """A graph by name: string, string_functional, omnipath, collectri, regulation, go, ..."""
        raise NotImplementedError

    def embedding(self, genes: Sequence[str], kind: str = "text", dim: int = 256) -> Embedding:
        """Gene features: kind "text", "graph", "go", a precomputed name, or "a+b" concatenated."""
        raise NotImplementedError
