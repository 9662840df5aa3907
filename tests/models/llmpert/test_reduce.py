"""Bases of row spans and the coordinates in them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertwise.models.llmpert.reduce import (
    extend_basis,
    input_basis,
    row_space,
    target_blocks,
)


@given(
    seed=st.integers(0, 10_000), n=st.integers(1, 12), d=st.integers(1, 30), rank=st.integers(0, 12)
)
def test_row_space_is_an_orthonormal_basis_of_the_rows(seed, n, d, rank):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, rank)) @ rng.standard_normal((rank, d))
    basis = row_space(a)
    singular = np.linalg.svd(a, compute_uv=False)
    clear = (singular > 3e-5 * singular.max(initial=1e-300)).sum()
    assert clear <= len(basis) <= min(n, d, rank)
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-9)
    np.testing.assert_allclose(a @ basis.T @ basis, a, atol=1e-4 * (1 + np.abs(a).max()))


def test_row_space_of_nearly_parallel_rows_stays_orthonormal():
    rng = np.random.default_rng(0)
    a = rng.standard_normal(50) + 1e-4 * rng.standard_normal((6, 50))
    basis = row_space(a)
    assert len(basis) == 6
    np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=1e-12)


def test_inputs_are_reduced_only_where_it_pays():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 100))
    basis = input_basis(x, rng)
    np.testing.assert_allclose(basis @ basis.T, np.eye(20), atol=1e-5)
    np.testing.assert_allclose(x @ basis.T @ basis, x, atol=1e-4)
    assert input_basis(rng.standard_normal((80, 100)), rng) is None
    assert input_basis(x, rng, wanted=False) is None
    assert input_basis(np.zeros((20, 100)), rng) is None


def test_input_coordinates_are_mixtures():
    """One direction carries nearly everything; no coordinate of the random basis does."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((20, 100))
    x[:, 0] *= 100
    share = np.square(x @ input_basis(x, rng).T).sum(axis=0)
    assert share.max() / share.sum() < 0.5
    assert np.square(x).sum(axis=0).max() / np.square(x).sum() > 0.95


@given(seed=st.integers(0, 10_000), k=st.integers(0, 5), m=st.integers(1, 6))
def test_extended_basis_holds_the_rows(seed, k, m):
    rng = np.random.default_rng(seed)
    basis = row_space(rng.standard_normal((k, 40))).astype(np.float32)
    rows = rng.standard_normal((m, 40)).astype(np.float32)
    extension, coordinates = extend_basis(basis, rows)
    both = np.vstack([basis, extension])
    np.testing.assert_allclose(both @ both.T, np.eye(k + m), atol=1e-5)
    np.testing.assert_allclose(coordinates @ both, rows, atol=1e-5)


def test_extension_of_rows_already_inside_is_zero():
    basis = np.eye(4, dtype=np.float32)[:2]
    extension, coordinates = extend_basis(basis, np.array([[1, 2, 0, 0]], dtype=np.float32))
    np.testing.assert_array_equal(extension, np.zeros((1, 4)))
    np.testing.assert_allclose(coordinates, [[1, 2, 0]])


def test_targets_of_full_rows_are_one_block_that_keeps_distances():
    y = np.random.default_rng(0).standard_normal((8, 200)).astype(np.float32)
    (block,) = target_blocks(y, hidden=16)
    assert block.basis.shape == (8, 200)
    np.testing.assert_allclose(block.targets @ block.targets.T, y @ y.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("wanted", [True, False])
def test_few_features_stay_as_they_are(wanted):
    y = np.random.default_rng(0).standard_normal((8, 30 if wanted else 200)).astype(np.float32)
    (block,) = target_blocks(y, hidden=16, wanted=wanted)
    assert block.basis is None
    np.testing.assert_array_equal(block.targets, y)
