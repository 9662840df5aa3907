"""Rewards: pure functions of a task, the text of an answer and measured responses.

Every reward is the mean of three parts, clipped to [0, 1]:

    format    1 when the answer can be read by `llm.parse.parse_answer`, as live answers are; else,
              and where picks or marks hold none that counts, every part is 0
    validity  share of what is named that counts: additions that are offered, removals that were
              shown, each once; 0 when nothing is changed (1 where no edit could help)
    gain      g(s) / g(s*), clipped to [-1, 1], with g(s) = alpha (s - s0) + beta sign(s - s0);
              s = score of the mean response of the chosen set, s0 that of the neighbours shown (of
              the graph, or the training mean), s* that of the best set that could be reached

An empty set predicts the training mean. The answer that reaches s* (`gold.gold_answer`) scores 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pertwise.errors import InputError
from pertwise.knowledge.programs import Program
from pertwise.llm.answers import EditAnswer, MarksAnswer, PicksAnswer
from pertwise.llm.parse import AnswerError, parse_answer
from pertwise.select.base import Pick
from pertwise.select.chat.edit import Edited, edited
from pertwise.select.chat.marks import Sheet
from pertwise.select.closed_list import Checked, ClosedList
from pertwise.train.gold import ROUNDING, Bounds, acquired, best_round, best_set, same
from pertwise.train.grading import Floats, Grader, program_changes
from pertwise.train.tasks import Task

#: The parts of a reward, in order.
PARTS = ("format", "validity", "gain")


@dataclass(frozen=True)
class Scheme:
    """Which gain, and how the parts are weighed.

    Attributes
    ----------
    metric
        pearson (Pearson delta), cosine, error, retrieval or ceiling (error above the noise of the
        measurement); see `grading.METRICS`.
    alpha, beta
        Of the difference to the neighbours shown, and of its sign.
    weights
        Of format, validity and gain; made to sum to 1.
    """

    metric: str = "pearson"
    alpha: float = 1.0
    beta: float = 0.1
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        good = min(self.alpha, self.beta, *self.weights) >= 0 and self.alpha + self.beta > 0
        if not good or not sum(self.weights) > 0 or len(self.weights) != len(PARTS):
            raise InputError(
                f"alpha {self.alpha}, beta {self.beta} and the weights {self.weights} must not be "
                "negative, and neither pair all zero"
            )

    def gains(self, scores: Floats, bounds: Bounds) -> Floats:
        """(m,) gain parts of (m,) scores; where nothing can be gained, 1 for losing nothing."""
        most = self._raw(np.array([bounds.best - bounds.start]))[0]
        if most <= 0:
            return np.where(scores >= bounds.start - ROUNDING, 1.0, -1.0)
        return np.asarray(np.clip(self._raw(scores - bounds.start) / most, -1.0, 1.0))

    def _raw(self, difference: Floats) -> Floats:
        d = np.where(same(difference), 0.0, difference)
        return np.asarray(self.alpha * d + self.beta * np.sign(d))

    def total(self, form: Floats | float, validity: Floats | float, gain: Floats) -> Floats:
        """Weighted mean of the parts, in [0, 1]."""
        w = np.asarray(self.weights) / sum(self.weights)
        return np.asarray(np.clip(w[0] * form + w[1] * validity + w[2] * gain, 0.0, 1.0))


@dataclass(frozen=True)
class Reward:
    """What an answer is worth.

    Attributes
    ----------
    parts
        format, validity, gain.
    total
        Their weighted mean, in [0, 1].
    why
        What went wrong with an answer that cannot be read.
    detail
        JSON-able: what was added, removed or picked; score, start and best.
    """

    parts: dict[str, float]
    total: float
    why: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


def reward(
    task: Task,
    answer: str,
    arrays: Grader,
    scheme: Scheme | None = None,
    *,
    finish_reason: str = "stop",
) -> Reward:
    """What an answer to a task is worth; see the module.

    Raises
    ------
    pertwise.errors.InputError
        When task and arrays do not belong together; never for an answer, whatever it holds.
    """
    how = scheme or Scheme()
    arrays.line(task)
    model, grade = _KINDS[task.kind]
    try:
        found = parse_answer(answer, model, finish_reason)
    except AnswerError as error:
        return Reward(dict.fromkeys(PARTS, 0.0), 0.0, error.problem)
    validity, gain, detail = grade(task, found, arrays, how)
    if task.kind != "edit" and validity == 0.0:
        # A live selector asks again; only of edits is "none" an answer.
        return Reward(dict.fromkeys(PARTS, 0.0), 0.0, "nothing that was asked for is named")
    total = float(how.total(1.0, validity, np.array([gain]))[0])
    return Reward({"format": 1.0, "validity": validity, "gain": gain}, total, "", detail)


def bounds_of(task: Task, arrays: Grader, scheme: Scheme | None = None) -> Bounds:
    """Score of what was shown and of the best that could be reached, with the set that does."""
    metric = (scheme or Scheme()).metric
    key = ("bounds", task.id, task.subject, task.context, task.shown, task.allowed, metric)
    if task.kind == "acquire":
        return arrays.keep(key, lambda: best_round(task, arrays))
    return arrays.keep(key, lambda: best_set(task, arrays.target(task, metric)))


# -- edits -------------------------------------------------------------------------------------


def apply_edit(task: Task, answer: EditAnswer, arrays: Grader) -> Edited:
    """The neighbours shown with an answer's possible edits made, as the selector makes them."""
    pool = ClosedList(sorted(task.available), arrays.resolve, task.subject)
    before = [Pick(name, "shown") for name in task.shown]
    n_max = task.number("n_max", len(task.available))
    return edited(answer, before, pool, task.number("max_edits", 5), n_max)


