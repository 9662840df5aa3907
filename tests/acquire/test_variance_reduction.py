"""Expected error reduction equals the Gaussian-process posterior computed from scratch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertwise.acquire.common import tie_order
from pertwise.acquire.strategies.variance_reduction import Information, greedy_reduction
from pertwise.errors import InputError


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def posterior_variance(x, measured, noise):
    """diag of K - K_S (K_SS + s2 I)^-1 K_S, the textbook formula."""
    k = x @ x.T
    if not len(measured):
        return np.diag(k)
    cross = x @ measured.T
    inverse = np.linalg.inv(measured @ measured.T + noise * np.eye(len(measured)))
    return np.diag(k - cross @ inverse @ cross.T)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 5), st.floats(0.05, 3.0))
def test_gain_is_the_drop_of_the_weighted_posterior_variance(seed, n_measured, noise):
    rng = np.random.default_rng(seed)
    x = unit(rng.normal(size=(9, 4)))
    measured = unit(rng.normal(size=(n_measured, 4))) if n_measured else np.empty((0, 4))
    w = rng.random(9) + 0.1
    gains = Information(x, measured, noise, w).gains()
    before = w @ posterior_variance(x, measured, noise)
    for j in range(9):
        after = w @ posterior_variance(x, np.vstack([measured, x[j : j + 1]]), noise)
        assert gains[j] == pytest.approx(before - after, abs=1e-8)


def test_observing_one_after_another_is_observing_all_at_once():
    rng = np.random.default_rng(3)
    x = unit(rng.normal(size=(12, 5)))
    step = Information(x, np.empty((0, 5)), 0.4)
    for j in (2, 7, 2):
        step.observe(j)
    at_once = Information(x, x[[2, 7, 2]], 0.4)
    np.testing.assert_allclose(step.covariance, at_once.covariance, atol=1e-10)


def test_a_typical_member_of_a_group_is_preferred_to_an_outlier():
    group = unit(np.array([[1, 0.1, 0], [1, -0.1, 0], [1, 0, 0], [1, 0.05, 0]]))
    outlier = np.array([[0.0, 0.0, 1.0]])
    x = np.vstack([outlier, group])
    steps = greedy_reduction(
        Information(x, np.empty((0, 3)), 0.5), 2, tie_order(["o", "a", "b", "c", "d"])
    )
    assert steps.order[0] != 0
    assert steps.order[1] == 0  # once the group is known, the rest of it tells little
    assert set(steps.informed[0]) <= {1, 2, 3, 4} - {steps.order[0]}


def test_greedy_is_the_best_single_choice_at_every_step():
    rng = np.random.default_rng(8)
    x = unit(rng.normal(size=(10, 3)))
    steps = greedy_reduction(
        Information(x, np.empty((0, 3)), 0.5), 3, tie_order([f"g{i}" for i in range(10)])
    )
    chosen = []
    for j in steps.order:
        left = [i for i in range(10) if i not in chosen]
        totals = {i: posterior_variance(x, x[[*chosen, i]], 0.5).sum() for i in left}
        assert totals[j] == pytest.approx(min(totals.values()))
        chosen.append(j)


def test_genes_without_features_are_harmless():
    x = np.vstack([np.zeros((1, 3)), unit(np.ones((1, 3)))])
    gains = Information(x, np.empty((0, 3)), 0.5).gains()
    assert gains[0] == 0
    assert gains[1] == pytest.approx(1 / 1.5)


def test_noise_must_be_positive():
    with pytest.raises(InputError, match="noise"):
        Information(np.eye(2), np.empty((0, 2)), 0.0)
