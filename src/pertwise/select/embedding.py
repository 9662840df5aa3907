"""`EmbeddingSelector`: nearest genes by the cosine of their feature rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertwise.knowledge import Knowledge
from pertwise.select.similarity import Floats, SimilaritySelector, mean_over_parts


class EmbeddingSelector(SimilaritySelector):
    """The candidates whose embedding has the largest cosine with that of the subject.

    Parameters
    ----------
    kind
        "text", "graph", "go", a registered matrix (protein language model ...), or "a+b" for
        blocks joined; see `Knowledge.embedding`.
    dim
        Columns of each computed block.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        kind: str = "text",
        *,
        dim: int = 256,
        max_neighbours: int = 10,
        weighted: bool = True,
        name: str | None = None,
    ) -> None:
        super().__init__(max_neighbours, weighted)
        self.kind = kind
        self.dim = dim
        self.name = name or f"embedding ({kind})"
        self._knowledge = knowledge

    def similarity(self, subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        """(n_subjects, n_candidates) cosine; 0 for genes without an embedding."""
        return mean_over_parts(self._single, subjects, candidates)

    def _single(self, subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        names = [*subjects, *candidates]
        matrix = self._knowledge.embedding(names, self.kind, self.dim).matrix.astype(np.float64)
        norm = np.linalg.norm(matrix, axis=1, keepdims=True)
        unit = np.divide(matrix, norm, out=np.zeros_like(matrix), where=norm > 0)
        # One question and many at once multiply in another order: ties must stay ties.
        return np.asarray(np.round(unit[: len(subjects)] @ unit[len(subjects) :].T, 12))

    def settings(self) -> Mapping[str, Any]:
        """Kind and width of the embedding."""
        return {**super().settings(), "kind": self.kind, "dim": self.dim}
