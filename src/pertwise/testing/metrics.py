"""The suite of metrics: ``check_metric(function)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_metric(
    metric: Callable[[NDArray[Any], NDArray[Any]], Any], *, better: str = "high"
) -> None:
    """Run every check; raises AssertionError at the first that fails.

    Parameters
    ----------
    metric
        ``metric(truth, prediction)`` of two (n, d) arrays -> (n,) values, one a perturbation.
    better
        "high", "low" or "one", as the metric declares.
    """
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(6, 40))
    near, far = truth + 0.1 * rng.normal(size=truth.shape), rng.normal(size=truth.shape)
    before = truth.copy(), near.copy()
    close, wrong = np.asarray(metric(truth, near)), np.asarray(metric(truth, far))
    assert close.shape == (6,), f"one value a perturbation, not {close.shape}"
    assert np.isfinite(close).all()
    np.testing.assert_array_equal(truth, before[0], "the truth must not be changed")
    np.testing.assert_array_equal(near, before[1], "the prediction must not be changed")
    loss = {
        "high": (-close, -wrong),
        "low": (close, wrong),
        "one": (abs(close - 1), abs(wrong - 1)),
    }
    assert loss[better][0].mean() < loss[better][1].mean(), f"better is {better}, but it is not"
    # A row depends on itself alone.
    order = rng.permutation(6)
    np.testing.assert_allclose(np.asarray(metric(truth[order], near[order])), close[order])
    # What was not measured is left out, and nothing measured is no score.
    holes = truth.copy()
    holes[0, :10] = np.nan
    holes[1] = np.nan
    got = np.asarray(metric(holes, near))
    kept = np.asarray(metric(truth[:1, 10:], near[:1, 10:]))
    np.testing.assert_allclose(got[0], kept[0], err_msg="NaN in the truth is not measured")
    assert np.isnan(got[1]), "nothing measured: NaN, never a number"
