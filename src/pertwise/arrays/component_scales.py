"""Predictions rescaled by blocks of the principal components of what they were learned from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Blocks of principal components with a scale of their own: 1, 2, 3-4, ..., 129-256, rest.
N_BLOCKS = 10
#: Components in front of the last block, which needs none: it is what they leave over.
LEADING = 2 ** (N_BLOCKS - 2)
#: Above so many rows the leading components are found by subspace iteration. All of them cost ten
#: times a factorisation; `benchmarks/component_axes.py` measures what that costs in accuracy.
EXACT_ROWS = 1_000


def leading_maps(gram: Floats) -> Floats:
    """(n, n) X X^T -> (n, r) M: the rows of M^T X are orthonormal principal directions of X.

    Strongest first, and not centred: the rows of X are deviations already. At most `LEADING`;
    directions below 1e-8 of the largest variance are left out. Signs are arbitrary and do not
    matter where the directions are used.
    """
    if len(gram) <= EXACT_ROWS:
        variance, vectors = np.linalg.eigh(gram)
    else:
        from sklearn.utils.extmath import randomized_svd

        vectors, variance, _ = randomized_svd(
            gram, LEADING, n_oversamples=LEADING // 4, n_iter=4, random_state=0
        )
    order = np.argsort(-variance, kind="stable")[:LEADING]
    variance, vectors = variance[order], vectors[:, order]
    keep = variance > 1e-8 * max(float(variance[0]), 1e-300)
    return np.asarray(vectors[:, keep] / np.sqrt(variance[keep]))


def component_block(n: int) -> NDArray[np.int64]:
    """(n,) block of each component: sizes 1, 1, 2, 4, 8, ..., the last one open."""
    index = np.arange(1, n + 1, dtype=np.float64)
    return np.minimum(np.ceil(np.log2(index)), N_BLOCKS - 1).astype(np.int64)


def block_products(a: Floats, b: Floats, whole: float) -> Floats:
    """(N_BLOCKS,) inner product of two matrices in each block of components.

    Parameters
    ----------
    a, b
        (n, r) their coordinates along the r leading directions.
    whole
        Their inner product: the last block holds what the leading directions leave of it.
    """
    along = (a * b).sum(axis=0)
    out = np.bincount(component_block(len(along)), along, N_BLOCKS).astype(np.float64)
    if len(along) == LEADING:
        out[-1] = whole - along.sum()
        if a is b:
            out[-1] = max(0.0, out[-1])
    return out


def rescaled(rows: Floats, along: Floats, maps: Floats, scales: Floats) -> Floats:
    """(m, n) C of combinations C X, so that each block of their components is scaled.

    Parameters
    ----------
    rows, along
        (m, n) combinations as they are, and (m, r) their coordinates along the directions.
    maps
        (n, r) `leading_maps` of X X^T.
    """
    factor = scales[component_block(maps.shape[1])]
    if maps.shape[1] < LEADING:
        return np.asarray((along * factor) @ maps.T)
    return np.asarray(scales[-1] * rows + (along * (factor - scales[-1])) @ maps.T)


def best_scale(inner: float, square: float) -> float:
    """s >= 0 minimising |E - s P|^2, given inner = <E, P> and square = <P, P>."""
    return inner / square if square > 0 and inner > 0 else 0.0


def block_scales(inner: Floats, square: Floats) -> Floats:
    """(n_blocks,) scale of each block, pulled to the scale of all blocks by empirical Bayes.

    Parameters
    ----------
    inner, square
        (n_folds, n_blocks) <E, P> and <P, P> on each held-out fold.

    With s_b = sum inner / sum square, its jackknife variance v_b over folds, the common scale s
    and the variance t between blocks beyond chance (DerSimonian & Laird 1986, Control. Clin.
    Trials 7:177), the scale is max(0, (t s_b + v_b s) / (t + v_b)): blocks keep scales of their own
    only as far as the folds agree that they differ.
    """
    top, bottom = inner.sum(axis=0), square.sum(axis=0)
    common = best_scale(float(top.sum()), float(bottom.sum()))
    n_folds = len(inner)
    used = (bottom > 0) & ((bottom - square) > 0).all(axis=0)
    out = np.full(inner.shape[1], common)
    if n_folds < 2 or used.sum() < 2:
        return out
    own = top[used] / bottom[used]
    left_out = (top - inner)[:, used] / (bottom - square)[:, used]
    variance = (n_folds - 1) * np.var(left_out, axis=0) + 1e-12
    weight = 1.0 / variance
    centre = float(weight @ own / weight.sum())
    excess = float(weight @ (own - centre) ** 2) - (len(own) - 1)
    between = max(0.0, excess / float(weight.sum() - (weight**2).sum() / weight.sum()))
    out[used] = np.maximum((between * own + variance * common) / (between + variance), 0.0)
    return out
