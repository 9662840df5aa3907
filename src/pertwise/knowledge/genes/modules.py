"""Functional modules of any gene set: clusters of its members, named by enriched terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise.knowledge.genes.curated import OTHER

#: One module for about so many members, between 2 and MAX_MODULES.
MEMBERS_PER_MODULE = 20
MAX_MODULES = 10
MIN_MEMBERS = 6


@dataclass(frozen=True)
class TermTable:
    """Terms that can name a module.

    Attributes
    ----------
    names
        (n_terms,) what a reader sees.
    membership
        (n_members, n_terms) 0/1 over the members of the gene set.
    n_genes
        (n_terms,) genes of the whole folder with that term.
    total
        Genes of the whole folder with any term.
    """

    names: Sequence[str]
    membership: csr_matrix
    n_genes: NDArray[np.int64]
    total: int


def cluster(kernel: NDArray[np.float64], n_modules: int | None = None) -> NDArray[np.int64]:
    """Labels of members, shape (n,), -1 = nothing is known about the member.

    Kernel principal components, as many as modules, rows scaled to unit length, joined by Ward's
    linkage: no random start, so the same set gives the same modules. Labels are numbered by size,
    then by first member.

    Parameters
    ----------
    kernel
        (n, n) positive semi-definite similarity; a zero diagonal entry marks an unknown member.
    n_modules
        Default: one for every `MEMBERS_PER_MODULE` known members, 2 to `MAX_MODULES`.
    """
    from scipy.linalg import eigh
    from sklearn.cluster import AgglomerativeClustering

    labels = np.full(len(kernel), -1, dtype=np.int64)
    known = np.flatnonzero(np.diag(kernel) > 0)
    n = len(known)
    if n == 0:
        return labels
    k = n_modules or int(np.clip(round(n / MEMBERS_PER_MODULE), 2, MAX_MODULES))
    k = min(k, n)
    if n < MIN_MEMBERS or k < 2:
        labels[known] = 0
        return labels
    values, vectors = eigh(kernel[np.ix_(known, known)], subset_by_index=[n - k, n - 1])
    rows = vectors * np.sqrt(np.maximum(values, 0.0))
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    raw = AgglomerativeClustering(n_clusters=k, linkage="ward").fit_predict(rows)
    order = sorted(
        set(raw.tolist()), key=lambda c: (-int((raw == c).sum()), int((raw == c).argmax()))
    )
    rename = {c: i for i, c in enumerate(order)}
    labels[known] = [rename[c] for c in raw.tolist()]
    return labels


def name_modules(
    labels: NDArray[np.int64], terms: TermTable, members: Sequence[str]
) -> dict[int, str]:
    """A unique name for every label >= 0: the term most over-represented in it.

    Over-representation is the hypergeometric tail among the members of the set (so that what all
    members share names no module); at least two genes and a quarter of the module must have the
    term. Ties: more of the module, fewer genes in the folder, name. Terms are given out best
    first, so no two modules get the same one. A module without any is named after its genes.
    """
    from scipy.stats import hypergeom

    n = len(labels)
    carriers = np.asarray(terms.membership.sum(axis=0)).ravel()
    offers: list[tuple[float, float, int, str, int]] = []
    sizes = {int(c): int((labels == c).sum()) for c in np.unique(labels) if c >= 0}
    for label, size in sizes.items():
        inside = np.asarray(terms.membership[labels == label].sum(axis=0)).ravel()
        usable = np.flatnonzero(inside >= max(2, size / 4))
        if not len(usable):
            continue
        tail = hypergeom.logsf(inside[usable] - 1, n, carriers[usable], size)
        genome = hypergeom.logsf(inside[usable] - 1, terms.total, terms.n_genes[usable], size)
        # Within the set first; where nothing tells modules apart, against the genome.
        score = tail + 0.1 * genome
        for j, value in zip(usable.tolist(), score.tolist(), strict=True):
            offers.append(
                (round(value, 9), -inside[j] / size, int(terms.n_genes[j]), terms.names[j], label)
            )
    names: dict[int, str] = {}
    taken: set[str] = set()
    for _, _, _, name, label in sorted(offers):
        if label not in names and name.casefold() not in taken:
            names[label] = name
            taken.add(name.casefold())
    for label in sizes:
        if label not in names:
            genes = [m for m, c in zip(members, labels.tolist(), strict=True) if c == label]
            names[label] = "module of " + ", ".join(genes[:3])
    return names


def compute_modules(
    members: Sequence[str],
    kernels: Sequence[NDArray[np.float64]],
    terms: TermTable | None,
    n_modules: int | None = None,
) -> dict[str, tuple[str, ...]]:
    """Modules of a gene set: name -> members, the largest first, "other" last.

    Parameters
    ----------
    members
        Approved symbols, sorted.
    kernels
        Similarities (n, n), averaged: GO terms, STRING neighbours, Reactome pathways, texts.
    terms
        What names the modules; None when the folder has no terms.
    """
    n = len(members)
    if n == 0 or not kernels:
        return {}
    labels = cluster(np.mean(np.stack(list(kernels)), axis=0), n_modules)
    empty = TermTable([], csr_matrix((n, 0)), np.zeros(0, dtype=np.int64), 1)
    names = name_modules(labels, terms or empty, members)
    modules: dict[str, tuple[str, ...]] = {}
    for label in sorted(names):
        modules[names[label]] = tuple(
            m for m, c in zip(members, labels.tolist(), strict=True) if c == label
        )
    rest = tuple(m for m, c in zip(members, labels.tolist(), strict=True) if c < 0)
    if rest:
        modules[OTHER] = rest
    return modules
