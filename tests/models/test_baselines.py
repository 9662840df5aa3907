"""The two trivial predictors, by hand and through the conformance suite."""

import numpy as np
import pytest

from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError
from pertwise.models import ControlPredictor, TrainingMeanPredictor
from pertwise.screen.core import make_screen
from pertwise.testing.predictors import CHECKS, example_screen


@pytest.mark.parametrize("factory", [ControlPredictor, TrainingMeanPredictor])
@pytest.mark.parametrize("check", [c for c in CHECKS if c != "unknown_name"])
def test_conformance(factory, check):
    CHECKS[check](factory, example_screen(), None)


def test_training_mean_by_hand():
    x = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]])
    p = TrainingMeanPredictor().fit(make_screen(x, ["A", "B"], ["f", "g", "h"])).predict(["C"])
    np.testing.assert_allclose(p.mean, [[2.0, 2.0, 0.0]])
    # sqrt(((1-2)^2 + (3-2)^2) / 1); a single value has no deviation from itself
    np.testing.assert_allclose(p.spread, [[np.sqrt(2), 0.0, 0.0]], rtol=1e-6)
    assert p.support.loc["C", "n_support"] == 2


def test_control_is_zero_and_one_row_claims_no_spread():
    p = ControlPredictor().fit(make_screen([[1.0, -2.0]], ["A"], ["f", "g"])).predict(["B+A"])
    np.testing.assert_array_equal(p.mean, [[0.0, 0.0]])
    assert p.spread is None
    assert p.perturbations == ("A+B",)


def test_nothing_measured_and_not_fitted_are_refused():
    with pytest.raises(InputError, match="no measured perturbation"):
        TrainingMeanPredictor().fit(make_screen([[np.nan]], ["A"], ["f"]))
    with pytest.raises(InputError, match="has not been fitted"):
        ControlPredictor().predict(["A"])


def test_masked_mean_equals_nanmean():
    x = np.random.default_rng(0).normal(size=(5, 4))
    x[0, 0] = x[3, 2] = np.nan
    np.testing.assert_allclose(masked_mean(x), np.nanmean(x, axis=0))
