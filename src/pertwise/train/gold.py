"""The best that an answer could reach: exactly on small lists, else greedily."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pertwise.acquire.common import tie_order, unit_rows
from pertwise.acquire.strategies.variance_reduction import Information, greedy_reduction
from pertwise.knowledge.ratings import SCALE
from pertwise.select.chat.selector import seed_for

if TYPE_CHECKING:
    from pertwise.train.grading import Floats, Grader, Target
    from pertwise.train.tasks import Task

#: Sets that are tried one by one where there are not more.
EXACT = 4096
#: Differences below this are rounding.
ROUNDING = 1e-9
#: Random panels whose mean is the base of a round of acquisition.
N_RANDOM = 64


@dataclass(frozen=True)
class Bounds:
    """Scores that a gain is scaled by.

    Attributes
    ----------
    start, best
        Of what was shown (or the graph, the training mean, random panels), and the best found.
    names
        The set that reaches `best`.
    """

    start: float
    best: float
    names: tuple[str, ...]

    @property
    def settled(self) -> bool:
        """Whether nothing can be gained: what was shown is the best."""
        return self.best <= self.start + ROUNDING


def same(difference: Any) -> Any:
    """Whether a difference of scores is rounding."""
    return np.abs(difference) <= ROUNDING


def best_set(task: Task, target: Target) -> Bounds:
    """The best neighbours an edit (or as many picks as allowed) can reach.

    All sets are tried where there are at most `EXACT`; else single additions and removals are made
    one after another, each the best at that point, until none helps.
    """
    if task.kind == "edit":
        most = task.number("max_edits", 5)
        start = target.members(task.shown)
        base, least, limit = task.shown, 0, task.number("n_max", len(task.available))
        removable = start > 0
        additions, removals = most, most
    else:
        start = np.zeros(len(target.names))
        graph = task.extra.get("graph")
        base = tuple(n for n in graph if n in set(target.names)) if isinstance(graph, list) else ()
        limit = task.number("n_max", 10)
        least = min(task.number("n_min", 1), limit, len(task.allowed))
        removable = start > 0
        additions, removals = limit, 0
    limit = min(limit, len(target.names))
    found = _exact(target, start, additions, removals, least, limit)
    if found is None:
        found = _greedy(target, start, removable, additions, removals, least, limit)
    names = tuple(n for n, m in zip(target.names, found, strict=True) if m > 0)
    return Bounds(target.score(base), target.score(names), names)


def _exact(
    target: Target, start: Floats, additions: int, removals: int, least: int, limit: int
) -> Floats | None:
    inside, outside = np.flatnonzero(start > 0), np.flatnonzero(start == 0)
    if _sizes(len(inside), removals) * _sizes(len(outside), additions) > EXACT:
        return None
    sets = []
    for gone in _subsets(inside, removals):
        for new in _subsets(outside, additions):
            members = start.copy()
            members[list(gone)], members[list(new)] = 0.0, 1.0
            if least <= members.sum() <= limit:
                sets.append(members)
    members = np.array(sets if sets else [start])
    return np.asarray(members[int(np.argmax(target.scores(target.predictions(members))))])


def _sizes(n: int, most: int) -> int:
    return sum(math.comb(n, k) for k in range(min(n, most) + 1))


def _subsets(items: Any, most: int) -> Iterator[tuple[int, ...]]:
    sizes = range(min(len(items), most) + 1)
    return itertools.chain.from_iterable(itertools.combinations(items, k) for k in sizes)


def _greedy(
    target: Target,
    start: Floats,
    removable: Any,
    additions: int,
    removals: int,
    least: int,
    limit: int,
) -> Floats:
    members = start.copy()
    total, count = members @ target.y, members @ target.measured
    score = float(target.scores(target.means(total[None], count[None]))[0])
    while True:
        new = np.flatnonzero((members == 0) & (start == 0))
        gone = np.flatnonzero((members > 0) & removable)
        if additions <= 0 or members.sum() >= limit:
            new = new[:0]
        if removals <= 0:
            gone = gone[:0]
        moves = np.concatenate([new, gone])
        if not len(moves):
            return members
        sign = np.where(np.arange(len(moves)) < len(new), 1.0, -1.0)[:, None]
        totals = total + sign * target.y[moves]
        counts = count + sign * target.measured[moves]
        scores = target.scores(target.means(totals, counts))
        best = int(np.argmax(scores))
        # Picks must be as many as are asked for, even where one more does not help.
        if scores[best] <= score + ROUNDING and members.sum() >= least:
            return members
        added = best < len(new)
        members[moves[best]] = 1.0 if added else 0.0
        additions, removals = additions - added, removals - (not added)
        total, count, score = totals[best], counts[best], float(scores[best])


# -- one round of acquisition ------------------------------------------------------------------


def best_round(task: Task, arrays: Grader) -> Bounds:
    """Greedy expected error reduction, and the mean of `N_RANDOM` random panels."""
    n = min(task.number("n_max", 10), len(task.allowed))
    steps = greedy_reduction(_information(task, arrays), n, tie_order(task.allowed))
    names = tuple(task.allowed[j] for j in steps.order)
    rng = np.random.default_rng(seed_for(0, "random panels", *task.allowed))
    drawn = [rng.permutation(len(task.allowed))[:n] for _ in range(N_RANDOM)]
    panels = [[task.allowed[j] for j in order] for order in drawn]
    random = [acquired(task, panel, arrays) for panel in panels]
    return Bounds(float(np.mean(random)), acquired(task, names, arrays), names)


def acquired(task: Task, names: Sequence[str], arrays: Grader) -> float:
    """Expected error reduction of measuring `names`: sum of `Information.gains` when chosen.

    The kernel is the cosine of the measured responses (centred on their mean), so that what counts
    is how much a perturbation really tells about the others.
    """
    information, place = _information(task, arrays), {n: j for j, n in enumerate(task.allowed)}
    total = 0.0
    for name in names:
        total += float(information.gains()[place[name]])
        information.observe(place[name])
    return total


def _information(task: Task, arrays: Grader) -> Information:
    key = ("features", task.id, task.context, task.available)
    rows = arrays.keep(key, lambda: _features(task, arrays))
    return Information(rows[len(task.shown) :], rows[: len(task.shown)])


def _features(task: Task, arrays: Grader) -> Floats:
    """(n, k) rows whose products are cosines of centred responses, k <= n."""
    data = arrays.line(task)
    x = unit_rows(data.filled[arrays.rows(task, task.available)]).astype(np.float64)
    if x.shape[1] <= len(x):
        return x
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > 1e-10 * max(float(values[-1]), 1e-12)
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


# -- in words ----------------------------------------------------------------------------------


def edit_text(added: Sequence[str], removed: Sequence[str], reason: str = "") -> str:
    """An edit as the JSON that is asked for."""
    sides = {"add": added, "remove": removed}
    return json.dumps(
        {k: [{"name": n, "reason": reason} for n in v] for k, v in sides.items()},
        ensure_ascii=False,
    )


def picks_text(names: Sequence[str], reason: str = "") -> str:
    """Picks as the JSON that is asked for."""
    return json.dumps({"picks": [{"name": n, "reason": reason} for n in names]}, ensure_ascii=False)


def marks_text(names: Sequence[str], keys: Sequence[str], marks: Floats) -> str:
    """Marks as the JSON that is asked for."""
    rows = [
        {"name": n, **{k: round(float(v), 4) for k, v in zip(keys, row, strict=True)}}
        for n, row in zip(names, marks, strict=True)
    ]
    return json.dumps({"marks": rows}, ensure_ascii=False)


def gold_answer(task: Task, arrays: Grader, scheme: Any = None) -> str:
    """The text of the best answer found; it sees the truth: for tests and scales, not a method."""
    from pertwise.train.rewards import bounds_of, measured_changes, task_programs

    if task.kind == "rate":
        programs = task_programs(task)
        truth = np.nan_to_num(measured_changes(task, arrays))
        size = np.maximum(np.abs(truth).max(axis=0), 1e-12)
        return marks_text(task.shown, [p.key for p in programs], truth / size * SCALE)
    names = bounds_of(task, arrays, scheme).names
    if task.kind == "edit":
        chosen = set(names)
        added = [n for n in names if n not in set(task.shown)]
        return edit_text(added, [n for n in task.shown if n not in chosen])
    return picks_text(names)
