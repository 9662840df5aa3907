"""Dose extrapolation: a drug's response at a higher dose from its lower ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np

from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError
from pertwise.models.base import Prediction
from pertwise.models.drugs import Floats, make_prediction
from pertwise.screen.core import Screen, canonical_perturbation

DoseRule = Literal["dose mean", "same as highest", "log-linear", "shifted"]
RULES: tuple[DoseRule, ...] = ("dose mean", "same as highest", "log-linear", "shifted")


class DosePredictor:
    """Response at a dose above all measured ones of a drug in a line.

    Rules
    -----
    "dose mean"
        Mean over drugs of the response at the highest dose measured in training.
    "same as highest"
        The drug's own response at its highest measured dose.
    "log-linear"
        y_f = a_f + b_f log10(dose), fitted to the drug's doses and extrapolated; with one dose, as
        "same as highest".
    "shifted"
        Own response at the highest measured dose plus the mean change, over drugs, of one step of
        log10 dose as far as the one asked for.
    """

    def __init__(self, rule: DoseRule = "log-linear") -> None:
        if rule not in RULES:
            raise InputError(f"unknown dose rule {rule!r}; choose from {RULES}")
        self.rule = rule
        self.name: str = rule

    def fit(self, screen: Screen) -> Self:
        """Keep the measured rows.

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

    def _rows(self, drug: str, context: str) -> tuple[Floats, Floats]:
        obs = self._screen.obs
        own = ((obs["perturbation"] == drug) & (obs["context"] == context)).to_numpy()
        order = np.argsort(self._log[own], kind="stable")
        return self._log[own][order], np.asarray(self._screen.responses[own][order], np.float64)

    def _mean_slope(self) -> Floats:
        """(d,) mean over drugs of the change per unit of log10 dose between the top two doses."""
        slopes = []
        keys = self._screen.obs[["perturbation", "context"]].drop_duplicates()
        for drug, context in keys.itertuples(index=False, name=None):
            x, y = self._rows(drug, context)
            if len(x) > 1:
                slopes.append((y[-1] - y[-2]) / (x[-1] - x[-2]))
        return masked_mean(np.array(slopes)) if slopes else np.zeros(self._screen.n_features)

    def predict(self, drugs: Sequence[str], context: str, dose: float) -> Prediction:
        """Responses at `dose`; the dose mean, stated, for a drug not measured in the line."""
        target = float(np.log10(dose))
        obs = self._screen.obs
        here = (obs["context"] == context).to_numpy()
        top = self._log == self._log[here if here.any() else slice(None)].max()
        mean = masked_mean(self._screen.responses[top & here if here.any() else top])
        rows, support, fallback = [], [], []
        for drug in map(canonical_perturbation, drugs):
            x, y = self._rows(drug, context)
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
            self.name, drugs, context, self._screen.features, np.array(rows), support, fallback,
            provenance={"dose": dose},
        )  # fmt: skip
