"""BADGE-like: diverse and uncertain at once, by k-means++ over disagreement vectors."""

from __future__ import annotations

import numpy as np

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    by_position,
    check_n,
    deviations,
    random_start,
    squared_distances_to,
)
from pertwise.select.base import Selection


def kmeans_plus_plus(phi: Floats, n: int, rng: np.random.Generator) -> tuple[list[int], Floats]:
    """k-means++ seeding: first the longest vector, then D^2 sampling.

    Parameters
    ----------
    phi
        (n_candidates, width).

    Returns
    -------
    order (n picks) and the squared distance (n_candidates,) to the nearest pick.
    """
    lengths = np.einsum("ij,ij->i", phi, phi)
    order = [int(lengths.argmax())]
    distance = squared_distances_to(phi, lengths, order[0])
    while len(order) < min(n, len(phi)):
        weight = distance.copy()
        weight[order] = 0.0
        total = weight.sum()
        if total <= 0:
            # All that is left coincides with a pick: nothing to prefer.
            left = np.setdiff1d(np.arange(len(phi)), order)
            j = int(rng.choice(left))
        else:
            j = int(rng.choice(len(phi), p=weight / total))
        order.append(j)
        distance = np.minimum(distance, squared_distances_to(phi, lengths, j))
    return order, distance


class Badge:
    """BADGE-like: diverse and uncertain at once, by k-means++ over disagreement vectors.

    Utility = 1 - position / n_candidates: picks in the order drawn, then by distance.

    After Ash et al. 2020 (arXiv:1906.03671), whose gradient embedding belongs to classifiers. The
    counterpart here is the vector of all members' deviations from the ensemble mean on the
    target's features: its length is the uncertainty, its direction says what the members
    disagree about. Cold start: random.
    """

    name = "badge"
    needs = "members"

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Draw a batch by D^2 sampling over disagreement vectors."""
        check_n(n)
        if state.member_predictions is None:
            return random_start(state, n, self.name)
        phi = deviations(state.member_predictions)
        order, distance = kmeans_plus_plus(phi, n, state.rng)
        u = np.einsum("ij,ij->i", phi, phi)
        reasons = {
            j: f"uncertainty {u[j]:.3g}; members disagree about it in another way than about the "
            "earlier picks"
            if i
            else f"largest uncertainty ({u[j]:.3g})"
            for i, j in enumerate(order)
        }
        return by_position(state, phi, order, distance, reasons, self.name)
