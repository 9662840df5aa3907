"""What is already known about genes, pathways and drugs."""

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
]
