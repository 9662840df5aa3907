"""What a screen says about the noise of single cells and about the size of its effects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pertwise.arrays.power import null_share
from pertwise.errors import InputError
from pertwise.screen import Screen
from pertwise.screen.degs import compare_to_control

Floats = NDArray[np.float64]
#: Standard deviations that stand for all features: power is averaged over them.
_QUANTILES = 41


@dataclass(frozen=True)
class Noise:
    """What a screen says about its cells and its effects.

    Attributes
    ----------
    sd
        (k,) standard deviations of single cells, evenly spaced quantiles over the features.
    changed
        Share of (row, feature) pairs that are changed; 0 when none can be told from noise.
    effect
        Root mean square effect of the changed ones, in the unit of the screen; NaN without any.
    cells, controls
        Median cells of a perturbation and control cells of the screen (NaN: not stated).
    """

    sd: Floats
    changed: float
    effect: float
    cells: float
    controls: float
    unit: str


def screen_noise(screen: Screen, features: Sequence[str] | None = None) -> Noise:
    """Noise and effects of the measured rows of a screen of one context.

    Raises
    ------
    pertwise.errors.InputError
        When the screen states no sampling variances or no cells.
    """
    rows = screen.measured & (screen.obs["n_cells"].to_numpy(dtype=float) > 0)
    cells = screen.obs["n_cells"].to_numpy(dtype=float)[rows]
    columns = [screen.features.index(f) for f in features or screen.features]
    if screen.sampling_variance is not None:
        v = screen.sampling_variance[rows][:, columns].astype(float)
    else:
        # Only the sum over features is known: each then counts with the mean.
        total = screen.obs["sampling_variance"].to_numpy(dtype=float)[rows]
        v = np.repeat(total[:, None] / screen.n_features, len(columns), axis=1)
    if not rows.any() or not (v > 0).any():
        raise InputError(
            "advice on cells needs the cells and the sampling variance of every mean, which this "
            "screen does not state; pertwise screen pseudobulk records both"
        )
    counted = screen.meta.get("control_cells")
    stated = counted.get(screen.contexts[0]) if isinstance(counted, dict) else None
    controls = float(stated) if stated else math.nan
    share = 0.0 if math.isnan(controls) else 1.0 / controls
    single = v / (1.0 / cells[:, None] + share)
    with np.errstate(all="ignore"):
        sd = np.sqrt(np.nanmedian(np.where(v > 0, single, np.nan), axis=0))
    sd = sd[np.isfinite(sd)]
    delta = screen.responses[rows][:, columns].astype(float)
    p = compare_to_control(delta, v, cells).p
    seen = np.isfinite(p)
    changed = 1.0 - null_share(p[seen]) if seen.any() else 0.0
    excess = float(np.mean(delta[seen] ** 2 - v[seen])) if seen.any() else 0.0
    effect = math.sqrt(excess / changed) if changed > 0 and excess > 0 else math.nan
    return Noise(
        sd=np.quantile(sd, (np.arange(_QUANTILES) + 0.5) / _QUANTILES),
        changed=changed if math.isfinite(effect) else 0.0,
        effect=effect,
        cells=float(np.median(cells)),
        controls=controls,
        unit=str(screen.meta.get("unit", "")),
    )
