"""Aggregation by hand and against loops."""

import numpy as np
import pytest

from pertwise.arrays.aggregate import (
    AGGREGATIONS,
    aggregate,
    calibration_scale,
    choose_shrinkage,
    disagreement,
    neighbour_weights,
    shrink,
    weighted_mean,
)
from pertwise.errors import InputError


def test_weights_by_hand():
    scores = np.array([0.6, 0.3, -1.0])
    np.testing.assert_allclose(neighbour_weights(scores, "similarity"), [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(neighbour_weights(scores, "rank"), np.array([6, 3, 2]) / 11)
    np.testing.assert_allclose(neighbour_weights(-(scores**2), "similarity"), [1 / 3] * 3)
    with pytest.raises(InputError, match="aggregation"):
        neighbour_weights(scores, "best")


def test_aggregates_by_hand():
    y = np.array([[1.0, 2.0], [2.0, np.nan], [3.0, 4.0], [10.0, np.nan], [4.0, np.nan]])
    equal = np.full(5, 0.2)
    np.testing.assert_allclose(aggregate(y, equal, "mean"), [4.0, 3.0])
    np.testing.assert_allclose(aggregate(y, equal, "median"), [3.0, 3.0])
    np.testing.assert_allclose(aggregate(y, equal, "trimmed"), [3.0, 3.0])
    np.testing.assert_allclose(aggregate(y, np.array([0.5, 0, 0.5, 0, 0]), "rank"), [2.0, 3.0])
    for how in AGGREGATIONS:
        assert np.isnan(aggregate(np.full((2, 1), np.nan), np.array([0.5, 0.5]), how)).all()


def test_weighted_mean_and_disagreement_against_a_loop():
    rng = np.random.default_rng(0)
    y, w = rng.normal(size=(6, 4)), rng.random((3, 6))
    y[1, 2] = y[4, 0] = np.nan
    mean = weighted_mean(w, y)
    spread = disagreement(w, y, mean)
    for i in range(3):
        for d in range(4):
            ok = np.isfinite(y[:, d])
            m = (w[i, ok] * y[ok, d]).sum() / w[i, ok].sum()
            s = np.sqrt((w[i, ok] * (y[ok, d] - m) ** 2).sum() / w[i, ok].sum())
            assert mean[i, d] == pytest.approx(m)
            assert spread[i, d] == pytest.approx(s)


@pytest.mark.parametrize("gaps", [False, True])
def test_few_neighbours_among_many_are_averaged_alike(gaps):
    rng = np.random.default_rng(4)
    y = rng.normal(size=(200, 5))
    w = np.zeros((3, 200))
    w[0, [3, 50, 199]] = 1 / 3
    w[1, 7] = 1.0
    if gaps:
        y[50, 1] = y[7, 0] = np.nan
    got = weighted_mean(w, y)
    np.testing.assert_allclose(got[0], np.nanmean(y[[3, 50, 199]], axis=0))
    np.testing.assert_array_equal(got[1], y[7])
    assert np.isnan(got[2]).all()


def test_shrinkage_by_hand_and_chosen():
    centre = np.array([1.0])
    near = np.array([[3.0], [np.nan]])
    np.testing.assert_allclose(shrink(near, np.array([2.0, 0.0]), centre, 2.0), [[2.0], [1.0]])
    # the truth lies half way between neighbours and centre: two units of prior on two of support
    truth = np.array([[2.0], [np.nan]])
    best, errors = choose_shrinkage(
        near, np.array([2.0, 0.0]), truth, centre, np.array([0.0, 2.0, 8.0])
    )
    assert best == 2.0
    assert errors[1] == pytest.approx(0.0)
    with pytest.raises(InputError, match="negative"):
        shrink(near, np.array([2.0, 0.0]), centre, -1.0)


def test_calibration_restores_coverage():
    rng = np.random.default_rng(1)
    error = 3.0 * rng.normal(size=(200, 50))
    scale = calibration_scale(error, np.ones_like(error))
    assert scale == pytest.approx(3.0, rel=0.03)
    assert calibration_scale(np.array([np.nan]), np.ones(1)) == 1.0
