"""Drug-drug similarity from what is known: structure, mechanism, targets, the genes behind them.

Every similarity is a positive semi-definite kernel (cosine or Tanimoto of non-negative features),
so that it can serve a selector (who is nearest?) and a kernel ridge alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise._cache import kept
from pertwise.errors import InputError
from pertwise.kernels.base import Floats, Kernel, same_names
from pertwise.knowledge.drugs.chemistry import (
    SimilarityKind,
    fingerprint_similarity,
    fingerprints,
)
from pertwise.knowledge.drugs.table import DrugTable
from pertwise.knowledge.store import Knowledge
from pertwise.knowledge.tables import sparse_arrays, sparse_of


@dataclass(frozen=True)
class FeatureKernel:
    """Cosine or Tanimoto similarity of one feature row a drug.

    Attributes
    ----------
    names, features
        (n_drugs,) names and the (n_drugs, n_features) non-negative features; a zero row or a name
        that is not there is similar to itself only.
    """

    name: str
    names: tuple[str, ...]
    features: NDArray[np.float64]
    kind: SimilarityKind = "cosine"
    reads_pool: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) != len(self.names):
            raise InputError(
                f"{self.name}: {self.features.shape} features, {len(self.names)} names"
            )

    def rows(self, names: Sequence[str]) -> Floats:
        """(n_names, n_features); a zero row for a name that is not there."""
        position = {n: i for i, n in enumerate(self.names)}
        out = np.zeros((len(names), self.features.shape[1]))
        for i, name in enumerate(names):
            if name in position:
                out[i] = self.features[position[name]]
        return out

    def between(self, rows: Sequence[str], others: Sequence[str], pool: Sequence[str]) -> Floats:
        """(n_rows, n_others); does not depend on `pool`."""
        out = fingerprint_similarity(self.rows(rows), self.rows(others), self.kind)
        out[same_names(rows, others)] = 1.0
        return out

    def missing(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names without a row or with an empty one."""
        rows = self.rows(names)
        return tuple(n for n, row in zip(names, rows, strict=True) if not row.any())


def chemistry_similarity(
    table: DrugTable,
    *,
    radius: int = 2,
    size: int = 2048,
    counts: bool = False,
    kind: SimilarityKind = "tanimoto",
) -> FeatureKernel:
    """Morgan fingerprints of the parent compounds; drugs without a structure have none."""
    names = [n for n, c in table.cards.items() if c.structure is not None]
    parents = [c.structure.parent for c in table.cards.values() if c.structure is not None]
    features = fingerprints(parents, radius=radius, size=size, counts=counts, parent=False)
    return FeatureKernel("chemistry", tuple(names), features.astype(np.float64), kind)


def text_similarity(name: str, texts: Mapping[str, str], *, words: bool = True) -> FeatureKernel:
    """TF-IDF cosine of a short text a drug (mechanism labels, one-sentence mechanisms).

    `words` True: words and pairs of words; False: runs of 3 to 5 characters inside words, which
    lets "MEK inhibitor" meet "MEK1/2 inhibitor".
    """
    known = {n: t for n, t in sorted(texts.items()) if t.strip()}
    if not known:
        raise InputError(f"{name}: no drug has a text")
    said = list(known.values())
    found = kept("texts", lambda: [said, words], lambda: sparse_arrays(_weighted(said, words)))
    features = sparse_of(dict(found)).toarray()
    return FeatureKernel(name, tuple(known), np.asarray(features, np.float64))


def _weighted(texts: list[str], words: bool) -> csr_matrix:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = (
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[A-Za-z0-9\-]+", sublinear_tf=True)
        if words
        else TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    )
    return csr_matrix(vectorizer.fit_transform(texts))


def mechanism_similarity(table: DrugTable, *, label_weight: float = 0.5) -> FeatureKernel:
    """Mechanism of action: same label, and similar wording of labels.

    k(a, b) = w [label a = label b] + (1 - w) cosine of character TF-IDF of the labels.
    """
    texts = {n: c.mechanism for n, c in table.cards.items() if c.mechanism}
    wording = text_similarity("mechanism", texts, words=False)
    labels = sorted({t.casefold() for t in texts.values()})
    same = np.zeros((len(wording.names), len(labels)))
    for i, name in enumerate(wording.names):
        same[i, labels.index(texts[name].casefold())] = 1.0
    # TF-IDF rows have length 1, so the stacked rows do too and their product is the sum above.
    features = np.hstack(
        [np.sqrt(label_weight) * same, np.sqrt(1 - label_weight) * wording.features]
    )
    return FeatureKernel("mechanism", wording.names, features)


