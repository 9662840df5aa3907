"""`KernelPredictor`: Gaussian process / kernel ridge with one or several knowledge kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import pandas as pd

from pertwise.arrays.direction import half_scaled, with_direction
from pertwise.arrays.gaussian_process import (
    MAX_ROWS_FOR_WEIGHTS,
    Floats,
    KernelFit,
    choose_noise,
    combine,
    fit_weights,
    leave_one_out,
    solve,
)
from pertwise.arrays.spread import ErrorModel, fit_error_model
from pertwise.errors import unknown_name
from pertwise.kernels.genes import (
    DEFAULT_KERNELS,
    KernelSource,
    linked,
)
from pertwise.models.base import MEAN_FALLBACK, Prediction, only_context, support_table
from pertwise.models.kernel_model import KernelModel
from pertwise.screen.training import TrainingData, canonical

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

Weights = Literal["learned", "equal"]
NOISE_GRID = np.geomspace(0.02, 20.0, 16)
#: Above this share of missing values weights and directions are not learned (zero-filled
#: responses would decide them).
MAX_MISSING = 0.2
#: Neighbours listed for a prediction: the training rows with the largest combined kernel.
LISTED = 10


class KernelPredictor(KernelModel):
    """One shared kernel over knowledge features for all response features.

    The mean is kernel ridge regression; weights of several kernels are non-negative and learned by
    marginal likelihood with a prior towards equal weights (`kernels.fit_weights`), the noise with
    them or, for equal weights, by leave-one-out error. With ``kernels=("emb:text",)`` this is the
    GP on text embeddings, with a registered protein matrix as a second kernel text and sequence;
    with the default list the multi-kernel predictor. The spread follows `spread.ErrorModel`.

    Parameters
    ----------
    kernels, sources, exclude_from_screen, skip_missing
        See `KernelModel`; kernels left out are named in the provenance.
    weights
        "learned" or "equal".
    prior
        Strength of the prior towards equal weights.
    constant
        Add a constant kernel and model the responses themselves (True), or the responses around
        their training mean (False). With the constant kernel the common level is estimated jointly,
        so that a group of strong perturbations does not raise it for all others.
    direction
        Share of the direction taken from a second fit to half-scaled responses
        (`direction.with_direction`); 0 = none, no second fit.
    """

    def __init__(
        self,
        kernels: Sequence[str] = DEFAULT_KERNELS,
        *,
        weights: Weights = "learned",
        prior: float = 0.01,
        constant: bool = True,
        direction: float = 0.0,
        sources: Sequence[KernelSource] = (),
        exclude_from_screen: bool = True,
        skip_missing: bool = True,
        name: str = "multi-kernel",
    ) -> None:
        if weights not in ("learned", "equal"):
            raise unknown_name("kernel weighting", str(weights), ("learned", "equal"))
        super().__init__(kernels, sources, exclude_from_screen, name, skip_missing)
        self.weights = weights
        self.prior = prior
        self.constant = constant
        self.direction = direction

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Learn weights, noise, coefficients and the error model.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured or there is no knowledge to build a kernel from.
        """
        data = self._start(screen, knowledge)
        gram = self._with_constant(self._blocks.gram())
        self._missing = float(np.isnan(data.y).mean())
        self._centre = np.zeros_like(data.mean) if self.constant else data.mean
        target = data.y - self._centre
        filled = np.where(np.isfinite(data.y), data.y, data.mean) - self._centre
        self._fit, self._alpha, held_out = self._one(gram, target, filled)
        self._direction: tuple[KernelFit, Floats] | None = None
        if self.direction > 0 and self._missing <= MAX_MISSING and len(data.names) > 2:
            found, alpha, turned = self._one(gram, half_scaled(target), half_scaled(filled))
            self._direction = (found, alpha)
            held_out = with_direction(held_out, turned, self.direction)
        #: Leave-one-out predictions of the training rows (hyper-parameters from all rows).
        self.held_out = held_out + self._centre
        parts = gram[1:] if self.constant else gram
        self._errors = fit_error_model(combine(parts, self._gene_weights()), self.held_out, data.y)
        return self

    def _one(
        self, gram: Floats, target: Floats, filled: Floats
    ) -> tuple[KernelFit, Floats, Floats]:
        """Hyper-parameters, coefficients and leave-one-out predictions for one kind of target."""
        found = self._hyperparameters(gram, filled)
        k = combine(gram, found.weights)
        return found, solve(k, found.noise, target), leave_one_out(k, found.noise, filled)

    def _hyperparameters(self, gram: Floats, filled: Floats) -> KernelFit:
        m, n = gram.shape[:2]
        equal = np.full(m, 1.0 / m)
        self._learned = self.weights == "learned" and m > 1 and self._missing <= MAX_MISSING
        if n < 3:
            self._learned = False
            return KernelFit(equal, 1.0, float("nan"))
        rows = np.arange(0, n, int(np.ceil(n / MAX_ROWS_FOR_WEIGHTS)))
        y = filled[rows]
        responses = y @ y.T
        block = gram[:, rows[:, None], rows[None, :]]
        if self._learned:
            return fit_weights(block, responses, y.shape[1], prior=self.prior)
        noise, errors = choose_noise(combine(block, equal), responses, NOISE_GRID)
        return KernelFit(equal, noise, float(errors.min()))

    def _with_constant(self, kernels: Floats) -> Floats:
        """The constant kernel first, when there is one."""
        if not self.constant:
            return kernels
        return np.concatenate([np.ones((1, *kernels.shape[1:])), kernels])

    def _gene_weights(self) -> Floats:
        """Weights of the gene kernels (the constant left out), sum 1."""
        weights = self._fit.weights[1:] if self.constant else self._fit.weights
        return np.asarray(weights / weights.sum())

    def similarity(self, perturbations: Sequence[str]) -> Floats:
        """(q, n_train) combined kernel with the training rows, in the order of `training_names`."""
        self._trained()
        asked = self._asked(canonical(perturbations))
        return combine(asked.cross(self._blocks), self._gene_weights())

    @property
    def training_names(self) -> tuple[str, ...]:
        """Measured perturbations, sorted."""
        return self._trained().names

    @property
    def error_model(self) -> ErrorModel:
        """How the spread was learned; its `squared_error` tells the nearest failures."""
        self._trained()
        return self._errors

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Posterior means; perturbations that no kernel knows get the training mean, stated."""
        data = self._trained()
        only_context(self.name, data.context, context)
        names = canonical(perturbations)
        asked = self._asked(names)
        parts = asked.cross(self._blocks)
        full = self._with_constant(parts)
        mean = combine(full, self._fit.weights) @ self._alpha
        if self._direction is not None:
            found, alpha = self._direction
            mean = with_direction(mean, combine(full, found.weights) @ alpha, self.direction)
        known = linked(parts)
        mean = np.where(known[:, None], self._centre + mean, data.mean)
        k = combine(parts, self._gene_weights())
        spread = self._errors.spread(k, mean)
        weights = map(float, self._fit.weights)
        kinds = ("constant", *self._blocks.kinds) if self.constant else self._blocks.kinds
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean.astype(np.float32),
            spread=spread.astype(np.float32),
            support=support_table(
                names,
                (k > 0).sum(axis=1),
                ["" if i else MEAN_FALLBACK for i in known],
            ),
            neighbours=_neighbours(names, k, parts, self._gene_weights(), data, self._blocks.kinds),
            provenance={
                "method": self.name,
                "kernels": dict(zip(kinds, weights, strict=True)),
                "kernels_missing": [x for x in self.kernels if x not in self._blocks.kinds],
                "weights": "learned" if self._learned else "equal",
                "noise": self._fit.noise,
                "direction": self.direction if self._direction is not None else 0.0,
                "sources": [s.source for s in self.sources],
                "spread_scale": self._errors.scale,
            },
        )


def _neighbours(
    names: Sequence[str],
    k: Floats,
    parts: Floats,
    weights: Floats,
    data: TrainingData,
    kinds: Sequence[str],
) -> pd.DataFrame:
    """The training rows most alike by the combined kernel, with the kernels that say so."""
    columns = ["perturbation", "neighbour", "rank", "weight", "reason"]
    rows = []
    listed = min(LISTED, k.shape[1])
    for i, name in enumerate(names):
        top = np.argsort(-k[i], kind="stable")[:listed]
        total = k[i, top].sum()
        for rank, j in enumerate(top, start=1):
            if k[i, j] <= 0:
                break
            best = np.argsort(-weights * parts[:, i, j])[:3]
            reason = ", ".join(f"{kinds[b]} {parts[b, i, j]:.2f}" for b in best)
            rows.append((name, data.names[j], rank, float(k[i, j] / total), reason))
    return pd.DataFrame(rows, columns=columns)
