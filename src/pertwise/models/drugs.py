"""Drug responses in several cell lines: what every predictor shares, and the simple ones.

A drug predictor is fitted on a screen of all lines at once and asked for one line at a time. What
it predicts is always "line mean + something": the line mean is what all drugs do to that line
against its controls, the strongest simple baseline, and the place to which the others fall back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError
from pertwise.knowledge.lines import CellTable
from pertwise.models.base import Prediction
from pertwise.screen.core import Screen, canonical_perturbation

Floats = NDArray[np.float64]


@runtime_checkable
class DrugPredictor(Protocol):
    """Learns from all lines of a screen; predicts drugs in one line."""

    name: str

    def fit(self, screen: Screen) -> Self:
        """Fit on the measured rows of every line."""
        ...

    def predict(self, drugs: Sequence[str], context: str) -> Prediction:
        """Responses of `drugs` in `context`; what cannot be known falls back, stated."""
        ...


def line_means(
    responses: NDArray[Any], line: NDArray[Any], n_lines: int, prior: float = 0.0
) -> Floats:
    """(n_lines, d) mean response of each line over the measured rows, NaN targets masked.

    Parameters
    ----------
    responses, line
        (n, d) and the (n,) line number of each row.
    prior
        Number of pseudo-rows at the mean of all lines' means: with few drugs in a line its
        mean is pulled to what drugs do elsewhere, m_c = (sum_c + a M) / (n_c + a).

    A feature never measured in a line takes M; one never measured anywhere takes 0.
    """
    data = np.asarray(responses, dtype=np.float64)
    finite = np.isfinite(data)
    filled = np.where(finite, data, 0.0)
    member = np.equal.outer(np.arange(n_lines), line).astype(np.float64)
    total, count = member @ filled, member @ finite
    own = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    overall = masked_mean(own)
    weight = count + prior
    return np.asarray(
        np.where(weight > 0, (total + prior * overall) / np.maximum(weight, 1e-12), overall)
    )


@dataclass(frozen=True)
class Lines:
    """The lines of a training screen and the rule for one that is not among them.

    Attributes
    ----------
    names, means
        Lines with measured rows and their (n_lines, d) mean responses.
    cells
        Facts that say which lines are related; None = all lines count alike.
    n_related
        How many related lines an unmeasured line borrows from.
    """

    names: tuple[str, ...]
    means: Floats
    cells: CellTable | None = None
    n_related: int = 5

    def related(self, context: str) -> dict[str, float]:
        """Line -> weight (sum 1): the line itself, or the related ones when it is not measured.

        Weights are metadata similarities (organ, driver genes); without any known relation, all
        lines count alike.
        """
        if context in self.names:
            return {context: 1.0}
        found: dict[str, float] = {}
        if self.cells is not None:
            near = self.cells.related(context, self.names, self.n_related)
            found = {name: score for name, score in near if score > 0}
        if not found:
            found = dict.fromkeys(self.names, 1.0)
        total = sum(found.values())
        return {name: weight / total for name, weight in found.items()}

    def mean(self, context: str) -> tuple[Floats, str]:
        """(d,) mean response of a line, and "" or what it was borrowed from."""
        weights = self.related(context)
        rows = np.array([self.names.index(n) for n in weights])
        mean = np.asarray(np.array(list(weights.values())) @ self.means[rows])
        return mean, "" if context in self.names else _borrowed(weights)


def _borrowed(weights: Mapping[str, float]) -> str:
    shown = ", ".join(list(weights)[:5]) + (" ..." if len(weights) > 5 else "")
    return f"line not measured: borrowed from {len(weights)} lines ({shown})"


@dataclass(frozen=True)
class Training:
    """Arrays of a training screen.

    Attributes
    ----------
    responses
        (n, d) float64, NaN = not measured.
    drugs, drug, lines, line
        Names, and for each row the position of its name.
    """

    responses: Floats
    drugs: tuple[str, ...]
    drug: NDArray[np.int64]
    lines: tuple[str, ...]
    line: NDArray[np.int64]
    features: tuple[str, ...]

    @classmethod
    def of(cls, screen: Screen) -> Training:
        """Measured rows in a canonical order, so that the order of the screen does not matter.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured, or a drug has several doses in one line.
        """
        measured = screen.only_measured()
        if not len(measured):
            raise InputError("no measured response to learn from: every row is NaN")
        keys = measured.obs[["perturbation", "context"]].reset_index(drop=True)
        if keys.duplicated().any():
            drug, line = keys[keys.duplicated()].iloc[0]
            raise InputError(
                f"drug {drug!r} has several doses in {line!r}; keep one dose, or use the dose "
                "extrapolation predictors"
            )
        order = keys.sort_values(["context", "perturbation"], kind="stable").index.to_numpy()
        drugs = tuple(sorted(set(keys["perturbation"])))
        lines = tuple(sorted(set(keys["context"])))
        at_drug = {d: i for i, d in enumerate(drugs)}
        at_line = {c: i for i, c in enumerate(lines)}
        return cls(
            responses=np.asarray(measured.responses[order], dtype=np.float64),
            drugs=drugs,
            drug=keys["perturbation"].map(at_drug).to_numpy(dtype=np.int64)[order],
            lines=lines,
            line=keys["context"].map(at_line).to_numpy(dtype=np.int64)[order],
            features=measured.features,
        )

    def residuals(self, means: Floats) -> Floats:
        """(n, d) responses minus the line means; what was not measured is 0 (no difference)."""
        rest = self.responses - means[self.line]
        return np.where(np.isfinite(rest), rest, 0.0)

    def drug_effects(self, means: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """(n_drugs, d) mean residual of each drug over its lines, and its number of lines."""
        member = np.equal.outer(np.arange(len(self.drugs)), self.drug).astype(np.float64)
        total = member @ self.residuals(means)
        count = np.bincount(self.drug, minlength=len(self.drugs))
        return total / np.maximum(count, 1)[:, None], count.astype(np.int64)


def make_prediction(
    method: str,
    drugs: Sequence[str],
    context: str,
    features: tuple[str, ...],
    mean: NDArray[Any],
    n_support: Sequence[int],
    fallback: Sequence[str],
    **more: Any,
) -> Prediction:
    """A `Prediction` for one line; `more` are its other fields."""
    names = tuple(canonical_perturbation(d) for d in drugs)
    return Prediction(
        perturbations=names,
        features=features,
        mean=np.asarray(mean, dtype=np.float32).reshape(len(names), len(features)),
        spread=more.pop("spread", None),
        support=pd.DataFrame(
            {"n_support": list(n_support), "fallback": list(fallback), **more.pop("columns", {})},
            index=pd.Index(names, dtype=object),
        ),
        provenance={"method": method, "context": context, **more.pop("provenance", {})},
        **more,
    )


class LinePredictor:
    """Base of the predictors below: arrays of the training screen and the line means."""

    name = "line"

    def __init__(
        self, *, cells: CellTable | None = None, n_related: int = 5, prior: float = 0.0
    ) -> None:
        if prior < 0 or n_related < 1:
            raise InputError(f"prior must be >= 0 and n_related >= 1: {prior}, {n_related}")
        self.cells, self.n_related, self.prior = cells, n_related, prior
        self._data: Training | None = None
        self._lines: Lines | None = None

    def fit(self, screen: Screen) -> Self:
        """Fit on the measured rows of every line."""
        data = Training.of(screen)
        means = line_means(data.responses, data.line, len(data.lines), self.prior)
        self._data = data
        self._lines = Lines(data.lines, means, self.cells, self.n_related)
        self._learn(data, means)
        return self

    def _learn(self, data: Training, means: Floats) -> None:
        """What a subclass computes beyond the line means."""

    @property
    def training(self) -> Training:
        """The training arrays.

        Raises
        ------
        pertwise.errors.InputError
            Before `fit`.
        """
        if self._data is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._data

    @property
    def lines(self) -> Lines:
        """The lines of the training screen."""
        if self._lines is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._lines


class CellMean(LinePredictor):
    """The mean response of the line's measured drugs, whatever the drug.

    An unmeasured line gets the weighted mean of its related lines (stated in ``fallback``).
    """

    name = "cell mean"

    def predict(self, drugs: Sequence[str], context: str) -> Prediction:
        """The same response for every drug."""
        data = self.training
        mean, note = self.lines.mean(context)
        n = int((data.line == data.lines.index(context)).sum()) if context in data.lines else 0
        return make_prediction(
            self.name, drugs, context, data.features, np.tile(mean, (len(drugs), 1)),
            [n] * len(drugs), [note] * len(drugs),
        )  # fmt: skip


class DrugMean(LinePredictor):
    """The mean response of the same drug in the other lines; the cell mean for a new drug."""

    name = "drug mean"

    def predict(self, drugs: Sequence[str], context: str) -> Prediction:
        """Mean of the drug's rows outside `context`."""
        data = self.training
        mean, note = self.lines.mean(context)
        rows, support, fallback = [], [], []
        here = data.lines.index(context) if context in data.lines else -1
        for drug in map(canonical_perturbation, drugs):
            known = data.drugs.index(drug) if drug in data.drugs else -1
            own = (data.drug == known) & (data.line != here) if known >= 0 else np.zeros(1, bool)
            if own.any():
                value = masked_mean(data.responses[own])
                unmeasured = ~np.isfinite(data.responses[own]).any(axis=0)
                rows.append(np.where(unmeasured, mean, value))
            else:
                rows.append(mean)
            support.append(int(own.sum()))
            fallback.append("" if own.any() else "drug in no other line: cell mean")
            if not own.any() and note:
                fallback[-1] += f"; {note}"
        return make_prediction(
            self.name, drugs, context, data.features, np.array(rows), support, fallback
        )


class DrugPlusCell(LinePredictor):
    """Additive: line mean + mean deviation of the drug from the line means elsewhere.

    The deviation is scaled by n / (n + 1) for a drug measured in n lines: the posterior mean of a
    random effect whose variance equals that of one measurement.
    """

    name = "drug + cell"

    def _learn(self, data: Training, means: Floats) -> None:
        effects, count = data.drug_effects(means)
        self._effects = effects * (count / (count + 1.0))[:, None]
        self._count = count

    def predict(self, drugs: Sequence[str], context: str) -> Prediction:
        """Line mean + drug effect; the line mean for a new drug."""
        data = self.training
        mean, note = self.lines.mean(context)
        at = {d: i for i, d in enumerate(data.drugs)}
        rows, support, fallback = [], [], []
        for drug in map(canonical_perturbation, drugs):
            i = at.get(drug)
            rows.append(mean if i is None else mean + self._effects[i])
            support.append(0 if i is None else int(self._count[i]))
            notes = [note, "drug not measured: cell mean" if i is None else ""]
            fallback.append("; ".join(n for n in notes if n))
        return make_prediction(
            self.name, drugs, context, data.features, np.array(rows), support, fallback
        )