def edit_names(task: Task, answer: str, arrays: Grader) -> tuple[str, ...]:
    """The neighbours after an answer; those shown where it cannot be read."""
    try:
        found = parse_answer(answer, EditAnswer)
    except AnswerError:
        return task.shown
    return tuple(p.item for p in apply_edit(task, found, arrays).picks)


def _edit(
    task: Task, answer: Any, arrays: Grader, how: Scheme
) -> tuple[float, float, dict[str, Any]]:
    done = apply_edit(task, answer, arrays)
    proposed = len(answer.add) + len(answer.remove)
    counted = len(done.added) + len(done.removed)
    names = [p.item for p in done.picks]
    changed = set(names) != set(task.shown)
    validity = counted / proposed if changed and proposed else 0.0
    if not proposed and bounds_of(task, arrays, how).settled:
        validity = 1.0
    detail = {"added": list(done.added), "removed": list(done.removed)}
    return validity, *_set_gain(task, names, arrays, how, detail)


def _set_gain(
    task: Task, names: list[str], arrays: Grader, how: Scheme, detail: dict[str, Any]
) -> tuple[float, dict[str, Any]]:
    bounds = bounds_of(task, arrays, how)
    score = arrays.target(task, how.metric).score(names)
    gain = float(how.gains(np.array([score]), bounds)[0])
    return gain, {**detail, "score": score, "start": bounds.start, "best": bounds.best}


# -- picks -------------------------------------------------------------------------------------


def _checked(task: Task, answer: PicksAnswer, arrays: Grader) -> tuple[Checked, float]:
    """What counts, and its share of what was named (or asked for at least)."""
    n_max = task.number("n_max", 10) or 1
    n_min = min(task.number("n_min", 1), n_max)
    pool = ClosedList(sorted(task.allowed), arrays.resolve, task.subject or None)
    proposed = [p.name for p in answer.picks]
    checked = pool.check(proposed, n_min=n_min, n_max=n_max)
    return checked, len(checked.items) / max(len(proposed), n_min, 1)


