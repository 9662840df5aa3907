"""Builds what a strategy looks at: uncertainty, embedding, graph neighbours, relations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise._names import split_combination
from pertwise.acquire.common import unit_rows
from pertwise.errors import InputError
from pertwise.kernels.known import compound_features
from pertwise.knowledge import Knowledge
from pertwise.models.base import Predictor
from pertwise.screen import Screen

#: The features of compounds (`kernels.known.compound_features`) as a kind of embedding.
COMPOUNDS = "compounds"
#: Compounds count as redundant from this similarity on.
ALIKE = 0.5
#: Candidates predicted at a time, and features up to which their predictions are kept.
CHUNK, MOST_PREDICTED = 2_000, 200
#: Graphs that say who is redundant with whom; those the knowledge folder has are merged.
NEIGHBOUR_GRAPHS = ("string", "complexes")


def choose_embedding(knowledge: Knowledge, kind: str = "auto") -> str:
    """What "auto" means for this folder: graph, GO and Reactome as far as it has them, else text.

    With a table of drugs the features are those of compounds (`COMPOUNDS`).

    Text is left out where there is anything else: genes of which nothing is known share the same
    few words, and would count as one large, tempting group.
    """
    if kind != "auto":
        return kind
    if knowledge.drugs is not None:
        return COMPOUNDS
    known = knowledge.embedding_kinds()
    return "+".join(k for k in ("graph", "go", "reactome") if k in known) or "text"


def gene_features(
    knowledge: Knowledge, names: Sequence[str], kind: str = "text", dim: int = 256
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Unit-length knowledge features; a combination gets the mean of its parts.

    Returns
    -------
    (n_names, k) float32 and the names whose row is zero because nothing is known of them.
    """
    if kind == COMPOUNDS:
        rows = compound_features(knowledge, names, dim)
        return rows, tuple(n for n, row in zip(names, rows, strict=True) if not row.any())
    parts = list(dict.fromkeys(g for n in names for g in split_combination(n)))
    embedding = knowledge.embedding(parts, kind=kind, dim=dim)
    position = {g: i for i, g in enumerate(parts)}
    rows = np.stack(
        [embedding.matrix[[position[g] for g in split_combination(n)]].mean(axis=0) for n in names]
    )
    rows = unit_rows(rows)
    return rows, tuple(n for n, row in zip(names, rows, strict=True) if not row.any())


def neighbour_weights(knowledge: Knowledge, names: Sequence[str]) -> csr_matrix | None:
    """(n_names, n_names) weights in [0, 1] of `NEIGHBOUR_GRAPHS`; None when there is none.

    A combination has the edges of all its parts (weights added, at most 1). Compounds are
    neighbours by the cosine of their features, where it is at least `ALIKE`.
    """
    if knowledge.drugs is not None:
        known = compound_features(knowledge, names)
        alike = np.clip(known @ known.T, 0.0, 1.0)
        np.fill_diagonal(alike, 0.0)
        return csr_matrix(np.where(alike >= ALIKE, alike, 0.0))
    graphs = knowledge.graph_names()
    found = [g for g in NEIGHBOUR_GRAPHS if g in graphs]
    if not found:
        return None
    graph = knowledge.graph("+".join(found))
    position = {g: i for i, g in enumerate(graph.nodes)}
    parts = list(dict.fromkeys(g for n in names for g in split_combination(n)))
    approved = knowledge.resolve(parts).approved
    rows, columns = [], []
    for i, n in enumerate(names):
        for gene in split_combination(n):
            node = position.get(approved.get(gene, gene))
            if node is not None:
                rows.append(i)
                columns.append(node)
    pick = csr_matrix(
        (np.ones(len(rows), dtype=np.float32), (rows, columns)),
        shape=(len(names), len(graph.nodes)),
    )
    weights = csr_matrix(pick @ graph.adjacency @ pick.T)
    weights.data = np.clip(weights.data, 0.0, 1.0)
    return weights


