"""Kernels from named neighbours."""

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.kernels.named import GRAPH_KINDS, REASON_KINDS, NamedNeighbours

ANSWERS = {
    "A": (("B", "C"), "ribosome large subunit"),
    "D": (("B", "C"), "ribosome small subunit"),
    "E": (("F",), "spliceosome"),
}


def test_same_neighbours_and_like_reasons_are_alike():
    named = NamedNeighbours(ANSWERS, "test")
    assert named.kinds == (*GRAPH_KINDS, *REASON_KINDS)
    genes = ["A", "D", "E", "unheard of"]
    for kind in named.kinds:
        k = named.rows(kind, genes) @ named.rows(kind, genes).T
        k = k.toarray()
        np.testing.assert_allclose(np.diag(k), [1, 1, 1, 0], atol=1e-6)
        assert k[0, 1] > k[0, 2] + 0.1, kind
        assert not k[3].any()
    # A = {A, B, C}, D = {D, B, C}: two of three shared
    row = named.rows("named", ["A", "D"])
    assert (row @ row.T)[0, 1] == pytest.approx(2 / 3)


def test_without_reasons_only_the_graph_is_used():
    plain = NamedNeighbours({k: (v[0], "") for k, v in ANSWERS.items()}, "test")
    assert plain.kinds == GRAPH_KINDS
    with pytest.raises(InputError, match="no recorded answer"):
        NamedNeighbours({}, "test")


def test_pairs_of_words_tell_no_effect_from_effect():
    answers = {
        "A": (("B",), "strong effect"),
        "C": (("B",), "no effect"),
        "D": (("B",), "surely no effect"),
    }
    named = NamedNeighbours(answers, "test")
    rows = named.rows("reason pairs", ["A", "C", "D"])
    alike = (rows @ rows.T).toarray()
    assert alike[1, 2] > alike[0, 1] + 0.2
    # B has no reason of its own; those who named it do, but only the widest kernel hears them.
    assert not named.rows("reason pairs of neighbours", ["B"]).nnz
    assert named.rows("reason pairs of all who are linked", ["B"]).nnz
