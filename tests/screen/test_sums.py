import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from pertwise.screen.sums import (
    GRID,
    Accumulator,
    GroupSums,
    contrast,
    keep_columns,
    normalise,
    quantise,
    select_variable,
    within_variance,
)


def random_cells(seed, n=60, d=7, groups=4, blocks=3):
    rng = np.random.default_rng(seed)
    x = rng.gamma(1.0, 1.0, (n, d)) * (rng.random((n, d)) < 0.6)
    return (
        sparse.csr_matrix(quantise(x)),
        rng.integers(0, groups, n),
        rng.integers(0, blocks, n),
        rng.normal(1, 1, (blocks, d)),
    )


def accumulate(x, group, block, centres, rows):
    acc = Accumulator(np.unique(group[rows]), len(centres), x.shape[1], centres)
    acc.add(x[rows], group[rows], block[rows])
    return acc.sums()


def assert_identical(a, b):
    for name in ("groups", "n", "total", "square", "cross"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@given(st.integers(0, 10_000), st.integers(1, 6), st.randoms())
def test_any_cut_into_parts_merged_in_any_order_gives_the_same_bits(seed, parts, random):
    x, group, block, centres = random_cells(seed)
    whole = accumulate(x, group, block, centres, np.arange(len(group)))
    order = np.random.default_rng(seed + 1).permutation(len(group))
    pieces = [accumulate(x, group, block, centres, rows) for rows in np.array_split(order, parts)]
    random.shuffle(pieces)
    merged = GroupSums.empty(len(centres), x.shape[1], with_cross=True)
    for piece in pieces:
        merged = merged + piece
    assert_identical(merged, whole)


def test_sums_against_a_plain_loop():
    x, group, block, centres = random_cells(0)
    sums = accumulate(x, group, block, centres, np.arange(len(group)))
    dense = x.toarray()
    for i, g in enumerate(sums.groups):
        mine = group == g
        np.testing.assert_allclose(sums.total[i], dense[mine].sum(0), atol=1e-9)
        np.testing.assert_allclose(sums.square[i], (dense[mine] ** 2).sum(0), atol=1e-4)
        np.testing.assert_allclose(
            sums.cross[i], (dense[mine] * centres[block[mine]]).sum(0), atol=1e-4
        )
        np.testing.assert_array_equal(sums.n[i], np.bincount(block[mine], minlength=3))


@given(st.integers(0, 10_000))
def test_contrast_is_the_mean_and_variance_of_batch_centred_cells(seed):
    x, group, block, centres = random_cells(seed)
    sums = accumulate(x, group, block, centres, np.arange(len(group)))
    centre_n = np.array([5, 7, 11])
    control_variance = np.tile(np.linspace(0.1, 0.7, x.shape[1]), (len(sums.groups), 1))
    got = contrast(sums, centres, centre_n, control_variance)
    dense = x.toarray()
    for i, g in enumerate(sums.groups):
        mine = group == g
        centred = dense[mine] - centres[block[mine]]
        n = mine.sum()
        np.testing.assert_allclose(got.delta[i], centred.mean(0), atol=1e-5)
        own = centred.var(0, ddof=1) if n > 1 else control_variance[i]
        w = np.bincount(block[mine], minlength=3) / n
        expected = own / n + control_variance[i] * (w**2 / centre_n).sum()
        np.testing.assert_allclose(got.variance[i], expected, atol=1e-5)


def test_one_block_needs_no_cross_sums():
    x, group, _, centres = random_cells(3, blocks=1)
    block = np.zeros(len(group), dtype=int)
    args = (np.array([9]), np.ones((len(np.unique(group)), x.shape[1])))
    full = accumulate(x, group, block, centres, np.arange(len(group)))
    bare = GroupSums(full.groups, full.n, full.total, full.square, full.cross[:, :0])
    a, b = contrast(full, centres, *args), contrast(bare, centres, *args)
    np.testing.assert_allclose(a.variance, b.variance, atol=1e-5)
    np.testing.assert_array_equal(a.delta, b.delta)


def test_variance_of_the_mean_is_calibrated():
    # Repeated experiments: the stated variance must be the variance of delta over repeats.
    rng = np.random.default_rng(0)
    deltas, stated = [], []
    for _ in range(600):
        control, cells = quantise(rng.normal(2, 1, (40, 1))), quantise(rng.normal(2.5, 0.5, (8, 1)))
        acc = Accumulator(np.array([0]), 1, 1)
        acc.add(sparse.csr_matrix(cells), np.zeros(8, int), np.zeros(8, int))
        got = contrast(
            acc.sums(), control.mean(0)[None], np.array([40]), control.var(0, ddof=1)[None]
        )
        deltas.append(got.delta[0, 0])
        stated.append(got.variance[0, 0])
    assert np.mean(stated) == pytest.approx(np.var(deltas), rel=0.15)


def test_quantise_is_a_grid():
    values = quantise(np.random.default_rng(0).normal(size=1000))
    np.testing.assert_array_equal(values * GRID, np.rint(values * GRID))


def test_normalise_by_hand():
    x = sparse.csr_matrix(np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]]))
    y = normalise(x, "counts", np.array([4.0, 10.0, 0.0]), 100.0).toarray()
    expected = np.log1p([[25, 75, 0], [0, 0, 50], [0, 0, 0]])
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(
        normalise(x, "normalised", np.ones(3), 100.0).toarray(), np.log1p(x.toarray()), atol=1e-6
    )
    np.testing.assert_allclose(
        normalise(x, "log1p", np.ones(3), 100.0).toarray(), x.toarray(), atol=1e-6
    )


def test_keep_columns_is_fancy_indexing():
    x = random_cells(1)[0]
    wanted = np.array([5, 1, 2])
    column_of = np.full(7, -1)
    column_of[wanted] = np.arange(3)
    np.testing.assert_array_equal(keep_columns(x, column_of, 3).toarray(), x[:, wanted].toarray())


def test_within_variance_against_numpy():
    x, group, block, centres = random_cells(5)
    sums = accumulate(x, group, block, centres, np.arange(len(group)))
    mean, variance = within_variance(sums)
    dense = x.toarray()
    np.testing.assert_allclose(mean[0], dense[group == 0].mean(0), atol=1e-5)
    np.testing.assert_allclose(variance[0], dense[group == 0].var(0, ddof=1), atol=1e-4)


def test_variable_features_are_found_at_every_level_of_expression():
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.05, 4, 2000)
    trend = 0.3 * mean / (1 + mean)
    variance = trend * rng.lognormal(0, 0.1, 2000)
    special = rng.choice(2000, 100, replace=False)
    variance[special] *= 3
    found = select_variable(mean, variance, 100)
    assert len(set(found) & set(special)) >= 95
    assert (np.diff(found) > 0).all()


def test_constant_features_are_never_chosen():
    mean, variance = np.ones(10), np.zeros(10)
    variance[[2, 5]] = 1.0
    np.testing.assert_array_equal(select_variable(mean, variance, 6), [2, 5])