def _pick(
    task: Task, answer: Any, arrays: Grader, how: Scheme
) -> tuple[float, float, dict[str, Any]]:
    checked, validity = _checked(task, answer, arrays)
    names = list(checked.items)
    return validity, *_set_gain(task, names, arrays, how, {"picked": names})


def _acquire(
    task: Task, answer: Any, arrays: Grader, how: Scheme
) -> tuple[float, float, dict[str, Any]]:
    checked, validity = _checked(task, answer, arrays)
    bounds = bounds_of(task, arrays, how)
    score = acquired(task, checked.items, arrays)
    gain = float(how.gains(np.array([score]), bounds)[0])
    picked = list(checked.items)
    return validity, gain, {
        "picked": picked, "score": score, "start": bounds.start, "best": bounds.best,
    }  # fmt: skip


# -- marks -------------------------------------------------------------------------------------


def task_programs(task: Task) -> tuple[Program, ...]:
    """The programs of a task of marks.

    Raises
    ------
    pertwise.errors.InputError
        When `extra` holds none, or something else.
    """
    listed = task.extra.get("programs")
    try:
        found = tuple(
            Program(
                str(p["key"]), str(p["name"]), str(p.get("definition", "")),
                tuple(map(str, p.get("up", ()))), tuple(map(str, p.get("down", ()))),
                bool(p.get("signed", True)),
            )
            for p in listed or ()
        )  # fmt: skip
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"task {task.id!r}: extra.programs is no list of programs") from error
    if not found:
        raise InputError(f"task {task.id!r}: extra.programs is empty")
    return found


def measured_changes(task: Task, arrays: Grader) -> Floats:
    """(n_shown, n_programs) measured changes; NaN where not measured."""
    programs = task_programs(task)
    names = tuple(p.name for p in programs)
    changes = arrays.keep(
        ("changes", task.context, names), lambda: program_changes(arrays.line(task), programs)
    )
    return changes[arrays.rows(task, task.shown)]


def _rate(
    task: Task, answer: Any, arrays: Grader, how: Scheme
) -> tuple[float, float, dict[str, Any]]:
    programs = task_programs(task)
    sheet = Sheet(task.shown, programs, arrays.resolve)
    sheet.read(answer)
    given = np.isfinite(sheet.marks)
    rows = len(answer.marks) + answer.unreadable
    validity = float(given.mean()) * min(1.0, len(task.shown) / max(rows, 1))
    # A second row that differs withdraws the first one: no way to be rid of a wrong mark.
    once = Sheet(task.shown, programs, arrays.resolve)
    once.read(once.without_repeats(answer))
    truth = measured_changes(task, arrays)
    read = [correlations(np.nan_to_num(s.marks), truth) for s in (sheet, once)]
    gain, each = min(((_mean(found), found) for found in read), key=lambda pair: pair[0])
    detail = {"correlation": {p.key: v for p, v in zip(programs, each, strict=True)}}
    return validity, gain, detail


def _mean(values: list[float | None]) -> float:
    scored = [v for v in values if v is not None]
    return float(np.mean(scored)) if scored else 0.0


def correlations(marks: Floats, truth: Floats) -> list[float | None]:
    """Pearson of marks with measured changes, program by program, over what was measured.

    The base rate of a program (one mark for all) scores 0; None where the truth does not vary.
    """
    out: list[float | None] = []
    for said, real in zip(marks.T, truth.T, strict=True):
        known = np.isfinite(real)
        x, y = said[known], real[known]
        if len(y) < 3 or np.ptp(y) <= 1e-9:
            out.append(None)
            continue
        out.append(0.0 if np.ptp(x) <= 1e-9 else float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1)))
    return out


_Grade = Callable[[Task, Any, Grader, Scheme], tuple[float, float, dict[str, Any]]]
_KINDS: Mapping[str, tuple[Any, _Grade]] = {
    "edit": (EditAnswer, _edit),
    "pick": (PicksAnswer, _pick),
    "acquire": (PicksAnswer, _acquire),
    "rate": (MarksAnswer, _rate),
}
