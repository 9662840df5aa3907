"""The two predictors everything must beat: "no change" and the mean of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import canonical_perturbation
from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError
from pertwise.models.base import Prediction
from pertwise.parts import part

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


class ConstantPredictor:
    """Predicts one response for every perturbation; `_constant` says which."""

    name: str = "constant"

    def __init__(self) -> None:
        self._mean: NDArray[np.float32] | None = None
        self._spread: NDArray[np.float32] | None = None
        self._features: tuple[str, ...] = ()
        self._n_support = 0

    def _constant(self, responses: NDArray[Any]) -> NDArray[np.float64]:
        raise NotImplementedError

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Fit on the measured rows; `knowledge` is not used.

        Raises
        ------
        pertwise.errors.InputError
            If no row of the screen is measured.
        """
        measured = screen.responses[screen.measured]
        if not len(measured):
            raise InputError("no measured perturbation to learn from: every response is NaN")
        constant = self._constant(measured)
        self._mean = constant.astype(np.float32)
        # The spread of an observation around a constant is the spread of the training responses
        # around it; one training row says nothing about it, hence none is claimed.
        around = np.asarray(measured, dtype=np.float64) - constant
        count = np.isfinite(around).sum(axis=0)
        squares = np.where(np.isfinite(around), around**2, 0.0).sum(axis=0)
        self._spread = (
            np.sqrt(squares / np.maximum(count - 1, 1)).astype(np.float32)
            if len(measured) > 1
            else None
        )
        self._features = screen.features
        self._n_support = len(measured)
        return self

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """The same response for every name; nothing can be unknown, so no fallback is used."""
        if self._mean is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        names = tuple(canonical_perturbation(p) for p in perturbations)
        n = len(names)
        return Prediction(
            perturbations=names,
            features=self._features,
            mean=np.tile(self._mean, (n, 1)),
            spread=None if self._spread is None else np.tile(self._spread, (n, 1)),
            support=pd.DataFrame(
                {"n_support": np.full(n, self._n_support), "fallback": [""] * n},
                index=pd.Index(names),
            ),
            provenance={"method": self.name},
        )


class ControlPredictor(ConstantPredictor):
    """No change: the predicted delta is zero for every perturbation and feature."""

    name = "control"

    def _constant(self, responses: NDArray[Any]) -> NDArray[np.float64]:
        return np.zeros(responses.shape[1])


@part(label="training mean")
class TrainingMeanPredictor(ConstantPredictor):
    """The mean response of the training perturbations, each counted once; NaN targets masked.

    A strong baseline for unseen single perturbations (Ahlmann-Eltze et al. 2025; Kernfeld et al.
    2025): it holds whatever all perturbations share against the control.
    """

    name = "training mean"

    def _constant(self, responses: NDArray[Any]) -> NDArray[np.float64]:
        return masked_mean(responses)