@dataclass(frozen=True)
class Disagreement:
    """What a model says of the candidates.

    Attributes
    ----------
    uncertainty
        u(p), indexed by candidate.
    members
        (n_members, n_candidates, n_target_features) predictions, or None when not kept.
    mean
        (n_candidates, n_target_features) predictions, or None when not asked for.
    used
        Candidate -> what the predictor used instead, for those it could not predict properly.
    """

    uncertainty: pd.Series
    members: NDArray[np.float32] | None = None
    mean: NDArray[np.float32] | None = None
    used: Mapping[str, str] = field(default_factory=dict)


def ensemble_uncertainty(
    predictor: Predictor,
    screen: Screen,
    knowledge: Knowledge,
    candidates: Sequence[str],
    features: Sequence[str] | None,
    keep: str = "members",
) -> Disagreement:
    """Fit on the measured rows, predict the candidates, average the variance over the target.

    `keep`: "members", "prediction" (their mean) or "uncertainty". A predictor with a method
    ``uncertainty`` never makes members for the last (20,000 candidates x 8,000 features x 5 members
    would be 3 GB); means are made `CHUNK` candidates at a time, and only for a target of at most
    `MOST_PREDICTED` features.

    Raises
    ------
    pertwise.errors.InputError
        When the predictor gives neither members nor a spread.
    """
    fitted = predictor.fit(screen.only_measured(), knowledge)
    direct = getattr(fitted, "uncertainty", None)
    if direct is not None and keep != "members":
        u = direct(candidates, features).to_numpy(dtype=float)
        shown = features if features is not None else screen.features
        mean = None
        if keep == "prediction" and len(shown) <= MOST_PREDICTED:
            mean = _means(fitted, candidates, shown)
        return Disagreement(pd.Series(u, index=list(candidates), name="uncertainty"), mean=mean)
    prediction = fitted.predict(candidates)
    columns = np.arange(len(prediction.features))
    if features is not None:
        position = {f: i for i, f in enumerate(prediction.features)}
        columns = np.array([position[f] for f in features])
    members = None
    if prediction.members is not None:
        members = np.ascontiguousarray(prediction.members[:, :, columns])
        u = members.astype(np.float64).var(axis=0, ddof=1).mean(axis=1)
    elif prediction.spread is not None:
        u = (prediction.spread[:, columns].astype(np.float64) ** 2).mean(axis=1)
    else:
        raise InputError(
            f"predictor {predictor.name!r} gives no uncertainty; use an ensemble or a method with "
            "a spread"
        )
    used = {
        str(p): str(f)
        for p, f in zip(prediction.perturbations, prediction.support["fallback"], strict=True)
        if f
    }
    mean = None
    if keep == "prediction" and len(columns) <= MOST_PREDICTED:
        mean = np.ascontiguousarray(prediction.mean[:, columns])
    series = pd.Series(u, index=list(candidates), name="uncertainty")
    return Disagreement(series, members if keep == "members" else None, mean, used)


def _means(
    fitted: Predictor, candidates: Sequence[str], features: Sequence[str]
) -> NDArray[np.float32]:
    """(n_candidates, n_features) predictions, made in pieces."""
    parts = []
    for start in range(0, len(candidates), CHUNK):
        made = fitted.predict(candidates[start : start + CHUNK])
        place = {f: i for i, f in enumerate(made.features)}
        parts.append(made.mean[:, [place[f] for f in features]])
    return np.concatenate(parts).astype(np.float32)


def noise_variance(screen: Screen, features: Sequence[str] | None) -> float | None:
    """Sampling variance of one feature's mean, averaged over measured rows and the target.

    From the per-feature table when the screen has one, else the row sums divided by the number of
    features; None when neither is known.
    """
    rows = screen.measured
    if not rows.any():
        return None
    if screen.sampling_variance is not None:
        columns = (
            [screen.features.index(f) for f in features]
            if features is not None
            else list(range(screen.n_features))
        )
        values = screen.sampling_variance[rows][:, columns]
        if np.isfinite(values).any():
            return float(np.nanmean(values))
    sums = screen.obs["sampling_variance"].to_numpy(dtype=float)[rows]
    if np.isfinite(sums).any():
        return float(np.nanmean(sums)) / screen.n_features
    return None
