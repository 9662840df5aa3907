"""Gene graphs out of the tables: pure builders from edge lists and membership matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise.errors import InputError
from pertwise.knowledge.types import Graph

#: CRISPRi at one promoter silences a partner whose transcription start lies this near (bases).
PROMOTER_DISTANCE = 1000


def from_edges(
    name: str, edges: pd.DataFrame, directed: bool, from_screen: bool, signed: bool = False
) -> Graph:
    """A graph from columns a, b, weight(, sign). Repeated pairs keep the largest weight."""
    nodes = tuple(sorted(set(edges["a"]) | set(edges["b"])))
    index = pd.Index(nodes)
    row, col = index.get_indexer(edges["a"]), index.get_indexer(edges["b"])
    weight = edges["weight"].to_numpy(np.float32)
    adjacency = _assemble(row, col, weight, len(nodes), symmetric=not directed)
    sign = None
    if signed:
        value = edges["sign"].to_numpy(np.float32)
        sign = csr_matrix((value, (row, col)), shape=(len(nodes), len(nodes)))
        sign = sign if directed else sign + sign.T
        sign = sign.sign().tocsr()
        sign.eliminate_zeros()
        sign.sort_indices()
    return Graph(name, nodes, adjacency, directed, from_screen, sign)


def _assemble(
    row: NDArray[np.int64], col: NDArray[np.int64], weight: NDArray[np.float32], n: int,
    symmetric: bool,
) -> csr_matrix:  # fmt: skip
    if symmetric:
        row, col = np.concatenate([row, col]), np.concatenate([col, row])
        weight = np.concatenate([weight, weight])
    keep = row != col
    row, col, weight = row[keep], col[keep], weight[keep]
    # The largest weight of a repeated pair stands last after sorting.
    order = np.lexsort((weight, col, row))
    row, col, weight = row[order], col[order], weight[order]
    last = np.ones(len(row), dtype=bool)
    last[:-1] = (row[1:] != row[:-1]) | (col[1:] != col[:-1])
    matrix = csr_matrix((weight[last], (row[last], col[last])), shape=(n, n), dtype=np.float32)
    matrix.sort_indices()
    return matrix


def keep_strongest(adjacency: csr_matrix, k: int) -> csr_matrix:
    """Each row's k largest entries (ties to the lower column), made symmetric by the maximum."""
    n = adjacency.shape[0]
    indptr, indices, data = adjacency.indptr, adjacency.indices, adjacency.data
    row = np.repeat(np.arange(n), np.diff(indptr))
    order = np.lexsort((indices, -data, row))
    rank = np.arange(len(order)) - indptr[row[order]]
    kept = order[rank < k]
    return _assemble(row[kept], indices[kept], data[kept], n, symmetric=True)


def shared_sets(
    membership: csr_matrix, max_genes: int, total: int | None = None, min_weight: float = 0.05
) -> csr_matrix:
    """Cosine of gene rows over small sets, each set weighted by its inverse gene frequency.

    Parameters
    ----------
    membership
        (n_genes, n_sets) 0/1.
    max_genes
        Sets with more genes are left out: they say little and cost most.
    total
        Number of genes the frequency is taken over; default n_genes.
    min_weight
        Weaker links are left out, so that the result stays sparse.

    Returns
    -------
    csr_matrix
        (n_genes, n_genes), zero diagonal, entries in (0, 1].
    """
    size = np.asarray(membership.sum(axis=0)).ravel()
    use = np.flatnonzero((size >= 2) & (size <= max_genes))
    small = membership[:, use].astype(np.float32)
    idf = np.log((total or membership.shape[0]) / size[use]).astype(np.float32)
    weighted = small.multiply(np.maximum(idf, 1e-6)).tocsr()
    # The norm runs over all small sets of a gene, also those it alone is in, so that a gene with
    # one shared and many unshared terms is not called identical to its partner.
    alone = np.flatnonzero(size == 1)
    extra = (
        np.asarray(membership[:, alone].sum(axis=1)).ravel()
        * np.log(max(total or membership.shape[0], 2)) ** 2
    )
    norm = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel() + extra)
    scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
    unit = weighted.multiply(scale[:, None]).tocsr().astype(np.float32)
    product = (unit @ unit.T).tocsr()
    product.setdiag(0)
    product.data[product.data < min_weight] = 0
    product.eliminate_zeros()
    product.data = np.minimum(product.data, 1.0)
    product.sort_indices()
    return product


