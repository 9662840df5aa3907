"""What answers are worth: hand-computed values, gold 1, garbage 0, and attempts to game it."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pertwise.errors import InputError
from pertwise.evaluate.metrics import cosine, pearson_delta, squared_error
from pertwise.screen import make_screen, simulate_screen
from pertwise.train.gold import best_set, edit_text, gold_answer, marks_text, picks_text
from pertwise.train.grading import METRICS, Grader
from pertwise.train.making import Making, make_tasks
from pertwise.train.rewards import Scheme, bounds_of, measured_changes, reward
from pertwise.train.tasks import Task

NAMES = [f"G{i:02d}" for i in range(24)]
FEATURES = [f"program {w}" for w in "abcdefgh"]
RNG = np.random.default_rng(7)
CENTRES = RNG.normal(size=(4, 8))
RESPONSES = CENTRES[np.arange(24) % 4] + 0.4 * RNG.normal(size=(24, 8))
SCREEN = make_screen(RESPONSES, NAMES, FEATURES, context="K562")
GRADER = Grader.of(SCREEN)
ASK = ({"role": "user", "content": "?"},)
Y = GRADER.lines["K562"].y


def a_task(kind="edit", **more):
    given = {
        "edit": {"shown": NAMES[1:6], "allowed": NAMES[6:], "extra": {"max_edits": 3}},
        "pick": {"allowed": NAMES[1:], "extra": {"n_min": 2, "n_max": 4, "graph": NAMES[1:4]}},
        "acquire": {"shown": NAMES[:6], "allowed": NAMES[6:], "extra": {"n_min": 4, "n_max": 4}},
        "rate": {
            "shown": NAMES[:10],
            "extra": {"programs": [{"key": "a", "name": "program a"}, {"key": "b", "name":
                      "program b"}, {"key": "STR", "name": "strength", "signed": False}]},
        },
    }[kind]  # fmt: skip
    subject = NAMES[0] if kind in ("edit", "pick") else ""
    return Task(id=kind, kind=kind, context="K562", subject=subject, messages=ASK, **given, **more)


TASKS = {kind: a_task(kind) for kind in ("edit", "pick", "acquire", "rate")}
EDIT = TASKS["edit"]


def row(name):
    return Y[NAMES.index(name)]


# -- values ------------------------------------------------------------------------------------


def test_gain_by_hand():
    added, removed = ["G08"], ["G01", "G02"]
    kept = ["G03", "G04", "G05", "G08"]
    truth = row("G00")[None]
    start = pearson_delta(truth, np.mean([row(n) for n in EDIT.shown], axis=0)[None])[0]
    score = pearson_delta(truth, np.mean([row(n) for n in kept], axis=0)[None])[0]
    best = bounds_of(EDIT, GRADER).best
    raw = (score - start) + 0.1 * np.sign(score - start)
    wanted = np.clip(raw / (best - start + 0.1), -1, 1)
    got = reward(EDIT, edit_text(added, removed), GRADER)
    assert got.parts["gain"] == pytest.approx(wanted, abs=1e-12)
    assert got.parts["validity"] == got.parts["format"] == 1.0
    assert got.total == pytest.approx((2 + wanted) / 3)
    assert got.detail["added"] == added
    assert got.detail["removed"] == removed


def test_metrics_are_those_of_evaluate():
    names = ["G08", "G12"]
    truth, mean = row("G00")[None], np.mean([row(n) for n in names], axis=0)[None]
    rest = np.mean([row(n) for n in EDIT.available], axis=0)[None]
    worst = squared_error(truth, rest)[0]
    wanted = {
        "pearson": pearson_delta(truth, mean)[0],
        "cosine": cosine(truth, mean)[0],
        "error": -squared_error(truth, mean)[0] / worst,
    }
    for metric, value in wanted.items():
        assert GRADER.target(EDIT, metric).score(names) == pytest.approx(value)
    nearer = sum(np.sum((mean - row(n)) ** 2) < np.sum((mean - truth) ** 2) for n in EDIT.available)
    retrieval = 1 - nearer / len(EDIT.available)
    assert GRADER.target(EDIT, "retrieval").score(names) == pytest.approx(retrieval)


def test_ceiling_counts_only_what_is_no_noise():
    noise = 0.05
    obs = SCREEN.obs.assign(sampling_variance=noise)
    noisy = type(SCREEN)(SCREEN.responses, obs, SCREEN.features, SCREEN.control_mean)
    target = Grader.of(noisy).target(EDIT, "ceiling")
    truth = row("G00")[None]
    error = squared_error(truth, row("G08")[None])[0]
    worst = squared_error(truth, np.mean([row(n) for n in EDIT.available], axis=0)[None])[0]
    assert target.score(["G08"]) == pytest.approx(-(error - noise) / (worst - noise), rel=1e-5)


def test_empty_set_predicts_the_training_mean():
    target = GRADER.target(EDIT, "error")
    assert target.score([]) == pytest.approx(-1.0)
    everything = reward(EDIT, edit_text([], EDIT.shown), GRADER, Scheme(metric="error"))
    # Three removals count at most, so two of five neighbours stay.
    assert everything.parts["validity"] == pytest.approx(3 / 5)


def test_own_gene_does_not_count():
    features = ["G00", *FEATURES[1:]]
    screen = make_screen(RESPONSES, NAMES, features, context="K562")
    target = Grader.of(screen).target(EDIT)
    assert np.isnan(target.truth[0, 0])
    assert target.score(["G08"]) == pytest.approx(
        pearson_delta(row("G00")[None, 1:], row("G08")[None, 1:])[0]
    )


def test_greedy_finds_what_trying_all_finds():
    small = a_task().model_copy(
        update={"shown": ("G01", "G02", "G03"), "allowed": ("G04", "G05", "G08", "G12")}
    )
    target = GRADER.target(small)
    best = max(
        target.score([n for n in small.shown if n not in gone] + list(new))
        for g in range(4)
        for a in range(4)
        for gone in itertools.combinations(small.shown, g)
        for new in itertools.combinations(small.allowed, a)
    )
    assert best_set(small, target).best == pytest.approx(best)


# -- gold and garbage --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("metric", METRICS)
def test_gold_scores_one(kind, metric):
    scheme = Scheme(metric=metric)
    text = gold_answer(TASKS[kind], GRADER, scheme)
    got = reward(TASKS[kind], text, GRADER, scheme)
    assert got.total == pytest.approx(1.0, abs=1e-3)


def test_gold_scores_one_on_made_tasks():
    screen = simulate_screen(1, n_perturbations=30, n_features=20, n_pathways=3).screen
    made = make_tasks(screen, None, ("acquire",), how=Making(n_rounds=2, n_batch=3))
    grader = Grader.of(screen)
    for task in made:
        assert reward(task, gold_answer(task, grader), grader).total == pytest.approx(1.0)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("text", ["", "no", "{", "[]", "null", '{"x": 1}', "I'm sorry", "[" * 9999])
def test_garbage_scores_nothing(kind, text):
    got = reward(TASKS[kind], text, GRADER)
    assert got.total == 0.0
    assert set(got.parts.values()) == {0.0}
    assert got.why


def test_unchanged_lists_win_nothing():
    got = reward(EDIT, edit_text([], []), GRADER)
    assert got.parts == {"format": 1.0, "validity": 0.0, "gain": 0.0}


def test_where_no_edit_helps_none_is_the_best_answer():
    # The subject answers as G01 does, which is shown.
    responses = RESPONSES.copy()
    responses[0] = responses[1]
    grader = Grader.of(make_screen(responses, NAMES, FEATURES, context="K562"))
    task = EDIT.model_copy(update={"shown": ("G01",), "allowed": ("G06", "G07")})
    assert gold_answer(task, grader) == edit_text([], [])
    assert reward(task, edit_text([], []), grader).total == pytest.approx(1.0)
    worse = reward(task, edit_text(["G06"], ["G01"]), grader)
    assert worse.parts["gain"] == -1.0
    assert reward(task, edit_text(["NOSUCH"], []), grader).parts["validity"] == 0.0


def test_one_mark_for_all_is_worth_the_base_rate():
    task = TASKS["rate"]
    flat = marks_text(task.shown, ["a", "b", "STR"], np.tile([2.0, -1.0, 1.0], (10, 1)))
    got = reward(task, flat, GRADER)
    assert got.parts == {"format": 1.0, "validity": 1.0, "gain": 0.0}
    truth = measured_changes(task, GRADER)
    half = marks_text(task.shown, ["a", "b", "STR"], np.c_[truth[:, 0], np.ones((10, 2))])
    assert reward(task, half, GRADER).parts["gain"] == pytest.approx(1 / 3, abs=1e-3)
    against = marks_text(task.shown, ["a", "b", "STR"], np.c_[-truth[:, :2], 3 - truth[:, 2]])
    assert reward(task, against, GRADER).parts["gain"] == pytest.approx(-1, abs=1e-3)


# -- attempts to game it -----------------------------------------------------------------------

SOME = st.lists(st.sampled_from(NAMES[1:]), max_size=6, unique=True)


@settings(max_examples=60)
@given(add=SOME, remove=SOME, words=st.text(max_size=40))
def test_words_win_nothing(add, remove, words):
    short = reward(EDIT, edit_text(add, remove), GRADER)
    assume("{" not in words and "[" not in words)
    long = json.dumps({"add": [{"name": n, "reason": words * 20} for n in add],
                       "remove": [{"name": n, "reason": words} for n in remove]})  # fmt: skip
    assert reward(EDIT, long, GRADER).total == short.total


@settings(max_examples=60)
@given(add=SOME, remove=SOME, times=st.integers(1, 5))
def test_repeats_and_the_subject_win_nothing(add, remove, times):
    plain = reward(EDIT, edit_text(add, remove), GRADER).total
    for more in (add * times, [NAMES[0]] * times, ["g00"], ["NOSUCH"] * times, EDIT.shown):
        got = reward(EDIT, edit_text([*add, *more], remove), GRADER).total
        assert got <= plain + 1e-12
    assert reward(EDIT, edit_text(add, [*remove, *remove, NAMES[0]]), GRADER).total <= plain + 1e-12


@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(picks=SOME, kind=st.sampled_from(["pick", "acquire"]), times=st.integers(1, 4))
def test_padded_picks_win_nothing(picks, kind, times):
    task = TASKS[kind]
    picks = [p for p in picks if p in task.allowed]
    assume(len(picks) >= task.extra["n_min"])
    plain = reward(task, picks_text(picks), GRADER).total
    for more in (picks * times, ["NOSUCH"] * times, [NAMES[0]]):
        assert reward(task, picks_text([*picks, *more]), GRADER).total <= plain + 1e-12


@settings(max_examples=200)
@given(
    marks=st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=10, max_size=10),
    extra=st.sampled_from(["G23", "NOSUCH", "G00"]),
)
@example(marks=[[0, 0, 2], [0, 0, 0], [0, 0, 1], *[[0, 0, 0]] * 7], extra="G00")
def test_surplus_rows_of_marks_win_nothing(marks, extra):
    task = TASKS["rate"]
    values = np.array(marks)
    values[:, 2] = np.abs(values[:, 2])
    plain = json.loads(marks_text(task.shown, ["a", "b", "STR"], values))
    base = reward(task, json.dumps(plain), GRADER).total
    plain["marks"] += [{"name": extra, "a": 1, "b": 1, "STR": 1}]
    assert reward(task, json.dumps(plain), GRADER).total <= base + 1e-12


@settings(max_examples=60)
@given(text=st.one_of(st.text(max_size=200), st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["add", "remove", "picks", "marks", "name", "a", "x"]), inner, max_size=4),
    max_leaves=12).map(json.dumps)))  # fmt: skip
def test_any_text_has_a_bounded_reward(text):
    for task in TASKS.values():
        got = reward(task, text, GRADER)
        assert 0.0 <= got.total <= 1.0
        assert all(np.isfinite(v) for v in got.parts.values())
        assert got.total < 1.0 or got.parts["gain"] == pytest.approx(1.0)


@settings(max_examples=60)
@given(add=st.lists(st.sampled_from(EDIT.allowed), max_size=3, unique=True),
       remove=st.lists(st.sampled_from(EDIT.shown), max_size=3, unique=True),
       order=st.randoms())  # fmt: skip
def test_order_does_not_matter_and_nothing_beats_gold_by_much(add, remove, order):
    one = reward(EDIT, edit_text(add, remove), GRADER)
    order.shuffle(add)
    order.shuffle(remove)
    other = reward(EDIT, edit_text(add, remove), GRADER)
    assert one.total == pytest.approx(other.total)
    assert one.total <= 1.0


# -- what does not fit -------------------------------------------------------------------------


def test_task_of_another_screen_is_refused():
    with pytest.raises(InputError, match="another screen"):
        reward(a_task(screen="0" * 64), edit_text([], []), GRADER)
    with pytest.raises(InputError, match="context"):
        reward(EDIT.model_copy(update={"context": "RPE1"}), edit_text([], []), GRADER)
    with pytest.raises(InputError, match="not measured"):
        reward(EDIT.model_copy(update={"shown": ("X",)}), edit_text([], []), GRADER)
    with pytest.raises(InputError, match=r"extra\.programs"):
        reward(TASKS["rate"].model_copy(update={"extra": {}}), '{"marks": []}', GRADER)
    with pytest.raises(InputError, match="metric"):
        reward(EDIT, edit_text([], []), GRADER, Scheme(metric="mse"))
    with pytest.raises(InputError, match="negative"):
        Scheme(alpha=-1)


def test_ranks_have_no_error():
    ranked = make_screen(RESPONSES, NAMES, FEATURES, context="K562", meta={"ranked": True})
    with pytest.raises(InputError, match="ranks"):
        reward(EDIT, edit_text([], []), Grader.of(ranked), Scheme(metric="error"))


def test_same_context_twice_is_refused():
    with pytest.raises(InputError, match="two screens hold the context"):
        Grader.of(SCREEN, SCREEN)


def test_aliases_count_with_knowledge():
    known = Grader.of(SCREEN)
    aware = Grader(known.lines, known.digests, resolve=lambda names: {n: {"OLD8": "G08"}.get(n, n)
                                                                      for n in names})  # fmt: skip
    text = edit_text(["OLD8"], [])
    assert reward(EDIT, text, aware).detail["added"] == ["G08"]
    assert reward(EDIT, text, known).parts["validity"] == 0.0
