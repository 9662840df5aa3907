"""`NeighbourPredictor`: any selector, then an aggregate of the chosen responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from pertwise.arrays.aggregate import (
    AGGREGATIONS,
    Aggregation,
    Floats,
    aggregate,
    calibration_scale,
    choose_shrinkage,
    disagreement,
    neighbour_weights,
    shrink,
    weighted_mean,
)
from pertwise.errors import InputError
from pertwise.models.base import MEAN_FALLBACK, Prediction, only_context, support_table
from pertwise.screen.training import TrainingData, canonical
from pertwise.select.base import Query, Selection, Selector, select_many
from pertwise.select.similarity import SimilaritySelector
from pertwise.select.words import selector_from

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Pseudo-support tried when the strength of shrinkage is chosen (0 = plain neighbours).
STRENGTHS = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
#: Left-out training rows used to tune and calibrate; more only costs time.
MAX_TUNING_ROWS = 400


#: Ways to say which selector.
Given = Selector | str | Callable[..., Selector]


class NeighbourPredictor:
    """Select similar measured perturbations, aggregate their responses, state the support.

    With a chat selector and plain means this is LangPert (Märtens et al. 2025); with a graph
    selector it is the nearest-neighbour baseline on a knowledge graph.

    Parameters
    ----------
    selector
        A selector, words for one (`select.words.selector_from`: "graph:string,go and
        embedding:text"), or a function knowledge -> selector (called in `fit`).
    k
        Most neighbours asked for.
    how
        mean, similarity (weighted by score), rank (1 / rank), median, trimmed.
    shrinkage
        Pseudo-support of the training mean (`aggregate.shrink`; a neighbour set's support is its
        number of effective neighbours, (sum w)^2 / sum w^2). "cv" chooses among `STRENGTHS` by
        leave-one-out inside the training set, which needs a selector that is cheap to ask.
    min_support
        With fewer neighbours than this the next selector of `fallbacks` is asked, at last the
        training mean; the support table says which one answered.
    context_text
        Free text on the context for chat selectors.
    ceiling
        Must be True to accept a selector that sees the answers (evaluation only).
    """

    def __init__(
        self,
        selector: Given,
        *,
        k: int = 5,
        how: Aggregation = "mean",
        shrinkage: float | str = 0.0,
        min_support: int = 1,
        fallbacks: Sequence[Given] = (),
        context_text: str = "",
        ceiling: bool = False,
        name: str | None = None,
    ) -> None:
        if k < 1 or min_support < 1:
            raise InputError(f"k and min_support must be at least 1, got {k} and {min_support}")
        if how not in AGGREGATIONS:
            neighbour_weights(np.zeros(0), how)
        if isinstance(shrinkage, str) and shrinkage != "cv":
            raise InputError(f"shrinkage is a number or 'cv', got {shrinkage!r}")
        self._given = tuple(
            selector_from(s) if isinstance(s, str) else s for s in (selector, *fallbacks)
        )
        self.k = k
        self.how = how
        self.shrinkage = shrinkage
        self.min_support = min_support
        self.context_text = context_text
        self.ceiling = ceiling
        said = selector if isinstance(selector, str) else getattr(selector, "name", "selector")
        self.name = name or f"neighbours ({said})"
        self._selectors: tuple[Selector, ...] = ()
        self._data: TrainingData | None = None
        self._strength = 0.0
        self._scale = 1.0

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Keep the measured responses; tune shrinkage and calibrate the spread on them.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured, a selector needs knowledge that was not given, or it sees the
            answers and this is not declared a ceiling.
        """
        self._data = TrainingData.from_screen(screen, self.name)
        self._selectors = tuple(_built(s, screen, knowledge, self.name) for s in self._given)
        for selector in self._selectors:
            if getattr(selector, "sees_answers", False) and not self.ceiling:
                raise InputError(
                    f"selector {selector.name!r} sees the answers; it cannot be used to predict "
                    "(ceiling=True marks an evaluation that states an upper bound)"
                )
        cheap = all(getattr(s, "cheap", False) for s in self._selectors)
        if self.shrinkage == "cv" and not cheap:
            raise InputError(
                f"shrinkage='cv' would ask {self._selectors[0].name!r} about every training "
                "perturbation; give a number instead"
            )
        self._strength = 0.0 if self.shrinkage == "cv" else float(self.shrinkage)
        self._scale = 1.0
        if cheap and len(self._data.names) > 2:
            self._tune()
        return self

    def _trained(self) -> TrainingData:
        if self._data is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._data

    def _tune(self) -> None:
        data = self._trained()
        n = len(data.names)
        step = int(np.ceil(n / MAX_TUNING_ROWS))
        rows = np.arange(0, n, step)
        asked = [data.names[i] for i in rows]
        raw, support, spread, _, _ = self._raw(asked)
        if self.shrinkage == "cv":
            self._strength, _ = choose_shrinkage(raw, support, data.y[rows], data.mean, STRENGTHS)
        mean = shrink(raw, support, data.mean, self._strength)
        spread = self._with_floor(spread, support)
        self._scale = calibration_scale(mean - data.y[rows], spread)

    def _with_floor(self, spread: Floats, support: Floats) -> Floats:
        """Disagreement plus what a mean of few neighbours cannot know: s_d^2 / (support + 1)."""
        data = self._trained()
        base = data.feature_spread() ** 2
        return np.asarray(np.sqrt(spread**2 + base / (support[:, None] + 1.0)))

    def _raw(
        self, names: Sequence[str], answers: list[dict[str, Any]] | None = None
    ) -> tuple[Floats, Floats, Floats, list[list[tuple[int, float, str]]], list[str]]:
        """Neighbour means (NaN without any), support, disagreement, the neighbours, who answered.

        A name is never among its own candidates, so training rows are left out by asking for them.
        What a selector says about its own answers is added to `answers`.
        """
        data = self._trained()
        chosen: list[list[tuple[int, float, str]]] = [[] for _ in names]
        answered = [""] * len(names)
        open_rows = list(range(len(names)))
        for position, selector in enumerate(self._selectors):
            asked = [names[i] for i in open_rows]
            found, selections = self._ask(selector, asked)
            if answers is not None:
                answers.extend(answer_record(n, s) for n, s in selections.items())
            still = []
            for i, picks in zip(open_rows, found, strict=True):
                if len(picks) >= self.min_support:
                    chosen[i] = picks
                    answered[i] = "" if position == 0 else selector.name
                    own = selections.get(names[i])
                    if own is not None and own.fallback:
                        answered[i] = f"fallback of {own.source}"
                else:
                    still.append(i)
                    chosen[i] = chosen[i] or picks
            open_rows = still
        for i in open_rows:
            # Thin support everywhere: a fallback to the mean, whatever was found is not used.
            chosen[i] = []
            answered[i] = MEAN_FALLBACK
        weights = np.zeros((len(names), len(data.names)))
        for i, picks in enumerate(chosen):
            scores = np.array([score for _, score, _ in picks])
            for (j, _, _), w in zip(picks, neighbour_weights(scores, self.how), strict=True):
                weights[i, j] = w
        mean = weighted_mean(weights, data.y)
        if self.how in ("median", "trimmed"):
            for i, picks in enumerate(chosen):
                rows = [j for j, _, _ in picks]
                if rows:
                    mean[i] = aggregate(data.y[rows], weights[i, rows], self.how)
        spread = disagreement(weights, data.y, mean)
        square = (weights**2).sum(axis=1)
        support = np.divide(1.0, square, out=np.zeros(len(names)), where=square > 0)
        return mean, support, spread, chosen, answered

    def _ask(
        self, selector: Selector, names: Sequence[str]
    ) -> tuple[list[list[tuple[int, float, str]]], dict[str, Selection]]:
        """(training row, score, reason) of the neighbours of each name, and the selections.

        Numeric selectors are asked about all names at once, without selections.
        """
        data = self._trained()
        if not names:
            return [], {}
        place = {p: j for j, p in enumerate(data.names)}
        if isinstance(selector, SimilaritySelector):
            ranked = selector.ranked_rows(names, data.names, self.k)
            return [
                [(int(j), float(v), "") for j, v in zip(rows, values, strict=True)]
                for rows, values in ranked
            ], {}
        questions = []
        for name in names:
            query = Query(name, data.context or None, self.context_text)
            questions.append((query, [p for p in data.names if p != name]))
        selections = select_many(selector, questions, self.k)
        picked = [
            [(place[p.item], _score(p.score, rank), p.reason) for rank, p in enumerate(s.picks)]
            for s in selections
        ]
        return picked, dict(zip(names, selections, strict=True))

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Aggregate the neighbours of each name; names without neighbours get the training mean.

        A perturbation that was measured is predicted from the others, never from itself.
        """
        data = self._trained()
        only_context(self.name, data.context, context)
        names = canonical(perturbations)
        answers: list[dict[str, Any]] = []
        raw, support, spread, chosen, answered = self._raw(names, answers)
        mean = shrink(raw, support, data.mean, self._strength)
        spread = self._scale * self._with_floor(spread, support)
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean.astype(np.float32),
            spread=spread.astype(np.float32),
            support=support_table(names, [len(c) for c in chosen], answered),
            neighbours=self._table(names, chosen),
            provenance={
                "method": self.name,
                "aggregation": self.how,
                "shrinkage": self._strength,
                "spread_scale": self._scale,
                "selectors": [getattr(s, "source", s.name) for s in self._selectors],
                "answers": answers,
                "repairs": dict(Counter(r["kind"] for a in answers for r in a["repairs"])),
            },
        )

    def _table(
        self, names: Sequence[str], chosen: list[list[tuple[int, float, str]]]
    ) -> pd.DataFrame:
        data = self._trained()
        rows: list[dict[str, Any]] = []
        for name, picks in zip(names, chosen, strict=True):
            weights = neighbour_weights(np.array([s for _, s, _ in picks]), self.how)
            for rank, ((j, score, reason), w) in enumerate(zip(picks, weights, strict=True), 1):
                said = reason or f"{self._selectors[0].name} {score:.3f}"
                rows.append(
                    {
                        "perturbation": name,
                        "neighbour": data.names[j],
                        "rank": rank,
                        "weight": float(w),
                        "score": score,
                        "reason": said,
                    }
                )
        columns = ["perturbation", "neighbour", "rank", "weight", "score", "reason"]
        return pd.DataFrame(rows, columns=columns)


def answer_record(name: str, selection: Selection) -> dict[str, Any]:
    """JSON-able: what a selector said about its own answer (repairs, edits, how long a list)."""
    return {
        "perturbation": name,
        "source": selection.source,
        "neighbours": list(selection.items),
        "fallback": selection.fallback,
        "repairs": [
            {"kind": r.kind, "item": r.item, "action": r.action} for r in selection.repairs
        ],
        "provenance": dict(selection.provenance),
    }


def list_cuts(provenance: Mapping[str, Any]) -> Iterator[str]:
    """How a list was cut before a model saw it, in this selection or in those combined in it."""
    for key, value in provenance.items():
        if key == "cut" and value:
            yield str(value)
        elif isinstance(value, Mapping):
            yield from list_cuts(value)


def _built(given: Given, screen: Screen, knowledge: Knowledge | None, method: str) -> Selector:
    if isinstance(given, Selector) and not isinstance(given, type):
        return given
    if knowledge is None and getattr(given, "needs_knowledge", True):
        raise InputError(
            f"{method!r} needs a knowledge folder: give --knowledge DIR (in Python: pass "
            "knowledge to fit)"
        )
    if getattr(given, "needs_screen", False):
        return given(knowledge, screen)  # type: ignore[operator]
    return given(knowledge)  # type: ignore[operator]


def _score(score: float | None, rank: int) -> float:
    return 1.0 / (rank + 1) if score is None else float(score)
