"""`ForestPredictor`: extremely randomised trees on the leading axes of the knowledge kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import csr_matrix, diags

from pertwise.arrays.direction import half_scaled
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
    from sklearn.ensemble import ExtraTreesRegressor

    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: The trees are grown on that many principal components of the responses; every feature is then
#: averaged in their leaves.
MAX_OUTPUTS = 20


@part(needs="knowledge", reads=("other", "ratings"), source="Geurts et al. 2006 (extra-trees)")
class ForestPredictor(KernelModel):
    """Extra-trees (Geurts et al. 2006) on the first axes of every knowledge kernel.

    Prediction: sum over the trees t of (1 / T) x the mean response of the training rows in the leaf
    of the asked one.

    Not better than the kernels alone, but wrong in other places: made for `StackedPredictor`.

    Parameters
    ----------
    kernels, sources, ratings, other, look_up, exclude_from_screen
        See `KernelModel`.
    dim
        Axes taken from each kernel.
    direction
        Share of the direction taken from half-scaled responses (`arrays.direction`), on which the
        trees are then grown; 0 = none.
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
        self._targets = [y, half_scaled(y)] if self.direction > 0 else [y]
        self._forest = self._grow(x, self._targets[-1])
        leaves = self._leaves(x)
        size = np.asarray(leaves.sum(axis=0)).ravel()
        share = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
        self._members = (leaves @ diags(share / self.n_trees)).tocsr()
        return self

    def _grow(self, x: Floats, y: Floats) -> ExtraTreesRegressor:
        from sklearn.ensemble import ExtraTreesRegressor

        if y.shape[1] > MAX_OUTPUTS:
            centred = y - y.mean(axis=0)
            y = centred @ np.linalg.svd(centred, full_matrices=False)[2][:MAX_OUTPUTS].T
        forest = ExtraTreesRegressor(
            self.n_trees,
            min_samples_leaf=min(2, len(x)),
            max_features=0.3,
            random_state=self.seed,
        )
        return forest.fit(x, y)

    def _leaves(self, x: Floats) -> csr_matrix:
        """(q, nodes of all trees) 1 where a row falls into that leaf."""
        sizes = [tree.tree_.node_count for tree in self._forest.estimators_]
        start = np.cumsum([0, *sizes])
        places = (self._forest.apply(x) + start[:-1]).ravel()
        ends = np.arange(0, len(places) + 1, len(sizes))
        return csr_matrix((np.ones(len(places)), places, ends), shape=(len(x), start[-1]))

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
            # A forest is a weighted mean of the training rows: of those in the same leaves.
            weights = self._leaves(x) @ self._members.T
            found = [np.asarray(weights @ target) for target in self._targets]
        mean, support = self._answer(names, known, found, self.direction)
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean.astype(np.float32),
            spread=None,
            support=support,
            provenance={"method": self.name, "n_trees": self.n_trees, "seed": self.seed},
        )
