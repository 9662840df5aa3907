"""`AdditivePredictor`: combinations "A+B" from their parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pertwise import parts
from pertwise._names import is_combination, split_combination
from pertwise.arrays.gaussian_process import Floats
from pertwise.errors import InputError
from pertwise.models.base import Prediction, Predictor, only_context, support_table
from pertwise.models.baselines import ConstantPredictor, TrainingMeanPredictor
from pertwise.parts import part
from pertwise.screen.training import TrainingData, canonical

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


class AdditivePredictor:
    """A combination is the sum of its parts, times a factor learned from measured combinations.

    Parts that were measured alone count as measured; others are predicted by `single`. The factor
    is the least-squares slope of measured combinations on the sums of their parts, shrunk to 1 by
    one pseudo-combination (the additive model of Norman et al. 2019; hard to beat for doubles,
    Ahlmann-Eltze et al. 2025). Single perturbations are passed to `single`.

    Parameters
    ----------
    single
        Makes the predictor of single perturbations; the training mean of singles by default.
    """

    def __init__(
        self, single: Callable[[], Predictor] = TrainingMeanPredictor, name: str = "additive"
    ) -> None:
        self.single = single
        self.name = name
        self._data: TrainingData | None = None

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Fit `single` on the single perturbations and the factor on the combinations."""
        data = TrainingData.from_screen(screen, self.name)
        alone = [n for n in data.names if not is_combination(n)]
        if not alone:
            raise InputError(f"{self.name!r} needs measured single perturbations; there is none")
        self._data = data
        self._model = self.single().fit(screen.only_measured().of_perturbations(alone), knowledge)
        self._row = {n: data.y[i] for i, n in enumerate(data.names) if not is_combination(n)}
        combined = [i for i, n in enumerate(data.names) if is_combination(n)]
        self.factor, self._error = 1.0, data.feature_spread()
        if combined:
            sums, _, _, _ = self._sums([data.names[i] for i in combined])
            truth = data.y[combined]
            known = np.isfinite(truth) & np.isfinite(sums)
            s, t = np.where(known, sums, 0.0), np.where(known, truth, 0.0)
            unit = float((s**2).sum(axis=1).mean())
            total = float((s**2).sum()) + unit
            self.factor = (float((s * t).sum()) + unit) / total if total > 0 else 1.0
            left = np.where(known, t - self.factor * s, np.nan)
            count = np.maximum(np.isfinite(left).sum(axis=0), 1)
            if len(combined) > 1:
                self._error = np.sqrt(np.nansum(left**2, axis=0) / count)
        return self

    def _sums(self, names: Sequence[str]) -> tuple[Floats, np.ndarray, list[str], list[str]]:
        """Sums of the parts, how many were measured, which were predicted, and which of those by
        a fallback."""
        parts = [split_combination(n) for n in names]
        missing = sorted({p for group in parts for p in group if p not in self._row})
        predicted = self._model.predict(missing)
        value = {**dict(zip(missing, predicted.mean.astype(np.float64), strict=True)), **self._row}
        sums = np.array([sum(value[p] for p in group) for group in parts])
        measured = np.array([sum(p in self._row for p in group) for group in parts], dtype=int)
        said = self._fallbacks(predicted)
        by_model = [", ".join(p for p in group if p not in self._row) for group in parts]
        fallback = ["; ".join(f"{p}: {said[p]}" for p in g if said.get(p)) for g in parts]
        return sums, measured, by_model, fallback

    def _fallbacks(self, predicted: Prediction) -> dict[str, str]:
        """name -> fallback of the predictor of single perturbations ("" where it knew something).

        A constant never says so itself, yet for a part that was not measured it is one.
        """
        constant = isinstance(self._model, ConstantPredictor)
        return {
            name: str(text) or (self._model.name if constant else "")
            for name, text in zip(
                predicted.perturbations, predicted.support["fallback"], strict=True
            )
        }

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Sums of the parts, measured or predicted by `single`.

        The support column ``predicted_parts`` names those that were not measured; ``fallback``
        those of them about which `single` knew nothing.
        """
        if self._data is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        data, names = self._data, canonical(perturbations)
        only_context(self.name, data.context, context)
        mean = np.zeros((len(names), len(data.features)))
        support, fallback = np.zeros(len(names), dtype=int), [""] * len(names)
        by_model = [""] * len(names)
        double = [i for i, n in enumerate(names) if is_combination(n)]
        alone = [i for i, n in enumerate(names) if not is_combination(n)]
        if double:
            sums, measured, parts, said = self._sums([names[i] for i in double])
            mean[double] = self.factor * np.nan_to_num(sums)
            support[double] = measured
            for i, part, text in zip(double, parts, said, strict=True):
                by_model[i], fallback[i] = part, text
        if alone:
            found = self._model.predict([names[i] for i in alone])
            mean[alone] = found.mean
            support[alone] = found.support["n_support"].to_numpy()
            known = self._fallbacks(found)
            for i in alone:
                by_model[i] = "" if names[i] in self._row else names[i]
                fallback[i] = known[names[i]] if by_model[i] else ""
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean.astype(np.float32),
            spread=np.tile(self._error.astype(np.float32), (len(names), 1)),
            support=support_table(names, support, fallback).assign(predicted_parts=by_model),
            provenance={"method": self.name, "factor": self.factor, "single": self._model.name},
        )


@part(argument="single")
def additive(
    single: str = "multi-kernel", *, name: str = "additive", **settings: Any
) -> AdditivePredictor:
    """Sum of the parts of a combination; any predictor for parts that were not measured.

    `settings` are those of the predictor `single`.
    """
    return AdditivePredictor(lambda: parts.load("predictor", single, **settings), name=name)
