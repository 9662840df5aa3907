"""`Grader`: measured responses as arrays, and how good the mean of a chosen set is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError, unknown_name
from pertwise.evaluate import genes
from pertwise.evaluate.metrics import cosine, filled, pearson_delta, squared_error
from pertwise.evaluate.retrieval import retrieval
from pertwise.evaluate.row_scores import refuse_magnitude
from pertwise.knowledge.programs import Program
from pertwise.knowledge.ratings import STRENGTH
from pertwise.screen.signatures import is_ranked
from pertwise.screen.training import TrainingData, one_context
from pertwise.select.chat.selector import knowledge_resolver
from pertwise.select.closed_list import Resolver

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen
    from pertwise.train.tasks import Task

Floats = NDArray[np.float64]
T = TypeVar("T")
#: Marker genes of a program that must be measured for it to be judged.
LEAST_MARKERS = 3
#: Features that have a number and no meaning.
_COMPONENT = re.compile(r"(?:pca?|component|dim)?[ _-]?[0-9]+")


@dataclass(frozen=True)
class Grader:
    """Responses by context, built once: what `rewards.reward` and an evaluation look at.

    Attributes
    ----------
    lines
        context -> measured rows.
    digests
        context -> hash of its screen; a task made from another screen is refused.
    ranked
        Contexts whose responses are ranks.
    resolve
        Aliases, as the live selectors know them; None = none.
    """

    lines: Mapping[str, TrainingData]
    digests: Mapping[str, str]
    ranked: frozenset[str] = frozenset()
    resolve: Resolver | None = None
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, *screens: Screen, knowledge: Knowledge | None = None) -> Grader:
        """From screens, one or several contexts each.

        Raises
        ------
        pertwise.errors.InputError
            If two screens hold one context, or a perturbation was measured at several doses.
        """
        lines: dict[str, TrainingData] = {}
        digests, ranked = {}, set()
        for screen in screens:
            digest = screen.digest()
            for context in screen.contexts:
                if context in lines:
                    raise InputError(f"two screens hold the context {context!r}; name them apart")
                part = one_context(screen, context, "the screen")
                lines[context] = TrainingData.from_screen(part, "a reward")
                digests[context] = digest
                if is_ranked(screen):
                    ranked.add(context)
        resolve = None if knowledge is None else knowledge_resolver(knowledge)
        return cls(lines, digests, frozenset(ranked), resolve)

    def line(self, task: Task) -> TrainingData:
        """The rows of a task's context.

        Raises
        ------
        pertwise.errors.InputError
            When there are none, or the task was made from another screen.
        """
        if task.context not in self.lines:
            raise unknown_name("context", task.context, list(self.lines))
        if task.screen and task.screen != self.digests[task.context]:
            raise InputError(
                f"task {task.id!r} was made from another screen than the one given for "
                f"{task.context!r} (SHA-256 {task.screen[:12]} and "
                f"{self.digests[task.context][:12]}); give that one, or make the tasks anew"
            )
        return self.lines[task.context]

    def rows(self, task: Task, names: Sequence[str]) -> NDArray[np.intp]:
        """Rows of names in the task's context.

        Raises
        ------
        pertwise.errors.InputError
            Names what was not measured.
        """
        place = self.keep(
            ("place", task.context),
            lambda: {n: i for i, n in enumerate(self.line(task).names)},
        )
        gone = [n for n in names if n not in place]
        if gone:
            raise InputError(
                f"task {task.id!r}: {gone[0]!r} is not measured in {task.context!r}; were the "
                "tasks made from this screen?"
            )
        return np.array([place[n] for n in names], dtype=np.intp)

    def keep(self, key: Any, make: Callable[[], T]) -> T:
        """What `make` returns, made once: the same for the same key."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    def target(self, task: Task, metric: str = "pearson") -> Target:
        """What sets of a task's names are scored against.

        Raises
        ------
        pertwise.errors.InputError
            For an unknown metric, one of magnitude on ranks, or a name that is not measured.
        """
        key = ("target", task.id, task.subject, task.context, task.available, metric)
        return self.keep(key, lambda: self._target(task, metric))

    def _target(self, task: Task, metric: str) -> Target:
        if metric not in METRICS:
            raise unknown_name("metric of a reward", metric, tuple(METRICS))
        if task.context in self.ranked and metric in ("error", "ceiling"):
            refuse_magnitude("squared_error")
        data = self.line(task)
        own = self.rows(task, [task.subject])
        rows = self.rows(task, task.available)
        truth = data.y[own].copy()
        keep = genes.target_mask([task.subject], data.features)
        truth[~keep] = np.nan
        y = data.y[rows]
        measured = np.isfinite(y)
        return Target(
            names=task.available,
            y=np.where(measured, y, 0.0),
            measured=measured.astype(np.float64),
            mean=masked_mean(y),
            truth=truth,
            others=y,
            noise=float(data.sampling_variance[own[0]]),
            metric=metric,
        )


