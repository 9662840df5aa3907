"""What is already known about genes, pathways and drugs."""

from pertwise.knowledge.build.folder import build_knowledge
from pertwise.knowledge.extras import add_embedding, add_graph, store_summaries
from pertwise.knowledge.genes.pathways import load_pathway, read_gene_list
from pertwise.knowledge.store import Knowledge
from pertwise.knowledge.types import (
    Embedding,
    GeneCard,
    GoTerm,
    Graph,
    Pathway,
    Relation,
    Resolution,
)

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
