"""Walks with restart against a dense computation."""

import numpy as np
from scipy.sparse import csr_matrix

from pertwise.arrays.walks import RESTART, STEPS, symmetric_transition, walk_rows
from pertwise.knowledge.types import Graph


def graph():
    """A path A - B - C, a pair D - E, and F alone; B - C weighs half."""
    a = np.zeros((6, 6), dtype=np.float32)
    a[0, 1] = a[1, 0] = 1.0
    a[1, 2] = a[2, 1] = 0.5
    a[3, 4] = a[4, 3] = 1.0
    return Graph("g", tuple("ABCDEF"), csr_matrix(a))


def test_rows_equal_the_dense_walk():
    g = graph()
    a = g.adjacency.toarray().astype(float)
    degree = a.sum(axis=1)
    half = np.array([d**-0.5 if d else 0.0 for d in degree])
    s = half[:, None] * a * half[None, :]
    np.testing.assert_allclose(symmetric_transition(g.adjacency).toarray(), s, atol=1e-6)
    start = [2, 0, 5]
    p = e = np.eye(6)[:, start]
    for _ in range(STEPS):
        p = (1 - RESTART) * s @ p + RESTART * e
    got = walk_rows(symmetric_transition(g.adjacency), start)
    np.testing.assert_allclose(got.toarray() ** 2, p.T, atol=1e-6)
    assert got[1].toarray()[0, 2] > 0, "two steps away is reached"
    assert got[2].nnz == 1, "a gene without edges stays at home"
    # The same row alone and in company.
    np.testing.assert_array_equal(
        walk_rows(symmetric_transition(g.adjacency), [0]).toarray(), got[1].toarray()
    )


def test_only_the_most_visited_are_kept():
    rows = walk_rows(symmetric_transition(graph().adjacency), [0, 1], kept=2)
    assert (rows.getnnz(axis=1) == 2).all()
    assert rows[0].toarray()[0, 0] > 0
    assert walk_rows(symmetric_transition(graph().adjacency), []).shape == (0, 6)
