"""Energy distance against the textbook double loop."""

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.evaluate import distribution
from pertwise.evaluate.distribution import energy_distance


def mean_pairs(a, b, power, skip_self=False):
    values = [
        np.linalg.norm(x - y) ** power
        for i, x in enumerate(a)
        for j, y in enumerate(b)
        if not (skip_self and i == j)
    ]
    return np.mean(values)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize(("metric", "power"), [("euclidean", 1), ("sqeuclidean", 2)])
def test_equals_double_loop(metric, power, unbiased, monkeypatch):
    monkeypatch.setattr(distribution, "BLOCK", 3)  # several blocks
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(1, 2, size=(5, 3))
    want = (
        2 * mean_pairs(x, y, power)
        - mean_pairs(x, x, power, unbiased)
        - mean_pairs(y, y, power, unbiased)
    )
    assert energy_distance(x, y, metric=metric, unbiased=unbiased) == pytest.approx(want)


def test_squared_version_is_twice_the_distance_of_the_means():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 4)), rng.normal(size=(6, 4))
    want = 2 * np.sum((x.mean(0) - y.mean(0)) ** 2)
    assert energy_distance(x, y, metric="sqeuclidean") == pytest.approx(want)


def test_same_cells_are_at_zero_and_bad_input_is_refused():
    x = np.random.default_rng(2).normal(size=(6, 2))
    assert energy_distance(x, x) == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="features must agree"):
        energy_distance(x, x[:, :1])
    with pytest.raises(InputError, match="at least 2 cells a side"):
        energy_distance(x, x[:1], unbiased=True)
    with pytest.raises(InputError, match="NaN"):
        energy_distance(x, x * np.nan)
