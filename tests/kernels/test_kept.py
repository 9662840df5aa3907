"""Rows that are made once say the same as rows made anew."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from pertwise.kernels.genes import gene_blocks
from pertwise.kernels.kept import keeping_rows, kept_rows
from pertwise.knowledge import Knowledge


class Counted:
    """A source that counts how often its rows are made."""

    kinds = ("length",)
    source = "a test"

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def rows(self, kind: str, genes: Sequence[str]) -> csr_matrix:
        self.asked.append(tuple(genes))
        return csr_matrix([[1.0, len(g)] for g in genes])


def test_parts_of_the_names_are_taken_from_rows_made_once() -> None:
    source, knowledge = Counted(), Knowledge()
    names = ["A", "BB", "CCC", "BB+CCC"]
    parts = [["CCC", "A"], ["BB+CCC", "A"], ["BB"]]
    anew = [gene_blocks(knowledge, p, (), sources=[source]).blocks[0].toarray() for p in parts]
    source.asked.clear()
    with keeping_rows(names):
        kept = [gene_blocks(knowledge, p, (), sources=[source]).blocks[0].toarray() for p in parts]
    for a, b in zip(anew, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    assert source.asked == [("A", "BB", "CCC")]


def test_names_that_are_not_covered_are_made_anew_and_nothing_is_kept_afterwards() -> None:
    source = Counted()
    with keeping_rows(["A", "BB"]):
        for genes in (["A"], ["A", "D"], ["BB"]):
            rows = kept_rows(source, ("length",), genes, lambda g: source.rows("length", g))
            assert rows.toarray()[:, 1].tolist() == [len(g) for g in genes]
    kept_rows(source, ("length",), ["A"], lambda g: source.rows("length", g))
    assert source.asked == [("A", "BB"), ("A", "D"), ("A",)]


def test_two_sources_do_not_share_rows() -> None:
    with keeping_rows(["A"]):
        for value in (1.0, 2.0, 3.0):
            # Made in the loop, so that an id could come back.
            origin = object()
            found = kept_rows(origin, ("k",), ["A"], lambda g, v=value: csr_matrix([[v]] * len(g)))
            assert found.toarray().tolist() == [[value]]
