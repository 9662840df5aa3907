"""Random panel: the reference every other strategy must beat."""

from __future__ import annotations

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import check_n, selection
from pertwise.parts import part
from pertwise.select.base import Selection


@part(needs="nothing", target_free=True)
class Random:
    """Random panel: the reference every other strategy must beat.

    Uniform draw without replacement. Utility = a uniform random number for each candidate.
    """

    name = "random"

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """The `n` candidates with the largest random numbers."""
        check_n(n)
        utilities = state.rng.random(len(state.candidates))
        order = (-utilities).argsort(kind="stable")[:n]
        reasons = {int(j): "drawn at random" for j in order}
        return selection(
            state, order, utilities, reasons, self.name, provenance={"strategy": self.name}
        )
