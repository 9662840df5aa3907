"""Error bars follow the error; stretching and directions by hand; stacking weights."""

import numpy as np
import pytest

from pertwise.arrays.direction import (
    Turn,
    choose_stretch,
    component_factors,
    fit_turn,
    half_scaled,
    stretch,
    with_direction,
)
from pertwise.arrays.gaussian_process import kernel_axes
from pertwise.arrays.spread import fit_error_model, local_error
from pertwise.models.stacked import inner_folds, speaking_weights, stacking_weights


def test_local_error_by_hand():
    w = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
    got = local_error(w, np.array([4.0, 2.0]), prior=0.5)
    # weights are squared similarities; the mean error is 3
    want = [(4 + 0.5 * 3) / 1.5, 3.0, 3.0]
    np.testing.assert_allclose(got, want)


def test_error_bars_cover_and_rank_the_error():
    rng = np.random.default_rng(0)
    n, d = 300, 30
    group = np.arange(n) % 2
    similarity = (group[:, None] == group[None, :]).astype(float)
    size = np.exp(rng.normal(size=n))
    truth = rng.normal(size=(n, d)) * size[:, None]
    noise = (0.2 + 2.0 * group) * size
    held_out = truth + rng.normal(size=(n, d)) * noise[:, None]
    model = fit_error_model(similarity, held_out, truth)
    fresh = truth + rng.normal(size=(n, d)) * noise[:, None]
    spread = model.spread(similarity, fresh)
    error = fresh - truth
    assert np.mean(np.abs(error) < 1.645 * spread) == pytest.approx(0.9, abs=0.03)
    ranks = [np.argsort(np.argsort((x**2).mean(axis=1))) for x in (error, spread)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8
    few = fit_error_model(similarity[:3, :3], held_out[:3], truth[:3])
    assert np.isfinite(few.spread(similarity[:2, :3], fresh[:2])).all()


def test_directions_and_lengths_by_hand():
    y = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(half_scaled(y), [[3 / 5**0.5, 4 / 5**0.5], [0, 0]])
    raw = np.array([[0.0, 2.0], [1.0, 0.0]])
    np.testing.assert_allclose(with_direction(raw, y), [[1.2, 1.6], [1.0, 0.0]])
    half = np.array([0.3, 0.9]) / np.hypot(0.3, 0.9)
    np.testing.assert_allclose(with_direction(raw, y, 0.5)[0], 2 * half)
    np.testing.assert_allclose(with_direction(raw, y, 0.0), raw)


def test_stretch_by_hand():
    mean = np.array([[2.0, 3.0]])
    centre = np.array([1.0, 1.0])
    got = stretch(mean, centre, np.eye(2), np.array([1.0, 2.0]), 1.5)
    np.testing.assert_allclose(got, [[3.0, 1.5 * 5.0]])


def test_crowded_predictions_are_stretched_within_the_tolerance():
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(80, 6)) * [5, 3, 2, 1, 1, 1]
    held_out = 0.6 * truth + 0.3 * rng.normal(size=truth.shape)
    centre = truth.mean(axis=0)
    axes = np.eye(6)
    factors = component_factors(held_out, truth, centre, axes)
    assert (factors >= 1).all()

    def stretched(zero, exponent):
        return stretch(held_out, centre, axes, np.append(1.0, factors[1:] ** exponent), zero)

    def retrieved(p):
        d = ((p[:, None] - truth[None]) ** 2).sum(axis=2)
        return float((d > np.diag(d)[:, None]).mean())

    zero, exponent = choose_stretch(held_out, truth, centre, axes, 0.02)
    assert (zero, exponent) != (1.0, 0.0)
    best = stretched(zero, exponent)
    assert ((best - truth) ** 2).sum() <= 1.02 * ((held_out - truth) ** 2).sum()
    assert cosines(best, truth).mean() >= cosines(held_out, truth).mean() - 0.0006
    assert retrieved(best) > retrieved(held_out)
    # More may be spent on it, never less gained.
    assert retrieved(stretched(*choose_stretch(held_out, truth, centre, axes, 0.2))) >= retrieved(
        best
    )


def test_a_stretch_that_costs_cosine_is_not_taken():
    """The second component is noise: stretching it gains nothing that counts."""
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(100, 3)) * [3, 2, 1]
    held_out = np.stack([truth[:, 0], 0.3 * rng.normal(size=100), truth[:, 2]], axis=1)
    _, exponent = choose_stretch(held_out, truth, truth.mean(axis=0), np.eye(3), 10.0)
    assert exponent == 0.0


def cosines(p, t):
    return (p * t).sum(axis=1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)


def test_a_turn_keeps_lengths_and_finds_the_direction_that_was_lost():
    """Predictions that shrink one component and miss the offset of another, weak rows included."""
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(150, 6)) * rng.gamma(1.0, 1.0, size=(150, 1)) + [2, 0, 0, 0, 0, 0]
    held_out = truth * [1, 0.2, 1, 1, 1, 1] - [1.5, 0, 0, 0, 0, 0]
    turn = fit_turn(held_out, truth, np.eye(6))
    assert turn.factors[1] > 2 * turn.factors[2]
    assert turn.offset[0] > 0.5
    turned = turn.apply(held_out, 1.0)
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=1), np.linalg.norm(held_out, axis=1), rtol=1e-9
    )
    before, half, after = (
        cosines(p, truth).mean() for p in (held_out, turn.apply(held_out, 0.5), turned)
    )
    assert before + 0.1 < half < after


def test_a_turn_by_hand_and_components_outside_its_axes_stay():
    turn = Turn(np.eye(3)[:2], np.array([2.0, 1.0]), np.array([0.0, 1.0]))
    got = turn.apply(np.array([[1.0, 0.0, 2.0]]), 1.0)
    want = np.array([2.0, 1.0, 2.0])
    np.testing.assert_allclose(got[0], want / 3 * 5**0.5)
    np.testing.assert_allclose(turn.apply(got, 0.0), got)


def test_stacking_prefers_the_better_member_and_averages_equals():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(60, 10))
    good = truth + 0.1 * rng.normal(size=truth.shape)
    bad = rng.normal(size=truth.shape)
    centre = np.zeros(10)
    w = stacking_weights(np.stack([good, bad]), truth, centre, prior=0.01)
    assert w[0] > 0.9
    assert w[1] < 0.05
    same = stacking_weights(np.stack([good, good]), truth, centre)
    assert same[0] == pytest.approx(same[1])
    truth[3, 2] = np.nan
    assert np.isfinite(stacking_weights(np.stack([good, bad]), truth, centre)).all()


def test_members_that_know_nothing_hand_their_weight_on():
    silent = np.array([[False, True, True], [False, False, True], [False, False, True]])
    got = speaking_weights(np.array([0.5, 0.3, 0.2]), silent)
    np.testing.assert_allclose(got.T, [[0.5, 0.3, 0.2], [0, 0.6, 0.4], [0, 0, 0]])


def test_inner_folds_cover_everything_once():
    parts = inner_folds(17, 5, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(17))


def test_kernel_axes_reproduce_the_kernel():
    x = np.random.default_rng(3).normal(size=(12, 3))
    scores, to_axes = kernel_axes(x @ x.T, 3)
    np.testing.assert_allclose(scores @ scores.T, x @ x.T, atol=1e-8)
    new = np.random.default_rng(4).normal(size=(2, 3))
    np.testing.assert_allclose((new @ x.T @ to_axes) @ scores.T, new @ x.T, atol=1e-8)
