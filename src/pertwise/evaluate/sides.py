"""The two sides of a split, as every method meets them: what is learned from, what is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError
from pertwise.evaluate.row_scores import allowed_metrics, score_rows, top_variable
from pertwise.evaluate.specs import MetricSpec
from pertwise.evaluate.splits import SETTINGS, Split, things
from pertwise.models.base import Prediction, Predictor, predict_in
from pertwise.models.baselines import TrainingMeanPredictor
from pertwise.models.context_means import ContextMean
from pertwise.models.dose import DosePredictor

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


@dataclass(frozen=True)
class Question:
    """What is asked in one context (and at one dose), and what the answer is scored with.

    Attributes
    ----------
    context
        None where the whole screen is one context.
    truth, candidates
        Held-out rows, and all measured rows that a prediction may be mistaken for.
    reference
        (d,) mean response of the training rows in this context (borrowed where there are none).
    rows
        (n,) positions of the held-out rows among those of all questions.
    dose
        Where doses are extrapolated: the one asked for.
    """

    context: str | None
    truth: Screen
    candidates: Screen
    reference: NDArray[np.float64]
    rows: NDArray[np.intp]
    mean: Prediction | None = None
    dose: float | None = None

    @property
    def names(self) -> list[str]:
        """Held-out perturbations, in the order of their rows."""
        return list(self.truth.obs["perturbation"])

    def ask(self, model: Predictor) -> Prediction:
        """What a fitted predictor answers."""
        if self.dose is None:
            return predict_in(model, self.names, self.context)
        if not isinstance(model, DosePredictor):
            raise InputError(f"{model.name!r} extrapolates no doses; the predictor 'dose' does")
        return model.predict(self.names, self.context, self.dose)

    def fallback(self, train: Screen) -> Prediction:
        """The mean that stands in for a method that failed."""
        if self.mean is None:
            out = TrainingMeanPredictor().fit(train).predict(self.names)
            out.support["fallback"] = "training mean (method failed)"
        else:
            out = self.mean
            out.support["fallback"] = "context mean (method failed)"
        return out


@dataclass(frozen=True)
class Sides:
    """One split of a screen, made once for all methods.

    Attributes
    ----------
    tops
        Suffix -> (d,) features that vary most over the training rows (`MetricSpec.variable`).
    """

    split: Split
    train: Screen
    truth: Screen
    questions: tuple[Question, ...]
    tops: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        split: Split,
        screen: Screen,
        source: Screen,
        knowledge: Knowledge | None,
        *,
        n_related: int = 5,
        variable: Sequence[int] = (),
    ) -> Sides:
        """The sides of a split of `source` (`screen` itself except in transfer).

        Raises
        ------
        pertwise.errors.InputError
            If a held-out perturbation has several rows where one is asked for.
        """
        train, truth = split.of(screen, source)
        if len(truth) != len(split.test):
            raise InputError(
                f"{len(split.test)} held-out perturbations have {len(truth)} rows; the benchmark "
                "needs one row each (choose one context and dose)"
            )
        if split.by != "row":
            rows = np.arange(len(truth))
            asked = [Question(None, truth, screen, masked_mean(train.responses), rows)]
        elif split.kind == "dose":
            asked = _doses(train, truth, screen)
        else:
            means = ContextMean(n_related=n_related).fit(train, knowledge)
            asked = [_question(truth, screen, c, means) for c in truth.contexts]
        tops = {f"_top{n}": top_variable(train, n) for n in variable}
        return cls(split, train, truth, tuple(asked), tops)


def _question(truth: Screen, screen: Screen, context: str, means: ContextMean) -> Question:
    rows = np.flatnonzero(truth.obs["context"].to_numpy() == context)
    part = truth.take(rows)
    mean = means.predict(list(part.obs["perturbation"]), context)
    reference = mean.mean[0].astype(np.float64)
    return Question(context, part, screen.in_context(context), reference, rows, mean)


def _doses(train: Screen, truth: Screen, screen: Screen) -> list[Question]:
    """A question for each context and dose; the reference is the mean at the highest dose."""
    means, out = DosePredictor("dose mean").fit(train), []
    for (context, dose), own in truth.obs.groupby(["context", "dose"], sort=True).indices.items():
        rows = np.asarray(own)
        part = truth.take(rows)
        mean = means.predict(list(part.obs["perturbation"]), context, float(dose))
        reference = mean.mean[0].astype(np.float64)
        out.append(Question(context, part, screen, reference, rows, mean, float(dose)))
    return out


def settings_of(
    split: Split, train: Screen, truth: Screen, knowledge: Knowledge | None
) -> list[str]:
    """(n,) setting of each held-out row (`splits.SETTINGS`); "" where a dose is extrapolated."""
    if split.kind == "dose":
        return [""] * len(truth)
    if split.by != "row" and split.kind != "transfer":
        return [SETTINGS["elsewhere" if split.elsewhere else "anywhere"]] * len(truth)
    names = truth.obs["perturbation"]
    known = None if split.kind == "perturbation" else knowledge
    same = things([*names, *train.obs["perturbation"]], known)
    seen = {same[n] for n in train.obs["perturbation"]}
    lines = set() if split.kind == "transfer" else set(train.contexts)
    words = {(True, True): "elsewhere", (True, False): "anywhere", (False, True): "line"}
    return [
        SETTINGS[words.get((c in lines, same[n] in seen), "both")]
        for n, c in zip(names, truth.obs["context"], strict=True)
    ]


def signature_table(
    sides: Sides,
    found: Sequence[Prediction],
    metrics: MetricSpec,
    knowledge: Knowledge | None,
) -> pd.DataFrame:
    """One row a held-out signature, in the order of the screen; nothing held out is left out.

    Columns: drug (the perturbation), context, compound (what it is under any name), setting,
    effect, n_support, fallback, then the metrics (`row_scores.score_rows`).
    """
    truth, n = sides.truth, len(sides.truth)
    means, references = np.empty((2, n, truth.n_features))
    support: dict[str, Any] = {"n_support": np.empty(n, dtype=int), "fallback": [""] * n}
    for question, prediction in zip(sides.questions, found, strict=True):
        means[question.rows], references[question.rows] = prediction.mean, question.reference
        support["n_support"][question.rows] = prediction.support["n_support"]
        for row, said in zip(question.rows, prediction.support["fallback"], strict=True):
            support["fallback"][row] = str(said)
    names, same = list(truth.obs["perturbation"]), things(truth.obs["perturbation"], knowledge)
    wanted = None if sides.split.kind == "dose" else metrics.only
    scores = score_rows(
        truth.responses, means, references, allowed_metrics(truth, wanted), sides.tops
    )
    described = {
        "drug": names,
        "context": list(truth.obs["context"]),
        "compound": [same[name] for name in names],
        "setting": settings_of(sides.split, sides.train, truth, knowledge),
        "effect": truth.obs["effect"].to_numpy() if "effect" in truth.obs else 1.0,
    }
    return pd.concat([pd.DataFrame({**described, **support}), scores], axis=1)
