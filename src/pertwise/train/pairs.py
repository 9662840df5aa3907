"""`PairFeatures`: what knowledge and marks say about two perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pertwise.kernels.genes import gene_blocks
from pertwise.kernels.ratings import mark_kernels
from pertwise.knowledge.ratings import SCALE
from pertwise.train.grading import Floats

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

#: Kernels of knowledge that a pair is described by, as far as the folder has them.
KERNELS = (
    "string",
    "string_ge800",
    "string_coexpression",
    "go",
    "reactome",
    "complexes",
    "text",
    "emb:graph",
    "diffusion:string_ge800",
    "go&shared_promoter",
)
#: Values of all kernels between all names that are kept at once.
MOST_KEPT = 40_000_000


class PairFeatures:
    """f(s, c) of pairs of perturbations: kernels of knowledge and of marks.

    Attributes
    ----------
    names
        Of the features: the kernels of knowledge (`kinds`), then those of marks.
    """

    def __init__(
        self, knowledge: Knowledge, context: str = "", kernels: Sequence[str] = KERNELS
    ) -> None:
        self.knowledge = knowledge
        self._blocks = gene_blocks(knowledge, (), kernels, skip_missing=True)
        self.kinds = self._blocks.kinds
        self._place: dict[str, int] = {}
        self._cube: Any = None
        tables = mark_kernels(knowledge)
        here = [m for m in tables if m.ratings.context in ("", context)]
        self.marks = here or list(tables)
        own = ("strength difference", "strength")
        marked = [f"{m.label}: {k}" for m in self.marks for k in (*m.kinds, *own)]
        self.names = (*self.kinds, *marked)

    def know(self, names: Sequence[str]) -> None:
        """Read what the folder says about names, all at once: one at a time is slow."""
        new = [n for n in dict.fromkeys(names) if n not in self._place]
        if not new:
            return
        every = (*self._place, *new)
        self._blocks = gene_blocks(self.knowledge, every, self.kinds)
        self._place = {n: i for i, n in enumerate(every)}
        small = len(self.kinds) * len(every) ** 2 <= MOST_KEPT
        self._cube = self._blocks.cross(self._blocks).astype(np.float32) if small else None

    def _kernels(self, subject: str, names: Sequence[str]) -> Floats:
        """(n, k) kernels of knowledge."""
        self.know([subject, *names])
        row, columns = self._place[subject], [self._place[n] for n in names]
        if self._cube is not None:
            return np.asarray(self._cube[:, row, columns].T, dtype=np.float64)
        return np.asarray(self._blocks.take([row]).cross(self._blocks.take(columns))[:, 0].T)

    def of(self, subject: str, names: Sequence[str]) -> Floats:
        """(n, k) features of a subject with each name."""
        listed = list(names)
        columns = [self._kernels(subject, listed)]
        for table in self.marks:
            rows = [
                (table.rows(k, [subject]) @ table.rows(k, listed).T).toarray()[0]
                for k in table.kinds
            ]
            own, theirs = (np.nan_to_num(table.strength(n)) / SCALE for n in ([subject], listed))
            columns.append(np.stack([*rows, -np.abs(own - theirs), theirs], axis=1))
        return np.concatenate(columns, axis=1)
