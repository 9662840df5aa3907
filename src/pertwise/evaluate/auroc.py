"""Areas under the ROC and the precision-recall curve; equal scores favour nobody."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats, metric


def grouped_auroc(
    scores: ArrayLike, labels: ArrayLike, groups: ArrayLike, n_groups: int | None = None
) -> Floats:
    """AUROC within every group.

    AUROC = (sum of mid-ranks of the positives - P (P + 1) / 2) / (P N): the probability that a
    positive scores above a negative, equal scores counting one half (Mann-Whitney U / (P N)).

    Parameters
    ----------
    scores
        (n,) larger = more likely positive; NaN is refused (decide what no answer means first).
    labels
        (n,) 0 or 1.
    groups
        (n,) integer codes 0 ... n_groups - 1.

    Returns
    -------
    (n_groups,) NaN where a group lacks one of the labels.

    Raises
    ------
    pertwise.errors.InputError
        For NaN scores, labels other than 0 and 1, or unequal lengths.
    """
    s = np.asarray(scores, dtype=np.float64)
    y = np.asarray(labels)
    g = np.asarray(groups, dtype=np.int64)
    if not (s.shape == y.shape == g.shape) or s.ndim != 1:
        raise InputError(f"scores {s.shape}, labels {y.shape}, groups {g.shape} must be 1-D, equal")
    if np.isnan(s).any():
        raise InputError(
            f"{int(np.isnan(s).sum())} of {s.size} scores are NaN; give every pair one"
        )
    if not np.isin(y, (0, 1)).all():
        raise InputError("labels must be 0 or 1")
    size = int(g.max()) + 1 if n_groups is None and g.size else int(n_groups or 0)
    positive = y.astype(bool)
    if not s.size:
        return np.full(size, np.nan)
    order = np.lexsort((s, g))
    gs, ss, ys = g[order], s[order], positive[order]
    # Mid-rank inside the group: position of a run of equal scores, averaged over the run.
    position = np.arange(s.size, dtype=np.float64)
    new_group = np.r_[True, gs[1:] != gs[:-1]]
    new_run = new_group | np.r_[True, ss[1:] != ss[:-1]]
    run = np.cumsum(new_run) - 1
    starts = position[new_run]
    ends = np.r_[starts[1:], s.size]
    group_start = position[new_group][np.cumsum(new_group) - 1]
    rank = (starts + ends - 1)[run] / 2 - group_start + 1
    n_pos = np.bincount(gs, weights=ys, minlength=size)
    n_all = np.bincount(gs, minlength=size)
    total = np.bincount(gs, weights=np.where(ys, rank, 0.0), minlength=size)
    pairs = n_pos * (n_all - n_pos)
    out = np.full(size, np.nan)
    np.divide(total - n_pos * (n_pos + 1) / 2, pairs, out=out, where=pairs > 0)
    return out


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """AUROC of one list, ties at half; NaN when one of the labels is absent."""
    s = np.asarray(scores, dtype=np.float64)
    zeros: NDArray[np.int64] = np.zeros(s.shape, dtype=np.int64)
    return float(grouped_auroc(s, labels, zeros, 1)[0])


@metric("de_auroc", "AUROC of the differential features", "high", rows=False)
def de_auroc(score: ArrayLike, significant: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """(n,) area under the ROC curve of the truly differential features by |score|, ties at half.

    Parameters
    ----------
    score
        (n, d) predicted differential scores (or responses); the sign is ignored.
    significant
        (n, d) bool: differential in the truth. Rows with all or none give NaN.
    mask
        (n, d) bool; False leaves a feature out (not measured, the target itself).

    Raises
    ------
    pertwise.errors.InputError
        For unequal shapes or a score that is NaN.
    """
    s, y, keep = _ranked(score, significant, mask)
    groups = np.broadcast_to(np.arange(len(s))[:, None], s.shape)
    return grouped_auroc(s[keep], y[keep], groups[keep], len(s))


@metric("de_auprc", "average precision of the differential features", "high", rows=False)
def de_auprc(score: ArrayLike, significant: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """(n,) average precision of the truly differential features by |score|.

    Sum over distinct scores of (recall gained) x (precision so far): features of equal score enter
    together. Parameters and errors as `de_auroc`.
    """
    s, y, keep = _ranked(score, significant, mask)
    out = np.full(len(s), np.nan)
    for i in range(len(s)):
        row, true = s[i, keep[i]], y[i, keep[i]]
        if not 0 < true.sum() < true.size:
            continue
        order = np.argsort(-row, kind="stable")
        last = np.flatnonzero(np.r_[np.diff(row[order]) != 0, True])
        hits = np.cumsum(true[order])[last]
        gained = np.diff(np.r_[0, hits]) / true.sum()
        out[i] = (gained * hits / (last + 1)).sum()
    return out


def _ranked(
    score: ArrayLike, significant: ArrayLike, mask: ArrayLike | None
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    s, y = np.abs(np.asarray(score, dtype=np.float64)), np.asarray(significant, dtype=bool)
    keep = np.ones(s.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if not (s.shape == y.shape == keep.shape) or s.ndim != 2 or np.isnan(s[keep]).any():
        raise InputError(f"scores {s.shape} (no NaN), significance {y.shape} and mask must agree")
    return s, y, keep
