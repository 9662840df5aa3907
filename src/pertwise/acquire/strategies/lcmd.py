"""LCMD-like: largest cluster, maximum distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    arg_best,
    by_position,
    check_n,
    deviations,
    random_start,
    squared_distances_to,
    tie_order,
)
from pertwise.select.base import Selection


def largest_cluster_maximum_distance(
    phi: Floats, n: int, ties: NDArray[np.int64]
) -> tuple[list[int], Floats]:
    """Greedy LCMD (Holzmueller et al. 2023, JMLR 24(164)).

    Centres start with the origin, which stands for all acquired items: what is measured is no
    longer uncertain, so its deviation vector is zero. At each step candidates belong to their
    nearest centre, the cluster with the largest sum of squared distances is taken, and its
    farthest member becomes the next pick and centre.

    Parameters
    ----------
    phi
        (n_candidates, width) deviation vectors.

    Returns
    -------
    order (n picks) and squared distance (n_candidates,) to the nearest centre.
    """
    lengths = np.einsum("ij,ij->i", phi, phi)
    distance = lengths
    owner = np.zeros(len(phi), dtype=np.int64)
    allowed = np.ones(len(phi), dtype=bool)
    order: list[int] = []
    for step in range(min(n, len(phi))):
        weight = np.where(allowed, distance, 0.0)
        mass = np.bincount(owner, weights=weight, minlength=step + 1)
        # An exhausted cluster has no candidate left even if its mass ties at zero.
        left = np.bincount(owner, weights=allowed.astype(float), minlength=step + 1) > 0
        cluster = int(np.where(left, mass, -1.0).argmax())
        j = arg_best(distance, ties, allowed & (owner == cluster))
        order.append(j)
        allowed[j] = False
        new = squared_distances_to(phi, lengths, j)
        closer = new < distance
        owner[closer] = step + 1
        distance = np.minimum(distance, new)
    return order, distance


class Lcmd:
    """LCMD-like: largest cluster, maximum distance.

    Utility = 1 - position / n_candidates: picks in order, then by distance to a centre.

    Feature source: ensemble deviations on the target's features. Cold start: random.
    """

    name = "lcmd"
    needs = "members"

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Greedy batch over the space of disagreement vectors."""
        check_n(n)
        if state.member_predictions is None:
            return random_start(state, n, self.name)
        phi = deviations(state.member_predictions)
        ties = tie_order(state.candidates)
        order, distance = largest_cluster_maximum_distance(phi, n, ties)
        u = np.einsum("ij,ij->i", phi, phi)
        reasons = {
            j: f"farthest in the largest group of like disagreement; uncertainty {u[j]:.3g}"
            for j in order
        }
        return by_position(state, phi, order, distance, reasons, self.name)
