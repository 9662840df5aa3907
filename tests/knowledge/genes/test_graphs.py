"""Graph kernels against naive loops."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from pertwise.knowledge.genes import graphs
from pertwise.knowledge.types import Graph


def edge_table(rows):
    return pd.DataFrame(rows, columns=["a", "b", "weight", "sign"])


def test_undirected_edges_are_symmetric_and_keep_the_largest():
    graph = graphs.from_edges(
        "g", edge_table([("B", "A", 0.4, 0), ("A", "B", 0.9, 0), ("C", "A", 0.2, 0)]), False, False
    )
    assert graph.nodes == ("A", "B", "C")
    expected = np.array([[0, 0.9, 0.2], [0.9, 0, 0], [0.2, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(graph.adjacency.toarray(), expected)


def test_directed_signed_edges():
    graph = graphs.from_edges(
        "g", edge_table([("A", "B", 1.0, -1), ("B", "C", 1.0, 1)]), True, False, signed=True
    )
    assert graph.adjacency.toarray().tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert graph.sign is not None
    assert graph.sign.toarray().tolist() == [[0, -1, 0], [0, 0, 1], [0, 0, 0]]


memberships = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=2, max_size=7).map(
    lambda rows: np.array(rows, dtype=np.float32)
)


@settings(deadline=None)
@given(memberships, st.integers(2, 5))
def test_shared_sets_equal_a_double_loop(member, max_genes):
    n, k = member.shape
    size = member.sum(axis=0)
    idf = [
        math.log(n / s) if 2 <= s <= max_genes else math.log(max(n, 2)) if s == 1 else None
        for s in size
    ]
    got = graphs.shared_sets(csr_matrix(member), max_genes, min_weight=0.0).toarray()
    for i in range(n):
        for j in range(n):
            rows = []
            for r in (i, j):
                rows.append(
                    [
                        member[r, s] * max(idf[s], 1e-6) if idf[s] is not None else 0
                        for s in range(k)
                    ]
                )
            norm = math.dist(rows[0], [0] * k) * math.dist(rows[1], [0] * k)
            cosine = sum(x * y for x, y in zip(*rows, strict=True)) / norm if norm else 0.0
            expected = 0.0 if i == j else cosine
            assert got[i, j] == pytest.approx(expected, abs=1e-5)


@given(memberships)
def test_complexes_weight_is_that_of_the_smallest_shared(member):
    n, k = member.shape
    total = 50
    got = graphs.shared_complexes(csr_matrix(member), total).toarray()
    size = member.sum(axis=0)
    for i in range(n):
        for j in range(n):
            shared = [size[s] for s in range(k) if member[i, s] and member[j, s]]
            expected = 0.0
            if shared and i != j:
                expected = math.log2(total / min(shared)) / math.log2(total / 2)
            assert got[i, j] == pytest.approx(expected, abs=1e-5)


def test_keep_strongest_is_symmetric_and_breaks_ties_by_order():
    dense = np.array(
        [[0, 0.5, 0.5, 0.1], [0.5, 0, 0.2, 0], [0.5, 0.2, 0, 0], [0.1, 0, 0, 0]], np.float32
    )
    got = graphs.keep_strongest(csr_matrix(dense), 1).toarray()
    expected = np.zeros((4, 4), np.float32)
    # Row 0 keeps node 1 (tie to the lower column), 1 and 2 keep 0, 3 keeps 0.
    for i, j in ((0, 1), (2, 0), (3, 0)):
        expected[i, j] = expected[j, i] = dense[i, j]
    np.testing.assert_array_equal(got, expected)


@st.composite
def genomes(draw):
    n = draw(st.integers(2, 9))
    rows = []
    for i in range(n):
        start = draw(st.integers(1, 4000))
        end = start + draw(st.integers(0, 800))
        rows.append(
            (f"G{i}", draw(st.sampled_from("12")), start, end, draw(st.sampled_from([1, -1])))
        )
    return pd.DataFrame(rows, columns=["symbol", "chr", "start", "end", "strand"])


@given(genomes())
def test_shared_promoters_equal_all_pairs(table):
    got = {(a, b): d for a, b, d in graphs.shared_promoters(table)[["a", "b", "bases"]].values}
    expected = {}
    rows = list(table.itertuples())
    for x in rows:
        for y in rows:
            if x.symbol < y.symbol and x.chr == y.chr and x.strand != y.strand:
                tss = [r.start if r.strand == 1 else r.end for r in (x, y)]
                if abs(tss[0] - tss[1]) <= 1000:
                    expected[(x.symbol, y.symbol)] = abs(tss[0] - tss[1])
    assert got == expected


def test_merge_takes_the_larger_weight_and_loses_direction():
    one = Graph("x", ("A", "B"), csr_matrix([[0, 0.3], [0, 0]], dtype=np.float32), directed=True)
    two = Graph("y", ("B", "C"), csr_matrix([[0, 0.7], [0.7, 0]], dtype=np.float32))
    merged = graphs.merge("x+y", [one, two])
    assert merged.nodes == ("A", "B", "C")
    assert not merged.directed
    expected = np.array([[0, 0.3, 0], [0.3, 0, 0.7], [0, 0.7, 0]], np.float32)
    np.testing.assert_array_equal(merged.adjacency.toarray(), expected)
    assert graphs.merge("x+x", [one, one]).directed
