"""`edit-policy`: edits of a neighbour list without a language model, trained by the same reward.

The control that a tuned model must beat. For a subject s and each name c that may stand in its
list, a logistic policy keeps or adds c with probability

    p(c | s) = 1 / (1 + exp(-w . f(s, c)))

where f holds a constant, whether the graph shows c, the knowledge kernels between s and c, the
kernels of marks and the difference of marked strengths, each alone and times "is shown". Names are
drawn independently; of more than `max_edits` additions or removals those of the largest |w . f|
count. w is learned by REINFORCE (Williams 1992): the gradient of the mean total reward of
`rewards.Scheme` over `n_samples` draws a task, against the mean of the other draws of that task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pertwise.errors import InputError
from pertwise.parts import part
from pertwise.select.base import Pick, Query, Selection
from pertwise.select.closed_list import ClosedList, checked_candidates
from pertwise.select.words import selector_from
from pertwise.train.gold import edit_text
from pertwise.train.grading import Floats, Grader, Target
from pertwise.train.pairs import KERNELS, PairFeatures
from pertwise.train.rewards import Scheme, bounds_of
from pertwise.train.tasks import Task

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen
    from pertwise.select.base import Selector

#: Step and decays of Adam (Kingma & Ba 2015), and how far weights may go.
_STEP, _DECAY, _DECAY2, _MOST = 0.05, 0.9, 0.99, 8.0
#: Log odds at the start: neighbours shown are kept, others are rarely added.
_KEEP, _ADD = 2.0, -3.5


@dataclass(frozen=True)
class EditPolicy:
    """A trained policy.

    Attributes
    ----------
    features
        By context; those of another one are added when it is asked about.
    weights
        (3 + 2 k,) of: 1, shown, whether few are, the k scaled features, and these times shown.
    centre, scale
        (k,) of the features over training pairs.
    threshold
        Log odds above which a name stands in the list; chosen on the training tasks.
    curve
        Mean reward of each step of training.
    """

    features: dict[str, PairFeatures]
    weights: Floats
    centre: Floats
    scale: Floats
    threshold: float = 0.0
    curve: tuple[float, ...] = field(default=(), repr=False)

    def table(self) -> dict[str, float]:
        """Feature -> weight, the heaviest first."""
        kinds = next(iter(self.features.values())).names
        names = ["1", "shown", "few shown", *kinds, *(f"shown x {k}" for k in kinds)]
        order = np.argsort(-np.abs(self.weights))
        return {names[i]: round(float(self.weights[i]), 3) for i in order}

    def _features(self, context: str) -> PairFeatures:
        """Those of a context, made with its own marks where the policy never saw it."""
        if context not in self.features:
            first = next(iter(self.features.values()))
            own = PairFeatures(first.knowledge, context, first.kinds)
            same = len(own.names) == len(first.names)
            self.features[context] = own if same else first
        return self.features[context]

    def log_odds(self, context: str, subject: str, names: Sequence[str], shown: Floats) -> Floats:
        """(n,) log odds that a name stands in the list after editing."""
        found = self._features(context)
        x = design(found.of(subject, names), shown, self.centre, self.scale)
        return np.asarray(x @ self.weights)

    def edit(
        self, context: str, subject: str, shown: Sequence[str], allowed: Sequence[str],
        max_edits: int,
    ) -> tuple[list[str], list[str]]:  # fmt: skip
        """(additions, removals), the surest first."""
        names = [*shown, *allowed]
        start = np.array([1.0] * len(shown) + [0.0] * len(allowed))
        if not names:
            return [], []
        odds = self.log_odds(context, subject, names, start) - self.threshold
        members = limited((odds > 0)[None].astype(float), start, odds, max_edits)[0]
        order = np.argsort(-np.abs(odds), kind="stable")
        added = [names[i] for i in order if members[i] > start[i]]
        removed = [names[i] for i in order if members[i] < start[i]]
        return added, removed

    def answer(self, task: Task) -> str:
        """The edit of a task as the JSON that a model would answer with."""
        most = task.number("max_edits", 5)
        said = self.edit(task.context, task.subject, task.shown, task.allowed, most)
        return edit_text(*said)


def design(features: Floats, shown: Floats, centre: Floats, scale: Floats) -> Floats:
    """(n, 3 + 2 k): 1, shown, whether few are shown, scaled features, and these times shown."""
    x = (features - centre) / scale
    few = np.full((len(x), 1), 1.0 / (1.0 + shown.sum()))
    own = shown[:, None]
    return np.concatenate([np.ones((len(x), 1)), own, few * (1 - own), x, x * own], axis=1)


def limited(members: Floats, start: Floats, odds: Floats, max_edits: int) -> Floats:
    """(m, n) sets with at most `max_edits` changes of each kind: the surest ones count."""
    out = members.copy()
    rank = np.argsort(np.argsort(-np.abs(odds), kind="stable"), kind="stable")
    for changed, back in (((out > start), 0.0), ((out < start), 1.0)):
        # The place of each change among those of its row, by certainty.
        place = np.where(changed, rank, len(odds)).argsort(axis=1, kind="stable").argsort(axis=1)
        out[changed & (place >= max_edits)] = back
    return out


@dataclass(frozen=True)
class _Lesson:
    """A training task as arrays."""

    x: Floats
    start: Floats
    target: Target
    task: Task
    most: int


def train_policy(
    tasks: Sequence[Task],
    arrays: Grader,
    knowledge: Knowledge,
    *,
    scheme: Scheme | None = None,
    kernels: Sequence[str] = KERNELS,
    n_steps: int = 300,
    n_batch: int = 32,
    n_samples: int = 24,
    penalty: float = 1e-2,
    seed: int = 0,
) -> EditPolicy:
    """Learn w on the edit tasks of the split "train".

    Parameters
    ----------
    n_steps, n_batch, n_samples
        Steps of Adam, tasks of a step, draws of a task.
    penalty
        Of w^2 (without the first three).

    Raises
    ------
    pertwise.errors.InputError
        When there is no training task of the kind "edit".
    """
    how = scheme or Scheme()
    used = [t for t in tasks if t.kind == "edit" and t.split == "train"]
    if not used:
        raise InputError("there is no training task of the kind 'edit' to learn a policy from")
    features = {c: PairFeatures(knowledge, c, kernels) for c in sorted({t.context for t in used})}
    for context, known in features.items():
        known.know(arrays.lines[context].names)
    found = [features[t.context].of(t.subject, t.available) for t in used]
    every = np.concatenate(found)
    centre, scale = every.mean(axis=0), np.maximum(every.std(axis=0), 1e-6)
    lessons = []
    for task, f in zip(used, found, strict=True):
        target = arrays.target(task, how.metric)
        start = target.members(task.shown)
        most = task.number("max_edits", 5)
        lessons.append(_Lesson(design(f, start, centre, scale), start, target, task, most))
    weights = np.zeros(lessons[0].x.shape[1])
    weights[:2] = _ADD, _KEEP - _ADD
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    rng, curve = np.random.default_rng(seed), []
    for step in range(1, n_steps + 1):
        chosen = rng.permutation(len(lessons))[:n_batch]
        slope, total = np.zeros_like(weights), 0.0
        for i in chosen:
            gradient, mean = _gradient(lessons[i], weights, arrays, how, n_samples, rng)
            slope, total = slope + gradient / len(chosen), total + mean / len(chosen)
        slope[3:] -= penalty * weights[3:]
        first = _DECAY * first + (1 - _DECAY) * slope
        second = _DECAY2 * second + (1 - _DECAY2) * slope**2
        move = first / (1 - _DECAY**step) / (np.sqrt(second / (1 - _DECAY2**step)) + 1e-8)
        weights = np.clip(weights + _STEP * move, -_MOST, _MOST)
        curve.append(total)
    threshold = _best_threshold(lessons, weights, arrays, how)
    return EditPolicy(features, weights, centre, scale, threshold, tuple(curve))


def rewards_of(
    lesson_task: Task, target: Target, members: Floats, start: Floats, arrays: Grader, how: Scheme
) -> Floats:
    """(m,) total rewards of (m, n) sets: readable, valid wherever something is changed."""
    bounds = bounds_of(lesson_task, arrays, how)
    valid = ((members != start).any(axis=1) | bounds.settled).astype(float)
    scores = target.scores(target.predictions(members))
    return how.total(1.0, valid, how.gains(scores, bounds))


def _gradient(
    lesson: _Lesson, weights: Floats, arrays: Grader, how: Scheme, n: int, rng: Any
) -> tuple[Floats, float]:
    """d/dw of the mean reward by the score function, and the mean reward."""
    odds = lesson.x @ weights
    p = 1.0 / (1.0 + np.exp(-odds))
    drawn = (rng.random((n, len(p))) < p).astype(float)
    members = limited(drawn, lesson.start, odds, lesson.most)
    won = rewards_of(lesson.task, lesson.target, members, lesson.start, arrays, how)
    # Each draw against the mean of the others of this task.
    advantage = (won - won.mean()) * (n / max(n - 1, 1))
    slope = (advantage[:, None] * (drawn - p)).mean(axis=0) @ lesson.x
    return slope, float(won.mean())


def _best_threshold(
    lessons: Sequence[_Lesson], weights: Floats, arrays: Grader, how: Scheme
) -> float:
    """The cut of the log odds whose edits win most on the training tasks."""
    cuts = np.arange(-3.0, 2.01, 0.25)
    won = np.zeros(len(cuts))
    for lesson in lessons:
        odds = lesson.x @ weights
        for j, cut in enumerate(cuts):
            members = (odds > cut)[None].astype(float)
            members = limited(members, lesson.start, odds - cut, lesson.most)
            won[j] += rewards_of(lesson.task, lesson.target, members, lesson.start, arrays, how)[0]
    return float(cuts[int(np.argmax(won))])


@dataclass(frozen=True)
class PolicySelector:
    """Neighbours of another selector, edited by a trained policy: no language model.

    Attributes
    ----------
    base
        Whose neighbours are edited.
    """

    base: Selector
    policy: EditPolicy
    max_edits: int = 5
    name: str = "edit-policy"

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """At most `n` neighbours after editing.

        Raises
        ------
        pertwise.errors.InputError
            If `candidates` is empty or holds duplicates, `n` < 1, or the query has no subject.
        """
        pool = sorted(checked_candidates(candidates, n))
        if query.subject is None:
            raise InputError(f"the selector {self.name!r} needs a subject to find neighbours of")
        allowed = list(ClosedList(pool, None, query.subject).items)
        if not allowed:
            return Selection((), self.name)
        before = self.base.select(query, allowed, n)
        offered = [c for c in allowed if c not in set(before.items)]
        added, removed = self.policy.edit(
            query.context or "", query.subject, before.items, offered, self.max_edits
        )
        added = added[:n]
        kept = [p for p in before.picks if p.item not in set(removed)][: max(0, n - len(added))]
        new = [Pick(a, "added by the policy", extra={"edit": "added"}) for a in added]
        provenance = {"base": self.base.name, "added": added, "removed": removed}
        return Selection((*kept, *new), self.name, before.repairs, None, provenance)


@part(needs="knowledge", argument="graphs*")
def edit_policy(
    screen: Screen,
    knowledge: Knowledge,
    graphs: Sequence[str] = ("string",),
    *,
    max_neighbours: int = 20,
    max_edits: int = 5,
    n_steps: int = 300,
    seed: int = 0,
) -> PolicySelector:
    """Graph neighbours edited by a logistic policy that a reward trained: no language model."""
    from pertwise.train.making import Making, training_tasks

    words = f"graph:{','.join(graphs)}"
    how = Making(base=words, k=max_neighbours, max_edits=max_edits)
    tasks = training_tasks(screen, knowledge, "edit", how=how, seed=seed)
    arrays = Grader.of(screen, knowledge=knowledge)
    policy = train_policy(tasks, arrays, knowledge, n_steps=n_steps, seed=seed)
    base = selector_from(words, max_neighbours=max_neighbours)(knowledge, screen)
    return PolicySelector(base, policy, max_edits)
