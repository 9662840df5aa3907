"""Distances between two sets of cells."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats, metric

#: Rows of a distance block held at once: 512 x 10,000 cells is 40 MB.
BLOCK = 512


def _mean_distance(a: Floats, b: Floats, metric: str) -> float:
    from scipy.spatial.distance import cdist  # half a second to import

    total = 0.0
    for start in range(0, len(a), BLOCK):
        total += float(cdist(a[start : start + BLOCK], b, metric=metric).sum())
    return total


@metric("energy_distance", "energy distance of predicted and measured cells", "low", rows=False)
def energy_distance(
    x: ArrayLike,
    y: ArrayLike,
    *,
    metric: Literal["euclidean", "sqeuclidean"] = "euclidean",
    unbiased: bool = False,
) -> float:
    """Energy distance of two samples of cells: 2 E d(X, Y) - E d(X, X') - E d(Y, Y').

    Parameters
    ----------
    x, y
        (n_cells, n_features) each, no NaN.
    metric
        d. "euclidean" is the energy distance of Szekely & Rizzo (2013) and of cell-eval;
        "sqeuclidean" is the E-distance of Peidli et al. (2024, scPerturb), which equals twice the
        squared distance of the means when `unbiased` is False.
    unbiased
        Leave the zero distance of a cell to itself out of the two inner means (U statistic).

    Raises
    ------
    pertwise.errors.InputError
        For different features, missing values, or too few cells.
    """
    a, b = _samples("energy distance", x, y, 2 if unbiased else 1)
    off = 1 if unbiased else 0
    between = _mean_distance(a, b, metric) / (len(a) * len(b))
    within_a = _mean_distance(a, a, metric) / (len(a) * (len(a) - off))
    within_b = _mean_distance(b, b, metric) / (len(b) * (len(b) - off))
    return 2 * between - within_a - within_b


def mmd(x: ArrayLike, y: ArrayLike, *, bandwidth: float | None = None) -> float:
    """Unbiased squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012).

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j) with
    k(a, b) = exp(-||a - b||^2 / (2 s^2)); around 0 (also below) for samples of one distribution.

    Parameters
    ----------
    x, y
        (n_cells, n_features) each, at least two cells, no NaN.
    bandwidth
        s; None takes the median distance of all pairs of the two samples together.

    Raises
    ------
    pertwise.errors.InputError
        For different features, missing values, or too few cells.
    """
    from scipy.spatial.distance import cdist  # half a second to import

    a, b = _samples("mmd", x, y, 2)
    both = np.vstack([a, b])
    squared = cdist(both, both, metric="sqeuclidean")
    apart = ~np.eye(len(both), dtype=bool)
    s = float(np.median(np.sqrt(squared[apart]))) if bandwidth is None else bandwidth
    if s <= 0:
        return 0.0
    k = np.exp(-squared / (2.0 * s * s))
    n, m = len(a), len(b)
    within_a = (k[:n, :n].sum() - n) / (n * (n - 1))
    within_b = (k[n:, n:].sum() - m) / (m * (m - 1))
    return float(within_a + within_b - 2.0 * k[:n, n:].mean())


def _samples(what: str, x: ArrayLike, y: ArrayLike, least: int) -> tuple[Floats, Floats]:
    """Two complete sets of cells over the same features, at least so many each."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(f"cells have shapes {a.shape} and {b.shape}; features must agree")
    if len(a) < least or len(b) < least:
        raise InputError(f"{what} needs at least {least} cells a side, got {len(a)}, {len(b)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(f"cells hold NaN or infinite values; {what} needs complete cells")
    return a, b
