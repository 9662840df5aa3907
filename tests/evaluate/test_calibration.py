"""Coverage and rank correlation of stated spread."""

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.evaluate.calibration import (
    interval_coverage,
    spread_and_error,
    spread_rank_correlation,
)


def test_gaussian_errors_are_covered_at_their_level():
    rng = np.random.default_rng(0)
    s = rng.uniform(0.5, 2, size=(200, 300))
    p = rng.normal(size=s.shape)
    t = p + s * rng.normal(size=s.shape)
    got = interval_coverage(t, p, s).mean()
    for level in (50, 80, 90, 95):
        assert got[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.01)
    assert interval_coverage(t, p, s / 2).mean()["coverage_90"] < 0.65


def test_by_hand_and_nan():
    t, p = np.array([[1.0, 5.0, np.nan]]), np.zeros((1, 3))
    got = interval_coverage(t, p, np.ones((1, 3)), levels=(0.95,))
    assert got.loc[0, "coverage_95"] == 0.5  # 1 <= 1.96 < 5; NaN does not count
    rms = spread_and_error(t, p, np.array([[2.0, 2.0, 9.0]]))
    assert rms.loc[0, "spread"] == 2
    assert rms.loc[0, "error"] == pytest.approx(np.sqrt(26 / 2))
    with pytest.raises(InputError, match="standard deviation"):
        interval_coverage(t, p, -np.ones((1, 3)))


def test_rank_correlation():
    assert spread_rank_correlation([1, 2, 3, np.nan], [10, 20, 40, 1]) == pytest.approx(1)
    assert np.isnan(spread_rank_correlation([1, 1, 1], [1, 2, 3]))
