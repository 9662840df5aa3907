"""Random walks with restart on a graph: which genes does a gene reach, and how often?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix, diags, vstack

#: Chance to go back to the start at every step, and the steps taken: 0.8^12 = 0.07 is left over.
RESTART = 0.2
STEPS = 12
#: Genes kept of a walk, the most visited ones: the long tail is the same for all genes.
KEPT = 400
_BLOCK = 256


def symmetric_transition(adjacency: csr_matrix) -> csr_matrix:
    """(n, n) D^-1/2 A D^-1/2 of the undirected graph, so that hubs do not swallow every walk."""
    adjacency = adjacency.maximum(adjacency.T).astype(np.float32)
    degree = np.asarray(adjacency.sum(axis=1)).ravel()
    half = diags(np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0))
    return (half @ adjacency @ half).tocsr().astype(np.float32)


def walk_rows(transition: csr_matrix, start: Sequence[int], kept: int = KEPT) -> csr_matrix:
    """Square roots of the visits of random walks with restart, one row a start node.

    p <- (1 - r) S p + r e, `STEPS` times (Koehler et al. 2008; r = `RESTART`, S symmetric). Unit
    rows of square roots make the kernel of two genes the Bhattacharyya coefficient of their walks,
    up to the scale of each: it looks at where both walks go, not only at the most visited node.

    Parameters
    ----------
    transition
        (n, n) S.
    start
        Node numbers.
    kept
        The largest entries kept in a row.

    Returns
    -------
    csr (n_start, n) float32, not scaled; independent of the other start nodes.
    """
    n = transition.shape[0]
    rows = []
    for first in range(0, len(start), _BLOCK):
        nodes = np.asarray(start[first : first + _BLOCK], dtype=int)
        origin = np.zeros((n, len(nodes)), dtype=np.float32)
        origin[nodes, np.arange(len(nodes))] = RESTART
        visits = origin / RESTART
        for _ in range(STEPS):
            visits = (1.0 - RESTART) * (transition @ visits) + origin
        if kept < n:
            border = np.partition(visits, n - kept, axis=0)[n - kept]
            visits[visits < border] = 0.0
        rows.append(csr_matrix(np.sqrt(visits.T)))
    if not rows:
        return csr_matrix((0, n), dtype=np.float32)
    return vstack(rows).tocsr()
