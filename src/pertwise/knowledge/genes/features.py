"""Gene features: sparse matrices over terms and neighbours, and dense embeddings of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, identity

from pertwise.knowledge.types import Graph


def membership(
    genes: Sequence[str], gene_of: Sequence[str], sets: Sequence[str], set_of: Sequence[str]
) -> csr_matrix:
    """0/1 csr matrix (n_genes, n_sets); pairs outside both lists are left out."""
    g = pd.Index(genes).get_indexer(pd.Index(gene_of))
    s = pd.Index(sets).get_indexer(pd.Index(set_of))
    keep = (g >= 0) & (s >= 0)
    matrix = csr_matrix(
        (np.ones(int(keep.sum()), dtype=np.float32), (g[keep], s[keep])),
        shape=(len(genes), len(sets)),
    )
    matrix.data[:] = 1.0
    matrix.sort_indices()
    return matrix


def with_self(graph: Graph) -> csr_matrix:
    """Adjacency rows with 1 on the diagonal: a gene is its own nearest neighbour."""
    matrix = (graph.adjacency + identity(len(graph.nodes), dtype=np.float32)).tocsr()
    matrix.sort_indices()
    return matrix


def take_rows(
    matrix: csr_matrix,
    nodes: Sequence[str] | NDArray[np.int64],
    genes: Sequence[str] | NDArray[np.int64],
) -> csr_matrix:
    """Rows of `genes` out of a matrix whose rows are `nodes`; a zero row for those not in it."""
    place = pd.Index(nodes).get_indexer(pd.Index(genes))
    present = np.flatnonzero(place >= 0)
    pick = csr_matrix(
        (np.ones(len(present), dtype=np.float32), (present, place[present])),
        shape=(len(genes), len(nodes)),
    )
    rows = (pick @ matrix).tocsr()
    rows.sort_indices()
    return rows


def tf_idf(documents: Sequence[str]) -> tuple[csr_matrix, list[str]]:
    """TF-IDF of texts: (n_documents, n_words) float32 csr with unit rows, and the words.

    Sub-linear term frequency, English stop words, words of at least two signs that stand in two
    texts or more (three in large collections) and in at most a fifth of them.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    large = len(documents) > 2_000
    vectorizer = TfidfVectorizer(
        sublinear_tf=True,
        stop_words="english",
        min_df=3 if large else 1,
        max_df=0.2 if large else 1.0,
        max_features=40_000,
        token_pattern=r"(?u)\b\w[\w-]*\w\b",
        dtype=np.float32,
    )
    if not any(d.strip() for d in documents):
        return csr_matrix((len(documents), 0), dtype=np.float32), []
    matrix = vectorizer.fit_transform(documents).tocsr()
    return matrix, vectorizer.get_feature_names_out().tolist()


def idf_unit_rows(matrix: csr_matrix) -> csr_matrix:
    """Columns weighted by log(n / column count), then rows scaled to unit length."""
    count = np.asarray((matrix != 0).sum(axis=0)).ravel()
    n = max(int((matrix.getnnz(axis=1) > 0).sum()), 1)
    idf = np.log(n / np.maximum(count, 1))
    weighted = (matrix @ diags(idf.astype(np.float32))).tocsr()
    return unit_rows(weighted)


def unit_rows(matrix: csr_matrix) -> csr_matrix:
    """Rows scaled to unit length; zero rows stay zero."""
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = np.divide(1.0, norm, out=np.zeros_like(norm, dtype=np.float64), where=norm > 0)
    return (diags(scale.astype(np.float32)) @ matrix).tocsr().astype(np.float32)


def diffusion_rows(graph: Graph) -> csr_matrix:
    """Rows of D^-1/2 (A + I) D^-1/2 of a graph, scaled to unit length: one damped diffusion step.

    Dividing by the square root of the neighbour's degree keeps hubs from making everything alike.
    """
    matrix = with_self(graph)
    degree = np.asarray(matrix.sum(axis=1)).ravel()
    half = diags((1.0 / np.sqrt(degree)).astype(np.float32))
    return unit_rows((half @ matrix @ half).tocsr())


#: Matrices up to this many entries are decomposed exactly: cheap, and no component is lost.
_DENSE = 2_000_000


def truncated_svd(matrix: csr_matrix, dim: int) -> NDArray[np.float32]:
    """Scores U S of the leading components, (n_rows, min(dim, n_rows, n_columns)) float32.

    Exact for small matrices, else a randomised SVD with a fixed start; each component's sign is
    such that its largest loading is positive. The same input gives the same numbers on one
    machine.
    """
    from sklearn.decomposition import TruncatedSVD

    k = min(dim, *matrix.shape)
    if k == 0:
        return np.zeros((matrix.shape[0], 0), dtype=np.float32)
    if matrix.shape[0] * matrix.shape[1] <= _DENSE:
        left, values, right = np.linalg.svd(
            matrix.toarray().astype(np.float64), full_matrices=False
        )
        sign = np.sign(right[np.arange(len(right)), np.abs(right).argmax(axis=1)])
        scores = (left * (values * np.where(sign == 0, 1.0, sign)))[:, :k]
    else:
        svd = TruncatedSVD(n_components=k, algorithm="randomized", n_iter=4, random_state=0)
        scores = svd.fit_transform(matrix)
    return np.ascontiguousarray(scores, dtype=np.float32)


def l2_rows(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense rows scaled to unit length; zero rows stay zero."""
    norm = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(np.divide(matrix, norm, out=np.zeros_like(matrix), where=norm > 0))
