"""Retrieval against a naive count, ties and undefined distances included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from pertwise.errors import InputError
from pertwise.evaluate.retrieval import DISTANCES, distances, rank_scores, retrieval


def naive(predictions, truths, own, kind):
    metric = {"l2": "sqeuclidean", "cosine": "cosine", "pearson": "correlation"}[kind]
    out = []
    for i, p in enumerate(predictions):
        d = cdist(p[None], truths, metric)[0].round(12)
        others = np.delete(d, own[i])
        rank = sum(others < d[own[i]]) + 0.5 * sum(others == d[own[i]])
        out.append(1 - rank / (len(truths) - 1))
    return out


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(1, 6), kind=st.sampled_from(DISTANCES))
def test_equals_naive_count(seed, n, kind):
    rng = np.random.default_rng(seed)
    truths = rng.normal(size=(n + 3, 4))
    truths[1] = truths[0]  # an exact tie among the candidates
    predictions = rng.normal(size=(n, 4))
    own = rng.permutation(n + 3)[:n]
    got = retrieval(predictions, truths, own, kind=kind)
    np.testing.assert_allclose(got.score, naive(predictions, truths, own, kind))
    assert got.n_candidates == n + 3


def test_reverse_is_forward_with_the_roles_exchanged():
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(7, 5)), rng.normal(size=(9, 5))
    own = np.array([3, 1, 0, 8, 2, 5, 4])
    got = retrieval(p, t, own, reverse=True)
    np.testing.assert_allclose(got.score, naive(t[own], p, np.arange(7), "l2"))
    assert got.n_candidates == 7


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize("n", [2, 3, 60, 131])
def test_one_answer_for_everything_is_chance(kind, n):
    rng = np.random.default_rng(n)
    t = rng.normal(size=(n, 33))
    p = np.tile(rng.normal(size=33), (n, 1))
    # reverse: all candidates tie exactly, whatever the matrix product rounds
    np.testing.assert_array_equal(retrieval(p, t, kind=kind, reverse=True).score, 0.5)
    # forward: the ranks are a permutation
    assert retrieval(p, t, kind=kind).score.mean() == pytest.approx(0.5)


def test_perfect_and_opposite():
    t = np.diag([1.0, 2.0, 3.0, 4.0])
    for kind in DISTANCES:
        np.testing.assert_array_equal(retrieval(t, t, kind=kind).score, 1.0)
    line = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    np.testing.assert_array_equal(retrieval(line[::-1], line).score, [0.0, 1.0, 0.0])


@pytest.mark.parametrize("kind", ["cosine", "pearson"])
def test_undefined_is_worst_and_counted(kind):
    rng = np.random.default_rng(0)
    t = rng.normal(size=(5, 4))
    p = t.copy()
    p[2] = 0.0
    got = retrieval(p, t, kind=kind)
    np.testing.assert_array_equal(got.undefined, [False, False, True, False, False])
    np.testing.assert_array_equal(got.score, [1, 1, 0, 1, 1])
    # as a candidate, the undefined one is never nearer than a defined one
    np.testing.assert_array_equal(retrieval(p, t, kind=kind, reverse=True).score, [1, 1, 0, 1, 1])


@pytest.mark.parametrize("kind", DISTANCES)
def test_missing_entries_are_left_out_pair_by_pair(kind):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(4, 8)), rng.normal(size=(5, 8))
    a[0, 1] = b[2, 3] = b[2, 4] = np.nan
    metric = {"l2": "sqeuclidean", "cosine": "cosine", "pearson": "correlation"}[kind]
    got = distances(a, b, kind)
    for i in range(4):
        for j in range(5):
            ok = np.isfinite(a[i]) & np.isfinite(b[j])
            want = cdist(a[i][ok][None], b[j][ok][None], metric)[0, 0]
            if kind == "l2":
                want *= 8 / ok.sum()
            assert got[i, j] == pytest.approx(want)


def test_nothing_in_common_is_undefined():
    a = np.array([[1.0, np.nan]])
    b = np.array([[np.nan, 1.0], [1.0, 2.0]])
    assert np.isnan(distances(a, b)[0, 0])
    assert distances(a, b)[0, 1] == 0


def test_rank_scores_by_hand():
    d = np.array([[1.0, 1.0, 2.0, np.nan], [3.0, 1.0, 1.0, 1.0]])
    # row 0: one tie -> rank 0.5 of 3; row 1: three nearer -> rank 3 of 3
    np.testing.assert_allclose(rank_scores(d, [0, 0]).score, [1 - 0.5 / 3, 0.0])
    assert np.isnan(rank_scores(d[:, :1], [0, 0]).score).all()


def test_bad_input():
    with pytest.raises(InputError, match="share their features"):
        distances(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(InputError, match="unknown distance"):
        distances(np.zeros((2, 3)), np.zeros((2, 3)), "l7")
    with pytest.raises(InputError, match="own rows"):
        retrieval(np.zeros((2, 3)), np.zeros((2, 3)), [0, 2])
