"""`StackedPredictor`: several predictors, weighted by what they did on inner folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from pertwise._process import threads_for
from pertwise.arrays.direction import (
    Turn,
    choose_stretch,
    component_factors,
    fit_turn,
    powered,
    stretch,
)
from pertwise.arrays.gaussian_process import Floats
from pertwise.arrays.spread import ErrorModel, fit_error_model
from pertwise.errors import InputError
from pertwise.kernels.kept import keeping_rows
from pertwise.models.base import MEAN_FALLBACK, Prediction, Predictor, only_context, support_table
from pertwise.screen.training import TrainingData, canonical

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Components that may be stretched one by one, and rows on which that is chosen.
MAX_AXES = 50
MAX_STRETCH_ROWS = 600


def inner_folds(n: int, n_folds: int, seed: int) -> list[np.ndarray]:
    """Held-out positions of each fold; depends on n and the seed alone."""
    order = np.random.default_rng(seed).permutation(n)
    return [np.sort(part) for part in np.array_split(order, min(n_folds, n))]


def stacking_weights(members: Floats, truth: Floats, centre: Floats, prior: float = 1.0) -> Floats:
    """(m,) non-negative least squares of truth - centre on members - centre (Breiman 1996).

    A quadratic penalty pulls the weights to 1/m: members that predict almost the same are then
    averaged, which errs less than betting on the one that happened to win.

    Parameters
    ----------
    members
        (m, n, d) held-out predictions; truth (n, d) with NaN; centre (n, d) or (d,).
    prior
        Penalty in units of the mean squared size of the members.
    """
    from scipy.optimize import nnls

    known = np.isfinite(truth)
    target = np.where(known, truth - centre, 0.0).ravel()
    design = np.stack([np.where(known, p - centre, 0.0).ravel() for p in members], axis=1)
    # The normal equations keep the problem at m x m, whatever the number of values.
    m = len(members)
    gram = design.T @ design
    size = max(float(np.trace(gram)) / m, np.finfo(float).tiny)
    gram = gram / size + (prior + 1e-9) * np.eye(m)
    right = design.T @ target / size + prior / m
    factor = np.linalg.cholesky(gram)
    weights, _ = nnls(factor.T, np.linalg.solve(factor, right))
    return np.asarray(weights)


def speaking_weights(weights: Floats, silent: np.ndarray) -> Floats:
    """(m, q) weights of members that have something to say, with the sum of all (m,) `weights`.

    Parameters
    ----------
    silent
        (m, q) True where a member answered a name with the training mean only. Names on which all
        are silent, or only those with a positive weight, get zeros.
    """
    told = np.where(silent, 0.0, weights[:, None])
    total = told.sum(axis=0)
    return np.asarray(
        told * np.divide(weights.sum(), total, out=np.zeros_like(total), where=total > 0)
    )


class StackedPredictor:
    """Weighted sum of predictors around the training mean.

    Every member is fitted on the training part of `n_folds` inner folds and predicts the rest;
    non-negative least squares on these predictions gives the weights; then each is fitted on
    everything. The spread is learned on the same held-out predictions.

    Parameters
    ----------
    members
        label -> function that makes a fresh predictor. The first one that has `similarity` (a
        kernel predictor) supplies neighbours and the similarity behind the error bars.
    tolerance
        None keeps the least squared error. A share such as 0.01 stretches the predictions, within
        that much more squared error on the inner folds, to gain retrieval
        (`direction.choose_stretch`).
    turn
        Share of the way that every prediction is turned towards the direction that a map fitted
        on the inner folds gives it (`direction.fit_turn`); 0 = not at all.
    prior
        Pull of the weights to equal ones (`stacking_weights`).
    inner
        label -> a cheaper one of the same kind for the inner folds, e.g. with fewer trees; the
        member itself where there is none.
    """

    def __init__(
        self,
        members: Mapping[str, Callable[[], Predictor]],
        *,
        n_folds: int = 5,
        tolerance: float | None = None,
        turn: float = 0.0,
        prior: float = 1.0,
        inner: Mapping[str, Callable[[], Predictor]] | None = None,
        seed: int = 0,
        name: str = "stacked",
    ) -> None:
        if not members:
            raise InputError("a stacked predictor needs at least one member")
        if n_folds < 2:
            raise InputError(f"n_folds must be at least 2, got {n_folds}")
        self.members = dict(members)
        self._inner = {**self.members, **(inner or {})}
        if not 0.0 <= turn <= 1.0:
            raise InputError(f"turn is a share between 0 and 1, got {turn}")
        self.n_folds, self.tolerance, self.seed, self.name = n_folds, tolerance, seed, name
        self.turn, self.prior = turn, prior
        self._data: TrainingData | None = None

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Inner folds for the weights, then every member on all measured rows."""
        data = TrainingData.from_screen(screen, self.name)
        self._data = data
        measured = screen.only_measured().of_perturbations(data.names)
        with keeping_rows(data.names), threads_for(len(data.names)):
            return self._fit(measured, knowledge, data)

    def _fit(self, measured: Screen, knowledge: Knowledge | None, data: TrainingData) -> Self:
        self._models = [make().fit(measured, knowledge) for make in self.members.values()]
        n, m = len(data.names), len(self.members)
        self._weights = np.full(m, 1.0 / m)
        self._turn: Turn | None = None
        self._zero = 1.0
        self._factors: Floats | None = None
        self._axes = np.zeros((0, len(data.features)))
        self._errors: ErrorModel | None = None
        if n < 2 * self.n_folds:
            return self
        held_out, centre = self._held_out(measured, knowledge, data)
        self._weights = stacking_weights(held_out, data.y, centre, self.prior)
        mixed = centre + np.tensordot(self._weights, held_out - centre, axes=1)
        self._shape(mixed, data)
        #: Predictions of the training rows from inner folds, weights from the same folds.
        self.held_out = self._finished(mixed)
        self._errors = fit_error_model(self._similarity(data.names), self.held_out, data.y)
        return self

    def _held_out(
        self, measured: Screen, knowledge: Knowledge | None, data: TrainingData
    ) -> tuple[Floats, Floats]:
        """(m, n, d) predictions from inner folds and the (n, d) training means of those folds."""
        n, d = data.y.shape
        out, centre = np.zeros((len(self.members), n, d)), np.zeros((n, d))
        for rows in inner_folds(n, self.n_folds, self.seed):
            rest = np.setdiff1d(np.arange(n), rows)
            part = measured.take(rest)
            names = [data.names[i] for i in rows]
            centre[rows] = TrainingData.from_screen(part, self.name).mean
            for i, make in enumerate(self._inner.values()):
                out[i, rows] = make().fit(part, knowledge).predict(names).mean
        return out, centre

    def _shape(self, mixed: Floats, data: TrainingData) -> None:
        """Learn from held-out predictions how far to turn and to stretch."""
        truth = np.where(np.isfinite(data.y), data.y, data.mean)
        rows = np.arange(0, len(truth), int(np.ceil(len(truth) / MAX_STRETCH_ROWS)))
        if self.turn > 0:
            axes = np.linalg.svd(truth[rows], full_matrices=False)[2][:MAX_AXES]
            self._turn = fit_turn(mixed, truth, axes)
            mixed = self._turn.apply(mixed, self.turn)
        if self.tolerance is not None:
            self._axes = np.linalg.svd(truth[rows] - data.mean, full_matrices=False)[2][:MAX_AXES]
            self._zero, exponent = choose_stretch(
                mixed[rows], truth[rows], data.mean, self._axes, self.tolerance
            )
            factors = component_factors(mixed, truth, data.mean, self._axes)
            self._factors = powered(factors, exponent)

    def _finished(self, mean: Floats) -> Floats:
        """(q, d) weighted members, turned and stretched as learned."""
        if self._turn is not None:
            mean = self._turn.apply(mean, self.turn)
        if self._factors is not None:
            centre = self._trained().mean
            mean = stretch(mean, centre, self._axes, self._factors, self._zero)
        return mean

    def _similarity(self, names: Sequence[str]) -> Floats:
        for model in self._models:
            if hasattr(model, "similarity"):
                return np.asarray(model.similarity(names))
        return np.zeros((len(names), len(self._trained().names)))

    def _trained(self) -> TrainingData:
        if self._data is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._data

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each member; they need not sum to 1 (the rest is the training mean)."""
        self._trained()
        return dict(zip(self.members, map(float, self._weights), strict=True))

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Weighted members; a name about which none knows anything gets the mean.

        Where some members know nothing, the others take over their weight: silence must not pull a
        prediction to the training mean.
        """
        data = self._trained()
        only_context(self.name, data.context, context)
        names = canonical(perturbations)
        with threads_for(len(data.names)):
            found = [model.predict(names) for model in self._models]
        silent = np.array([(p.support["fallback"] == MEAN_FALLBACK).to_numpy() for p in found])
        weights = speaking_weights(self._weights, silent)
        change = sum(
            w[:, None] * (p.mean.astype(np.float64) - data.mean)
            for w, p in zip(weights, found, strict=True)
        )
        mean = np.asarray(data.mean + change).reshape(len(names), len(data.features))
        mean = self._finished(mean)
        fell_back = np.asarray(weights == 0.0).all(axis=0).reshape(len(names))
        mean[fell_back] = data.mean
        spread = None
        if self._errors is not None:
            spread = self._errors.spread(self._similarity(names), mean).astype(np.float32)
        neighbours = next((p.neighbours for p in found if p.neighbours is not None), None)
        support = np.max([p.support["n_support"].to_numpy() for p in found], axis=0)
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean.astype(np.float32),
            spread=spread,
            support=support_table(names, support, [MEAN_FALLBACK if f else "" for f in fell_back]),
            neighbours=neighbours,
            provenance={
                "method": self.name,
                "weights": self.weights,
                "turned": self.turn if self._turn is not None else 0.0,
                "stretch_about_zero": self._zero,
                "stretched_components": self._factors is not None,
                "members": {k: p.provenance for k, p in zip(self.members, found, strict=True)},
            },
        )
