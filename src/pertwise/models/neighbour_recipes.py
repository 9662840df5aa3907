"""The predictor "neighbours": any selector in words, any aggregation, any fallbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pertwise.arrays.aggregate import Aggregation
from pertwise.models.contexts import joined
from pertwise.models.neighbours import NeighbourPredictor
from pertwise.models.per_context import ByContexts, in_contexts
from pertwise.parts import part
from pertwise.select.words import selector_from


@part(words=("selector", "fallbacks", "prefilter"), argument="selector")
def neighbours(
    selector: str = "graph:string",
    *,
    k: int = 5,
    how: Aggregation = "mean",
    shrinkage: float | str = 0.0,
    min_support: int = 1,
    fallbacks: Sequence[str] = (),
    context_text: str = "",
    n_related: int = 5,
    name: str | None = None,
    **settings: Any,
) -> ByContexts:
    """Mean of the neighbours that a selector in words names, with everything to be set.

    Parameters
    ----------
    selector, fallbacks
        In words: "graph:string,go and embedding:text" (`select.words`). The fallbacks are asked
        one after another where fewer than `min_support` neighbours were found.
    k, how, shrinkage, min_support
        As in `NeighbourPredictor`.
    settings
        Of `select.words.selector_from`: max_neighbours, and those of the selectors: weighted,
        exclude_from_screen, rewire_seed, dim, llm, ledger, max_candidates ...
    """

    def build(text: str) -> NeighbourPredictor:
        return NeighbourPredictor(
            selector_from(selector, **settings),
            k=k,
            how=how,
            shrinkage=shrinkage,
            min_support=min_support,
            fallbacks=[selector_from(words, **settings) for words in fallbacks],
            context_text=joined(context_text, text),
            name=name or f"neighbours ({selector})",
        )

    return in_contexts(build, n_related)
