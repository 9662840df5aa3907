"""Kernel algebra against naive loops and finite differences."""

import numpy as np
import pytest
from scipy.optimize import check_grad

from pertwise.arrays.gaussian_process import (
    choose_noise,
    combine,
    fit_weights,
    leave_one_out,
    negative_log_likelihood,
    solve,
    solved,
)


def example(n=18, d=5, m=3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(m, n, 4))
    kernels = features @ features.transpose(0, 2, 1) / 4
    y = combine(kernels, np.array([1.0, 0.0, 0.2])) @ rng.normal(size=(n, d)) * 0.2
    return kernels, y + 0.3 * rng.normal(size=(n, d))


def test_likelihood_matches_the_textbook_formula_and_its_gradient():
    kernels, y = example()
    x = np.log([0.5, 0.2, 0.3, 0.4])
    value, _ = negative_log_likelihood(x, kernels, y @ y.T, y.shape[1])
    k = combine(kernels, np.exp(x[:-1])) + np.exp(x[-1]) * np.eye(len(y))
    c = sum(v @ np.linalg.inv(k) @ v for v in y.T) / y.size
    n, d = y.shape
    direct = sum(v @ np.linalg.inv(c * k) @ v + np.linalg.slogdet(c * k)[1] for v in y.T)
    assert value == pytest.approx(direct / (n * d) - 1, rel=1e-10)

    error = check_grad(
        lambda p: negative_log_likelihood(p, kernels, y @ y.T, d)[0],
        lambda p: negative_log_likelihood(p, kernels, y @ y.T, d)[1],
        x,
    )
    assert error < 1e-5


def test_learned_weights_find_the_kernel_that_made_the_data():
    kernels, y = example(n=60, d=20)
    found = fit_weights(kernels, y @ y.T, y.shape[1], prior=1e-3)
    assert found.weights.sum() == pytest.approx(1)
    assert np.argmax(found.weights) == 0
    assert found.weights[1] < 0.1
    strong = fit_weights(kernels, y @ y.T, y.shape[1], prior=1e3)
    np.testing.assert_allclose(strong.weights, 1 / 3, atol=1e-3)


def test_leave_one_out_equals_refitting():
    kernels, y = example()
    k = kernels[0]
    quick = leave_one_out(k, 0.5, y)
    for i in range(len(y)):
        rest = np.delete(np.arange(len(y)), i)
        a = np.linalg.solve(k[np.ix_(rest, rest)] + 0.5 * np.eye(len(rest)), y[rest])
        np.testing.assert_allclose(quick[i], k[i, rest] @ a, atol=1e-8)
    alpha, same = solved(k.copy(), 0.5, y)
    np.testing.assert_allclose(alpha, np.linalg.solve(k + 0.5 * np.eye(len(y)), y), atol=1e-8)
    np.testing.assert_array_equal(same, quick)
    noise, errors = choose_noise(k, y @ y.T, np.array([0.1, 0.5, 3.0]))
    direct = [((leave_one_out(k, s, y) - y) ** 2).sum() for s in (0.1, 0.5, 3.0)]
    np.testing.assert_allclose(errors, direct, rtol=1e-8)
    assert noise == (0.1, 0.5, 3.0)[int(np.argmin(direct))]


def test_missing_values_are_left_out_exactly():
    kernels, y = example()
    y[2, 1] = y[7, 1] = y[0, 3] = np.nan
    k = kernels[0]
    a = solve(k, 0.4, y)
    for j in range(y.shape[1]):
        rows = np.flatnonzero(np.isfinite(y[:, j]))
        want = np.linalg.solve(k[np.ix_(rows, rows)] + 0.4 * np.eye(len(rows)), y[rows, j])
        np.testing.assert_allclose(a[rows, j], want, atol=1e-10)
        assert (np.delete(a[:, j], rows) == 0).all()
