"""How much is left to gain from a pool, and handing over when it is hardly anything."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from pertwise import parts
from pertwise.acquire.base import AcquisitionState, Strategy
from pertwise.acquire.common import tie_order
from pertwise.acquire.strategies.variance_reduction import Information, greedy_reduction
from pertwise.errors import InputError
from pertwise.select.base import Selection

#: A pool in which the best batch tells less than so many times what a random one does is exhausted:
#: there is nothing to choose.
EXHAUSTED = 1.1
#: Random batches drawn to compare with, and the pool that is too large to be exhausted.
DRAWS, LARGE = 5, 5_000


def advantage(state: AcquisitionState, n: int, noise: float = 0.5) -> float | None:
    """Expected error reduction of the best batch of `n` over that of random ones.

    The batch of `greedy_reduction` on the knowledge features against the mean of `DRAWS` random
    batches, always the same ones. 1 = choosing gains nothing. None without features, and for more
    than `LARGE` candidates.
    """
    total = len(state.candidates)
    if state.embedding is None or not state.embedding.any() or total > LARGE:
        return None
    if total <= n:
        return 1.0
    rows = np.asarray(state.embedding, dtype=np.float64)
    start = Information(rows[:total], rows[total:], noise)
    best = greedy_reduction(deepcopy(start), n, tie_order(state.candidates))
    rng = np.random.default_rng(0)
    told = 0.0
    for _ in range(DRAWS):
        drawn = deepcopy(start)
        for j in rng.choice(total, n, replace=False):
            told += float(drawn.gains()[j])
            drawn.observe(int(j))
    return float(best.gain[best.order].sum() / max(told / DRAWS, 1e-12))


class HandOver:
    """A strategy until hardly anything is left to gain, then another one.

    Parameters
    ----------
    inner
        Chooses as long as `advantage` is at least `at`, or cannot be told.
    to
        Name of the strategy that chooses from then on: "random", or one that looks for
        representatives ("typiclust", "variance-reduction"). It must not look at a model.
    at
        What the best batch must tell at least, in random batches; >= 1.

    Raises
    ------
    pertwise.errors.InputError
        For `at` below 1, or a strategy that needs a model.
    """

    def __init__(self, inner: Strategy, to: str = "random", at: float = EXHAUSTED) -> None:
        if not at >= 1.0:
            raise InputError(f"hand over at a ratio of at least 1 to a random batch, got {at}")
        part = parts.describe("strategy", to)
        if "nothing" not in part.facts.needs:
            raise InputError(
                f"hand over to {to!r}: it looks at a model; take random, typiclust or "
                "variance-reduction"
            )
        self.inner, self.at = inner, at
        self.other: Strategy = part.load()
        self.name = inner.name
        #: What the planner must prepare (`planning.looks_at`).
        self.needs = parts.facts(inner).needs

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Picks of one of the two, the second one's with the ratio in its reasons."""
        left = advantage(state, n)
        if left is None or left >= self.at:
            return self.inner.choose(state, n)
        found = self.other.choose(state, n)
        told = f"handed over to {self.other.name}: the best batch tells {left:.2f} random ones"
        picks = tuple(replace(p, reason=f"{told}; {p.reason}") for p in found.picks)
        provenance = {**found.provenance, "handed_over_to": self.other.name, "advantage": left}
        return replace(found, picks=picks, provenance=provenance)

    def __getattr__(self, name: str) -> Any:
        """What else the inner strategy has (its chat, its first request)."""
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


__all__ = ["EXHAUSTED", "HandOver", "advantage"]
