"""How well could anything predict these measurements? Reliability and what it bounds.

A measured response x is a true response s plus sampling noise e. With reliability
rel = var(s) / (var(s) + var(e)) (variation over features), two independent measurements of the
same perturbation correlate with rel on average, and a *perfect* prediction (s itself) correlates
with x with sqrt(rel) (Spearman 1904, correction for attenuation). Both are reported: `replicate` =
rel, the reproducibility ceiling of the papers (how well a repeat of the experiment predicts it),
and `perfect` = sqrt(rel), the bound for a prediction without noise.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats, cosine, pearson_delta

Similarity = Literal["pearson", "cosine"]


def spearman_brown(r: ArrayLike, factor: float = 2.0) -> Floats:
    """Reliability of a sample `factor` times as large: f r / (1 + (f - 1) r).

    Spearman (1910) and Brown (1910).

    With factor 2: from the correlation of two halves to the full sample. Not defined for
    r <= -1 / (f - 1), where it returns NaN.
    """
    x = np.asarray(r, dtype=np.float64)
    bottom = 1.0 + (factor - 1.0) * x
    out = np.full(x.shape, np.nan)
    np.divide(factor * x, bottom, out=out, where=bottom > 0)
    return out


def split_half(
    cells: ArrayLike,
    controls: ArrayLike,
    rng: np.random.Generator,
    *,
    n_splits: int = 20,
    similarity: Similarity = "pearson",
) -> tuple[float, float]:
    """Reliability of one perturbation's response from random halves of its cells.

    Each split halves the perturbed *and* the control cells, so that the two deltas share no cell
    (a shared control mean would make them agree by its noise). The mean over splits of the
    similarity of the halves is corrected to the full sample by Spearman-Brown.

    Parameters
    ----------
    cells, controls
        (n_cells, n_features) normalised expression.

    Returns
    -------
    similarity of the halves (mean over splits), and corrected to the full sample.

    Raises
    ------
    pertwise.errors.InputError
        If either side has fewer than two cells.
    """
    x, c = np.asarray(cells, dtype=np.float64), np.asarray(controls, dtype=np.float64)
    if len(x) < 2 or len(c) < 2:
        raise InputError(f"halves need >= 2 cells, got {len(x)} perturbed and {len(c)} control")
    deltas = np.empty((2, n_splits, x.shape[1]))
    for i in range(n_splits):
        a, b = rng.permutation(len(x)), rng.permutation(len(c))
        for side, (rows, control_rows) in enumerate(
            (
                (a[: len(a) // 2], b[: len(b) // 2]),
                (a[len(a) // 2 :], b[len(b) // 2 :]),
            )
        ):
            deltas[side, i] = x[rows].mean(axis=0) - c[control_rows].mean(axis=0)
    kernel = pearson_delta if similarity == "pearson" else cosine
    half = float(np.nanmean(kernel(deltas[0], deltas[1])))
    return half, float(spearman_brown(half))


def ceiling_from_variance(
    delta: ArrayLike, sampling_variance: ArrayLike, *, similarity: Similarity = "cosine"
) -> pd.DataFrame:
    """Ceilings when only means and their sampling variance exist.

    E \\|\\|x\\|\\|^2 = \\|\\|s\\|\\|^2 + V with V the sampling variance summed over features, so
    rel = max(0, \\|\\|x\\|\\|^2 - V) / \\|\\|x\\|\\|^2 for the cosine. For Pearson the same with
    each response's mean over features removed, of which noise keeps V (1 - 1/d).

    Parameters
    ----------
    delta
        (n, d) measured responses; NaN left out.
    sampling_variance
        (n,) summed over features, or (n, d) per feature; NaN = unknown gives NaN ceilings.

    Returns
    -------
    Columns effect (length of the true response, sqrt(max(0, \\|\\|x\\|\\|^2 - V))), noise (V,
    which is also the squared error that a perfect prediction cannot avoid on average), replicate
    (rel) and perfect (sqrt(rel)).
    """
    x = np.asarray(delta, dtype=np.float64)
    v = np.asarray(sampling_variance, dtype=np.float64)
    measured = ~np.isnan(x)
    count = measured.sum(axis=1)
    if v.ndim == 2:
        if v.shape != x.shape:
            raise InputError(f"sampling variance has shape {v.shape}, the responses {x.shape}")
        unknown = (np.isnan(v) & measured).any(axis=1)
        v = np.where(measured, np.nan_to_num(v), 0.0).sum(axis=1)
        v[unknown] = np.nan
    elif v.shape != (len(x),):
        raise InputError(
            f"sampling variance has shape {v.shape}, expected ({len(x)},) or {x.shape}"
        )
    clean = np.where(measured, x, 0.0)
    total = (clean**2).sum(axis=1)
    noise = v
    if similarity == "pearson":
        centre = clean.sum(axis=1) / np.maximum(count, 1)
        shape = np.where(measured, clean - centre[:, None], 0.0)
        spread, shape_noise = (shape**2).sum(axis=1), v * (1 - 1 / np.maximum(count, 1))
    else:
        spread, shape_noise = total, v
    reliability = np.full(len(x), np.nan)
    known = (spread > 0) & ~np.isnan(v)
    reliability[known] = np.maximum(0.0, spread[known] - shape_noise[known]) / spread[known]
    return pd.DataFrame(
        {
            "effect": np.sqrt(np.maximum(0.0, total - noise)),
            "noise": noise,
            "replicate": reliability,
            "perfect": np.sqrt(reliability),
        }
    )


def share_of_ceiling(value: ArrayLike, ceiling: ArrayLike, least: float = 0.1) -> Floats:
    """value / ceiling; NaN where the ceiling is below `least` (a ratio of noise to noise)."""
    v, c = np.asarray(value, dtype=np.float64), np.asarray(ceiling, dtype=np.float64)
    out = np.full(np.broadcast_shapes(v.shape, c.shape), np.nan)
    np.divide(v, c, out=out, where=c >= least)
    return out
