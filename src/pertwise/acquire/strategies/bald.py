"""BALD: information that one measurement would give about which ensemble member is right."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    best_first,
    check_n,
    random_start,
    selection,
    tie_order,
)
from pertwise.errors import InputError
from pertwise.select.base import Selection


def bald(members: NDArray[Any], noise: float | Floats) -> Floats:
    """Mutual information between a measurement and the ensemble member, in nats.

    Houlsby et al. 2011 (arXiv:1112.5745): I[y; m | p] = H[y | p] - E_m H[y | p, m]. For
    regression with Gaussian noise of variance s2, the mixture over members replaced by the
    Gaussian with its moments, and features taken one by one and averaged:

        bald(p) = mean_d 1/2 log(1 + v_d(p) / s2),   v_d(p) = sum_m (f_m,d - mean_m f_m,d)^2 / (M-1)

    Unlike u(p) = mean_d v_d(p), one feature on which members disagree wildly cannot outweigh
    many on which they disagree moderately.

    Parameters
    ----------
    members
        (n_members, n_candidates, n_features) predictions.
    noise
        s2 > 0, one for all features or (n_features,) one each.

    Returns
    -------
    (n_candidates,) float64, >= 0.
    """
    if len(members) < 2:
        raise InputError(f"bald needs at least 2 ensemble members, got {len(members)}")
    variance = np.asarray(members, dtype=np.float64).var(axis=0, ddof=1)
    information: Floats = 0.5 * np.log1p(variance / noise).mean(axis=1)
    return information


def noise_level(state: AcquisitionState) -> tuple[float, str]:
    """Noise variance of one feature and where it comes from.

    The screen's sampling variance when known, else the median over candidates of u(p): then a
    typical candidate has signal-to-noise 1.
    """
    if state.noise_variance is not None and state.noise_variance > 0:
        return float(state.noise_variance), "sampling variance of the screen"
    if state.uncertainty is not None:
        middle = float(np.median(state.uncertainty.to_numpy(dtype=float)))
        if middle > 0:
            return middle, "median ensemble variance (the screen does not state its noise)"
    return 1.0, "1 (nothing known about the noise)"


def provenance(name: str, noise: float, noise_from: str) -> dict[str, Any]:
    """What a strategy of information tells of its noise."""
    return {"strategy": name, "noise_variance": noise, "noise_from": noise_from}


def feature_noise(state: AcquisitionState) -> Floats | None:
    """(n_target_features,) mean sampling variance of each feature; None where it is not known."""
    screen = state.screen
    if screen is None or screen.sampling_variance is None:
        return None
    variance = np.asarray(screen.sampling_variance, dtype=np.float64)
    if state.target.features is not None:
        at = {f: i for i, f in enumerate(screen.features)}
        variance = variance[:, [at[f] for f in state.target.features if f in at]]
    with np.errstate(invalid="ignore"):
        found: Floats = np.nanmean(variance, axis=0)
    return found if np.isfinite(found).all() and (found > 0).all() else None


class Bald:
    """BALD: information that one measurement would give about which ensemble member is right.

    Utility = `bald`; the batch is the top n, chosen one by one. Cold start: random.

    Parameters
    ----------
    noise
        "mean": one aleatoric variance for all features. "feature": each feature its own sampling
        variance, where the screen states them, so that disagreement counts by what a measurement
        of that feature can settle.
    """

    name = "bald"
    needs = "members"

    def __init__(self, noise: Literal["mean", "feature"] = "mean") -> None:
        if noise not in ("mean", "feature"):
            raise InputError(f"bald: noise {noise!r} is not one of mean, feature")
        self.noise = noise

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """The `n` most informative candidates."""
        check_n(n)
        if state.member_predictions is None:
            return random_start(state, n, self.name)
        noise, noise_source = noise_level(state)
        own = feature_noise(state) if self.noise == "feature" else None
        if own is not None and len(own) == state.member_predictions.shape[2]:
            noise, noise_source = float(own.mean()), "sampling variance of each feature"
            utilities = bald(state.member_predictions, own)
        else:
            utilities = bald(state.member_predictions, noise)
        order = best_first(utilities, tie_order(state.candidates))[:n]
        reasons = {
            int(j): f"members disagree: {utilities[j]:.3g} nats a feature, rank {i + 1} of "
            f"{len(utilities)}"
            for i, j in enumerate(order)
        }
        noted = provenance(self.name, noise, noise_source)
        return selection(state, order, utilities, reasons, self.name, provenance=noted)
