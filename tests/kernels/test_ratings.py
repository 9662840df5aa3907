"""Kernels of marks: what they are, that nothing else moves them, and that size is linear."""

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.kernels.ratings import (
    WIDTHS,
    MarkKernels,
    filled,
    kernels_of_marks,
    mark_kernels,
    radial,
    radial_rows,
)
from pertwise.knowledge import Knowledge
from pertwise.knowledge.ratings import Ratings
from pertwise.testing import check_kernel


def marked(n=12, p=4, seed=0, **more):
    rng = np.random.default_rng(seed)
    marks = np.column_stack([rng.integers(-6, 7, (n, p)) / 2, rng.integers(0, 7, n) / 2])
    names = [f"G{i:03d}" for i in range(n)]
    programs = [*(f"p{j}" for j in range(p)), "strength"]
    return Ratings.from_marks(names, programs, marks, source="someone", **more)


def test_products_of_rows_are_cosine_and_radial_kernels():
    ratings = marked()
    made = MarkKernels(ratings)
    assert made.kinds == ("marks", *(f"marks within {w:g}" for w in WIDTHS))
    x = ratings.marks / 3
    for kind, width in zip(made.kinds[1:], WIDTHS, strict=True):
        rows = made.rows(kind, ratings.names).toarray()
        far = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
        np.testing.assert_allclose(rows @ rows.T, np.exp(-far / (2 * width**2)), atol=1e-5)
    rows = made.rows("marks", ratings.names).toarray()
    unit = x[:, :-1] / np.maximum(np.linalg.norm(x[:, :-1], axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(rows @ rows.T, unit @ unit.T, atol=1e-5)


def test_a_row_does_not_depend_on_what_else_is_asked_for():
    made = MarkKernels(marked())
    for kind in made.kinds:
        alone = made.rows(kind, ["G004"]).toarray()
        np.testing.assert_array_equal(
            made.rows(kind, ["NOBODY", "G004", "G001"]).toarray()[1], alone[0]
        )
        assert not made.rows(kind, ["NOBODY"]).nnz


def test_many_profiles_go_through_landmarks():
    """Rows have as many columns as landmarks, and products stay near the exact kernel."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3)) / 3
    exact, rows = radial(x, x, 1.0), radial_rows(x, 1.0, landmarks=64)
    assert rows.shape[1] <= 64
    assert np.abs(rows @ rows.T - exact).max() < 0.02
    np.testing.assert_allclose(radial_rows(x[:50], 1.0) @ radial_rows(x[:50], 1.0).T,
                               exact[:50, :50], atol=1e-6)  # fmt: skip


def test_missing_marks_count_as_the_mean_of_their_program():
    marks = np.array([[1.0, np.nan, np.nan], [3.0, -1.0, np.nan]])
    made = Ratings.from_marks(["A", "B"], ["p", "q", "r"], marks)
    np.testing.assert_array_equal(filled(made), [[1, -1, 0], [3, -1, 0]])
    with pytest.raises(InputError, match="no mark"):
        MarkKernels(Ratings.from_marks(["A"], ["p"], np.array([[np.nan]]), source="empty"))


def test_another_spelling_of_a_marked_name_is_the_same(simulated):
    _, knowledge = simulated
    gene = knowledge.genes()[0]
    ratings = Ratings.from_marks([gene.lower(), "G1"], ["p"], np.array([[2.0], [-1.0]]))
    made = MarkKernels(ratings, resolve=knowledge.canonical)
    assert made.places([gene, "nobody"]).tolist() == [ratings.names.index(gene.lower()), -1]


def test_several_tables_are_told_apart():
    here = (marked(context="K562"), marked(seed=1, context="RPE1"), marked(seed=2, context="RPE1"))
    made = mark_kernels(Knowledge(ratings=here))
    assert [m.label for m in made] == ["marks for K562", "marks for RPE1", "marks for RPE1 (2)"]
    assert mark_kernels(Knowledge(ratings=here), False) == ()
    assert len(mark_kernels(Knowledge(ratings=here), here[:1])) == 1
    assert len({k.name for k in kernels_of_marks(Knowledge(ratings=here))}) == 12


@pytest.mark.parametrize("kind", range(4))
def test_each_passes_the_check_of_kernels(kind):
    ratings = marked()
    check_kernel(kernels_of_marks(None, (ratings,))[kind], ratings.names)
