"""Which items of this closed list? Every selector answers with reasons and stated repairs."""

from pertwise.select.base import Pick, Query, Repair, Selection, Selector
from pertwise.select.chat.selector import ChatSelector, RandomSelector, knowledge_resolver
from pertwise.select.closed_list import ClosedList
from pertwise.select.embedding import EmbeddingSelector
from pertwise.select.graph import GraphSelector
from pertwise.select.oracle import OracleSelector
from pertwise.select.recorded import RecordedSelector
from pertwise.select.sets import SetSelector
from pertwise.select.similarity import SimilaritySelector

__all__ = [
    "ChatSelector",
    "ClosedList",
    "EmbeddingSelector",
    "GraphSelector",
    "OracleSelector",
    "Pick",
    "Query",
    "RandomSelector",
    "RecordedSelector",
    "Repair",
    "Selection",
    "Selector",
    "SetSelector",
    "SimilaritySelector",
    "knowledge_resolver",
]
