"""Which items of this closed list? Every selector answers with reasons and stated repairs."""

from pertwise.select.base import Pick, Query, Repair, Selection, Selector
from pertwise.select.chat import ChatSelector, RandomSelector, knowledge_resolver
from pertwise.select.closed_list import ClosedList

__all__ = [
    "ChatSelector",
    "ClosedList",
    "Pick",
    "Query",
    "RandomSelector",
    "Repair",
    "Selection",
    "Selector",
    "knowledge_resolver",
]
