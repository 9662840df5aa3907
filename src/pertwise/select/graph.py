"""`GraphSelector`: neighbours in one knowledge graph or several merged ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

from pertwise.errors import InputError
from pertwise.knowledge import Graph, Knowledge
from pertwise.select.similarity import Floats, SimilaritySelector, mean_over_parts


def rewired(adjacency: csr_matrix, rng: np.random.Generator, rounds: int = 10) -> csr_matrix:
    """A degree-preserving random control of an undirected graph (Maslov and Sneppen 2002).

    Edge pairs (a-b, c-d) become (a-d, c-b) unless that makes a loop or an edge that exists; each
    edge is tried about `rounds` times. Weights travel with the first end of each edge, so every
    node keeps its number of neighbours and the set of weights in the graph stays the same.

    Parameters
    ----------
    adjacency
        (n, n) symmetric, zero diagonal.

    Returns
    -------
    (n, n) symmetric csr with the same degrees.
    """
    upper = coo_matrix(adjacency)
    keep = upper.row < upper.col
    a = upper.row[keep].astype(np.int64)
    b = upper.col[keep].astype(np.int64)
    weight = upper.data[keep]
    n, m = adjacency.shape[0], len(a)
    # The order of stored entries must not decide the outcome.
    order = np.lexsort((b, a))
    a, b, weight = a[order], b[order], weight[order]
    for _ in range(rounds if m > 1 else 0):
        pairs = rng.permutation(m)[: m - m % 2].reshape(-1, 2)
        first, second = pairs[:, 0], pairs[:, 1]
        # Edges have no direction: without turning some around, ends could never change side.
        turn = rng.random(m) < 0.5
        a, b = np.where(turn, b, a), np.where(turn, a, b)
        new_b_first, new_b_second = b[second], b[first]
        new = np.concatenate([_key(a[first], new_b_first, n), _key(a[second], new_b_second, n)])
        taken = np.isin(new, _key(a, b, n))
        # Two swaps of one round may want the same edge: only the first gets it.
        _, position, count = np.unique(new, return_index=True, return_counts=True)
        repeated = np.ones(len(new), dtype=bool)
        repeated[position[count == 1]] = False
        bad = taken | repeated
        half = len(first)
        ok = ~bad[:half] & ~bad[half:]
        ok &= (a[first] != new_b_first) & (a[second] != new_b_second)
        b[first[ok]], b[second[ok]] = new_b_first[ok], new_b_second[ok]
    rows, columns = np.concatenate([a, b]), np.concatenate([b, a])
    return csr_matrix((np.concatenate([weight, weight]), (rows, columns)), shape=(n, n))


def _key(a: NDArray[np.int64], b: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.asarray(np.minimum(a, b) * n + np.maximum(a, b))


class GraphSelector(SimilaritySelector):
    """The neighbours of a gene in knowledge graphs, strongest first, at most 20.

    Similarity of two genes = mean over the graphs of their edge weight (0 where there is none), so
    an edge that several graphs hold ranks above one that a single graph holds. Directed graphs
    count in both directions.

    Parameters
    ----------
    graphs
        Names of graphs of the knowledge folder, e.g. ("string",) or ("string", "go", "reactome").
    exclude_from_screen
        Leave out edges that were derived from a perturbation screen (an honest test needs that).
    rewire_seed
        When given, every graph is replaced by its degree-preserving random control (`rewired`):
        what remains of the performance then comes from degrees, not from who is linked to whom.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        graphs: Sequence[str] | str = ("string",),
        *,
        max_neighbours: int = 20,
        weighted: bool = True,
        exclude_from_screen: bool = True,
        rewire_seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(max_neighbours, weighted)
        self.graphs = (graphs,) if isinstance(graphs, str) else tuple(graphs)
        if not self.graphs:
            raise InputError("a graph selector needs at least one graph")
        self.exclude_from_screen = exclude_from_screen
        self.rewire_seed = rewire_seed
        control = "" if rewire_seed is None else "rewired "
        self.name = name or f"{control}graph ({', '.join(self.graphs)})"
        self._knowledge = knowledge
        self._adjacency = []
        for graph_name in self.graphs:
            graph = knowledge.graph(graph_name, exclude_from_screen)
            self._adjacency.append((graph_name, _position(graph), self._matrix(graph)))

    def _matrix(self, graph: Graph) -> csr_matrix:
        matrix = csr_matrix(graph.adjacency)
        if graph.directed:
            matrix = csr_matrix(matrix.maximum(matrix.T))
        matrix.setdiag(0)
        matrix.eliminate_zeros()
        if self.rewire_seed is not None:
            matrix = rewired(matrix, np.random.default_rng(self.rewire_seed))
        return matrix

    def similarity(self, subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        """(n_subjects, n_candidates) mean edge weight over the graphs; 0 for unknown genes."""
        return mean_over_parts(self._single, subjects, candidates)

    def _single(self, subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        approved = self._knowledge.resolve([*subjects, *candidates]).approved
        out = np.zeros((len(subjects), len(candidates)))
        for _, position, matrix in self._adjacency:
            row = np.array([position.get(approved.get(s, ""), -1) for s in subjects], dtype=int)
            col = np.array([position.get(approved.get(c, ""), -1) for c in candidates], dtype=int)
            rows, columns = np.flatnonzero(row >= 0), np.flatnonzero(col >= 0)
            block = matrix[row[rows]][:, col[columns]].toarray()
            out[np.ix_(rows, columns)] += block
        # The same gene under two names is not its own neighbour.
        out /= len(self._adjacency)
        return out

    def evidence(self, subject: str, candidate: str) -> tuple[str, ...]:
        """One fact for every graph that links the two: "string PIK3CA-AKT1 0.992"."""
        approved = self._knowledge.resolve([subject, candidate]).approved
        a, b = approved.get(subject, ""), approved.get(candidate, "")
        facts = []
        for graph_name, position, matrix in self._adjacency:
            if a in position and b in position:
                weight = float(matrix[position[a], position[b]])
                if weight > 0:
                    facts.append(f"{graph_name} {a}-{b} {weight:.3f}")
        return tuple(facts)

    def settings(self) -> Mapping[str, Any]:
        """Graphs, filters and the seed of the control."""
        return {
            **super().settings(),
            "graphs": list(self.graphs),
            "exclude_from_screen": self.exclude_from_screen,
            "rewire_seed": self.rewire_seed,
        }


def _position(graph: Graph) -> dict[str, int]:
    return {g: i for i, g in enumerate(graph.nodes)}
