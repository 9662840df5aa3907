"""Selectors over kernels (chemistry, mechanism, your own), and one selector behind another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.kernels.base import Kernel
from pertwise.select.base import Query, Repair, Selection, Selector
from pertwise.select.similarity import SimilaritySelector

Floats = NDArray[np.float64]


class KernelSelector(SimilaritySelector):
    """The measured perturbations most similar to the query under one kernel.

    Those with a similarity of at most `above` are never picked, so that fewer than n may come back:
    "no drug shares its mechanism" stays visible instead of hiding behind a random one.
    """

    def __init__(self, kernel: Kernel, *, above: float = 0.0, max_neighbours: int = 50) -> None:
        super().__init__(max_neighbours=max_neighbours)
        self.kernel, self.above = kernel, above
        self.name = kernel.name

    def similarity(self, subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        """(n_subjects, n_candidates) kernel values, 0 where they do not exceed `above`."""
        scores = self.kernel.between(subjects, candidates, candidates)
        return np.where(scores > self.above, scores, 0.0)

    def settings(self) -> Mapping[str, Any]:
        """Kernel and threshold."""
        return {**super().settings(), "kernel": self.kernel.name, "above": self.above}


@dataclass(frozen=True)
class HybridSelector:
    """The first selector when its coverage is high enough, else the second, stated.

    Attributes
    ----------
    first, second
        E.g. chat and chemistry.
    min_coverage
        Share of the n asked for that the first must return as valid picks.
    fill
        True: keep what the first gave and fill up with the second; False: take the second alone.
    """

    first: Selector
    second: Selector
    min_coverage: float = 0.5
    fill: bool = True
    name: str = "hybrid"

    @property
    def cheap(self) -> bool:
        """Whether both may be asked about training items."""
        return all(getattr(s, "cheap", False) for s in (self.first, self.second))

    def __post_init__(self) -> None:
        if not 0 < self.min_coverage <= 1:
            raise InputError(f"min_coverage must be in (0, 1], got {self.min_coverage}")

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """Pick at most `n` of `candidates`."""
        given = self.first.select(query, candidates, n)
        possible = max(1, min(n, len([c for c in candidates if c != query.subject])))
        coverage = 0.0 if given.fallback else len(given.picks) / possible
        notes = {**given.provenance, "coverage": coverage, "used": self.first.name}
        if coverage >= self.min_coverage:
            return replace(given, provenance={**notes, "k_used": len(given.picks)})
        other = self.second.select(query, candidates, n)
        kept = given.picks if self.fill and not given.fallback else ()
        names = {p.item for p in kept}
        picks = (*kept, *(p for p in other.picks if p.item not in names))[:n]
        used = f"{self.first.name}+{self.second.name}" if kept else self.second.name
        action = f"coverage {coverage:.0%} is below {self.min_coverage:.0%}: used {used}"
        return Selection(
            picks,
            f"{given.source} -> {other.source}",
            (*given.repairs, *other.repairs, Repair("fallback", query.subject or "", action)),
            provenance={**notes, "used": used, "k_used": len(picks)},
            fallback=True,
        )
