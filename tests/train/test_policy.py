"""The policy without a language model: it learns from reward alone, and is a selector like any."""

import numpy as np
import pytest

from pertwise import parts
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge
from pertwise.knowledge.ratings import Ratings
from pertwise.models.neighbours import NeighbourPredictor
from pertwise.screen import make_screen
from pertwise.select.base import Query
from pertwise.testing import check_selector
from pertwise.train.grading import Grader
from pertwise.train.making import make_tasks, training_tasks
from pertwise.train.policy import limited, rewards_of, train_policy
from pertwise.train.rewards import Scheme, reward


@pytest.fixture(scope="module")
def world(simulated):
    screen, knowledge = simulated
    grader = Grader.of(screen, knowledge=knowledge)
    return training_tasks(screen, knowledge), grader, knowledge


@pytest.fixture(scope="module")
def policy(world):
    tasks, grader, knowledge = world
    return train_policy(tasks, grader, knowledge, n_steps=60, n_batch=16, seed=1)


def test_reward_rises_beyond_its_noise(policy):
    first, last = np.array(policy.curve[:15]), np.array(policy.curve[-15:])
    error = np.sqrt(first.var(ddof=1) / 15 + last.var(ddof=1) / 15)
    assert last.mean() - first.mean() > 3 * error


def test_better_than_the_graph_where_it_learned(world, policy):
    tasks, grader, _ = world
    details = [reward(t, policy.answer(t), grader).detail for t in tasks]
    gains = [d["score"] - d["start"] for d in details]
    assert np.mean(gains) > 0


def test_same_seed_same_policy(world):
    tasks, grader, knowledge = world
    one, two = (
        train_policy(tasks[:12], grader, knowledge, n_steps=5, seed=3).weights for _ in range(2)
    )
    np.testing.assert_array_equal(one, two)


def test_trained_by_the_reward_of_the_text(world, policy):
    tasks, grader, _ = world
    how = Scheme()
    for task in tasks[:12]:
        target = grader.target(task)
        start = target.members(task.shown)
        text = policy.answer(task)
        got = reward(task, text, grader)
        names = set(task.shown) - set(got.detail["removed"]) | set(got.detail["added"])
        members = target.members(names)[None]
        assert rewards_of(task, target, members, start, grader, how)[0] == pytest.approx(got.total)


def test_at_most_so_many_edits_the_surest_ones():
    start = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    odds = np.array([-3.0, -1.0, -2.0, 0.5, 3.0, 1.0])
    drawn = np.array([[0.0, 0, 0, 1, 1, 1], [1, 1, 0, 1, 0, 0]])
    np.testing.assert_array_equal(
        limited(drawn, start, odds, 2), [[0, 1, 0, 0, 1, 1], [1, 1, 0, 1, 0, 0]]
    )
    np.testing.assert_array_equal(limited(drawn, start, odds, 0), [start, start])


def test_test_tasks_teach_nothing(world, simulated):
    _, grader, knowledge = world
    test = [t for t in make_tasks(*simulated) if t.split == "test"]
    with pytest.raises(InputError, match="no training task"):
        train_policy(test, grader, knowledge)


def test_held_out_responses_do_not_matter(simulated):
    screen, knowledge = simulated
    made = make_tasks(screen, knowledge)
    held = {t.subject for t in made if t.split == "test"}
    changed = screen.responses.copy()
    changed[screen.obs["perturbation"].isin(held).to_numpy()] += 5.0
    other = make_screen(changed, screen.obs["perturbation"], screen.features,
                        context=screen.contexts[0])  # fmt: skip
    weights = []
    for one in (screen, other):
        tasks = [t.model_copy(update={"screen": ""}) for t in made]
        grader = Grader.of(one, knowledge=knowledge)
        weights.append(train_policy(tasks, grader, knowledge, n_steps=4).weights)
    np.testing.assert_array_equal(*weights)


def test_another_line_has_its_own_marks(simulated):
    screen, plain = simulated
    names = list(screen.perturbations)
    rng = np.random.default_rng(0)
    tables = [
        Ratings.from_marks(names, ["p", "strength"], np.abs(rng.normal(size=(len(names), 2))) % 3,
                           context=c, source=c)
        for c in (screen.contexts[0], "Other")
    ]  # fmt: skip
    knowledge = Knowledge(plain._tables, ratings=tables)
    grader = Grader.of(screen, knowledge=knowledge)
    tasks = training_tasks(screen, knowledge)
    made = train_policy(tasks[:10], grader, knowledge, n_steps=3)
    shown = np.zeros(5)
    here, there = (
        made.log_odds(c, names[0], names[1:6], shown) for c in (screen.contexts[0], "Other")
    )
    assert not np.allclose(here, there)
    assert made.features["Other"].marks[0].ratings.context == "Other"


def test_is_a_selector(simulated):
    screen, knowledge = simulated
    made = parts.describe("selector", "edit-policy:string").serve(
        n_steps=20, knowledge=knowledge, screen=screen
    )
    held = screen.perturbations[0]
    check_selector(lambda: made, list(screen.perturbations[1:14]), Query(held, screen.contexts[0]))
    model = NeighbourPredictor(lambda k: made, k=20).fit(screen.hide([held]), knowledge)
    found = model.predict([held])
    assert np.isfinite(found.mean).all()
