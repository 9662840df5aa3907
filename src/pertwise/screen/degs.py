"""Which features does a perturbation change? Tests from means and their sampling variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pertwise._names import split_combination
from pertwise.errors import InputError
from pertwise.screen.core import Screen

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FeatureTests:
    """Test of every (row, feature): statistic, two-sided p and q; NaN where not testable.

    Attributes
    ----------
    t, p, q
        (n_rows, n_features). t = delta / standard error; q: Benjamini-Hochberg over the features
        of a row.
    kind
        "t" (degrees of freedom from the cells) or "normal" (cells unknown).
    """

    t: FloatArray
    p: FloatArray
    q: FloatArray
    kind: str


def compare_to_control(
    delta: ArrayLike, variance: ArrayLike, n_cells: ArrayLike | None = None
) -> FeatureTests:
    """Welch-type test of ``delta = 0`` from the sampling variance of delta.

    With sufficient statistics of cells, the sampling variance is ``s1^2/n1 + s0^2/n0``, so
    ``t = delta / sqrt(variance)`` is Welch's statistic. The degrees of freedom are taken as
    ``n1 - 1``: Welch-Satterthwaite's are never fewer when there are at least as many control
    cells, so p is slightly too large rather than too small. Without cells: normal distribution.

    Parameters
    ----------
    delta, variance
        (n_rows, n_features); NaN = unknown; a variance of 0 is not testable.
    n_cells
        (n_rows,) perturbed cells, or None. Rows with fewer than two cells are not testable.

    Raises
    ------
    pertwise.errors.InputError
        If shapes differ or a variance is negative.
    """
    from scipy import stats

    d = np.asarray(delta, dtype=np.float64)
    v = np.asarray(variance, dtype=np.float64)
    if d.shape != v.shape or d.ndim != 2:
        raise InputError(f"delta has shape {d.shape}, variance {v.shape}; both must be 2-D alike")
    if (v < 0).any():
        raise InputError(f"a sampling variance is negative ({np.nanmin(v):.3g})")
    t = np.divide(d, np.sqrt(v), out=np.full_like(d, np.nan), where=v > 0)
    if n_cells is None:
        p = 2.0 * stats.norm.sf(np.abs(t))
        kind = "normal"
    else:
        degrees = np.asarray(n_cells, dtype=np.float64)[:, None] - 1.0
        degrees = np.where(degrees >= 1.0, degrees, np.nan)
        p = 2.0 * stats.t.sf(np.abs(t), degrees)
        kind = "t"
    return FeatureTests(t, p, adjust_fdr(p), kind)


def adjust_fdr(p: ArrayLike) -> FloatArray:
    """(n, d) Benjamini-Hochberg q-values within each row; NaN is neither counted nor adjusted.

    Benjamini and Hochberg 1995, J R Stat Soc B 57:289: with the m p-values of a row in order,
    q_(i) = min over j >= i of p_(j) m / j.
    """
    from scipy import stats

    values = np.asarray(p, dtype=np.float64)
    out = np.full_like(values, np.nan)
    for row, keep in enumerate(np.isfinite(values)):
        if keep.any():
            out[row, keep] = stats.false_discovery_control(values[row, keep])
    return out


def differential_features(
    screen: Screen, *, q_below: float = 0.05, top: int | None = None, own_target: bool = False
) -> pd.DataFrame:
    """Changed features of every row of a screen, strongest evidence first.

    Parameters
    ----------
    q_below
        Keep features with a q-value below this.
    top
        At most so many per row.
    own_target
        Keep the perturbed gene itself, whose fall is trivial.

    Returns
    -------
    Columns perturbation, context, dose, feature, delta, standard_error, t, p, q, rank (1 = first).

    Raises
    ------
    pertwise.errors.InputError
        If the screen has no sampling variance for each feature.
    """
    if screen.sampling_variance is None:
        raise InputError(
            "differential features need the sampling variance of each mean, which this screen "
            "does not have; pertwise screen pseudobulk records it"
        )
    cells = screen.obs["n_cells"].to_numpy(dtype=float)
    known = bool(np.isfinite(cells).all())
    tests = compare_to_control(screen.responses, screen.sampling_variance, cells if known else None)
    names = np.array(screen.features)
    parts = []
    for row in range(len(screen)):
        entry = screen.obs.iloc[row]
        good = tests.q[row] < q_below
        if not own_target:
            good &= ~np.isin(names, split_combination(entry["perturbation"]))
        picks = np.flatnonzero(good)
        # |t| decides, not p: p-values of strong effects all round to zero.
        picks = picks[np.argsort(-np.abs(tests.t[row, picks]), kind="stable")][:top]
        parts.append(
            pd.DataFrame(
                {
                    "perturbation": entry["perturbation"],
                    "context": entry["context"],
                    "dose": entry["dose"],
                    "feature": names[picks],
                    "delta": screen.responses[row, picks],
                    "standard_error": np.sqrt(screen.sampling_variance[row, picks]),
                    "t": tests.t[row, picks],
                    "p": tests.p[row, picks],
                    "q": tests.q[row, picks],
                    "rank": np.arange(1, len(picks) + 1),
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
