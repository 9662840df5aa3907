"""From the responses of chosen neighbours to one predicted response: pure array kernels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise.errors import InputError, unknown_name

Floats = NDArray[np.float64]
Aggregation = Literal["mean", "similarity", "rank", "median", "trimmed"]
AGGREGATIONS = ("mean", "similarity", "rank", "median", "trimmed")
#: Share of the neighbours cut from each end by "trimmed".
TRIM = 0.2
#: Below this share of weights that are not zero they are multiplied as a sparse matrix.
SPARSE = 0.05


def neighbour_weights(scores: Floats, how: Aggregation) -> Floats:
    """(k,) weights that sum to 1 from scores in rank order, best first.

    mean, median, trimmed: equal; similarity: proportional to max(score, 0) (equal if none is
    positive); rank: proportional to 1 / rank.
    """
    if how not in AGGREGATIONS:
        raise unknown_name("aggregation", str(how), AGGREGATIONS)
    k = len(scores)
    if k == 0:
        return np.zeros(0)
    if how == "similarity":
        weights = np.maximum(np.nan_to_num(scores), 0.0)
        if not weights.sum() > 0:
            weights = np.ones(k)
    elif how == "rank":
        weights = 1.0 / np.arange(1, k + 1)
    else:
        weights = np.ones(k)
    return np.asarray(weights / weights.sum())


def aggregate(values: Floats, weights: Floats, how: Aggregation = "mean") -> Floats:
    """(k, d) responses, (k,) weights -> (d,); NaN values are left out feature by feature.

    A feature that no neighbour has is NaN. "median" and "trimmed" (mean without the lowest and
    highest `TRIM` of the values) ignore the weights.
    """
    if how in ("mean", "similarity", "rank"):
        return np.asarray(weighted_mean(weights[None], values)[0])
    if how == "median":
        return _nan_safe(values, np.nanmedian)
    if how == "trimmed":
        return _nan_safe(values, _trimmed)
    raise unknown_name("aggregation", str(how), AGGREGATIONS)


def weighted_mean(weights: Floats, values: Floats) -> Floats:
    """(q, n) weights, (n, d) values -> (q, d) weighted means over the values that are not NaN.

    Rows without any weight on measured values are NaN.
    """
    measured = np.isfinite(values)
    # A few neighbours among thousands of measured rows: most weights are zero.
    few = np.count_nonzero(weights) < SPARSE * weights.size
    w = csr_matrix(weights) if few else weights
    if measured.all():
        total, share = w @ values, weights.sum(axis=1, keepdims=True)
    else:
        total, share = w @ np.nan_to_num(values), w @ measured.astype(np.float64)
    return np.asarray(np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0))


def disagreement(weights: Floats, values: Floats, mean: Floats) -> Floats:
    """(q, d) weighted standard deviation of the neighbours around `mean`.

    sqrt(sum_j w_j (y_j - mean)^2 / sum_j w_j), over measured values; 0 with one neighbour.
    """
    square = weighted_mean(weights, values**2) - mean * (2 * weighted_mean(weights, values) - mean)
    return np.asarray(np.sqrt(np.maximum(np.nan_to_num(square), 0.0)))


def shrink(neighbour_mean: Floats, support: Floats, centre: Floats, strength: float) -> Floats:
    """Towards the training mean, the more the thinner the support.

    (support * neighbour_mean + strength * centre) / (support + strength): `strength` is worth that
    much support. No support (or NaN) gives the centre.

    Parameters
    ----------
    neighbour_mean
        (q, d); support (q,): total weight behind each row; centre (d,).
    """
    if strength < 0:
        raise InputError(f"shrinkage strength must not be negative, got {strength}")
    share = np.divide(support, support + strength, out=np.zeros_like(support), where=support > 0)
    pulled = centre + share[:, None] * (neighbour_mean - centre)
    return np.asarray(np.where(np.isfinite(pulled), pulled, centre))


def choose_shrinkage(
    neighbour_mean: Floats, support: Floats, truth: Floats, centre: Floats, grid: Floats
) -> tuple[float, Floats]:
    """The strength with the least squared error on left-out training rows, and all errors.

    Parameters
    ----------
    neighbour_mean
        (n, d): every training row predicted from the others; truth (n, d) with NaN.
    """
    errors = np.array(
        [float(np.nansum((shrink(neighbour_mean, support, centre, s) - truth) ** 2)) for s in grid]
    )
    return float(grid[int(np.argmin(errors))]), errors


def calibration_scale(errors: Floats, spread: Floats, level: float = 0.9) -> float:
    """Factor on `spread` that makes central Gaussian intervals of `level` cover that share.

    The `level` quantile of |error| / spread over left-out training values, divided by the normal
    quantile (split-conformal calibration with a scaled residual, Lei et al. 2018). 1 if there is
    nothing to learn from.
    """
    from scipy.special import ndtri  # scipy.stats takes a second to import

    usable = np.isfinite(errors) & (spread > 0)
    if usable.sum() < 2:
        return 1.0
    ratio = np.abs(errors.ravel() if usable.all() else errors[usable], dtype=np.float64)
    ratio /= spread.ravel() if usable.all() else spread[usable]
    return float(np.quantile(ratio, level, overwrite_input=True) / ndtri((1 + level) / 2))


def _nan_safe(values: Floats, function: object) -> Floats:
    out = np.full(values.shape[1], np.nan)
    known = np.isfinite(values).any(axis=0)
    if known.any():
        out[known] = function(values[:, known], axis=0)  # type: ignore[operator]
    return out


def _trimmed(values: Floats, axis: int) -> Floats:
    ordered = np.sort(values, axis=axis)  # NaN last
    count = np.isfinite(values).sum(axis=axis)
    cut = np.floor(TRIM * count).astype(int)
    place = np.arange(len(values))[:, None]
    keep = (place >= cut) & (place < count - cut)
    return np.asarray(np.where(keep, np.nan_to_num(ordered), 0.0).sum(axis=axis) / keep.sum(axis))
