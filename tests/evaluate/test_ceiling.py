"""Ceilings: simulated data with known reliability, and hand calculation."""

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.evaluate.ceiling import (
    ceiling_from_variance,
    share_of_ceiling,
    spearman_brown,
    split_half,
)


def test_spearman_brown_by_hand():
    assert spearman_brown(0.5) == pytest.approx(2 / 3)
    assert spearman_brown(0.2, 5) == pytest.approx(1 / 1.8)
    assert np.isnan(spearman_brown(-1.0))


@pytest.mark.parametrize("similarity", ["pearson", "cosine"])
def test_split_half_finds_the_simulated_reliability(similarity):
    rng = np.random.default_rng(0)
    d, n = 3000, 40
    signal = rng.normal(0, 0.3, d)
    cells = signal + rng.normal(0, 1, (n, d))
    controls = rng.normal(0, 1, (400, d))
    noise = 1 / n + 1 / 400
    half, full = split_half(cells, controls, rng, n_splits=6, similarity=similarity)
    assert full == pytest.approx(0.09 / (0.09 + noise), abs=0.02)
    assert half == pytest.approx(0.09 / (0.09 + 2 * noise), abs=0.02)


def test_split_half_of_pure_noise_is_zero_because_controls_are_split_too():
    rng = np.random.default_rng(1)
    controls = rng.normal(size=(6, 2000))  # few controls: a shared mean would correlate
    _, full = split_half(rng.normal(size=(60, 2000)), controls, rng, n_splits=4)
    assert abs(full) < 0.1
    with pytest.raises(InputError, match="halves need"):
        split_half(controls[:1], controls, rng)


@pytest.mark.parametrize("similarity", ["pearson", "cosine"])
@pytest.mark.parametrize("per_feature", [True, False])
def test_variance_formula_matches_simulated_repeats(similarity, per_feature):
    from pertwise.evaluate import cosine, pearson_delta

    rng = np.random.default_rng(2)
    d = 20_000
    s = rng.normal(0.2, 1, (1, d))
    x, y = s + rng.normal(0, 0.7, (1, d)), s + rng.normal(0, 0.7, (1, d))
    v = np.full((1, d), 0.49) if per_feature else np.array([0.49 * d])
    got = ceiling_from_variance(x, v, similarity=similarity).iloc[0]
    kernel = cosine if similarity == "cosine" else pearson_delta
    assert got["replicate"] == pytest.approx(kernel(x, y)[0], abs=0.02)
    assert got["perfect"] == pytest.approx(kernel(x, s)[0], abs=0.02)
    assert got["noise"] == pytest.approx(((x - s) ** 2).sum(), rel=0.05)
    assert got["effect"] == pytest.approx(np.linalg.norm(s), rel=0.02)


def test_edges():
    x = np.array([[1.0, 0.0], [1.0, np.nan], [0.1, 0.1]])
    got = ceiling_from_variance(x, [0.25, np.nan, 5.0])
    assert got.loc[0, "replicate"] == pytest.approx(0.75)
    assert np.isnan(got.loc[1, "replicate"])
    assert got.loc[2, "replicate"] == 0  # noise above signal is clipped, not negative
    np.testing.assert_allclose(share_of_ceiling([0.4, 0.4], [0.8, 0.05]), [0.5, np.nan])
    with pytest.raises(InputError, match="expected"):
        ceiling_from_variance(x, [1.0])
