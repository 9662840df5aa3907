"""`LearnedNeighbourPredictor`: learn which knowledge makes responses alike; take neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pertwise.errors import InputError
from pertwise.predict.base import Prediction
from pertwise.predict.direction import half_scaled
from pertwise.predict.gene_kernels import DEFAULT_KERNELS, KernelSource, gene_blocks
from pertwise.predict.kernels import Floats
from pertwise.predict.neighbours import NeighbourPredictor
from pertwise.predict.training import TrainingData
from pertwise.select.learned import LearnedSelector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Pairs are taken from at most this many training rows (evenly spaced by name).
MAX_ROWS = 600


def pair_weights(gram: Floats, response: Floats) -> tuple[Floats, float]:
    """Non-negative weights and offset of kernels that explain which responses are alike.

    Least squares over all pairs i < j of response_ij on offset + sum_m w_m K_m,ij (kernel-target
    alignment, Cristianini et al. 2001, with several kernels at once).

    Parameters
    ----------
    gram
        (m, n, n) kernels; response (n, n) similarity of the measured responses.
    """
    from scipy.optimize import nnls

    upper = np.triu_indices(gram.shape[1], 1)
    x = gram[:, upper[0], upper[1]].T
    y = response[upper]
    weights, _ = nnls(x - x.mean(axis=0), y - y.mean())
    return np.asarray(weights), float(y.mean() - x.mean(axis=0) @ weights)


def learned_selector(
    screen: Screen,
    knowledge: Knowledge,
    kernels: Sequence[str] = DEFAULT_KERNELS,
    *,
    sources: Sequence[KernelSource] = (),
    exclude_from_screen: bool = True,
    max_neighbours: int = 20,
    name: str = "learned",
) -> LearnedSelector:
    """A selector whose similarity is learned from all pairs of measured perturbations.

    The target of a pair is the inner product of the half-scaled, centred responses
    (`direction.half_scaled`), the features are the knowledge kernels (`pair_weights`).
    """
    data = TrainingData.from_screen(screen, name)
    settings: dict[str, Any] = {"sources": sources, "exclude_from_screen": exclude_from_screen}
    blocks = gene_blocks(knowledge, data.names, kernels, skip_missing=True, **settings)
    used = [k for k in kernels if k in blocks.kinds]

    def between(subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        # The candidates are almost always the training rows, whose features are at hand.
        known = (
            blocks
            if tuple(candidates) == data.names
            else gene_blocks(knowledge, candidates, used, **settings)
        )
        return np.asarray(gene_blocks(knowledge, subjects, used, **settings).cross(known))

    m = len(blocks.kinds)
    weights, offset = np.full(m, 1.0 / m), 0.0
    if len(data.names) > 2:
        rows = np.arange(0, len(data.names), int(np.ceil(len(data.names) / MAX_ROWS)))
        y = half_scaled(data.filled[rows])
        gram = blocks.cross(blocks)[:, rows[:, None], rows[None, :]]
        learned, offset = pair_weights(gram, y @ y.T / max(float((y**2).sum(1).mean()), 1e-12))
        weights = learned if learned.sum() > 0 else weights
    return LearnedSelector(
        between, blocks.kinds, weights, min(offset, 0.0), max_neighbours=max_neighbours, name=name
    )


class LearnedNeighbourPredictor:
    """Pairs of measured perturbations teach which kernels tell that responses are alike.

    The learned similarity (`learned_selector`) selects and weights neighbours like any other
    selector, with its reasons listed, and the mean of the neighbours is shrunk by leave-one-out.

    Parameters
    ----------
    k
        Neighbours; other settings as in `NeighbourPredictor`.
    """

    def __init__(
        self,
        kernels: Sequence[str] = DEFAULT_KERNELS,
        *,
        sources: Sequence[KernelSource] = (),
        k: int = 10,
        exclude_from_screen: bool = True,
        name: str = "learned neighbours",
    ) -> None:
        self.kernels = tuple(kernels)
        self.sources = tuple(sources)
        self.k = k
        self.exclude_from_screen = exclude_from_screen
        self.name = name
        self._inner: NeighbourPredictor | None = None
        self.selector: LearnedSelector | None = None

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Learn the similarity from all pairs, then fit the neighbour predictor on it."""
        if knowledge is None:
            raise InputError(f"{self.name!r} needs a knowledge folder: pass knowledge to fit")
        self.selector = learned_selector(
            screen,
            knowledge,
            self.kernels,
            sources=self.sources,
            exclude_from_screen=self.exclude_from_screen,
            max_neighbours=self.k,
        )
        self._names = TrainingData.from_screen(screen, self.name).names
        self._inner = NeighbourPredictor(
            self.selector, k=self.k, how="similarity", shrinkage="cv", name=self.name
        ).fit(screen)
        return self

    def predict(self, perturbations: Sequence[str]) -> Prediction:
        """Shrunken, weighted mean of the learned neighbours, with the kernels behind each."""
        if self._inner is None or self.selector is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        found = self._inner.predict(perturbations)
        table = found.neighbours
        if table is not None and len(table):
            subjects = list(dict.fromkeys(table["perturbation"]))
            parts = self.selector.kernels(subjects, self._names)
            row = {n: i for i, n in enumerate(subjects)}
            column = {n: j for j, n in enumerate(self._names)}
            table["reason"] = [
                "; ".join(self.selector.facts(parts[:, row[a], column[b]]))
                for a, b in zip(table["perturbation"], table["neighbour"], strict=True)
            ]
        found.provenance["learned"] = dict(self.selector.settings())
        return found
