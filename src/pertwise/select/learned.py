"""`LearnedSelector`: neighbours by a learned mixture of knowledge kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.arrays.direction import half_scaled
from pertwise.arrays.memory import rows_at_once
from pertwise.errors import InputError
from pertwise.kernels.genes import DEFAULT_KERNELS, KernelSource, gene_blocks
from pertwise.knowledge import Knowledge
from pertwise.screen import Screen
from pertwise.screen.training import TrainingData
from pertwise.select.similarity import Evidences, Floats, SimilaritySelector

#: (subjects, candidates) -> (m, n_subjects, n_candidates) kernels.
Kernels = Callable[[Sequence[str], Sequence[str]], Floats]


class LearnedSelector(SimilaritySelector):
    """Similarity = offset + sum_m w_m K_m, learned from pairs of measured perturbations.

    Parameters
    ----------
    kernels
        Gives the kernels between any two lists of names.
    kinds, weights
        Names and weights of the kernels; `offset` the similarity of a pair unlike in all of them.
    """

    def __init__(
        self,
        kernels: Kernels,
        kinds: Sequence[str],
        weights: NDArray[np.float64],
        offset: float = 0.0,
        *,
        max_neighbours: int = 20,
        name: str = "learned",
    ) -> None:
        super().__init__(max_neighbours)
        if len(kinds) != len(weights):
            raise InputError(f"{len(kinds)} kernels but {len(weights)} weights")
        self.kernels = kernels
        self.kinds = tuple(kinds)
        self.weights = np.asarray(weights, dtype=np.float64)
        self.offset = offset
        self.name = name

    def at_once(self, n_candidates: int) -> int:
        """All kernels of all pairs are held for this many subjects at a time."""
        return rows_at_once(8 * len(self.kinds) * n_candidates)

    def similarity(self, subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        """(n_subjects, n_candidates) expected similarity of the responses."""
        found = self.kernels(subjects, candidates)
        return np.asarray(self.offset + np.tensordot(self.weights, found, axes=1))

    def _similar(
        self, subjects: Sequence[str], candidates: Sequence[str]
    ) -> tuple[Floats, Callable[[int], Evidences]]:
        # The kernels of all pairs hold the reasons too; computed pair by pair they would dominate.
        found = self.kernels(subjects, candidates)
        place = {c: j for j, c in enumerate(candidates)}

        def reasons(i: int) -> Evidences:
            return lambda picks: [self.facts(found[:, i, place[c]]) for c in picks]

        return np.asarray(self.offset + np.tensordot(self.weights, found, axes=1)), reasons

    def evidence(self, subject: str, candidate: str) -> tuple[str, ...]:
        """The three kernels that contribute most: "string 0.41 (x 0.20)"."""
        return self.facts(self.kernels([subject], [candidate])[:, 0, 0])

    def evidences(self, subject: str, candidates: Sequence[str]) -> list[tuple[str, ...]]:
        """`evidence` of several picks, with the kernels computed once."""
        if not candidates:
            return []
        found = self.kernels([subject], candidates)[:, 0]
        return [self.facts(found[:, j]) for j in range(len(candidates))]

    def facts(self, values: Floats) -> tuple[str, ...]:
        """The same from the (m,) kernel values of one pair."""
        share = self.weights * values
        return tuple(
            f"{self.kinds[i]} {values[i]:.2f} (x {self.weights[i]:.2f})"
            for i in np.argsort(-share)[:3]
            if share[i] > 0
        )

    def settings(self) -> Mapping[str, Any]:
        """Weights of the kernels."""
        weights = dict(zip(self.kinds, map(float, self.weights), strict=True))
        return {**super().settings(), "weights": weights, "offset": self.offset}


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
        sample = blocks.take(rows)
        gram = sample.cross(sample)
        learned, offset = pair_weights(gram, y @ y.T / max(float((y**2).sum(1).mean()), 1e-12))
        weights = learned if learned.sum() > 0 else weights
    return LearnedSelector(
        between, blocks.kinds, weights, min(offset, 0.0), max_neighbours=max_neighbours, name=name
    )
