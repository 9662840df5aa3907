"""Top-n by ensemble uncertainty."""

from __future__ import annotations

import numpy as np

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import best_first, check_n, random_start, selection, tie_order
from pertwise.select.base import Selection


class Uncertainty:
    """Top-n by ensemble uncertainty.

    Utility = u(p) = mean over the target's features of the variance over ensemble members.

    Cold start: random.
    """

    name = "uncertainty"
    needs = "uncertainty"

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """The `n` most uncertain candidates."""
        check_n(n)
        if state.uncertainty is None:
            return random_start(state, n, self.name)
        u = state.uncertainty.to_numpy(dtype=np.float64)
        order = best_first(u, tie_order(state.candidates))[:n]
        reasons = {
            int(j): f"uncertainty {u[j]:.3g}, rank {i + 1} of {len(u)}" for i, j in enumerate(order)
        }
        return selection(state, order, u, reasons, self.name, provenance={"strategy": self.name})
