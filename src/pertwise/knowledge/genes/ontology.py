"""The GO graph as arrays: ancestor closure, depth, propagated counts, information content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pertwise.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

#: Roots of the three namespaces and the binding term that says nothing about a gene.
UNINFORMATIVE = frozenset({"GO:0003674", "GO:0005575", "GO:0008150", "GO:0005515"})
COMPLEX_ROOT = "GO:0032991"


def parent_matrix(terms: Sequence[str], parents: Sequence[str]) -> csr_matrix:
    """Child-to-parent links as a 0/1 csr matrix (n_terms, n_terms).

    Parameters
    ----------
    terms
        Term ids, unique.
    parents
        For each term its parents joined by "|" ("" for none); parents not in `terms` are ignored.
    """
    from scipy.sparse import csr_matrix

    position = {t: i for i, t in enumerate(terms)}
    rows: list[int] = []
    cols: list[int] = []
    for i, joined in enumerate(parents):
        for parent in joined.split("|") if joined else ():
            j = position.get(parent)
            if j is not None and j != i:
                rows.append(i)
                cols.append(j)
    n = len(terms)
    data = np.ones(len(rows), dtype=np.float32)
    matrix = csr_matrix((data, (rows, cols)), shape=(n, n))
    matrix.data[:] = 1.0
    return matrix


def ancestor_closure(parents: csr_matrix) -> csr_matrix:
    """Reflexive transitive closure (n_terms, n_terms), 0/1: row = term, columns = its ancestors.

    Repeated squaring: after k steps all paths up to length 2^k are in, so the ~16 levels of GO
    need 4-5 sparse products.
    """
    from scipy.sparse import identity

    n = parents.shape[0]
    closure = (parents + identity(n, dtype=np.float32, format="csr")).tocsr()
    closure.data[:] = 1.0
    while True:
        wider = (closure @ closure).tocsr()
        wider.data[:] = 1.0
        if wider.nnz == closure.nnz:
            wider.sort_indices()
            return wider
        closure = wider


def depths(parents: csr_matrix) -> NDArray[np.int32]:
    """Longest distance to a root for every term, shape (n_terms,).

    Raises
    ------
    InputError
        When the graph has a cycle (an ontology must not).
    """
    coo = parents.tocoo()
    depth = np.zeros(parents.shape[0], dtype=np.int32)
    for _ in range(parents.shape[0] + 1):
        new = depth.copy()
        np.maximum.at(new, coo.row, depth[coo.col] + 1)
        if np.array_equal(new, depth):
            return depth
        depth = new
    raise InputError("the ontology has a cycle among its parents: it is not a usable GO graph")


def annotation_matrix(
    genes: Sequence[str], gene_of: Sequence[str], terms: Sequence[str], term_of: Sequence[str]
) -> csr_matrix:
    """Direct annotations, 0/1 csr (n_genes, n_terms); unknown genes and terms are left out."""
    import pandas as pd
    from scipy.sparse import csr_matrix

    g = pd.Index(genes).get_indexer(pd.Index(gene_of))
    t = pd.Index(terms).get_indexer(pd.Index(term_of))
    keep = (g >= 0) & (t >= 0)
    matrix = csr_matrix(
        (np.ones(int(keep.sum()), dtype=np.float32), (g[keep], t[keep])),
        shape=(len(genes), len(terms)),
    )
    matrix.data[:] = 1.0
    return matrix


def propagate(annotations: csr_matrix, closure: csr_matrix) -> csr_matrix:
    """Annotations with all ancestors (true-path rule): (n_genes, n_terms), 0/1."""
    full = (annotations @ closure).tocsr()
    full.data[:] = 1.0
    full.sort_indices()
    return full


def ancestors(terms: Iterable[str], parents: Mapping[str, str]) -> set[str]:
    """All terms above any of `terms`; `parents`: term -> its parents joined by "|"."""
    found: set[str] = set()
    waiting = list(terms)
    while waiting:
        above = parents.get(waiting.pop(), "")
        fresh = {p for p in above.split("|") if p in parents} - found if above else set()
        found |= fresh
        waiting += fresh
    return found


def go_namespace(text: str) -> str:
    """ "biological_process", "P" ... -> P, F, C ("" when not given)."""
    table: Mapping[str, str] = {
        "biological_process": "P",
        "molecular_function": "F",
        "cellular_component": "C",
        "p": "P",
        "f": "F",
        "c": "C",
    }
    return table.get(text.strip().casefold(), "")
