"""Which genes count: top-k differential genes, significance, and the overlap of two calls.

A *differential score* orders the genes of one perturbation. In order of preference: the t statistic
of perturbed against control cells; delta / standard error when only means and their sampling
variance exist; |delta| when there is nothing else. Whether the target gene itself counts is an
option everywhere: a knock-down lowers its own target trivially, so the default leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pertwise._names import split_combination
from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats, _ratio, metric


def differential_score(delta: ArrayLike, sampling_variance: ArrayLike | None = None) -> Floats:
    """(n, d) |delta| / standard error, or |delta| where the variance is unknown for a whole row.

    Parameters
    ----------
    delta
        (n, d) measured responses.
    sampling_variance
        (n, d) sampling variance of every mean (unit^2), NaN = unknown, or None. A variance of 0
        with a non-zero delta gives infinity (first in the order).
    """
    size = np.abs(np.asarray(delta, dtype=np.float64))
    if sampling_variance is None:
        return size
    variance = np.asarray(sampling_variance, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = size / np.sqrt(variance)
    t[size == 0] = 0.0
    t[np.isnan(size)] = np.nan
    known = np.isfinite(variance).any(axis=1, keepdims=True)
    return np.asarray(np.where(known, t, size))


def welch_t(
    mean: ArrayLike, variance: ArrayLike, n: ArrayLike, other: tuple[ArrayLike, ArrayLike, float]
) -> Floats:
    """Welch's t statistic of every gene: (m1 - m0) / sqrt(s1^2 / n1 + s0^2 / n0).

    Parameters
    ----------
    mean, variance
        (n_perturbations, n_genes) mean and sample variance over the perturbed cells.
    n
        (n_perturbations,) cells.
    other
        Control: mean (n_genes,), variance (n_genes,), number of cells.
    """
    m1, v1 = np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    n1 = np.asarray(n, dtype=np.float64)[:, None]
    m0, v0, n0 = np.asarray(other[0], np.float64), np.asarray(other[1], np.float64), other[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (m1 - m0) / np.sqrt(v1 / n1 + v0 / n0)
    return np.asarray(np.where(m1 == m0, 0.0, t))


def target_mask(perturbations: Sequence[str], features: Sequence[str]) -> NDArray[np.bool_]:
    """(n, d) False where the feature is a target of the perturbation (any part of "A+B")."""
    position = {f: i for i, f in enumerate(features)}
    keep = np.ones((len(perturbations), len(features)), dtype=bool)
    for row, name in enumerate(perturbations):
        for part in split_combination(name):
            if part in position:
                keep[row, position[part]] = False
    return keep


def top_mask(score: ArrayLike, k: int, mask: ArrayLike | None = None) -> NDArray[np.bool_]:
    """(n, d) True at the k largest |score| of each row; ties go to the earlier feature.

    NaN scores and features outside `mask` never count; a row with fewer than k has them all.

    Raises
    ------
    pertwise.errors.InputError
        If k < 1.
    """
    if k < 1:
        raise InputError(f"top-k needs k >= 1, got {k}")
    size = np.abs(np.asarray(score, dtype=np.float64))
    usable = ~np.isnan(size) if mask is None else ~np.isnan(size) & np.asarray(mask, dtype=bool)
    size = np.where(usable, size, -1.0)
    if k >= size.shape[1]:
        return np.asarray(usable)
    kth = -np.partition(-size, k - 1, axis=1)[:, k - 1 : k]
    above = size > kth
    tied = size == kth
    room = k - above.sum(axis=1, keepdims=True)
    return np.asarray((above | (tied & (np.cumsum(tied, axis=1) <= room))) & usable)


@metric("de_overlap", "overlap of top differential features", "high", rows=False)
def de_overlap(
    truth_score: ArrayLike,
    prediction_score: ArrayLike,
    k: int | None,
    *,
    truth_significant: ArrayLike | None = None,
    prediction_significant: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    divide_by: Literal["truth", "prediction"] = "truth",
) -> Floats:
    """Share of differential genes found again.

    |top_K(truth) n top_K(prediction)| / K with the genes of each side ordered by |score| among the
    significant ones (all, where no significance is given) and K = min(k, number on the
    `divide_by` side); k None = all of that side. "truth" asks how much of what changes was found
    (cell-eval overlap_at_k), "prediction" how much of what was claimed is right
    (precision_at_k). NaN when that side has no gene (cell-eval says 0).

    Parameters
    ----------
    truth_score, prediction_score
        (n, d) differential scores; the sign is ignored.
    truth_significant, prediction_significant
        (n, d) bool or None.
    mask
        (n, d) bool; False leaves a gene out on both sides (for instance the target itself).
    """
    sides = []
    for score, significant in (
        (truth_score, truth_significant),
        (prediction_score, prediction_significant),
    ):
        size = np.abs(np.asarray(score, dtype=np.float64))
        usable = ~np.isnan(size)
        if significant is not None:
            usable &= np.asarray(significant, dtype=bool)
        if mask is not None:
            usable &= np.asarray(mask, dtype=bool)
        sides.append((size, usable))
    available = sides[0 if divide_by == "truth" else 1][1].sum(axis=1)
    limit = available if k is None else np.minimum(available, k)
    if k is not None and (limit == k).all():
        tops = [top_mask(size, k, usable) for size, usable in sides]
    else:
        tops = [_ragged_top(size, usable, limit) for size, usable in sides]
    hits = (tops[0] & tops[1]).sum(axis=1)
    return _ratio(hits, limit, np.zeros(len(hits), dtype=bool))


def _ragged_top(
    size: Floats, usable: NDArray[np.bool_], limit: NDArray[np.int_]
) -> NDArray[np.bool_]:
    """Top `limit[i]` of row i, with the same rule for ties as `top_mask`."""
    order = np.argsort(np.where(usable, -size, np.inf), axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(size.shape[1])[None, :], axis=1)
    return np.asarray((place < limit[:, None]) & usable)


def significant_recall(truth_significant: ArrayLike, prediction_significant: ArrayLike) -> Floats:
    """Share of the truly significant genes also significant in the prediction; NaN without any."""
    t = np.asarray(truth_significant, dtype=bool)
    p = np.asarray(prediction_significant, dtype=bool)
    return _ratio((t & p).sum(axis=1), t.sum(axis=1), np.zeros(len(t), dtype=bool))


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """(n, d) p values -> adjusted p values per row (Benjamini & Hochberg 1995); NaN stays NaN."""
    from scipy.stats import false_discovery_control

    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(p.shape, np.nan)
    for i, row in enumerate(p):
        known = np.isfinite(row)
        if known.any():
            out[i, known] = false_discovery_control(row[known], method="bh")
    return out