def shared_complexes(membership: csr_matrix, total: int) -> csr_matrix:
    """Weight of a pair = information content of the smallest complex both are in, over the most.

    Parameters
    ----------
    membership
        (n_genes, n_complexes) 0/1, complexes small enough to be one assembly.
    total
        Number of genes the content -log2(size / total) is taken over.
    """
    size = np.asarray(membership.sum(axis=0)).ravel()
    use = np.flatnonzero(size >= 2)
    top = np.log2(total / 2.0)
    rows: list[NDArray[np.int64]] = []
    cols: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float32]] = []
    by_set = membership[:, use].tocsc()
    for j in range(len(use)):
        genes = by_set.indices[by_set.indptr[j] : by_set.indptr[j + 1]]
        upper = np.triu_indices(len(genes), 1)
        rows.append(genes[upper[0]].astype(np.int64))
        cols.append(genes[upper[1]].astype(np.int64))
        value = np.log2(total / len(genes)) / top
        weights.append(np.full(len(upper[0]), max(value, 1e-3), dtype=np.float32))
    if not rows:
        return csr_matrix((membership.shape[0],) * 2, dtype=np.float32)
    return _assemble(
        np.concatenate(rows), np.concatenate(cols), np.concatenate(weights),
        membership.shape[0], symmetric=True,
    )  # fmt: skip


def shared_promoters(
    positions: pd.DataFrame, distance: int = PROMOTER_DISTANCE, *, opposite: bool = True
) -> pd.DataFrame:
    """Pairs of genes whose transcription starts lie within `distance`, on opposite strands.

    Parameters
    ----------
    positions
        Columns symbol, chr, start, end, strand (1 or -1); the start of transcription is `start`
        on the plus and `end` on the minus strand.
    opposite
        False also takes pairs on one strand.

    Returns
    -------
    DataFrame
        a, b, bases (distance), weight = 1 - bases / (distance + 1), sign 0.
    """
    table = positions[["symbol", "chr", "strand"]].copy()
    plus = positions["strand"].to_numpy() == 1
    table["tss"] = np.where(plus, positions["start"], positions["end"])
    found: list[tuple[str, str, int]] = []
    for _, chromosome in table.groupby("chr", sort=True):
        ordered = chromosome.sort_values(["tss", "symbol"], kind="stable")
        tss = ordered["tss"].to_numpy()
        strand = ordered["strand"].to_numpy()
        symbol = ordered["symbol"].to_numpy()
        ends = np.searchsorted(tss, tss + distance, side="right")
        for i, end in enumerate(ends):
            for j in range(i + 1, end):
                if not opposite or strand[i] != strand[j]:
                    a, b = sorted((str(symbol[i]), str(symbol[j])))
                    found.append((a, b, int(tss[j] - tss[i])))
    pairs = pd.DataFrame(found, columns=["a", "b", "bases"])
    pairs["weight"] = (1.0 - pairs["bases"] / (distance + 1)).astype("float32")
    return pairs.assign(sign=0)


def merge(name: str, graphs: Sequence[Graph]) -> Graph:
    """The union of graphs; the larger weight wins. Directed only when all are."""
    if not graphs:
        raise InputError("no graph to merge")
    nodes = tuple(sorted(set().union(*(g.nodes for g in graphs))))
    index = pd.Index(nodes)
    directed = all(g.directed for g in graphs)
    rows, cols, weights = [], [], []
    for graph in graphs:
        place = index.get_indexer(list(graph.nodes))
        coo = graph.adjacency.tocoo()
        rows.append(place[coo.row])
        cols.append(place[coo.col])
        weights.append(coo.data)
    adjacency = _assemble(
        np.concatenate(rows), np.concatenate(cols), np.concatenate(weights), len(nodes),
        symmetric=not directed,
    )  # fmt: skip
    return Graph(name, nodes, adjacency, directed, any(g.from_screen for g in graphs))
