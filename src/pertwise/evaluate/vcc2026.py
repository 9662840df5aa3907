"""Members of the Virtual Cell Challenge 2026 that score tables of differential genes.

Both sides are cells tested against controls: log2 fold change, p and adjusted p of every gene. The
perturbed gene itself is no prediction and belongs out of `keep`. Definitions as in cell-eval2 0.20
(``de_wilcoxon_*``), whose values these are where the tables are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats

Flags = NDArray[np.bool_]
#: Share of right directions that a ranking must hold (calibrated by the challenge).
PURITY = 0.9
#: Fewer significant genes than this make no ratio of fold changes.
LEAST_GENES = 10


def sig_jaccard(truth: ArrayLike, answer: ArrayLike, keep: ArrayLike | None = None) -> Floats:
    """(n,) significant in both over significant in either; 1 where neither has any.

    Parameters
    ----------
    truth, answer
        (n, d) bool: adjusted p below the threshold.
    keep
        (n, d) bool: genes that count; None = all.
    """
    t, p = _flags(truth, answer, keep=keep)
    either = (t | p).sum(axis=1)
    return np.where(either > 0, (t & p).sum(axis=1) / np.maximum(either, 1), 1.0)


def lfc_error(
    truth: ArrayLike, answer: ArrayLike, significant: ArrayLike, keep: ArrayLike | None = None
) -> Floats:
    """(n,) sum |p - t| / sum |t| of log2 fold changes over the truly significant genes.

    1 for an answer of no change; a predicted value that is not finite counts as 0. NaN with fewer
    than `LEAST_GENES` such genes (``de_wilcoxon_lfc_nmae``).
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(answer, dtype=np.float64)
    (gate,) = _flags(significant, keep=keep)
    _same(t, p, gate)
    wrong = np.where(gate, np.abs(np.where(np.isfinite(p), p, 0.0) - t), 0.0).sum(axis=1)
    size = np.where(gate, np.abs(t), 0.0).sum(axis=1)
    known = (gate.sum(axis=1) >= LEAST_GENES) & np.isfinite(size) & (size > 0)
    return _share(wrong, size, known)


def direction_yield(
    truth: ArrayLike,
    answer: ArrayLike,
    significant: ArrayLike,
    called: ArrayLike,
    keep: ArrayLike | None = None,
) -> Floats:
    """(n,) called genes of the right direction over the larger of both sets of calls.

    Called genes whose true fold change is 0 or unknown tell nothing and are left out
    (``de_wilcoxon_direction_fidelity_yield_raw``). NaN where neither side has a gene.
    """
    right, told = _directions(truth, answer)
    real, own = _flags(significant, called, keep=keep)
    hits = (right & own).sum(axis=1)
    most = np.maximum((own & told).sum(axis=1), real.sum(axis=1))
    return _share(hits, most, most > 0)


def direction_reach(
    truth: ArrayLike,
    answer: ArrayLike,
    significant: ArrayLike,
    p_adjusted: ArrayLike,
    p_value: ArrayLike | None = None,
    keep: ArrayLike | None = None,
    *,
    alpha: float = 0.05,
) -> Floats:
    """(n,) deepest share of the truly significant genes, in the order in which the answer is sure
    of them, of which at least `PURITY` have the right direction.

    Order: adjusted p, then p, then the size of the fold change, then column
    (``de_wilcoxon_direction_reach_raw``). NaN where no gene is significant.
    """
    right, told = _directions(truth, answer)
    (real,) = _flags(significant, keep=keep)
    q = np.asarray(p_adjusted, dtype=np.float64)
    first = q if p_value is None else np.asarray(p_value, dtype=np.float64)
    size = np.abs(np.asarray(answer, dtype=np.float64))
    size = np.where(np.isnan(size), -np.inf, size)
    _same(right, real, q, first)
    found = np.full(len(right), np.nan)
    for i in range(len(right)):
        if not real[i].any():
            continue
        pool = np.flatnonzero(real[i] & told[i])
        late = [np.where(np.isnan(x), np.inf, x) for x in (first[i, pool], q[i, pool])]
        order = pool[np.lexsort((-size[i, pool], *late, ~(q[i, pool] < alpha)))]
        depth = np.arange(1, len(order) + 1)
        pure = np.flatnonzero(np.cumsum(right[i, order]) / depth >= PURITY)
        found[i] = (pure[-1] + 1 if len(pure) else 0) / real[i].sum()
    return found


def _share(part: ArrayLike, whole: ArrayLike, known: Flags) -> Floats:
    found: Floats = np.full(len(known), np.nan)
    np.divide(part, whole, out=found, where=known)
    return found


def _directions(truth: ArrayLike, answer: ArrayLike) -> tuple[Flags, Flags]:
    """Whether a direction is right, and whether the truth has one."""
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(answer, dtype=np.float64)
    _same(t, p)
    told = np.nan_to_num(t) != 0
    return told & (np.nan_to_num(p) != 0) & (np.sign(t) == np.sign(p)), told


def _flags(*calls: ArrayLike, keep: ArrayLike | None = None) -> list[Flags]:
    found = [np.asarray(c, dtype=bool) for c in calls]
    kept = np.ones_like(found[0]) if keep is None else np.asarray(keep, dtype=bool)
    _same(*found, kept)
    return [f & kept for f in found]


def _same(*arrays: NDArray[np.generic]) -> None:
    shapes = {a.shape for a in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 2:
        raise InputError(f"tables of genes have the shapes {sorted(shapes)}; all must be alike")