def target_sets(table: DrugTable, knowledge: Knowledge | None = None) -> dict[str, tuple[str, ...]]:
    """Drug -> target genes, as approved symbols when a knowledge folder resolves them."""
    given = {n: c.targets for n, c in table.cards.items() if c.targets}
    if knowledge is None:
        return given
    approved = knowledge.resolve(sorted({g for t in given.values() for g in t})).approved
    resolved = {
        n: tuple(dict.fromkeys(approved[g] for g in t if g in approved)) for n, t in given.items()
    }
    return {n: t for n, t in resolved.items() if t}


def target_similarity(targets: Mapping[str, Sequence[str]]) -> FeatureKernel:
    """Shared target genes: cosine of 0/1 target sets, |A and B| / sqrt(|A| |B|)."""
    return _set_similarity("target", targets, weighted=False)


def pathway_similarity(
    targets: Mapping[str, Sequence[str]], knowledge: Knowledge, *, max_size: int = 300
) -> FeatureKernel:
    """Shared pathways of the targets: cosine of IDF-weighted membership.

    Sets larger than `max_size` genes are left out: they say little about a drug.
    """
    members = knowledge.table("gene_set_members")
    size = members.groupby("name")["symbol"].transform("nunique")
    members = members[
        (size <= max_size) & members["symbol"].isin({g for t in targets.values() for g in t})
    ]
    of_gene = members.groupby("symbol")["name"].agg(lambda s: tuple(sorted(set(s)))).to_dict()
    sets = {
        n: tuple(dict.fromkeys(p for g in t for p in of_gene.get(g, ())))
        for n, t in targets.items()
    }
    return _set_similarity("pathway", {n: s for n, s in sets.items() if s}, weighted=True)


def _set_similarity(
    name: str, sets: Mapping[str, Sequence[str]], *, weighted: bool
) -> FeatureKernel:
    names = sorted(sets)
    items = sorted({x for s in sets.values() for x in s})
    position = {x: i for i, x in enumerate(items)}
    features = np.zeros((len(names), len(items)))
    for i, drug in enumerate(names):
        features[i, [position[x] for x in sets[drug]]] = 1.0
    if weighted and len(names):
        features *= np.log1p(len(names) / np.maximum(features.sum(axis=0), 1.0))
    return FeatureKernel(name, tuple(names), features)


def diffuse(
    adjacency: csr_matrix, seeds: csr_matrix, *, restart: float = 0.6, steps: int = 25
) -> Floats:
    """Random walk with restart: p <- restart * s + (1 - restart) * p W, W row-normalised.

    Parameters
    ----------
    adjacency
        (n, n) non-negative weights.
    seeds
        (m, n) rows summing to 1.

    Returns
    -------
    (m, n) visiting probabilities after `steps` steps (the remainder is below (1-restart)^steps).
    """
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    scale = np.divide(1.0, degree, out=np.zeros_like(degree, dtype=float), where=degree > 0)
    walk = csr_matrix(adjacency.multiply(scale[:, None]))
    start = np.asarray(seeds.toarray(), dtype=np.float64)
    now = start.copy()
    turned = walk.T.tocsr()
    for _ in range(steps):
        now = restart * start + (1 - restart) * (turned @ now.T).T
    return np.asarray(now)


def target_graph_similarity(
    targets: Mapping[str, Sequence[str]],
    knowledge: Knowledge,
    *,
    graph: str = "string",
    restart: float = 0.6,
) -> FeatureKernel:
    """Proximity of the targets in a gene graph.

    Each drug is the distribution of a random walk with restart from its targets; the kernel
    is the Bhattacharyya coefficient sum_g sqrt(p_g q_g), 1 for equal distributions.
    """
    network = knowledge.graph(graph)
    position = {g: i for i, g in enumerate(network.nodes)}
    inside = {n: [position[g] for g in t if g in position] for n, t in sorted(targets.items())}
    inside = {n: i for n, i in inside.items() if i}
    if not inside:
        raise InputError(f"no drug target is a node of the graph {graph!r}")
    rows = np.repeat(np.arange(len(inside)), [len(i) for i in inside.values()])
    columns = np.concatenate([np.asarray(i) for i in inside.values()])
    weights = np.concatenate([np.full(len(i), 1.0 / len(i)) for i in inside.values()])
    seeds = csr_matrix((weights, (rows, columns)), shape=(len(inside), len(network.nodes)))
    visited = diffuse(abs(network.adjacency), seeds, restart=restart)
    return FeatureKernel("target_graph", tuple(inside), np.sqrt(np.maximum(visited, 0.0)))


