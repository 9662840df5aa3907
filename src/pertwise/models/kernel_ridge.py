"""`KernelPredictor`: Gaussian process / kernel ridge with one or several knowledge kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self, get_args

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
    solved,
)
from pertwise.arrays.spread import ErrorModel, fit_error_model
from pertwise.errors import InputError, unknown_name
from pertwise.kernels.genes import (
    DEFAULT_KERNELS,
    KernelSource,
    linked,
)
from pertwise.kernels.ratings import GivenRatings
from pertwise.kernels.transfer import GivenScreens
from pertwise.models.base import MEAN_FALLBACK, Prediction, only_context, support_table
from pertwise.models.kernel_model import TRUST, KernelModel
from pertwise.screen.training import TrainingData, canonical

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

Weights = Literal["learned", "equal"]
Centre = Literal["mean", "zero"]
CENTRES: tuple[Centre, ...] = get_args(Centre)
NOISE_GRID = np.geomspace(0.02, 20.0, 16)
#: Above this share of missing values weights and directions are not learned (zero-filled
#: responses would decide them).
MAX_MISSING = 0.2
#: Neighbours listed for a prediction: the training rows with the largest combined kernel.
LISTED = 10
NEIGHBOUR_COLUMNS = ["perturbation", "neighbour", "rank", "weight", "reason"]


class KernelPredictor(KernelModel):
    """One shared kernel over knowledge features for all response features.

    The mean is kernel ridge regression; weights of several kernels are non-negative and learned by
    marginal likelihood with a prior towards equal weights (`kernels.fit_weights`), the noise with
    them or, for equal weights, by leave-one-out error (and with it the share of other screens).
    With ``kernels=("emb:text",)`` this is the GP on text embeddings, with a registered protein
    matrix as a second kernel text and sequence; with the default list the multi-kernel predictor.
    The spread follows `spread.ErrorModel`.

    Parameters
    ----------
    kernels, sources, ratings, other, look_up, exclude_from_screen, skip_missing
        See `KernelModel`; kernels left out are named in the provenance.
    weights
        "learned" or "equal".
    prior
        Strength of the prior towards equal weights.
    constant
        Add a constant kernel and model the responses themselves (True), or the responses around
        their training mean (False). With the constant kernel the common level is estimated jointly,
        so that a group of strong perturbations does not raise it for all others.
    centre
        Without the constant kernel: "mean", the training mean, or "zero", no response. Where what
        is measured was chosen for its strength, both the mean and the level carry that bias.
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
        centre: Centre = "mean",
        direction: float = 0.0,
        sources: Sequence[KernelSource] = (),
        ratings: GivenRatings = True,
        other: GivenScreens = (),
        look_up: bool = True,
        exclude_from_screen: bool = True,
        skip_missing: bool = True,
        name: str = "multi-kernel",
    ) -> None:
        if weights not in ("learned", "equal"):
            raise unknown_name("kernel weighting", str(weights), ("learned", "equal"))
        super().__init__(
            kernels, sources, exclude_from_screen, name, skip_missing, ratings, other, look_up
        )
        self.weights = weights
        self.prior = prior
        if centre not in CENTRES:
            raise unknown_name("centre", str(centre), CENTRES)
        if constant and centre == "zero":
            raise InputError("centre = 'zero' leaves no level to estimate: set constant = false")
        self.constant = constant
        self.centre = centre
        self.direction = direction

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Learn weights, noise, coefficients and the error model.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured, there is no knowledge to build a kernel from, or the fit would
            need more than the available memory.
        """
        data = self._start(screen, knowledge)
        self._missing = float(np.isnan(data.y).mean())
        around = not self.constant and self.centre == "mean"
        self._centre = data.mean if around else np.zeros_like(data.mean)
        target = data.y - self._centre
        filled = target
        if self._missing:
            filled = np.where(np.isfinite(data.y), data.y, data.mean) - self._centre
        rows = np.arange(0, len(filled), int(np.ceil(len(filled) / MAX_ROWS_FOR_WEIGHTS)))
        sample = self._with_constant(self._blocks.take(rows).gram())
        self._fit = self._hyperparameters(sample, filled[rows])
        turn = self.direction > 0 and self._missing <= MAX_MISSING and len(data.names) > 2
        half = self._hyperparameters(sample, half_scaled(filled[rows])) if turn else None
        del sample
        # One pass over the kernels; each sum is let go as soon as it was used.
        sums = self._sums([self._fit] if half is None else [self._fit, half])
        self._alpha, held_out = self._solved(sums.pop(0), self._fit, target, filled)
        self._direction: tuple[KernelFit, Floats] | None = None
        if half is not None:
            scaled = half_scaled(target)
            also = scaled if target is filled else half_scaled(filled)
            alpha, turned = self._solved(sums.pop(0), half, scaled, also)
            self._direction = (half, alpha)
            held_out = with_direction(held_out, turned, self.direction)
        #: Leave-one-out predictions of the training rows (hyper-parameters from all rows).
        self.held_out = held_out + self._centre
        self._errors = fit_error_model(sums.pop(), self.held_out, data.y)
        return self

    @staticmethod
    def _solved(
        k: Floats, found: KernelFit, target: Floats, filled: Floats
    ) -> tuple[Floats, Floats]:
        """Coefficients and leave-one-out predictions for one kind of target; `k` is lost."""
        if target is filled:
            return solved(k, found.noise, filled)
        return solve(k, found.noise, target), leave_one_out(k, found.noise, filled)

    def _sums(self, fits: Sequence[KernelFit]) -> list[Floats]:
        """(n, n) weighted sums of the kernels for each fit, then of the gene kernels."""
        n = len(self._blocks.names)
        weights = [*(f.weights for f in fits), self._gene_weights()]
        out = [np.empty((n, n)) for _ in weights]
        for rows, parts in self._blocks.gram_blocks(lower=True):
            columns = slice(0, rows.stop)
            for k, w in zip(out, weights, strict=True):
                k[rows, columns] = self._combined(parts, w)
                k[columns, rows] = k[rows, columns].T
        return out

    def _hyperparameters(self, gram: Floats, y: Floats) -> KernelFit:
        """Weights and noise from the (m, n, n) kernels and (n, d) responses of some rows."""
        m, n = gram.shape[:2]
        equal = np.full(m, 1.0 / m)
        self._learned = self.weights == "learned" and m > 1 and self._missing <= MAX_MISSING
        if n < 3:
            self._learned = False
            return KernelFit(equal, 1.0, float("nan"))
        responses = y @ y.T
        if self._learned:
            return fit_weights(gram, responses, y.shape[1], prior=self.prior)
        tried = []
        for weights in self._shares(m):
            noise, errors = choose_noise(combine(gram, weights), responses, NOISE_GRID)
            tried.append(KernelFit(weights, noise, float(errors.min())))
        return min(tried, key=lambda fit: fit.objective)

    def _shares(self, m: int) -> list[Floats]:
        """Weights of the m kernels to try: equal, or with several shares of other screens."""
        theirs = self._of_others(self._blocks.kinds)
        theirs = np.append(np.zeros(m - len(theirs), dtype=bool), theirs)
        if not theirs.any() or theirs.all():
            return [np.full(m, 1.0 / m)]
        return [np.where(theirs, t / theirs.sum(), (1.0 - t) / (~theirs).sum()) for t in TRUST]

    def _with_constant(self, kernels: Floats) -> Floats:
        """The constant kernel first, when there is one."""
        if not self.constant:
            return kernels
        return np.concatenate([np.ones((1, *kernels.shape[1:])), kernels])

    @staticmethod
    def _combined(parts: Floats, weights: Floats) -> Floats:
        """Weighted sum of (m, a, b) kernels; a weight more than kernels is that of the constant."""
        out = combine(parts, weights[len(weights) - len(parts) :])
        if len(weights) > len(parts):
            out += weights[0]
        return out

    def _gene_weights(self) -> Floats:
        """Weights of the gene kernels (the constant left out), sum 1."""
        weights = self._fit.weights[1:] if self.constant else self._fit.weights
        return np.asarray(weights / weights.sum())

    def similarity(self, perturbations: Sequence[str]) -> Floats:
        """(q, n_train) combined kernel with the training rows, in the order of `training_names`."""
        self._trained()
        asked = self._asked(canonical(perturbations))
        out = np.empty((len(asked.names), len(self._blocks.names)))
        for rows, parts in asked.cross_blocks(self._blocks):
            out[rows] = combine(parts, self._gene_weights())
        return out

    @property
    def training_names(self) -> tuple[str, ...]:
        """Measured perturbations, sorted."""
        return self._trained().names

    @property
    def error_model(self) -> ErrorModel:
        """How the spread was learned; its `squared_error` tells the nearest failures."""
        self._trained()
        return self._errors

    def _mean(self, parts: Floats) -> Floats:
        """(q, d) posterior mean around the centre from (m, q, n) kernels."""
        mean = self._combined(parts, self._fit.weights) @ self._alpha
        if self._direction is None:
            return mean
        found, alpha = self._direction
        return with_direction(mean, self._combined(parts, found.weights) @ alpha, self.direction)

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Posterior means; perturbations that no kernel knows get the training mean, stated."""
        data = self._trained()
        only_context(self.name, data.context, context)
        names = canonical(perturbations)
        asked = self._asked(names)
        mean, spread = np.empty((2, len(names), len(data.features)), dtype=np.float32)
        known, count = np.zeros(len(names), dtype=bool), np.zeros(len(names), dtype=int)
        listed = []
        for rows, parts in asked.cross_blocks(self._blocks):
            known[rows] = linked(parts)
            k = combine(parts, self._gene_weights())
            count[rows] = (k > 0).sum(axis=1)
            found = np.where(known[rows, None], self._centre + self._mean(parts), data.mean)
            mean[rows], spread[rows] = found, self._errors.spread(k, found)
            listed += _neighbours(
                names[rows], k, parts, self._gene_weights(), data, self._blocks.kinds
            )
        weights = map(float, self._fit.weights)
        kinds = ("constant", *self._blocks.kinds) if self.constant else self._blocks.kinds
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean,
            spread=spread,
            support=support_table(names, count, ["" if i else MEAN_FALLBACK for i in known]),
            neighbours=pd.DataFrame(listed, columns=NEIGHBOUR_COLUMNS),
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
) -> list[tuple[str, str, int, float, str]]:
    """The training rows most alike by the combined kernel, with the kernels that say so."""
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
    return rows
