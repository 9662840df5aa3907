"""Differential genes: selection, ties, targets and overlap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pertwise.errors import InputError
from pertwise.evaluate import genes


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9999), d=st.integers(1, 12), k=st.integers(1, 14))
def test_top_mask_equals_sorting(seed, d, k):
    rng = np.random.default_rng(seed)
    score = rng.integers(-3, 4, size=(3, d)).astype(float)  # many ties
    score[rng.random((3, d)) < 0.2] = np.nan
    allowed = rng.random((3, d)) < 0.8
    got = genes.top_mask(score, k, allowed)
    for i in range(3):
        usable = [j for j in range(d) if allowed[i, j] and not np.isnan(score[i, j])]
        want = sorted(usable, key=lambda j: (-abs(score[i, j]), j))[:k]
        assert set(np.flatnonzero(got[i])) == set(want)


def test_score_prefers_signal_to_noise():
    delta = np.array([[2.0, 1.0, 0.0], [2.0, 1.0, np.nan]])
    variance = np.array([[4.0, 0.01, 1.0], [np.nan, np.nan, np.nan]])
    got = genes.differential_score(delta, variance)
    np.testing.assert_allclose(got[0], [1.0, 10.0, 0.0])
    np.testing.assert_allclose(got[1], [2.0, 1.0, np.nan])  # unknown variance: |delta|
    np.testing.assert_allclose(genes.differential_score(delta)[0], [2, 1, 0])


def test_welch_equals_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 2, size=(30, 4)), rng.normal(0, 1, size=(50, 4))
    got = genes.welch_t(
        x.mean(0)[None], x.var(0, ddof=1)[None], [30], (y.mean(0), y.var(0, ddof=1), 50)
    )
    np.testing.assert_allclose(got[0], stats.ttest_ind(x, y, equal_var=False).statistic)


def test_target_is_left_out_for_every_part():
    mask = genes.target_mask(["A", "B+C", "Z"], ["A", "B", "C", "D"])
    np.testing.assert_array_equal(
        mask, [[False, True, True, True], [True, False, False, True], [True] * 4]
    )


def test_overlap_by_hand():
    t = np.array([[5.0, -4.0, 3.0, 1.0, 0.5]])
    p = np.array([[0.1, -9.0, 8.0, 7.0, 0.0]])
    assert genes.de_overlap(t, p, 2)[0] == 0.5  # {0, 1} and {1, 2}
    assert genes.de_overlap(t, p, 3)[0] == pytest.approx(2 / 3)
    sig_t = np.array([[True, True, False, False, False]])
    sig_p = np.array([[False, True, True, True, False]])
    # two significant in truth: {0, 1} against the top two significant predicted {1, 2}
    got = genes.de_overlap(t, p, None, truth_significant=sig_t, prediction_significant=sig_p)
    assert got[0] == 0.5
    # three claimed: {0, 1} against {1, 2, 3}, one of three right
    got = genes.de_overlap(
        t, p, None, truth_significant=sig_t, prediction_significant=sig_p, divide_by="prediction"
    )
    assert got[0] == pytest.approx(1 / 3)
    none = np.zeros_like(sig_t)
    assert np.isnan(genes.de_overlap(t, p, 2, truth_significant=none)[0])
    assert genes.significant_recall(sig_t, sig_p)[0] == 0.5
    assert np.isnan(genes.significant_recall(none, sig_p)[0])


def test_the_two_ways_of_taking_the_top_agree():
    rng = np.random.default_rng(2)
    score = rng.integers(0, 5, size=(6, 20)).astype(float)
    usable = rng.random((6, 20)) < 0.9
    fixed = genes.top_mask(score, 7, usable)
    ragged = genes._ragged_top(score, usable, np.full(6, 7))
    np.testing.assert_array_equal(fixed, ragged)


def test_adjusted_p_values_by_hand():
    got = genes.benjamini_hochberg([[0.01, 0.04, np.nan, 0.03]])
    np.testing.assert_allclose(got, [[0.03, 0.04, np.nan, 0.04]])


def test_k_below_one_is_refused():
    with pytest.raises(InputError, match="k >= 1"):
        genes.top_mask(np.zeros((1, 2)), 0)
