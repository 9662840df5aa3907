"""Retrieval: does a predicted response lie nearest to the response it predicts?

score(i) = 1 - rank(i) / (n - 1), with n candidates and

    rank(i) = #{j != i : D(i, j) < D(i, i)} + 1/2 #{j != i : D(i, j) = D(i, i)}

the mid-rank (0-based) of the right candidate: 1 = nearest of all, 0 = farthest, 0.5 = chance, and
a method that predicts the same for everything scores exactly 0.5 in the reverse direction. The
idea is the discrimination score of STATE / cell-eval and the rank metric of PerturBench (Wu et al.
2024); they break ties by position and cell-eval divides by n, which moves the score by
rank / (n (n - 1)) <= 1 / n.

Directions: "forward" ranks the *measured* responses around each prediction; "reverse" ranks the
*predictions* around each measured response. The candidate set decides how hard the task is, so
every result names it.

A distance that is not defined (nothing measured in common, zero vector, zero variance) is worse
than every defined one; when it is the right candidate's own, the score is 0 and is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pertwise.arrays.distances import squared_distances
from pertwise.errors import InputError
from pertwise.evaluate.metrics import FLAT, Floats, metric

Distance = Literal["l2", "cosine", "pearson"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)
#: Distances closer than this share of their scale are one value: matrix products round
#: differently for equal rows, and equal predictions must tie.
TIE = 1e-9


@dataclass(frozen=True)
class Retrieval:
    """Scores (n,) in [0, 1] (NaN only with a single candidate) and how many were undefined."""

    score: Floats
    undefined: NDArray[np.bool_]
    n_candidates: int


def distances(queries: ArrayLike, candidates: ArrayLike, kind: Distance = "l2") -> Floats:
    """(n_queries, n_candidates) distances between rows; NaN entries are left out pair by pair.

    l2: mean over shared features of the squared difference (times d: the squared Euclidean
    distance when nothing is missing). cosine, pearson: 1 - similarity over shared features.
    NaN where undefined.

    Raises
    ------
    pertwise.errors.InputError
        If the two have different features or `kind` is unknown.
    """
    a, b = np.asarray(queries, dtype=np.float64), np.asarray(candidates, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(f"queries {a.shape} and candidates {b.shape} must share their features")
    if kind not in DISTANCES:
        raise InputError(f"unknown distance {kind!r}; use one of {', '.join(DISTANCES)}")
    if np.isfinite(a).all() and np.isfinite(b).all():
        return _complete(a, b, kind)
    return _masked(a, b, kind)


def _complete(a: Floats, b: Floats, kind: Distance) -> Floats:
    if kind == "l2":
        return squared_distances(a, b)
    return np.asarray(1.0 - _unit(a, kind) @ _unit(b, kind).T)


def _unit(x: Floats, kind: Distance) -> Floats:
    size = np.sqrt((x**2).sum(axis=1))
    if kind == "pearson":
        x = x - x.mean(axis=1, keepdims=True)
    norm = np.sqrt((x**2).sum(axis=1))
    flat = (norm <= FLAT * size) | (norm == 0)
    return np.asarray(np.where(flat, np.nan, 1.0)[:, None] * x / np.where(flat, 1.0, norm)[:, None])


def _masked(a: Floats, b: Floats, kind: Distance) -> Floats:
    """The same sums written as matrix products over the shared features of each pair."""
    ma, mb = np.isfinite(a).astype(np.float64), np.isfinite(b).astype(np.float64)
    a, b = np.where(ma > 0, a, 0.0), np.where(mb > 0, b, 0.0)
    shared = ma @ mb.T
    aa, bb, ab = (a**2) @ mb.T, ma @ (b**2).T, a @ b.T
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "l2":
            out = np.maximum(aa + bb - 2 * ab, 0.0) / shared * a.shape[1]
            return np.asarray(np.where(shared > 0, out, np.nan))
        if kind == "pearson":
            sa, sb = a @ mb.T, ma @ b.T
            size_a, size_b = aa, bb
            ab, aa, bb = ab - sa * sb / shared, aa - sa**2 / shared, bb - sb**2 / shared
            # One-pass variances round at 1e-16 of the squares; below that they are zero.
            floor = max(FLAT**2, 1e-14)
            bad = (aa <= floor * size_a) | (bb <= floor * size_b) | (shared < 2)
        else:
            bad = (aa <= 0) | (bb <= 0)
        return np.asarray(np.where(bad, np.nan, 1.0 - ab / np.sqrt(aa * bb)))


def rank_scores(table: ArrayLike, own: ArrayLike, scale: ArrayLike | float = 1.0) -> Retrieval:
    """Mid-rank scores from distances.

    Parameters
    ----------
    table
        (n_queries, n_candidates) distances, NaN = undefined.
    own
        (n_queries,) column of the right candidate of each query.
    scale
        Size against which two distances count as equal (broadcast against the queries).
    """
    d = np.asarray(table, dtype=np.float64)
    columns = np.asarray(own, dtype=int)
    n = d.shape[1]
    right = d[np.arange(len(d)), columns]
    tolerance = TIE * np.broadcast_to(np.asarray(scale, dtype=np.float64), right.shape)
    undefined = np.isnan(right)
    gap = d - right[:, None]  # NaN candidates compare False on both counts: never nearer
    nearer = (gap < -tolerance[:, None]).sum(axis=1)
    ties = (np.abs(gap) <= tolerance[:, None]).sum(axis=1) - 1
    rank = np.where(undefined, n - 1, nearer + 0.5 * ties)
    score = 1.0 - rank / (n - 1) if n > 1 else np.full(len(d), np.nan)
    return Retrieval(np.asarray(score, dtype=np.float64), np.asarray(undefined), n)


def _tie_scale(queries: Floats, candidates: Floats, kind: Distance) -> Floats:
    """(n_queries,) size that rounding of the distances is judged against."""
    if kind != "l2" or not len(candidates):
        return np.ones(len(queries))
    return np.asarray(
        np.nansum(queries**2, axis=1) + np.nansum(candidates**2, axis=1).max(), dtype=np.float64
    )


@metric(
    "retrieval", "1 - normalised mid-rank, candidates = all measured responses", "high", rows=False
)
def retrieval(
    predictions: ArrayLike,
    truths: ArrayLike,
    own: ArrayLike | None = None,
    *,
    kind: Distance = "l2",
    reverse: bool = False,
) -> Retrieval:
    """Mid-rank retrieval score of every prediction (forward) or measured response (reverse).

    Parameters
    ----------
    predictions
        (n, n_features).
    truths
        Forward: (n_candidates, n_features) measured responses, the candidate set.
        Reverse: only the rows `own` are used; the candidates are the n predictions.
    own
        (n,) row of `truths` that each prediction is about; None = the same order.

    Raises
    ------
    pertwise.errors.InputError
        If `own` does not fit.
    """
    found = retrieval_all(predictions, truths, own, kind=kind)
    return found["reverse"] if reverse else found["measured"]


@metric(
    "retrieval_heldout", "the same, candidates = held-out measured responses", "high", rows=False
)
def retrieval_heldout(
    predictions: ArrayLike, truths: ArrayLike, own: ArrayLike | None = None, kind: Distance = "l2"
) -> Retrieval:
    """Forward retrieval among the measured responses of the held-out perturbations only."""
    return retrieval_all(predictions, truths, own, kind=kind)["heldout"]


@metric(
    "retrieval_reverse", "the same, candidates = predictions of the held-out", "high", rows=False
)
def retrieval_reverse(
    predictions: ArrayLike, truths: ArrayLike, own: ArrayLike | None = None, kind: Distance = "l2"
) -> Retrieval:
    """Retrieval of the right prediction by each measured response."""
    return retrieval_all(predictions, truths, own, kind=kind)["reverse"]


def retrieval_all(
    predictions: ArrayLike,
    truths: ArrayLike,
    own: ArrayLike | None = None,
    *,
    kind: Distance = "l2",
) -> dict[Literal["measured", "heldout", "reverse"], Retrieval]:
    """All three candidate sets from one matrix of distances.

    ``measured``: forward among all rows of `truths`; ``heldout``: forward among the rows `own`
    only; ``reverse``: among the predictions. Parameters as in `retrieval`.
    """
    p, t = np.asarray(predictions, dtype=np.float64), np.asarray(truths, dtype=np.float64)
    index = np.arange(len(p)) if own is None else np.asarray(own, dtype=int)
    if len(index) != len(p) or (len(p) and (index.min() < 0 or index.max() >= len(t))):
        raise InputError(f"{len(p)} predictions, {len(index)} own rows, {len(t)} measured rows")
    table = distances(p, t, kind)
    held_out, diagonal = table[:, index], np.arange(len(p))
    forward = _tie_scale(p, t, kind)
    return {
        "measured": rank_scores(table, index, forward),
        "heldout": rank_scores(held_out, diagonal, forward),
        "reverse": rank_scores(held_out.T, diagonal, _tie_scale(t[index], p, kind)),
    }
