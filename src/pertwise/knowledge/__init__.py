"""What is already known about genes, pathways and drugs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pertwise._lazy import lazy
from pertwise.knowledge.types import (
    Embedding,
    GeneCard,
    GoTerm,
    Graph,
    Pathway,
    Relation,
    Resolution,
)

if TYPE_CHECKING:
    from pertwise.knowledge.build.folder import build_knowledge as build_knowledge
    from pertwise.knowledge.extras import add_embedding as add_embedding
    from pertwise.knowledge.extras import add_graph as add_graph
    from pertwise.knowledge.extras import store_summaries as store_summaries
    from pertwise.knowledge.genes.pathways import load_pathway as load_pathway
    from pertwise.knowledge.genes.pathways import read_gene_list as read_gene_list
    from pertwise.knowledge.store import Knowledge as Knowledge

#: Looking up a card takes less than importing what these need.
_LAZY = {
    "Knowledge": "pertwise.knowledge.store",
    "add_embedding": "pertwise.knowledge.extras",
    "add_graph": "pertwise.knowledge.extras",
    "build_knowledge": "pertwise.knowledge.build.folder",
    "load_pathway": "pertwise.knowledge.genes.pathways",
    "read_gene_list": "pertwise.knowledge.genes.pathways",
    "store_summaries": "pertwise.knowledge.extras",
}

__all__ = [
    "Embedding",
    "GeneCard",
    "GoTerm",
    "Graph",
    "Knowledge",
    "Pathway",
    "Relation",
    "Resolution",
    "add_embedding",
    "add_graph",
    "build_knowledge",
    "load_pathway",
    "read_gene_list",
    "store_summaries",
]

__getattr__ = lazy(__name__, _LAZY)
