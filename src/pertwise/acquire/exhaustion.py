"""How much is left to gain from a pool, and handing over when it is hardly anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pertwise import parts
from pertwise.acquire.base import AcquisitionState, Strategy
from pertwise.acquire.strategies.variance_reduction import Information
from pertwise.errors import InputError
from pertwise.select.base import Selection

#: Share of the first gain below which a pool counts as nearly exhausted.
EXHAUSTED = 0.1


def gain_left(state: AcquisitionState, noise: float = 0.5) -> float | None:
    """What the best candidate is expected to tell, as a share of the best one before any was known.

    max_p gain(p | measured) / max_p gain(p | nothing), both over everyone, measured or not, and
    `Information` on the knowledge features. 1 with nothing measured; None without features.
    """
    if state.embedding is None or not state.embedding.any():
        return None
    total = len(state.candidates)
    rows = np.asarray(state.embedding, dtype=np.float64)
    first = Information(rows, rows[:0], noise).gains().max()
    if not first > 0:
        return None
    left = Information(rows, rows[total:], noise).gains()[:total].max()
    return float(left / first)


class HandOver:
    """A strategy until hardly anything is left to gain, then another one.

    Parameters
    ----------
    inner
        Chooses as long as `gain_left` is at least `below`, or cannot be told.
    to
        Name of the strategy that chooses from then on: "random", or one that looks for
        representatives ("typiclust", "variance-reduction"). It must not look at a model.
    below
        Share of the first gain, in (0, 1).

    Raises
    ------
    pertwise.errors.InputError
        For a share outside (0, 1), or a strategy that needs a model.
    """

    def __init__(self, inner: Strategy, to: str = "random", below: float = EXHAUSTED) -> None:
        if not 0.0 < below < 1.0:
            raise InputError(f"hand over below a share between 0 and 1 of the gain, got {below}")
        part = parts.describe("strategy", to)
        if "nothing" not in part.facts.needs:
            raise InputError(
                f"hand over to {to!r}: it looks at a model; take random, typiclust or "
                "variance-reduction"
            )
        self.inner, self.below = inner, below
        self.other: Strategy = part.load()
        self.name = inner.name
        #: What the planner must prepare (`planning.looks_at`).
        self.needs = parts.facts(inner).needs

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Picks of one of the two, the second one's with the share in its reasons."""
        left = gain_left(state)
        if left is None or left >= self.below:
            return self.inner.choose(state, n)
        found = self.other.choose(state, n)
        told = f"handed over to {self.other.name}: {left:.0%} of the first gain is left"
        picks = tuple(replace(p, reason=f"{told}; {p.reason}") for p in found.picks)
        provenance = {**found.provenance, "handed_over_to": self.other.name, "gain_left": left}
        return replace(found, picks=picks, provenance=provenance)

    def __getattr__(self, name: str) -> Any:
        """What else the inner strategy has (its chat, its first request)."""
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


__all__ = ["EXHAUSTED", "HandOver", "gain_left"]
