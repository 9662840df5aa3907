"""Squared distances against the definition, and never below zero."""

import numpy as np

from pertwise.arrays.distances import squared_distances


def test_squared_distances():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    plain = ((a[:, None] - b[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(squared_distances(a, b), plain)
    same = 1e8 + rng.normal(size=(6, 2))
    assert (squared_distances(same, same) >= 0).all()
