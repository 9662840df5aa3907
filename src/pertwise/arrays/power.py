"""Power of the test of one mean against controls, at a level or at a false discovery rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
#: Smallest level that is searched for.
_LEAST = 1e-12


def t_power(effect: ArrayLike, sd: ArrayLike, n: float, m: float, level: float) -> Floats:
    """Power of the two-sided t test of n perturbed against m control cells at `level`.

    With the standard error sd sqrt(1/n + 1/m) the statistic is noncentral t with noncentrality
    effect / error; its degrees of freedom are n - 1, as in `screen.degs.compare_to_control`. The
    chance of a result on the wrong side is counted (Cohen 1988, chapter 2).

    Parameters
    ----------
    effect, sd
        Broadcast together, in one unit; sd > 0 of single cells.
    n, m
        At least 2 and 1; m may be infinite.
    """
    from scipy import stats

    degrees = n - 1.0
    shift = np.abs(np.asarray(effect, dtype=float)) / (
        np.asarray(sd, dtype=float) * np.sqrt(1.0 / n + 1.0 / m)
    )
    critical = stats.t.isf(level / 2.0, degrees)
    with np.errstate(all="ignore"):
        right = stats.nct.sf(critical, degrees, shift)
        left = stats.nct.cdf(-critical, degrees, shift)
    # Far out scipy's series ends in NaN; the normal distribution is exact enough there.
    right = np.where(np.isfinite(right), right, stats.norm.sf(critical - shift))
    return np.asarray(np.clip(right + np.nan_to_num(left), 0.0, 1.0))


def fdr_level(
    effect: ArrayLike, sd: ArrayLike, n: float, m: float, rate: float, changed: float
) -> float:
    """The level at which tests of many features have false discovery rate `rate` on average.

    With a share `changed` of features that have the effect and mean power B(a) at level a, the
    expected rate is (1 - changed) a / ((1 - changed) a + changed B(a)); a solves it for `rate`
    (Jung 2005, Bioinformatics 21:3097; Liu and Hwang 2007, Bioinformatics 23:739). Benjamini and
    Hochberg's procedure holds the rate at (1 - changed) times its setting, so a test at setting
    q is planned with rate = q (1 - changed).

    Returns
    -------
    0 when no level above 1e-12 does: nothing is found then.
    """
    from scipy.optimize import brentq

    odds = rate / (1.0 - rate) * changed / (1.0 - changed)

    def excess(log_level: float) -> float:
        level = float(np.exp(log_level))
        return log_level - float(
            np.log(max(odds * float(t_power(effect, sd, n, m, level).mean()), 1e-300))
        )

    low, high = float(np.log(_LEAST)), 0.0
    if excess(low) > 0:
        return 0.0
    # Below the root the power per level is larger than needed, above it smaller.
    if excess(high) < 0:
        return 1.0
    return float(np.exp(brentq(excess, low, high, xtol=1e-4)))


def null_share(p: ArrayLike, lam: float = 0.5) -> float:
    """Share of true null hypotheses: #(p > lam) / ((1 - lam) #p), at most 1 (Storey 2002)."""
    values = np.asarray(p, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return 1.0
    return float(min(1.0, (values > lam).mean() / (1.0 - lam)))
