"""Dose extrapolation: a response at a higher dose from those at lower ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from pertwise._names import canonical_perturbation
from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError
from pertwise.models.base import Prediction
from pertwise.models.contexts import Floats, make_prediction
from pertwise.parts import part
from pertwise.screen.core import Screen

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

DoseRule = Literal["dose mean", "same as highest", "log-linear", "shifted"]
RULES: tuple[DoseRule, ...] = ("dose mean", "same as highest", "log-linear", "shifted")


@part(needs="doses", argument="rule")
class DosePredictor:
    """Response at a dose above all measured ones of a perturbation in a context.

    Rules
    -----
    "dose mean"
        Mean over perturbations of the response at the highest dose measured in training.
    "same as highest"
        The own response at the highest measured dose.
    "log-linear"
        y_f = a_f + b_f log10(dose), fitted to the own doses and extrapolated; with one dose, as
        "same as highest".
    "shifted"
        Own response at the highest measured dose plus the mean change, over perturbations, of one
        step of log10 dose as far as the one asked for.

    Parameters
    ----------
    dose
        Predicted when `predict` is not told another; None: the highest of the training rows.
    """

    #: Learns from rows that differ in the dose, where others need one dose.
    takes_doses = True

    def __init__(self, rule: DoseRule = "log-linear", dose: float | None = None) -> None:
        if rule not in RULES:
            raise InputError(f"unknown dose rule {rule!r}; choose from {RULES}")
        if dose is not None and not dose > 0:
            raise InputError(f"dose must be positive, got {dose}")
        self.rule, self.dose = rule, dose
        self.name: str = rule
        self._screen: Screen | None = None

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Keep the measured rows; `knowledge` is not used.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured or a dose is missing or not positive.
        """
        measured = screen.only_measured()
        if not len(measured):
            raise InputError("no measured response to learn from: every row is NaN")
        doses = measured.obs["dose"].to_numpy(dtype=float)
        if not (doses > 0).all():
            row = measured.obs.index[~(doses > 0)][0]
            raise InputError(f"row {row!r} has the dose {measured.obs.loc[row, 'dose']}; need > 0")
        self._screen, self._log = measured, np.log10(doses)
        self._step = self._mean_slope()
        return self

    def _fitted(self) -> Screen:
        if self._screen is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._screen

    def _rows(self, name: str, context: str) -> tuple[Floats, Floats]:
        obs = self._fitted().obs
        own = ((obs["perturbation"] == name) & (obs["context"] == context)).to_numpy()
        order = np.argsort(self._log[own], kind="stable")
        return self._log[own][order], np.asarray(self._fitted().responses[own][order], np.float64)

    def _mean_slope(self) -> Floats:
        """(d,) mean change per unit of log10 dose between the top two doses of each."""
        slopes = []
        keys = self._fitted().obs[["perturbation", "context"]].drop_duplicates()
        for name, context in keys.itertuples(index=False, name=None):
            x, y = self._rows(name, context)
            if len(x) > 1:
                slopes.append((y[-1] - y[-2]) / (x[-1] - x[-2]))
        return masked_mean(np.array(slopes)) if slopes else np.zeros(self._fitted().n_features)

    def predict(
        self, names: Sequence[str], context: str | None = None, dose: float | None = None
    ) -> Prediction:
        """Responses at `dose`; the dose mean, stated, for what was not measured in the context."""
        screen = self._fitted()
        obs, known = screen.obs, screen.contexts
        if context is None:
            if len(known) > 1:
                raise InputError(f"{self.name!r} learned {len(known)} contexts; say which")
            context = known[0]
        wanted = dose or self.dose
        target = float(np.log10(wanted)) if wanted else float(self._log.max())
        here = (obs["context"] == context).to_numpy()
        top = self._log == self._log[here if here.any() else slice(None)].max()
        mean = masked_mean(self._fitted().responses[top & here if here.any() else top])
        rows, support, fallback = [], [], []
        for name in map(canonical_perturbation, names):
            x, y = self._rows(name, context)
            if self.rule == "dose mean" or not len(x):
                value, used = mean, int(top.sum())
            elif self.rule == "same as highest" or (self.rule == "log-linear" and len(x) == 1):
                value, used = y[-1], 1
            elif self.rule == "shifted":
                value, used = y[-1] + self._step * (target - x[-1]), 1
            else:
                centred = x - x.mean()
                slope = np.nansum(centred[:, None] * y, axis=0) / (centred**2).sum()
                value, used = y.mean(axis=0) + slope * (target - x.mean()), len(x)
            rows.append(np.where(np.isfinite(value), value, mean))
            support.append(used)
            fallback.append(
                "" if len(x) or self.rule == "dose mean" else "no lower dose: dose mean"
            )
        return make_prediction(
            self.name, names, context, self._fitted().features, np.array(rows), support, fallback,
            provenance={"dose": 10.0**target},
        )  # fmt: skip
