"""Is a difference real? Intervals and tests over perturbations, not over repeated scores.

The unit is the perturbation: a perturbation scored under several seeds is first averaged, because
its repeats share one measurement and are no further evidence about other perturbations. Folds of
one cross-validation share training data, so the tests treat the fitted methods as given and ask
whether the difference would hold for other perturbations of the same kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile bootstrap interval over n values (NaN left out)."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_mean(
    values: ArrayLike, rng: np.random.Generator, *, n_resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Mean of `values` with a percentile bootstrap interval (Efron & Tibshirani 1993).

    Give the *differences* of two methods per perturbation for a paired interval. NaN values are
    left out; with fewer than two left the interval is NaN.

    Raises
    ------
    pertwise.errors.InputError
        If `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, got {level}")
    x = np.asarray(values, dtype=np.float64).ravel()
    x = x[~np.isnan(x)]
    n = len(x)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    if n == 1:
        return Interval(float(x[0]), np.nan, np.nan, 1)
    means = np.empty(n_resamples)
    # Blocks keep the index table small for long inputs.
    step = max(1, 2_000_000 // n)
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        means[start : start + rows] = x[rng.integers(0, n, size=(rows, n))].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(x.mean()), float(low), float(high), n)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjusted p values (Holm 1979): controls the family-wise error rate.

    adjusted p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)), p sorted ascending. NaN (a test
    that could not be made) stays NaN and does not count into m.
    """
    p = np.asarray(p_values, dtype=np.float64)
    out = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    m = len(order)
    stepped = np.minimum((m - np.arange(m)) * p[order], 1.0)
    out[order] = np.maximum.accumulate(stepped) if m else stepped
    return out


def wilcoxon_p(differences: ArrayLike) -> tuple[float, float, int]:
    """Two-sided Wilcoxon signed-rank test of paired differences.

    Returns (statistic, p, n used). Zero differences are ranked and then dropped (Pratt 1959), so
    many exact ties do not make the rest look stronger. NaN pairs are left out; all zero or fewer
    than two pairs give p = 1 or NaN.
    """
    d = np.asarray(differences, dtype=np.float64).ravel()
    d = d[~np.isnan(d)]
    if len(d) < 2:
        return np.nan, np.nan, len(d)
    if not d.any():
        return 0.0, 1.0, len(d)
    from scipy import stats

    result = stats.wilcoxon(d, zero_method="pratt", method="auto")
    return float(result.statistic), float(result.pvalue), len(d)


def compare_methods(
    table: pd.DataFrame,
    rng: np.random.Generator,
    *,
    reference: str | None = None,
    n_resamples: int = 2000,
) -> pd.DataFrame:
    """All pairs of methods (or each against `reference`) on the same perturbations.

    Parameters
    ----------
    table
        (n_perturbations, n_methods): one score each, already averaged over seeds.

    Returns
    -------
    One row per pair: method_a, method_b, n, difference (mean a - b), low, high (paired bootstrap,
    95 %), statistic, p (Wilcoxon signed rank), p_holm (over the rows of this table).

    Raises
    ------
    pertwise.errors.InputError
        If `reference` is not a column.
    """
    methods = [str(c) for c in table.columns]
    if reference is not None and reference not in methods:
        raise InputError(f"reference method {reference!r} is not among {methods}")
    pairs = (
        list(itertools.combinations(methods, 2))
        if reference is None
        else [(m, reference) for m in methods if m != reference]
    )
    rows = []
    for a, b in pairs:
        difference = table[a].to_numpy(dtype=float) - table[b].to_numpy(dtype=float)
        interval = bootstrap_mean(difference, rng, n_resamples=n_resamples)
        statistic, p, n = wilcoxon_p(difference)
        rows.append((a, b, n, interval.mean, interval.low, interval.high, statistic, p))
    out = pd.DataFrame(
        rows,
        columns=["method_a", "method_b", "n", "difference", "low", "high", "statistic", "p"],
    )
    out["p_holm"] = holm(out["p"].to_numpy(dtype=float))
    return out


def summarise_seeds(values: pd.Series, seeds: pd.Series) -> tuple[float, float, int]:
    """Mean over seeds of the per-seed means, its standard error, and the number of seeds.

    The standard error (standard deviation over seeds / sqrt(seeds)) says how much the result
    depends on the splits and the training noise, not how it would vary over perturbations; NaN
    with one seed.
    """
    per_seed = values.groupby(seeds.to_numpy()).mean().dropna()
    n = len(per_seed)
    if n == 0:
        return np.nan, np.nan, 0
    error = float(per_seed.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan
    return float(per_seed.mean()), error, n


def quantile_strata(values: ArrayLike, n_strata: int) -> pd.Series:
    """Stratum of every value by quantile: 0 = smallest; equal values stay together.

    NaN values get stratum -1.
    """
    x = np.asarray(values, dtype=np.float64)
    if n_strata < 1:
        raise InputError(f"n_strata must be >= 1, got {n_strata}")
    out = np.full(len(x), -1)
    known = ~np.isnan(x)
    if known.any():
        edges = np.quantile(x[known], np.arange(1, n_strata) / n_strata)
        out[known] = np.searchsorted(edges, x[known], side="left")
    return pd.Series(out)


def cluster_interval(
    values: ArrayLike,
    clusters: Sequence[str] | NDArray[np.object_],
    rng: np.random.Generator,
    *,
    weights: ArrayLike | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Weighted mean over signatures with a bootstrap interval over clusters.

    Signatures of one compound in many lines are not independent, so whole compounds (in the
    unseen-line regime, whole lines) are drawn with replacement and the mean over their signatures
    is taken (cluster bootstrap, Davison & Hinkley 1997, 3.8). ``n`` counts clusters.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    ok = np.isfinite(x) & np.isfinite(w) & (w > 0)
    codes, distinct = pd.factorize(np.asarray(clusters, dtype=object)[ok], sort=True)
    if not len(distinct):
        return Interval(np.nan, np.nan, np.nan, 0)
    top = np.bincount(codes, weights=(w * x)[ok], minlength=len(distinct))
    bottom = np.bincount(codes, weights=w[ok], minlength=len(distinct))
    mean = float(top.sum() / bottom.sum())
    if len(distinct) < 2:
        return Interval(mean, np.nan, np.nan, len(distinct))
    drawn = rng.integers(0, len(distinct), size=(n_resamples, len(distinct)))
    means = top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), len(distinct))
