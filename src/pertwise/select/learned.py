"""`LearnedSelector`: neighbours by a learned mixture of knowledge kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.errors import InputError
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
