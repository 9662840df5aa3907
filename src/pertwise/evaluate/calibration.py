"""Do the stated error bars hold? Coverage of intervals and whether spread ranks error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri  # scipy.stats takes a second to import

from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats

LEVELS = (0.5, 0.8, 0.9, 0.95)


def _check(
    truth: ArrayLike, mean: ArrayLike, spread: ArrayLike
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    s = np.asarray(spread, dtype=np.float64)
    if not (t.shape == p.shape == s.shape) or t.ndim != 2:
        raise InputError(f"truth {t.shape}, mean {p.shape} and spread {s.shape} must agree")
    known = ~np.isnan(t)
    if (s < 0).any() or not np.isfinite(s[known]).all():
        raise InputError("spread must be finite and not negative: it is a standard deviation")
    return np.abs(t - p), s, known


def interval_coverage(
    truth: ArrayLike, mean: ArrayLike, spread: ArrayLike, levels: Sequence[float] = LEVELS
) -> pd.DataFrame:
    """Share of measured values inside the central Gaussian interval, per perturbation.

    A value is covered at level L when |t - p| <= z_L spread with z_L the (1 + L) / 2 quantile of
    the standard normal. `spread` is the standard deviation of the *observed* response, sampling
    noise included.

    Returns
    -------
    (n_perturbations, levels), columns "coverage_50" ...; NaN where nothing was measured.
    """
    error, s, known = _check(truth, mean, spread)
    count = known.sum(axis=1)
    out = {}
    for level in levels:
        inside = (error <= ndtri((1 + level) / 2) * s) & known
        value = np.full(len(error), np.nan)
        np.divide(inside.sum(axis=1), count, out=value, where=count > 0)
        out[f"coverage_{100 * level:g}"] = value
    return pd.DataFrame(out)


def spread_and_error(truth: ArrayLike, mean: ArrayLike, spread: ArrayLike) -> pd.DataFrame:
    """Root mean square over measured features of the spread and of the error, per perturbation."""
    error, s, known = _check(truth, mean, spread)
    count = np.maximum(known.sum(axis=1), 1)
    empty = known.sum(axis=1) == 0
    out = {}
    for name, values in (("spread", s), ("error", error)):
        squares = np.where(known, values, 0.0) ** 2
        rms = np.sqrt(squares.sum(axis=1) / count)
        out[name] = np.where(empty, np.nan, rms)
    return pd.DataFrame(out)


def spread_rank_correlation(spread: ArrayLike, error: ArrayLike) -> float:
    """Spearman correlation over perturbations of stated spread and realised error.

    NaN when either is constant or fewer than three pairs are known.
    """
    s, e = np.asarray(spread, dtype=np.float64), np.asarray(error, dtype=np.float64)
    known = ~np.isnan(s) & ~np.isnan(e)
    s, e = s[known], e[known]
    if len(s) < 3 or np.ptp(s) == 0 or np.ptp(e) == 0:
        return float("nan")
    from scipy import stats

    return float(stats.spearmanr(s, e).statistic)
