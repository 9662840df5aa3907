"""`RadialPredictor`: a Gaussian process on distances between genes, at several length scales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from pertwise.arrays.direction import half_scaled, with_direction
from pertwise.arrays.distances import squared_distances
from pertwise.arrays.gaussian_process import (
    MAX_ROWS_FOR_WEIGHTS,
    Floats,
    combine,
    fit_weights,
    kernel_axes,
    solved,
)
from pertwise.arrays.memory import rows_at_once
from pertwise.arrays.spread import fit_error_model
from pertwise.kernels.genes import (
    DEFAULT_KERNELS,
    KernelSource,
    linked,
)
from pertwise.kernels.ratings import GivenRatings
from pertwise.kernels.transfer import GivenScreens
from pertwise.models.base import Prediction, only_context
from pertwise.models.kernel_model import KernelModel
from pertwise.parts import part
from pertwise.screen.training import canonical

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Squared length scales, in units of the median squared distance of two training perturbations.
SCALES = (0.1, 0.3, 1.0, 3.0)
#: Place, among the kernels, of the scale that stands for similarity in the error model.
_ALIKE = 2


def radial_kernels(a: Floats, b: Floats, unit: float) -> Floats:
    """(2 + len(SCALES), n_a, n_b): a constant, exp(-|a - b|^2 / (g unit)) for all g, and a b^T."""
    distance = squared_distances(a, b)
    near = [np.exp(-distance / (g * unit)) for g in SCALES]
    return np.stack([np.ones_like(distance), *near, a @ b.T])


@part(needs="knowledge", reads=("other", "ratings"))
class RadialPredictor(KernelModel):
    """Kernel ridge with radial kernels on the leading axes of the mean knowledge kernel.

    A cosine kernel counts every shared feature the same; a radial one says that only the nearest
    perturbations matter, how near being learned with the weights of the scales
    (`kernels.fit_weights`). Not better than the multi-kernel model alone, but wrong in other
    places: made for `StackedPredictor`. NaN responses count as the training mean.

    Parameters
    ----------
    kernels, sources, ratings, other, look_up, exclude_from_screen
        See `KernelModel`.
    dim
        Axes of the mean kernel.
    direction
        Share of the direction taken from a second fit to half-scaled responses; 0 = none.
    """

    def __init__(
        self,
        kernels: Sequence[str] = DEFAULT_KERNELS,
        *,
        dim: int = 80,
        direction: float = 0.5,
        sources: Sequence[KernelSource] = (),
        ratings: GivenRatings = True,
        other: GivenScreens = (),
        look_up: bool = True,
        exclude_from_screen: bool = True,
        name: str = "radial",
    ) -> None:
        super().__init__(
            kernels,
            sources,
            exclude_from_screen,
            name,
            ratings=ratings,
            other=other,
            look_up=look_up,
        )
        self.dim, self.direction = dim, direction

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Axes, weights of the scales, coefficients and the error model.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured or there is no knowledge to build a kernel from.
        """
        data = self._start(screen, knowledge)
        mean = np.concatenate([parts.mean(axis=0) for _, parts in self._blocks.gram_blocks()])
        x, self._to_axes = kernel_axes(mean, self.dim)
        del mean
        self._x = x
        self._unit = _median_distance(x)
        y = np.where(np.isfinite(data.y), data.y, data.mean)
        targets = [y, half_scaled(y)] if self.direction > 0 else [y]
        self._fits, held_out = [], []
        rows = np.arange(0, len(y), int(np.ceil(len(y) / MAX_ROWS_FOR_WEIGHTS)))
        gram = radial_kernels(x[rows], x[rows], self._unit)
        for target in targets:
            part = target[rows]
            found = fit_weights(gram, part @ part.T, part.shape[1])
            k = np.concatenate([combine(r, found.weights) for _, r in self._radial(x)])
            alpha, left_out = solved(k, found.noise, target)
            self._fits.append((found.weights, alpha))
            held_out.append(left_out)
        mixed = held_out[0]
        if len(held_out) > 1:
            mixed = with_direction(mixed, held_out[1], self.direction)
        del k
        alike = np.concatenate([r[_ALIKE] for _, r in self._radial(x)])
        self._errors = fit_error_model(alike, mixed, data.y)
        return self

    def _radial(self, x: Floats) -> Iterator[tuple[slice, Floats]]:
        """`radial_kernels` with the training rows, for some rows of x at a time."""
        step = rows_at_once(8 * 2 * (2 + len(SCALES)) * len(self._x))
        for start in range(0, max(len(x), 1), step):
            rows = slice(start, start + step)
            yield rows, radial_kernels(x[rows], self._x, self._unit)

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Posterior means; perturbations that no kernel links get the training mean, stated."""
        data = self._trained()
        only_context(self.name, data.context, context)
        names = canonical(perturbations)
        asked = self._asked(names)
        x = np.empty((len(names), self._x.shape[1]))
        known = np.zeros(len(names), dtype=bool)
        for rows, parts in asked.cross_blocks(self._blocks):
            known[rows] = linked(parts)
            x[rows] = parts.mean(axis=0) @ self._to_axes
        found = [np.empty((len(names), len(data.features))) for _ in self._fits]
        alike = np.empty((len(names), len(data.names)))
        for rows, cross in self._radial(x):
            alike[rows] = cross[_ALIKE]
            for out, (own, alpha) in zip(found, self._fits, strict=True):
                out[rows] = combine(cross, own) @ alpha
        mean, support = self._answer(names, known, found, self.direction)
        spread = self._errors.spread(alike, mean)
        weights = dict(zip(_LABELS, map(float, self._fits[0][0]), strict=True))
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean.astype(np.float32),
            spread=spread.astype(np.float32),
            support=support,
            provenance={"method": self.name, "scales": weights, "dim": self._x.shape[1]},
        )


_LABELS = ("constant", *(f"radial {g}" for g in SCALES), "linear")


def _median_distance(x: Floats) -> float:
    """Median squared distance of evenly spaced rows; 1 if most are the same."""
    rows = x[:: int(np.ceil(len(x) / MAX_ROWS_FOR_WEIGHTS))]
    median = float(np.median(squared_distances(rows, rows)))
    return median if median > 1e-12 else 1.0
