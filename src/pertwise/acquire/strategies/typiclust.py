"""TypiClust: the most typical candidate of every large cluster nobody has touched."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    best_first,
    check_n,
    need_embedding,
    order_utilities,
    selection,
    tie_order,
)
from pertwise.parts import part
from pertwise.select.base import Selection

#: At most this many clusters, and neighbours in the typicality, as in the paper.
MAX_CLUSTERS = 500
NEIGHBOURS = 20


def typicality(x: NDArray[Any]) -> Floats:
    """1 / mean distance to the (at most 20) nearest others of the same cluster, (n,)."""
    if len(x) == 1:
        return np.zeros(1)
    rows = np.asarray(x, dtype=np.float64)
    squares = np.einsum("ij,ij->i", rows, rows)
    distance = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0))
    k = min(NEIGHBOURS, len(rows) - 1)
    nearest = np.sort(distance, axis=1)[:, 1 : k + 1]
    return np.asarray(1.0 / (nearest.mean(axis=1) + 1e-12))


def typiclust_order(
    features: NDArray[Any],
    labels: NDArray[Any],
    n_acquired_in: NDArray[np.int64],
    ties: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Complete order of candidates (Hacohen et al. 2022, arXiv:2202.02794).

    Clusters are visited from those with the fewest acquired or chosen items, larger ones first;
    each visit takes the most typical candidate left.

    Parameters
    ----------
    features
        (n_candidates, k).
    labels
        (n_candidates,) cluster of each candidate.
    n_acquired_in
        (n_clusters,) acquired items in each cluster.
    """
    queues: dict[int, list[int]] = {}
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        inside = best_first(typicality(features[members]), ties[members])
        queues[int(cluster)] = [int(members[i]) for i in inside[::-1]]
    size = {c: len(q) + int(n_acquired_in[c]) for c, q in queues.items()}
    taken = {c: int(n_acquired_in[c]) for c in queues}
    turns = [(taken[c], -size[c], int(ties[q[-1]]), c) for c, q in queues.items()]
    heapq.heapify(turns)
    order = []
    while turns:
        visits, large, _, cluster = turns[0]
        queue = queues[cluster]
        order.append(queue.pop())
        if queue:
            heapq.heapreplace(turns, (visits + 1, large, int(ties[queue[-1]]), cluster))
        else:
            heapq.heappop(turns)
    return np.array(order, dtype=np.int64)


@part(needs="nothing", target_free=True)
class TypiClust:
    """TypiClust: the most typical candidate of every large cluster nobody has touched.

    Utility = 1 - position / n_candidates in the visiting order.

    Feature source: the knowledge embedding; k-means into min(n_acquired + n, 500) clusters of
    candidates and acquired together. Uses no uncertainty; works cold.
    """

    name = "typiclust"

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Typical candidates of the largest clusters without an acquired item."""
        check_n(n)
        embedding = need_embedding(state, self.name)
        from sklearn.cluster import KMeans

        total = len(state.candidates)
        wanted = min(len(state.measured) + n, MAX_CLUSTERS)
        k = max(1, min(wanted, len(np.unique(embedding, axis=0))))
        seed = int(state.rng.integers(2**31 - 1))
        labels = KMeans(k, n_init=1, random_state=seed).fit(embedding).labels_
        acquired_in = np.bincount(labels[total:], minlength=k)
        order = typiclust_order(
            embedding[:total], labels[:total], acquired_in, tie_order(state.candidates)
        )
        sizes = np.bincount(labels[:total], minlength=k)
        reasons = {
            int(j): f"most typical of a cluster of {sizes[labels[j]]} candidates with "
            f"{acquired_in[labels[j]]} acquired"
            for j in order[:n]
        }
        return selection(
            state,
            order[:n],
            order_utilities(order, total),
            reasons,
            self.name,
            provenance={
                "strategy": self.name,
                "features": "knowledge embedding",
                "clusters": k,
            },
        )
