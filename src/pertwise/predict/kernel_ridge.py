"""`KernelPredictor`: Gaussian process / kernel ridge with one or several knowledge kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import pandas as pd

from pertwise.errors import InputError, unknown_name
from pertwise.predict.aggregate import calibration_scale
from pertwise.predict.base import Prediction
from pertwise.predict.gene_kernels import DEFAULT_KERNELS, GeneBlocks, gene_blocks
from pertwise.predict.kernels import (
    Floats,
    KernelFit,
    choose_noise,
    combine,
    fit_weights,
    leave_one_out,
    posterior_variance,
    solve,
)
from pertwise.predict.training import MEAN_FALLBACK, TrainingData, canonical, support_table

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

Weights = Literal["learned", "equal"]
NOISE_GRID = np.geomspace(0.02, 20.0, 16)
#: Above this share of missing values the weights are not learned from zero-filled responses.
MAX_MISSING = 0.2
#: Kernel weights are learned on at most this many training rows (evenly spaced by name).
MAX_ROWS_FOR_WEIGHTS = 800
#: Neighbours listed for a prediction: the training rows with the largest combined kernel.
LISTED = 10


class KernelPredictor:
    """One shared kernel over knowledge features for all response features.

    The mean is kernel ridge regression on the centred responses; weights of several kernels are
    non-negative and learned by marginal likelihood with a prior towards equal weights
    (`kernels.fit_weights`), the noise with them or, for equal weights, by leave-one-out error.
    With ``kernels=("emb:text",)`` this is the GP on text embeddings, with a registered protein
    matrix as a second kernel text and sequence; with the default list the multi-kernel predictor.

    Parameters
    ----------
    kernels
        See `gene_kernels.DEFAULT_KERNELS`.
    weights
        "learned" or "equal".
    prior
        Strength of the prior towards equal weights.
    constant
        Add a constant kernel and model the responses themselves (True), or the responses around
        their training mean (False). With the constant kernel the common level is estimated jointly,
        so that a group of strong perturbations does not raise it for all others.
    skip_missing
        Leave out kernels that the knowledge folder cannot give (named in the provenance).
    """

    def __init__(
        self,
        kernels: Sequence[str] = DEFAULT_KERNELS,
        *,
        weights: Weights = "learned",
        prior: float = 0.01,
        constant: bool = True,
        exclude_from_screen: bool = True,
        skip_missing: bool = True,
        name: str = "multi-kernel",
    ) -> None:
        if weights not in ("learned", "equal"):
            raise unknown_name("kernel weighting", str(weights), ("learned", "equal"))
        self.kernels = (kernels,) if isinstance(kernels, str) else tuple(kernels)
        self.weights = weights
        self.prior = prior
        self.constant = constant
        self.exclude_from_screen = exclude_from_screen
        self.skip_missing = skip_missing
        self.name = name
        self._knowledge: Knowledge | None = None
        self._data: TrainingData | None = None
        self._blocks: GeneBlocks | None = None
        self._fit: KernelFit | None = None

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Learn weights, noise, coefficients and the calibration of the spread.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured or there is no knowledge to build a kernel from.
        """
        if knowledge is None:
            raise InputError(f"{self.name!r} needs a knowledge folder: pass knowledge to fit")
        data = TrainingData.from_screen(screen, self.name)
        blocks = gene_blocks(
            knowledge,
            data.names,
            self.kernels,
            exclude_from_screen=self.exclude_from_screen,
            skip_missing=self.skip_missing,
        )
        gram = self._with_constant(blocks.gram())
        self._centre = np.zeros_like(data.mean) if self.constant else data.mean
        target = data.y - self._centre
        filled = np.where(np.isfinite(data.y), data.y, data.mean) - self._centre
        found = self._hyperparameters(gram, data, filled)
        k = combine(gram, found.weights)
        self._knowledge, self._data, self._blocks, self._fit = knowledge, data, blocks, found
        self._k = k
        self._coefficients = solve(k, found.noise, target)
        self._calibrate(k, found.noise, leave_one_out(k, found.noise, filled) - target)
        return self

    def _with_constant(self, kernels: Floats) -> Floats:
        """The constant kernel first, when there is one."""
        return (
            np.concatenate([np.ones((1, *kernels.shape[1:])), kernels])
            if self.constant
            else kernels
        )

    def _hyperparameters(self, gram: Floats, data: TrainingData, filled: Floats) -> KernelFit:
        m, n = gram.shape[:2]
        equal = np.full(m, 1.0 / m)
        self._learned = False
        if n < 3:
            return KernelFit(equal, 1.0, float("nan"))
        missing = float(np.isnan(data.y).mean())
        self._learned = self.weights == "learned" and m > 1 and missing <= MAX_MISSING
        rows = np.arange(0, n, int(np.ceil(n / MAX_ROWS_FOR_WEIGHTS)))
        y = filled[rows]
        responses = y @ y.T
        block = gram[:, rows[:, None], rows[None, :]]
        if self._learned:
            return fit_weights(block, responses, y.shape[1], prior=self.prior)
        noise, errors = choose_noise(combine(block, equal), responses, NOISE_GRID)
        return KernelFit(equal, noise, float(errors.min()))

    def _calibrate(self, k: Floats, noise: float, error: Floats) -> None:
        data = self._trained()
        n = len(data.names)
        inverse = np.linalg.inv(k + noise * np.eye(n))
        variance = 1.0 / np.diag(inverse)
        with np.errstate(invalid="ignore"):
            scale = np.nanmean(error**2 / variance[:, None], axis=0) if n > 2 else None
        base = data.feature_spread() ** 2
        self._feature_scale = base if scale is None else np.where(np.isfinite(scale), scale, base)
        spread = np.sqrt(variance[:, None] * self._feature_scale)
        self._scale = calibration_scale(error, spread)

    def _trained(self) -> TrainingData:
        if self._data is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._data

    def predict(self, perturbations: Sequence[str]) -> Prediction:
        """Posterior means; perturbations that no kernel knows get the training mean, stated."""
        data = self._trained()
        blocks, found = self._blocks, self._fit
        if blocks is None or found is None or self._knowledge is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        names = canonical(perturbations)
        asked = gene_blocks(
            self._knowledge, names, blocks.kinds, exclude_from_screen=self.exclude_from_screen
        )
        parts = asked.cross(blocks)
        k = combine(self._with_constant(parts), found.weights)
        known = asked.known
        mean = np.where(known[:, None], self._centre + k @ self._coefficients, data.mean)
        variance = posterior_variance(self._k, found.noise, k, np.ones(len(names)))
        spread = self._scale * np.sqrt(variance[:, None] * self._feature_scale)
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean.astype(np.float32),
            spread=spread.astype(np.float32),
            support=support_table(
                names,
                (parts > 0).any(axis=0).sum(axis=1),
                ["" if i else MEAN_FALLBACK for i in known],
            ),
            neighbours=self._neighbours(names, parts),
            provenance={
                "method": self.name,
                "kernels": dict(zip(self._names(), map(float, found.weights), strict=True)),
                "kernels_missing": [x for x in self.kernels if x not in blocks.kinds],
                "weights": "learned" if self._learned else "equal",
                "noise": found.noise,
                "spread_scale": self._scale,
            },
        )

    def _names(self) -> tuple[str, ...]:
        kinds = self._blocks.kinds if self._blocks is not None else ()
        return ("constant", *kinds) if self.constant else kinds

    def _neighbours(self, names: Sequence[str], parts: Floats) -> pd.DataFrame:
        """The training rows most alike by the combined kernel, with the kernels that say so."""
        data, blocks, found = self._trained(), self._blocks, self._fit
        columns = ["perturbation", "neighbour", "rank", "weight", "reason"]
        if blocks is None or found is None or not names:
            return pd.DataFrame(columns=columns)
        weights = found.weights[1:] if self.constant else found.weights
        k = combine(parts, weights)
        listed = min(LISTED, k.shape[1])
        top = np.argsort(-k, axis=1, kind="stable")[:, :listed]
        rows = []
        for i, name in enumerate(names):
            total = k[i, top[i]].sum()
            for rank, j in enumerate(top[i], start=1):
                if k[i, j] <= 0:
                    break
                share = weights * parts[:, i, j]
                best = np.argsort(-share)[:3]
                reason = ", ".join(f"{blocks.kinds[b]} {parts[b, i, j]:.2f}" for b in best)
                rows.append((name, data.names[j], rank, float(k[i, j] / total), reason))
        return pd.DataFrame(rows, columns=columns)