def neighbour_features(
    lists: Mapping[str, Sequence[str]],
    names: Sequence[str],
    pool: Sequence[str],
    *,
    decay: float = 7.0,
    k: int = 15,
) -> Floats:
    """(n_names, n_pool) features of ranked neighbour lists, restricted to the pool.

    w(d, r) = exp(-rank / decay) for the first `k` of d's list that are in the pool, each row
    scaled to length 1. Among measured drugs lists are averaged both ways ("a names b" and "b
    names a" say the same). A drug is itself plus its neighbours plus one step to their neighbours:
    F = e_d + w_d + w_d S, S the row-normalised list matrix of the pool. Only lists and names enter,
    never a response, and a drug outside the pool is described by its own list alone.
    """
    position = {d: i for i, d in enumerate(pool)}

    def weights(drug: str) -> NDArray[np.float64]:
        row = np.zeros(len(pool))
        found = [x for x in dict.fromkeys(lists.get(drug, ())) if x in position and x != drug][:k]
        row[[position[x] for x in found]] = np.exp(-np.arange(len(found)) / decay)
        return row

    inner = np.array([weights(d) for d in pool]).reshape(len(pool), len(pool))
    inner = (inner + inner.T) / 2
    total = inner.sum(axis=1, keepdims=True)
    step = np.divide(inner, total, out=np.zeros_like(inner), where=total > 0)
    out = np.zeros((len(names), len(pool)))
    for i, drug in enumerate(names):
        row = inner[position[drug]] if drug in position else weights(drug)
        length = np.linalg.norm(row)
        row = row / length if length > 0 else row
        out[i] = row + row @ step
        if drug in position:
            out[i, position[drug]] += 1.0
    return out


@dataclass(frozen=True)
class ListKernel:
    """Ranked neighbour lists (a chat model's, a human's) as a kernel; see `neighbour_features`."""

    name: str
    lists: Mapping[str, tuple[str, ...]]
    decay: float = 7.0
    k: int = 15

    def between(self, rows: Sequence[str], others: Sequence[str], pool: Sequence[str]) -> Floats:
        """(n_rows, n_others) cosine of the list features over `pool`."""
        settings = {"decay": self.decay, "k": self.k}
        a = neighbour_features(self.lists, rows, pool, **settings)  # type: ignore[arg-type]
        b = neighbour_features(self.lists, others, pool, **settings)  # type: ignore[arg-type]
        out = fingerprint_similarity(a, b, "cosine")
        out[same_names(rows, others)] = 1.0
        return out

    def missing(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names without a list."""
        return tuple(n for n in names if not self.lists.get(n))


@dataclass(frozen=True)
class MeanKernel:
    """Weighted mean of similarities; weights are non-negative and scaled to sum 1."""

    parts: tuple[Kernel, ...]
    weights: tuple[float, ...] = ()
    name: str = "combined"

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("a combined similarity needs at least one part")
        if self.weights and len(self.weights) != len(self.parts):
            raise InputError(f"{len(self.weights)} weights for {len(self.parts)} similarities")
        if any(w < 0 for w in self.weights) or (self.weights and sum(self.weights) <= 0):
            raise InputError(f"weights must be non-negative with a positive sum: {self.weights}")

    @property
    def reads_pool(self) -> bool:
        """Whether any part depends on the pool."""
        return any(getattr(p, "reads_pool", True) for p in self.parts)

    def between(self, rows: Sequence[str], others: Sequence[str], pool: Sequence[str]) -> Floats:
        """(n_rows, n_others) weighted mean."""
        weights = self.weights or (1.0,) * len(self.parts)
        total = sum(
            w * p.between(rows, others, pool) for w, p in zip(weights, self.parts, strict=True)
        )
        return np.asarray(total / sum(weights))

    def missing(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names that every part knows nothing about."""
        gone = [set(p.missing(names)) for p in self.parts]
        return tuple(n for n in names if all(n in g for g in gone))
