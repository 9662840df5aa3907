"""Per-perturbation kernels against hand calculation and a naive loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pertwise.errors import InputError
from pertwise.evaluate import metrics as m

T = np.array([[1.0, -2.0, 3.0, np.nan]])
P = np.array([[2.0, -2.0, 0.0, 50.0]])


def test_by_hand():
    # differences: 1, 0, -3 over the three measured features
    assert m.mse(T, P)[0] == pytest.approx(10 / 3)
    assert m.mae(T, P)[0] == pytest.approx(4 / 3)
    assert m.squared_error(T, P)[0] == pytest.approx(10 / 3 * 4)  # scaled to all four
    assert m.cosine(T, P)[0] == pytest.approx((2 + 4 + 0) / np.sqrt(14 * 8))
    assert m.direction_accuracy(T, P)[0] == pytest.approx(2 / 3)  # zero is no call
    # t - mean = (1/3, -8/3, 7/3), p - mean = (2, -2, 0): sum of products 6, squares of p 8
    assert m.regression_slope(T, P)[0] == pytest.approx(6 / 8)
    total = 14 - 3 * (2 / 3) ** 2
    assert m.pearson_delta(T, P)[0] == pytest.approx(6 / np.sqrt(total * 8))
    assert m.r_squared(T, P)[0] == pytest.approx(1 - 10 / total)


def test_pearson_reference_by_hand():
    ref = np.array([1.0, 0.0, 1.0, 0.0])
    a, b = np.array([0.0, -2.0, 2.0]), np.array([1.0, -2.0, -1.0])
    expected = stats.pearsonr(a, b).statistic
    assert m.pearson_reference(T, P, ref)[0] == pytest.approx(expected)
    # a NaN reference leaves the feature out
    ref2 = np.array([1.0, np.nan, 1.0, 0.0])
    assert m.pearson_reference(T, P, ref2)[0] == pytest.approx(-1.0)


def naive(t, p, mask):
    f = mask & ~np.isnan(t)
    t, p = t[f], p[f]
    if not len(t):
        return None
    out = {"mse": np.mean((t - p) ** 2), "mae": np.mean(abs(t - p))}
    if np.linalg.norm(t) and np.linalg.norm(p):
        out["cosine"] = t @ p / np.linalg.norm(t) / np.linalg.norm(p)
    if len(t) > 2 and np.ptp(t) and np.ptp(p):
        fit = stats.linregress(p, t)
        out["pearson_delta"], out["regression_slope"] = fit.rvalue, fit.slope
        out["r_squared"] = 1 - np.sum((t - p) ** 2) / np.sum((t - t.mean()) ** 2)
    if (t != 0).any():
        out["direction_accuracy"] = np.mean(
            [np.sign(x) == np.sign(y) for x, y in zip(t, p, strict=True) if x]
        )
    return out


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 5), d=st.integers(1, 9))
def test_equals_naive_loop(seed, n, d):
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(n, d)).round(1)
    p = rng.normal(size=(n, d)).round(1)
    t[rng.random((n, d)) < 0.2] = np.nan
    mask = rng.random((n, d)) < 0.8
    for i in range(n):
        expected = naive(t[i], p[i], mask[i])
        if expected is None:
            assert np.isnan(m.mse(t, p, mask)[i])
            continue
        for name, value in expected.items():
            assert getattr(m, name)(t, p, mask)[i] == pytest.approx(value, abs=1e-12), name


def test_undefined_is_nan_not_a_number_that_looks_good():
    t = np.array([[1.0, 2.0, 3.0]] * 3)
    constant = np.array([[5.0, 5.0, 5.0]] * 3)
    zero = np.zeros_like(t)
    assert np.isnan(m.pearson_delta(t, constant)).all()
    assert np.isnan(m.cosine(t, zero)).all()
    assert np.isnan(m.regression_slope(t, constant)).all()
    assert np.isnan(m.r_squared(constant, t)).all()
    assert np.isnan(m.pearson_delta(t[:, :1], zero[:, :1])).all()
    for kernel in (m.mse, m.mae, m.cosine, m.direction_accuracy, m.squared_error):
        assert np.isnan(kernel(np.full((1, 3), np.nan), t[:1])).all()


def test_training_mean_has_no_correlation_with_itself_as_reference():
    rng = np.random.default_rng(0)
    t = rng.normal(3, 1, size=(20, 40))
    mean = t.mean(axis=0)
    # float32 rounding of the prediction must not turn into a correlation of rounding errors
    p = np.tile(mean.astype(np.float32), (20, 1))
    assert np.isnan(m.pearson_reference(t, p, mean)).all()


def test_a_missing_prediction_is_never_an_advantage():
    p = P.copy()
    p[0, 0] = np.nan
    for kernel in (m.mse, m.mae, m.cosine, m.pearson_delta, m.direction_accuracy, m.r_squared):
        assert np.isnan(kernel(T, p)[0])
    # outside the measured features it does not matter
    p = P.copy()
    p[0, 3] = np.nan
    assert m.mse(T, p)[0] == pytest.approx(10 / 3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_correlations_do_not_depend_on_scale(scale):
    rng = np.random.default_rng(1)
    t, p = rng.normal(size=(4, 9)), rng.normal(size=(4, 9))
    for kernel in (m.pearson_delta, m.cosine, m.direction_accuracy):
        np.testing.assert_allclose(kernel(t, p * scale), kernel(t, p), rtol=1e-9)


def test_bad_shapes_are_refused():
    with pytest.raises(InputError, match="shape"):
        m.mse(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(InputError, match="mask has shape"):
        m.mse(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((3, 2), bool))


def test_learning_curve_area_by_hand():
    # trapezoids: (10 - 0) * (0 + 2) / 2 + (30 - 10) * (2 + 3) / 2 = 10 + 50
    assert m.learning_curve_area([0, 10, 30], [0, 2, 3], normalise=False) == pytest.approx(60)
    assert m.learning_curve_area([0, 10, 30], [0, 2, 3]) == pytest.approx(2)
    assert m.learning_curve_area([5], [7]) == 7
    assert np.isnan(m.learning_curve_area([0, 1], [1, np.nan]))
    with pytest.raises(InputError, match="must increase"):
        m.learning_curve_area([0, 0], [1, 1])
    with pytest.raises(InputError, match="equally many"):
        m.learning_curve_area([0, 1], [1])


def test_blocks_of_rows_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    t, p, mask = rng.normal(size=(11, 7)), rng.normal(size=(11, 7)), rng.random((11, 7)) < 0.8
    reference = rng.normal(size=(11, 7))
    kernels = (m.mse, m.mae, m.squared_error, m.cosine, m.pearson_delta, m.direction_accuracy,
               m.regression_slope, m.r_squared)  # fmt: skip
    whole = [k(t, p, mask) for k in kernels]
    whole += [m.pearson_reference(t, p, r, mask=mask) for r in (reference, reference[0])]
    monkeypatch.setattr(m, "ROWS", 4)
    parts = [k(t, p, mask) for k in kernels]
    parts += [m.pearson_reference(t, p, r, mask=mask) for r in (reference, reference[0])]
    np.testing.assert_array_equal(whole, parts)
    with pytest.raises(InputError, match="mask has shape"):
        m.mse(t, p, mask[:9])
