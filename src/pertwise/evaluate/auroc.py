"""Area under the ROC curve, for many groups at once, ties at half."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats


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
