"""GO annotations of a folder: the terms of a gene, and genes by terms."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise._tables import lists_of
from pertwise.knowledge.genes import ontology
from pertwise.knowledge.tables import Tables
from pertwise.knowledge.types import GoTerm


class Ontology:
    """GO terms as arrays, in the order of the table."""

    def __init__(self, terms: pd.DataFrame) -> None:
        self.ids: list[str] = terms["id"].tolist()
        self.names: list[str] = terms["name"].tolist()
        self.namespaces: list[str] = terms["namespace"].tolist()
        self.depth: NDArray[np.int32] = terms["depth"].to_numpy(np.int32)
        self.n_genes: NDArray[np.int64] = terms["n_genes"].to_numpy(np.int64)
        self.position = {t: i for i, t in enumerate(self.ids)}
        parents = ontology.parent_matrix(self.ids, terms["parents"].tolist())
        self.closure = ontology.ancestor_closure(parents)

    def complexes(self, max_genes: int) -> NDArray[np.int64]:
        """Terms below "protein-containing complex" with 2..max_genes genes.

        An ontology without that term falls back on cellular components named "... complex".
        """
        small = (self.n_genes >= 2) & (self.n_genes <= max_genes)
        root = self.position.get(ontology.COMPLEX_ROOT)
        if root is not None:
            below = np.asarray(self.closure[:, [root]].toarray()).ravel() > 0
            below[root] = False
        else:
            named = zip(self.namespaces, self.names, strict=True)
            below = np.array([space == "C" and "complex" in name for space, name in named])
        return np.flatnonzero(small & below)


def load_ontology(tables: Tables) -> Ontology:
    """The GO graph of a folder (kept)."""
    return tables.keep("ontology", lambda: Ontology(tables.table("go_terms")))


def terms_of(tables: Tables, symbol: str) -> tuple[GoTerm, ...]:
    """GO terms of an approved symbol, most specific first; see `Knowledge.go_terms`."""
    if not tables.has("gene_go"):
        return ()

    of = tables.keep("go_of", lambda: lists_of(tables.table("gene_go"), "symbol", "go"))
    ids = [t for t in of.get(symbol, []) if t not in ontology.UNINFORMATIVE]
    if not tables.has("go_terms"):
        return tuple(GoTerm(t, t, "") for t in ids)
    go = load_ontology(tables)
    at = np.array([go.position[t] for t in ids if t in go.position], dtype=np.int64)
    return tuple(
        GoTerm(go.ids[i], go.names[i], go.namespaces[i], int(go.depth[i]), int(go.n_genes[i]))
        for i in ontology.most_specific(at, go.closure, go.n_genes, go.depth)
    )


def propagated(
    tables: Tables, exclude_from_screen: bool = False
) -> tuple[tuple[str, ...], csr_matrix]:
    """Genes and their 0/1 annotation (n_genes, n_terms) with all ancestors."""

    def make() -> tuple[tuple[str, ...], csr_matrix]:
        table = tables.table("gene_go")
        if exclude_from_screen:
            screens = tables.screen_sources()
            table = table[~table["from_screen"] & ~table["source"].isin(screens)]
        genes = tuple(sorted(set(table["symbol"])))
        go = load_ontology(tables)
        direct = ontology.annotation_matrix(
            genes, table["symbol"].tolist(), go.ids, table["go"].tolist()
        )
        return genes, ontology.propagate(direct, go.closure)

    return tables.keep(("propagated", exclude_from_screen), make)