@dataclass(frozen=True)
class Target:
    """The truth about one subject and the rows that may be averaged.

    Attributes
    ----------
    names
        (n,) that a set may hold.
    y, measured
        (n, d) responses with 0, and 1.0 or 0.0, where nothing was measured.
    mean
        (d,) mean of the n rows: what an empty set predicts.
    truth
        (1, d); NaN where not measured, and at the subject's own gene.
    """

    names: tuple[str, ...]
    y: Floats
    measured: Floats
    mean: Floats
    truth: Floats
    others: Floats
    noise: float
    metric: str

    def members(self, names: Sequence[str]) -> Floats:
        """(n,) 1.0 for names of the set."""
        chosen = set(names)
        return np.array([n in chosen for n in self.names], dtype=np.float64)

    def means(self, total: Floats, count: Floats) -> Floats:
        """(m, d) means from sums over sets; the training mean where a set measured nothing."""
        out = np.broadcast_to(self.mean, total.shape).copy()
        np.divide(total, count, out=out, where=count > 0.5)
        return out

    def predictions(self, members: Floats) -> Floats:
        """(m, d) means of (m, n) sets."""
        return self.means(members @ self.y, members @ self.measured)

    def scores(self, predictions: Floats) -> Floats:
        """(m,) score of (m, d) predictions by `metric`; larger is better."""
        truth = np.broadcast_to(self.truth, predictions.shape)
        return METRICS[self.metric](self, truth, predictions)

    def score(self, names: Sequence[str]) -> float:
        """Score of the mean of some names."""
        return float(self.scores(self.predictions(self.members(names)[None]))[0])


def _defined(value: Floats) -> Floats:
    # What the truth leaves undefined is undefined for every set: no difference between any two.
    return filled(value, np.zeros(len(value)), 0.0)[0]


def _retrieval(target: Target, truth: Floats, predictions: Floats) -> Floats:
    known = np.vstack([target.truth, target.others])
    own = np.zeros(len(predictions), dtype=int)
    return np.nan_to_num(retrieval(predictions, known, own).score)


def _relative_error(noise: bool) -> Callable[[Target, Floats, Floats], Floats]:
    """-(error - n) / (error of the training mean - n): 0 is perfect, -1 the training mean."""

    def score(target: Target, truth: Floats, predictions: Floats) -> Floats:
        floor = target.noise if noise and np.isfinite(target.noise) else 0.0
        worst = squared_error(target.truth, target.mean[None])[0] - floor
        if not worst > 0:
            return np.zeros(len(predictions))
        over = np.maximum(squared_error(truth, predictions) - floor, 0.0)
        return np.asarray(-over / worst, dtype=np.float64)

    return score


#: Name -> score of predictions, larger is better; the definitions are those of `evaluate`.
METRICS: Mapping[str, Callable[[Target, Floats, Floats], Floats]] = {
    "pearson": lambda target, truth, p: _defined(pearson_delta(truth, p)),
    "cosine": lambda target, truth, p: _defined(cosine(truth, p)),
    "error": _relative_error(noise=False),
    "retrieval": _retrieval,
    "ceiling": _relative_error(noise=True),
}


def measurable(screen: Screen | TrainingData, programs: Sequence[Program]) -> bool:
    """Whether a screen says anything about any of the programs but strength."""
    features = {f.casefold() for f in screen.features}
    return any(_columns(p, features) for p in programs if p.name != STRENGTH)


def _columns(program: Program, features: set[str]) -> bool:
    if program.name.casefold() in features:
        return _COMPONENT.fullmatch(program.name.casefold()) is None
    return sum(g.casefold() in features for g in (*program.up, *program.down)) >= LEAST_MARKERS


def program_changes(data: TrainingData, programs: Sequence[Program]) -> Floats:
    """(n, p) measured change of each program: its feature, or the mean of the markers that rise
    minus those that fall; strength is the root mean square of the response. NaN = not measured."""
    place = {f.casefold(): j for j, f in enumerate(data.features)}
    out = np.full((len(data.names), len(programs)), np.nan)
    with np.errstate(invalid="ignore"):
        for j, program in enumerate(programs):
            if program.name == STRENGTH:
                count = np.isfinite(data.y).sum(axis=1)
                square = np.nansum(data.y**2, axis=1)
                out[:, j] = np.sqrt(np.where(count > 0, square / np.maximum(count, 1), np.nan))
            elif program.name.casefold() in place:
                out[:, j] = data.y[:, place[program.name.casefold()]]
            elif _columns(program, set(place)):
                signed = [(g, 1.0) for g in program.up] + [(g, -1.0) for g in program.down]
                known = [(place[g.casefold()], s) for g, s in signed if g.casefold() in place]
                values = data.y[:, [c for c, _ in known]] * np.array([s for _, s in known])
                count = np.isfinite(values).sum(axis=1)
                total = np.nansum(values, axis=1)
                out[:, j] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return out
