"""The challenge's members on tables of differential genes, by hand."""

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.evaluate.vcc2026 import direction_reach, direction_yield, lfc_error, sig_jaccard

YES, NO = True, False


def test_jaccard_of_calls():
    truth, answer = [[YES, YES, NO, NO], [NO] * 4], [[YES, NO, YES, NO], [NO] * 4]
    assert list(sig_jaccard(truth, answer)) == [pytest.approx(1 / 3), 1.0]
    keep = [[NO, YES, YES, YES], [YES] * 4]
    assert list(sig_jaccard(truth, answer, keep)) == [0.0, 1.0]


def test_error_of_fold_changes():
    truth = np.tile([2.0, -2.0], (3, 6))
    gate = np.ones((3, 12), bool)
    gate[2, 3:] = False
    answer = np.zeros((3, 12))
    answer[1] = truth[1] * 1.5
    answer[1, 0] = np.inf
    found = lfc_error(truth, answer, gate)
    assert found[0] == 1.0, "no change is as wrong as the truth is large"
    assert found[1] == pytest.approx((2 + 11) / 24), "infinite counts as no change"
    assert np.isnan(found[2]), "three genes make no ratio"


def test_yield_divides_by_the_larger_set_of_calls():
    truth, answer = [[1.0, 1.0, -1.0, 0.0]] * 3, [[2.0, -1.0, -3.0, 1.0]] * 3
    real = [[YES, YES, NO, NO], [YES, NO, NO, NO], [NO] * 4]
    called = [[YES, YES, NO, NO], [YES, NO, YES, YES], [NO] * 4]
    found = direction_yield(truth, answer, real, called)
    assert list(found[:2]) == [0.5, 1.0]
    assert np.isnan(found[2])


def test_reach_is_the_deepest_pure_prefix():
    truth = np.ones((3, 20))
    answer = np.ones((3, 20))
    answer[0, 9] = -1.0  # nine of ten are right: pure enough, and so to the end
    answer[1, :2] = -1.0  # surest two wrong: 18 of 20 are right at the end
    answer[2, :3] = -1.0  # three wrong: never 0.9
    q = np.tile(np.linspace(0.001, 0.04, 20), (3, 1))
    real = np.ones((3, 20), bool)
    assert list(direction_reach(truth, answer, real, q)) == [1.0, 1.0, 0.0]
    # What is not called, or less sure, comes later; ties go to the larger fold change.
    flat = np.full((1, 20), 0.01)
    first = np.ones((1, 20))
    first[0, 0] = -0.5
    assert direction_reach(truth[:1], first, real[:1], flat)[0] == 1.0
    assert np.isnan(direction_reach(truth[:1], first, ~real[:1], flat)[0])


def test_tables_of_other_genes_are_refused():
    with pytest.raises(InputError, match="alike"):
        sig_jaccard([[YES, NO]], [[YES]])
