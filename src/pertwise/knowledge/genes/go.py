"""GO annotations of a folder: the terms of a gene, and genes by terms."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pertwise.knowledge.genes import ontology
from pertwise.knowledge.tables import Tables, lists_of
from pertwise.knowledge.types import GoTerm

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Ontology:
    """GO terms as arrays, in the order of the table."""

    def __init__(self, tables: Tables) -> None:
        self.ids: list[str]
        self.names: list[str]
        self.namespaces: list[str]
        self.ids, self.names, self.namespaces, depth, n_genes, parents = tables.columns(
            "go_terms", "id", "name", "namespace", "depth", "n_genes", "parents"
        )
        self.depth: NDArray[np.int32] = np.array(depth, dtype=np.int32)
        self.n_genes: NDArray[np.int64] = np.array(n_genes, dtype=np.int64)
        self.position = {t: i for i, t in enumerate(self.ids)}
        self.parents: dict[str, str] = dict(zip(self.ids, parents, strict=True))

    @cached_property
    def closure(self) -> csr_matrix:
        """(n_terms, n_terms) 0/1: row = term, columns = its ancestors and itself."""
        return ontology.ancestor_closure(
            ontology.parent_matrix(self.ids, list(self.parents.values()))
        )

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
    return tables.keep("ontology", lambda: Ontology(tables))


def terms_of(tables: Tables, symbol: str) -> tuple[GoTerm, ...]:
    """GO terms of an approved symbol, most specific first; see `Knowledge.go_terms`.

    A term that another one implies is left out. Order: fewest genes (propagated), that is highest
    information content; then greatest depth; then place in the table.
    """
    if not tables.has("gene_go"):
        return ()

    of = tables.keep("go_of", lambda: lists_of(*tables.columns("gene_go", "symbol", "go")))
    ids = [t for t in of.get(symbol, []) if t not in ontology.UNINFORMATIVE]
    if not tables.has("go_terms"):
        return tuple(GoTerm(t, t, "") for t in ids)
    go = load_ontology(tables)
    chosen = {t for t in ids if t in go.position}
    found = [
        (GoTerm(t, go.names[i], go.namespaces[i], int(go.depth[i]), int(go.n_genes[i])), i)
        for t in chosen - ontology.ancestors(chosen, go.parents)
        for i in (go.position[t],)
    ]
    found.sort(key=lambda at: (at[0].n_genes, -at[0].depth, at[1]))
    return tuple(term for term, _ in found)


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
