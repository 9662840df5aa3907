"""Gene features of a folder: sparse matrices, and dense embeddings kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.extras import read_embedding
from pertwise.knowledge.genes import features as kernels
from pertwise.knowledge.genes import ontology
from pertwise.knowledge.genes.go import load_ontology, propagated
from pertwise.knowledge.genes.networks import load_graph, missing_for, require, set_matrix
from pertwise.knowledge.layout import UNDIRECTED
from pertwise.knowledge.tables import Arrays, Tables, sparse_arrays, sparse_of
from pertwise.knowledge.types import Embedding

Sparse = tuple[Sequence[str], csr_matrix, list[str]]
Block = tuple[Sequence[str], NDArray[np.float32]]
COMPUTED = ("text", "go", "reactome", "graph")


def feature_kinds(tables: Tables) -> tuple[str, ...]:
    """Kinds that `sparse_features` can give, apart from other graph names."""
    kinds = [k for k in ("go", "reactome", *UNDIRECTED) if missing_for(tables, k) is None]
    if tables.has("gene_sets"):
        kinds.append("sets")
    if tables.has("genes") or tables.has("gene_go", "go_terms"):
        kinds.append("text")
    return tuple(kinds)


def sparse_features(tables: Tables, kind: str, exclude_from_screen: bool = False) -> Sparse:
    """Genes, matrix and column names of a kind; see `Knowledge.features`."""
    if kind == "go":
        require(tables, "go", "the feature kind 'go'")
        return tables.keep(
            ("features", kind, exclude_from_screen), lambda: _go(tables, exclude_from_screen)
        )
    if kind == "reactome":
        require(tables, "reactome", "the feature kind 'reactome'")
        return set_matrix(tables, "reactome", exclude_from_screen)
    if kind == "sets":
        return set_matrix(tables, None, exclude_from_screen)
    if kind == "text":
        return tables.keep("text_features", lambda: _text(tables))
    graph = load_graph(tables, kind, exclude_from_screen)
    matrix = tables.keep(("features", kind, exclude_from_screen), lambda: kernels.with_self(graph))
    return graph.nodes, matrix, list(graph.nodes)


def _go(tables: Tables, exclude_from_screen: bool) -> Sparse:
    genes, full = propagated(tables, exclude_from_screen)
    ids = load_ontology(tables).ids
    count = np.asarray(full.sum(axis=0)).ravel()
    use = np.flatnonzero((count > 0) & ~np.isin(ids, sorted(ontology.UNINFORMATIVE)))
    return genes, full[:, use].tocsr(), [ids[i] for i in use]


def documents(tables: Tables) -> dict[str, str]:
    """Text of every gene: full name, STRING annotation, RefSeq summary and GO term names."""

    def make() -> dict[str, str]:
        texts: dict[str, list[str]] = {}
        if tables.has("genes"):
            table = tables.table("genes")
            columns = ["symbol", "full_name", "string_annotation", "refseq_summary"]
            for symbol, *parts in table[columns].itertuples(index=False, name=None):
                texts[symbol] = parts
        if tables.has("gene_go", "go_terms"):
            names = tables.table("go_terms").set_index("id")["name"]
            go = tables.table("gene_go")
            for symbol, name in zip(go["symbol"], go["go"].map(names), strict=True):
                texts.setdefault(symbol, []).append(str(name))
        return {s: " . ".join(t for t in texts[s] if t) for s in sorted(texts)}

    return tables.keep("documents", make)


def _text(tables: Tables) -> Sparse:
    def read(found: Arrays) -> Sparse:
        genes, words = found["genes"].tolist(), found["words"].tolist()
        return genes, sparse_of(found, (len(genes), len(words))), words

    kept = tables.stored("text-words", read)
    if kept is not None:
        return kept
    texts = documents(tables)
    if not texts:
        raise InputError(tables.lack("the feature kind 'text'", "genes"))
    matrix, words = kernels.tf_idf(list(texts.values()))
    named = {"genes": np.array(list(texts), dtype=str), "words": np.array(words, dtype=str)}
    tables.store("text-words", {**named, **sparse_arrays(matrix)})
    return list(texts), matrix, words


def embedding_kinds(tables: Tables) -> tuple[str, ...]:
    """Kinds that `embed` can give, the registered matrices included."""
    kinds = [k for k in ("go", "reactome") if missing_for(tables, k) is None]
    if missing_for(tables, "string") is None:
        kinds.append("graph")
    if tables.has("genes") or tables.has("gene_go", "go_terms"):
        kinds.insert(0, "text")
    return (*kinds, *tables.manifest["embeddings"])


def embed(
    tables: Tables, genes: Sequence[str], symbols: Sequence[str], kind: str, dim: int
) -> Embedding:
    """Rows for `symbols` ("" = unknown), named `genes`; see `Knowledge.embedding`."""
    if dim < 1:
        raise InputError(f"dim is {dim}, an embedding has at least one column")
    parts = [p.strip() for p in kind.split("+")]
    blocks: list[NDArray[np.float32]] = []
    for part in parts:
        nodes, matrix = _block(tables, part, dim)
        place = pd.Index(nodes).get_indexer(pd.Index(symbols))
        block = np.zeros((len(symbols), matrix.shape[1]), dtype=np.float32)
        block[place >= 0] = matrix[place[place >= 0]]
        blocks.append(kernels.l2_rows(block) if len(parts) > 1 else block)
    joined = np.concatenate(blocks, axis=1)
    empty = ~np.asarray(joined.any(axis=1))
    missing = tuple(g for g, e in zip(genes, empty.tolist(), strict=True) if e)
    return Embedding("+".join(parts), tuple(genes), joined, missing)


def _block(tables: Tables, kind: str, dim: int) -> Block:
    entry = tables.manifest["embeddings"].get(kind)
    if entry is not None:
        return tables.keep(("registered", kind), lambda: read_embedding(tables, entry))
    name, _, detail = kind.partition(":")
    if name == "sentence-transformers" and detail:
        from pertwise.knowledge.genes.transformers import encode

        return _cached(tables, kind, 0, lambda: encode(detail, documents(tables)))
    if name not in COMPUTED or (detail and name != "graph"):
        raise unknown_name("embedding", kind, embedding_kinds(tables))
    return _cached(tables, kind, dim, lambda: _compute(tables, name, detail, dim))


def _compute(tables: Tables, name: str, graph_name: str, dim: int) -> Block:
    if name == "graph":
        graph = load_graph(tables, graph_name or "string")
        return graph.nodes, kernels.truncated_svd(kernels.diffusion_rows(graph), dim)
    nodes, matrix, _ = sparse_features(tables, name)
    if name != "text":
        matrix = kernels.idf_unit_rows(matrix)
    return nodes, kernels.truncated_svd(matrix, dim)


def _cached(tables: Tables, kind: str, dim: int, make: Callable[[], Block]) -> Block:
    """Computed blocks are kept in the folder; one that cannot be written keeps them in memory."""

    def read(found: Arrays) -> Block:
        genes, matrix = found["genes"].tolist(), found["matrix"]
        if matrix.ndim != 2 or len(matrix) != len(genes) or not np.isfinite(matrix).all():
            raise ValueError(f"{matrix.shape} numbers for {len(genes)} genes, or some not finite")
        return genes, matrix

    def load() -> Block:
        kept = tables.stored(f"{kind}-{dim}", read)
        if kept is None:
            nodes, matrix = kept = make()
            tables.store(f"{kind}-{dim}", {"genes": np.array(nodes, dtype=str), "matrix": matrix})
        return kept

    return tables.keep(("block", kind, dim), load)
