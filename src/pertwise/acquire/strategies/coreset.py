"""Core-set: k-centre greedy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    arg_best,
    check_n,
    need_embedding,
    selection,
    squared_distances_to,
    tie_order,
)
from pertwise.arrays.distances import squared_distances
from pertwise.arrays.memory import rows_at_once
from pertwise.parts import part
from pertwise.select.base import Selection


def k_centre_greedy(
    features: NDArray[Any], centres: NDArray[Any], n: int, ties: NDArray[np.int64]
) -> tuple[list[int], Floats]:
    """Farthest-first traversal (Sener & Savarese 2018, arXiv:1708.00489).

    Each pick is the candidate whose nearest centre (acquired or chosen) is farthest. With no
    centre at all the first pick is the candidate nearest to the mean of all candidates.

    Parameters
    ----------
    features, centres
        (n_candidates, k) and (n_centres, k).

    Returns
    -------
    order (n picks) and the distance (n_candidates,) to the nearest centre: when chosen, or after
    the last pick. Without centres the first pick gets the largest distance of the second.
    """
    x = np.asarray(features, dtype=np.float64)
    total = len(x)
    order: list[int] = []
    allowed = np.ones(total, dtype=bool)
    distance = np.full(total, np.inf)
    if len(centres):
        distance = _to_nearest(x, np.asarray(centres, dtype=np.float64))
    lengths = np.einsum("ij,ij->i", x, x)
    value = distance.copy()
    for _ in range(min(n, total)):
        if np.isinf(distance).all():
            j = arg_best(-np.linalg.norm(x - x.mean(axis=0), axis=1), ties, allowed)
        else:
            j = arg_best(distance, ties, allowed)
        order.append(j)
        allowed[j] = False
        value[j] = distance[j]
        distance = np.minimum(distance, np.sqrt(squared_distances_to(x, lengths, j)))
        value = np.where(allowed, distance, value)
    if np.isinf(value).any():
        finite = value[np.isfinite(value)]
        value[np.isinf(value)] = finite.max() if len(finite) else 0.0
    return order, value


def _to_nearest(x: Floats, centres: Floats) -> Floats:
    """(n,) distance of each row to the nearest centre: found by products, measured by entries."""
    out = np.empty(len(x))
    step = rows_at_once(16 * len(centres))
    for start in range(0, len(x), step):
        some = x[start : start + step]
        nearest = squared_distances(some, centres).argmin(axis=1)
        out[start : start + step] = np.linalg.norm(some - centres[nearest], axis=1)
    return out


@part(needs="nothing", target_free=True)
class CoreSet:
    """Core-set: k-centre greedy.

    Utility = distance to the nearest acquired or chosen item.

    Feature source: the knowledge embedding (unit rows). Uses no uncertainty; works cold.
    """

    name = "coreset"

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Candidates that cover the embedding space."""
        check_n(n)
        embedding = need_embedding(state, self.name)
        total = len(state.candidates)
        order, value = k_centre_greedy(
            embedding[:total], embedding[total:], n, tie_order(state.candidates)
        )
        reasons = {
            j: f"farthest from everything acquired or chosen (distance {value[j]:.2f})"
            for j in order
        }
        return selection(
            state,
            order,
            value,
            reasons,
            self.name,
            provenance={"strategy": self.name, "features": "knowledge embedding"},
        )
