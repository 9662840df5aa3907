"""Which items of a closed list? Every selector answers with reasons and stated repairs."""

from pertwise.select.base import Pick, Query, Repair, Selection, Selector

__all__ = ["Pick", "Query", "Repair", "Selection", "Selector"]
