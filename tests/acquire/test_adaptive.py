"""Adaptive choice: who will respond matters more; marks say so before anything is measured."""

from dataclasses import replace

import numpy as np
import pytest

from pertwise.acquire.base import Target
from pertwise.acquire.strategies.adaptive import Adaptive, expected_square, marked_strength
from pertwise.acquire.strategies.variance_reduction import VarianceReduction
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge
from pertwise.knowledge.ratings import Ratings
from pertwise.screen.core import make_screen
from pertwise.testing.strategies import check_strategy, example_state


def grouped_state(n=40, strong=10, measured=12, seed=0):
    """Two groups of genes alike within; the members of the first respond, the others do not."""
    rng = np.random.default_rng(seed)
    names = [f"G{i:02d}" for i in range(n)]
    rows = rng.normal(size=(n, 6)) * 0.3
    rows[:strong, 0] += 2.0
    rows[strong:, 1] += 2.0
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    y = 0.1 * rng.normal(size=(n, 5))
    y[:strong] += 3.0
    seen = sorted(rng.choice(n, measured, replace=False).tolist())
    left = [i for i in range(n) if i not in seen]
    screen = make_screen(
        y[seen].astype(np.float32), [names[i] for i in seen], [f"f{j}" for j in range(5)]
    )
    state = replace(
        example_state(),
        candidates=tuple(names[i] for i in left),
        measured=tuple(names[i] for i in seen),
        screen=screen,
        knowledge=None,
        uncertainty=None,
        member_predictions=None,
        embedding=rows[[*left, *seen]].astype(np.float32),
        neighbours=None,
        relations=None,
        target=Target(),
        pinned=(),
    )
    return state, {names[i] for i in range(strong)}


def test_expected_squares_are_learned_from_what_is_measured():
    state, strong = grouped_state()
    expected = expected_square(state, np.asarray(state.embedding, dtype=float))
    names = [*state.candidates, *state.measured]
    inside = np.array([n in strong for n in names])
    assert expected.mean() == pytest.approx(1.0)
    assert expected[inside].min() > 2 * expected[~inside].max()


def test_the_batch_goes_where_the_responses_are():
    state, strong = grouped_state()
    share = {
        s.name: np.mean([p in strong for p in s.choose(state, 4).items])
        for s in (Adaptive(), VarianceReduction())
    }
    assert share["adaptive"] > share["variance_reduction"]


def test_power_zero_without_marks_is_variance_reduction():
    state, _ = grouped_state()
    a, b = Adaptive(power=0.0).choose(state, 6), VarianceReduction().choose(state, 6)
    assert a.items == b.items
    np.testing.assert_allclose(a.utilities, b.utilities)


def test_before_anything_is_measured_marks_of_strength_decide():
    state, _ = grouped_state(measured=0)
    state = replace(state, screen=None, measured=())
    strength = np.array([[3.0] if i % 2 else [0.0] for i in range(len(state.candidates))])
    ratings = Ratings.from_marks(list(state.candidates), ["strength"], strength)
    known = replace(state, knowledge=Knowledge(ratings=[ratings]))
    expected = expected_square(
        state, np.asarray(state.embedding, float), np.ravel(strength) ** 2 / 4.5
    )
    assert expected[1] == pytest.approx(3 * expected[0])
    chosen = Adaptive(share=0.0).choose(known, 4)
    marks = dict(zip(ratings.names, np.ravel(ratings.marks), strict=True))
    assert sum(marks[p] == 3.0 for p in chosen.items) >= 3
    assert chosen.provenance["marks"] == [""]
    assert Adaptive(marks=False).choose(known, 4).provenance["marks"] == []


def test_nan_and_target_features_are_honoured():
    state, strong = grouped_state()
    y = np.array(state.screen.responses)
    y[:, 1] = np.nan
    y[0] = np.nan
    screen = make_screen(y, list(state.screen.perturbations), list(state.screen.features))
    state = replace(state, screen=screen, target=Target(features=("f1", "f2")))
    expected = expected_square(state, np.asarray(state.embedding, dtype=float))
    assert np.isfinite(expected).all()
    names = [*state.candidates, *state.measured]
    inside = np.array([n in strong for n in names])
    assert expected[inside].mean() > 2 * expected[~inside].mean()


def test_conformance_of_variants_and_refused_settings():
    for settings in ({"share": 0.0}, {"power": 0.5}, {"marks": False}):
        check_strategy(lambda settings=settings: Adaptive(**settings))
    for settings in ({"noise": 0.0}, {"share": 1.5}, {"power": -1.0}):
        with pytest.raises(InputError, match="must be"):
            Adaptive(**settings)


def strengths(state, *tables):
    """What `Adaptive` makes of these tables: (n_candidates + n_measured,) squares, mean 1."""
    return marked_strength(replace(state, knowledge=Knowledge(ratings=tables)), tables)


def test_marks_for_these_cells_count_before_those_for_others():
    state = replace(grouped_state()[0], context="K562")
    names = sorted([*state.candidates, *state.measured])
    here, there = (
        Ratings.from_marks(names, ["strength"], 1.0 + 2.0 * np.eye(40)[:, [row]], context=cells)
        for row, cells in enumerate(("K562", "RPE1"))
    )
    order = [*state.candidates, *state.measured]
    assert order[strengths(state, here, there).argmax()] == names[0]
    np.testing.assert_array_equal(strengths(state, here, there), strengths(state, here))
    assert order[strengths(state, there).argmax()] == names[1]


def test_what_was_not_marked_gets_the_mean_without_a_warning(recwarn):
    state, _ = grouped_state()
    marks = np.array([[3.0, np.nan], [np.nan, np.nan], [1.0, -1.0]])
    few = Ratings.from_marks(list(state.candidates[:3]), ["up", "down"], marks)
    found = strengths(state, few)
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(1.0)
    assert found[1] == pytest.approx(found[-1])
    assert not recwarn.list


def test_another_spelling_of_a_marked_gene_is_found(simulated):
    _, knowledge = simulated
    genes = knowledge.genes()[:4]
    state = replace(
        grouped_state()[0], candidates=tuple(genes), measured=(), screen=None, embedding=np.eye(4)
    )
    marks = np.array([[3.0], [0.0], [0.0], [0.0]])
    ratings = Ratings.from_marks([g.lower() for g in genes], ["strength"], marks)
    known = knowledge.with_ratings([ratings])
    assert marked_strength(replace(state, knowledge=known), known.ratings).argmax() == 0
