"""Random walks from genes of a folder's graphs, each walked once and kept in the folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from pertwise.arrays.walks import symmetric_transition, walk_rows
from pertwise.knowledge.genes.features import take_rows
from pertwise.knowledge.tables import Arrays, Tables, sparse_arrays, sparse_of
from pertwise.knowledge.types import Graph

#: The copy on disk is written anew after so many new walks; fewer are walked again next time.
WORTH_STORING = 200


@dataclass
class _Walked:
    """Walks made so far: the (k, n_nodes) rows of the nodes `which`."""

    transition: csr_matrix
    which: NDArray[np.int64]
    matrix: csr_matrix


def rows(tables: Tables, graph: Graph, exclude: bool, symbols: Sequence[str]) -> csr_matrix:
    """(n_symbols, n_nodes) `walk_rows`; a zero row for what is no node of the graph."""
    what = f"walks-{graph.name}{'-unscreened' if exclude else ''}"
    walked = tables.keep(("walks", what), lambda: _opened(tables, graph, what))
    nodes = pd.Index(graph.nodes).get_indexer(pd.Index(symbols))
    missing = np.setdiff1d(nodes[nodes >= 0], walked.which)
    if len(missing):
        found = walk_rows(walked.transition, missing.tolist())
        walked.which = np.concatenate([walked.which, missing])
        walked.matrix = vstack([walked.matrix, found]).tocsr()
        if len(missing) >= WORTH_STORING:
            tables.store(what, {"which": walked.which, **sparse_arrays(walked.matrix)})
    return take_rows(walked.matrix, walked.which, nodes)


def _opened(tables: Tables, graph: Graph, what: str) -> _Walked:
    transition, n = symmetric_transition(graph.adjacency), len(graph.nodes)

    def read(found: Arrays) -> _Walked:
        which = found["which"].astype(np.int64)
        if len(np.unique(which)) < len(which) or not ((which >= 0) & (which < n)).all():
            raise ValueError(f"walks from other nodes than {n}")
        return _Walked(transition, which, sparse_of(found, (len(which), n)))

    none = csr_matrix((0, n), dtype=np.float32)
    return tables.stored(what, read) or _Walked(transition, np.zeros(0, dtype=np.int64), none)
