"""The GO graph as arrays, against a walk over the parents."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pertwise.knowledge.genes import ontology


@st.composite
def graphs(draw):
    """Random graphs whose edges run to earlier terms, so that there is no cycle."""
    n = draw(st.integers(1, 12))
    parents = [
        draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else []
        for i in range(n)
    ]
    return parents


def walk(parents, i):
    seen = {i}
    for p in parents[i]:
        seen |= walk(parents, p)
    return seen


def longest(parents, i):
    return max((1 + longest(parents, p) for p in parents[i]), default=0)


@given(graphs())
def test_closure_and_depth_equal_a_recursive_walk(parents):
    terms = [f"T{i}" for i in range(len(parents))]
    matrix = ontology.parent_matrix(terms, ["|".join(f"T{p}" for p in ps) for ps in parents])
    closure = ontology.ancestor_closure(matrix).toarray()
    depth = ontology.depths(matrix)
    for i in range(len(parents)):
        assert set(np.flatnonzero(closure[i])) == walk(parents, i)
        assert depth[i] == longest(parents, i)


@given(graphs(), st.data())
def test_terms_without_those_above_them_cover_all_and_imply_none(parents, data):
    above = {f"T{i}": "|".join(f"T{p}" for p in ps) for i, ps in enumerate(parents)}
    own = data.draw(st.lists(st.integers(0, len(parents) - 1), min_size=1, unique=True))
    found = ontology.ancestors([f"T{i}" for i in own], above)
    assert found == {f"T{u}" for t in own for u in walk(parents, t) - {t}}
    kept = [t for t in own if f"T{t}" not in found]
    assert set(own) <= set().union(*(walk(parents, t) for t in kept))
    for t in kept:
        assert not any(t in walk(parents, u) for u in kept if u != t)
