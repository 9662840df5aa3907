"""Intervals and tests against hand calculation, scipy and simulation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pertwise.errors import InputError
from pertwise.evaluate import statistics as s


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.04 of m = 3: 3 x 0.01, 2 x 0.02, 1 x 0.04 -> 0.03, 0.04, 0.04
    np.testing.assert_allclose(s.holm([0.04, 0.01, np.nan, 0.02]), [0.04, 0.03, np.nan, 0.04])
    np.testing.assert_allclose(s.holm([0.9, 0.8]), [1.0, 1.0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_monotone_and_never_below_the_raw_value(p):
    adjusted = s.holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_wilcoxon_equals_scipy_and_handles_the_edges():
    d = np.random.default_rng(0).normal(0.4, 1, 25)
    statistic, p, n = s.wilcoxon_p(np.r_[d, np.nan])
    want = stats.wilcoxon(d)
    assert (statistic, n) == (want.statistic, 25)
    assert p == pytest.approx(want.pvalue)
    assert s.wilcoxon_p(np.zeros(5)) == (0.0, 1.0, 5)
    assert np.isnan(s.wilcoxon_p([1.0])[1])


def test_bootstrap_interval_has_its_level():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        interval = s.bootstrap_mean(rng.normal(2, 3, 60), rng, n_resamples=400)
        hits += interval.low <= 2 <= interval.high
    assert 0.89 <= hits / 200 <= 0.99


def test_bootstrap_edges():
    rng = np.random.default_rng(0)
    assert s.bootstrap_mean([np.nan], rng).n == 0
    one = s.bootstrap_mean([3.0, np.nan], rng)
    assert one.mean == 3
    assert np.isnan(one.low)
    with pytest.raises(InputError, match="level"):
        s.bootstrap_mean([1, 2], rng, level=95)
    a = s.bootstrap_mean(np.arange(9), np.random.default_rng(4))
    assert a == s.bootstrap_mean(np.arange(9), np.random.default_rng(4))


def test_compare_methods_is_paired():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 10, 80)  # how hard the perturbation is, shared by all methods
    table = pd.DataFrame({"a": hard, "b": hard + 0.5 + rng.normal(0, 0.5, 80), "c": hard})
    out = s.compare_methods(table, rng).set_index(["method_a", "method_b"])
    assert out.loc[("a", "b"), "p_holm"] < 1e-6
    assert out.loc[("a", "b"), "low"] < -0.5 < out.loc[("a", "b"), "high"] < 0
    assert out.loc[("a", "c"), "p"] == 1
    against = s.compare_methods(table, rng, reference="c")
    assert list(against["method_a"]) == ["a", "b"]
    with pytest.raises(InputError, match="reference method 'z'"):
        s.compare_methods(table, rng, reference="z")


def test_seed_summary_by_hand():
    values = pd.Series([1.0, 3.0, 4.0, 6.0])
    mean, error, n = s.summarise_seeds(values, pd.Series([0, 0, 1, 1]))
    assert (mean, n) == (3.5, 2)  # seed means 2 and 5
    assert error == pytest.approx(np.std([2, 5], ddof=1) / np.sqrt(2))


def test_strata():
    got = s.quantile_strata([3.0, np.nan, 1.0, 2.0, 4.0], 2)
    assert list(got) == [1, -1, 0, 0, 1]
    assert len(set(s.quantile_strata([5.0] * 6, 3))) == 1  # equal values stay together
