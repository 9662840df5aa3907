"""`ForestPredictor`: extremely randomised trees on the leading axes of the knowledge kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from pertwise.arrays.direction import half_scaled, with_direction
from pertwise.arrays.gaussian_process import Floats, kernel_axes
from pertwise.kernels.genes import (
    FOREST_KERNELS,
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

#: Responses with more features than this are predicted in that many principal components.
MAX_OUTPUTS = 64


@part(needs="knowledge", reads=("other", "ratings"), source="Geurts et al. 2006 (extra-trees)")
class ForestPredictor(KernelModel):
    """Extra-trees (Geurts et al. 2006) on the first axes of every knowledge kernel.

    Not better than the kernels alone, but wrong in other places: made for `StackedPredictor`.

    Parameters
    ----------
    kernels, sources, ratings, other, look_up, exclude_from_screen
        See `KernelModel`.
    dim
        Axes taken from each kernel.
    direction
        Share of the direction taken from a second forest on half-scaled responses; 0 = none.
    """

    def __init__(
        self,
        kernels: Sequence[str] = FOREST_KERNELS,
        *,
        dim: int = 12,
        n_trees: int = 200,
        direction: float = 0.0,
        sources: Sequence[KernelSource] = (),
        ratings: GivenRatings = True,
        other: GivenScreens = (),
        look_up: bool = True,
        exclude_from_screen: bool = True,
        seed: int = 0,
        name: str = "forest",
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
        self.dim, self.n_trees, self.direction, self.seed = dim, n_trees, direction, seed

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Grow the trees; NaN responses count as the training mean."""
        data = self._start(screen, knowledge)
        scores, self._maps = [], []
        for gram in self._blocks.grams():
            rows, to_axes = kernel_axes(gram, self.dim)
            scores.append(rows)
            self._maps.append(to_axes)
        x = np.concatenate(scores, axis=1)
        y = np.where(np.isfinite(data.y), data.y, data.mean)
        self._basis: Floats | None = None
        if y.shape[1] > MAX_OUTPUTS:
            _, _, self._basis = np.linalg.svd(y, full_matrices=False)
            self._basis = self._basis[:MAX_OUTPUTS]
            y = y @ self._basis.T
        targets = [y, half_scaled(y)] if self.direction > 0 else [y]
        self._forests = [self._grow(x, t) for t in targets]
        return self

    def _grow(self, x: Floats, y: Floats) -> object:
        from sklearn.ensemble import ExtraTreesRegressor

        forest = ExtraTreesRegressor(
            self.n_trees,
            min_samples_leaf=min(2, len(x)),
            max_features=0.3,
            random_state=self.seed,
        )
        return forest.fit(x, y)

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Mean over the trees; perturbations that no kernel knows get the training mean, stated."""
        data = self._trained()
        only_context(self.name, data.context, context)
        names = canonical(perturbations)
        asked = self._asked(names)
        x = np.empty((len(names), sum(m.shape[1] for m in self._maps)))
        known = np.zeros(len(names), dtype=bool)
        for rows, parts in asked.cross_blocks(self._blocks):
            known[rows] = linked(parts)
            pairs = zip(parts, self._maps, strict=True)
            x[rows] = np.concatenate([p @ m for p, m in pairs], axis=1)
        found = [np.zeros((0, len(data.features)))]
        if names:
            found = [np.asarray(f.predict(x)).reshape(len(names), -1) for f in self._forests]  # type: ignore[attr-defined]
            if len(found) > 1:
                found = [with_direction(found[0], found[1], self.direction)]
            if self._basis is not None:
                found = [found[0] @ self._basis]
        mean, support = self._answer(names, known, found, self.direction)
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean.astype(np.float32),
            spread=None,
            support=support,
            provenance={"method": self.name, "n_trees": self.n_trees, "seed": self.seed},
        )
