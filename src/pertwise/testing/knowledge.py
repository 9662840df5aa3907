"""A small knowledge in memory, with the answers of a real folder written out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, identity

from pertwise.errors import InputError, unknown_name
from pertwise.knowledge import (
    Embedding,
    GeneCard,
    Graph,
    Knowledge,
    Pathway,
    Relation,
    Resolution,
)
from pertwise.knowledge.genes.features import take_rows, unit_rows


class SmallKnowledge(Knowledge):
    """Genes G000 ... with `n_modules` modules of 5 members among the first genes.

    Gene i and i+1 (i even) are one complex: equal features and a graph edge of 0.95. The ten genes
    after the members regulate the module i % n_modules. OLD000 is an alias of G000, and so on.
    """

    def __init__(self, n_genes: int = 120, n_modules: int = 4, simulated: bool = True) -> None:
        super().__init__()
        self.genes_ = tuple(f"G{i:03d}" for i in range(n_genes))
        self.n_modules = n_modules
        self.path = "memory"
        self._simulated = simulated

    @property
    def manifest(self) -> Mapping[str, Any]:
        return {
            "label": "simulated" if self._simulated else "",
            "tables": {"edges_string": {"from_screen": False}},
        }

    def fingerprint(self) -> str:
        return "fake0123"

    def genes(self) -> tuple[str, ...]:
        return self.genes_

    def resolve(self, names: Sequence[str]) -> Resolution:
        approved = {}
        for n in names:
            symbol = n.replace("OLD", "G") if n.startswith("OLD") else n
            if symbol in self.genes_:
                approved[n] = symbol
        return Resolution(approved, tuple(n for n in names if n not in approved))

    def cards(self, genes: Sequence[str]) -> dict[str, GeneCard]:
        approved = self.resolve(genes).approved
        return {
            g: GeneCard(approved.get(g, g), f"gene {g}", f"Summary of {g}.", known=g in approved)
            for g in genes
        }

    def pathway_names(self) -> tuple[str, ...]:
        return ("HALLMARK_HEME_METABOLISM", "OTHER")

    def pathway(self, name: str) -> Pathway:
        if name.casefold() not in {n.casefold() for n in self.pathway_names()}:
            raise unknown_name("pathway", name, self.pathway_names())
        modules = {f"module {m}": self.genes_[5 * m : 5 * m + 5] for m in range(self.n_modules)}
        return Pathway(
            "HALLMARK_HEME_METABOLISM",
            tuple(g for genes in modules.values() for g in genes),
            "Making heme.",
            modules,
            "fake",
            "curated",
        )

    def pathway_from_genes(self, name: str, genes: Sequence[str]) -> Pathway:
        members = tuple(self.resolve(genes).approved.values())
        if not members:
            raise InputError(f"pathway {name!r}: none of its genes is known ({genes[0]} ...)")
        return Pathway(name, members, "", {"all": members}, "user", "computed")

    def relations(
        self, genes: Sequence[str], pathway: Pathway, exclude_from_screen: bool = True
    ) -> dict[str, Relation]:
        approved = self.resolve(genes).approved
        first = self.n_modules * 5
        out = {}
        for g in genes:
            symbol = approved.get(g, g)
            module = next((m for m, inside in pathway.modules.items() if symbol in inside), "")
            i = self.genes_.index(symbol) if symbol in self.genes_ else -1
            if symbol in pathway.members:
                out[g] = Relation(g, "direct_member", f"member of {pathway.name}", 1.0, module)
            elif first <= i < first + 10:
                touched = list(pathway.modules)[i % len(pathway.modules)]
                member = pathway.modules[touched][0]
                out[g] = Relation(
                    g, "upstream_regulator", f"CollecTRI {symbol}->{member}", 0.5, touched
                )
            else:
                out[g] = Relation(g, "unknown")
        return out

    def graph_names(self) -> tuple[str, ...]:
        return ("string",)

    def graph(self, name: str, exclude_from_screen: bool = True) -> Graph:
        n = len(self.genes_)
        pairs = [(i, i + 1) for i in range(0, n - 1, 2)]
        rows = [i for p in pairs for i in p]
        columns = [i for p in pairs for i in reversed(p)]
        weights = np.full(len(rows), 0.95, dtype=np.float32)
        return Graph(name, self.genes_, csr_matrix((weights, (rows, columns)), shape=(n, n)))

    def features(
        self,
        kind: str,
        genes: Sequence[str],
        exclude_from_screen: bool = False,
        weighted: bool = False,
    ) -> csr_matrix:
        graph = self.graph(kind)
        rows = graph.adjacency + identity(len(self.genes_), dtype=np.float32, format="csr")
        approved = self.resolve(genes).approved
        found = take_rows(rows.tocsr(), graph.nodes, [approved.get(g, "") for g in genes])
        return unit_rows(found) if weighted else found

    def embedding_kinds(self) -> tuple[str, ...]:
        """Only the one kind that this fake knows."""
        return ("text",)

    def embedding(self, genes: Sequence[str], kind: str = "text", dim: int = 256) -> Embedding:
        approved = self.resolve(genes).approved
        complexes = np.random.default_rng(7).normal(size=(len(self.genes_), 16))
        matrix = np.zeros((len(genes), 16), dtype=np.float32)
        for row, g in enumerate(genes):
            if g in approved:
                i = self.genes_.index(approved[g])
                matrix[row] = complexes[i // 2] + 0.2 * complexes[i]
        missing = tuple(g for g in genes if g not in approved)
        return Embedding(kind, tuple(genes), matrix, missing)
