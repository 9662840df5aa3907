"""Predictors that ask a chat model: LangPert, and graph neighbours corrected by a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pertwise.models.contexts import joined
from pertwise.models.neighbours import NeighbourPredictor
from pertwise.models.per_context import ByContexts, in_contexts
from pertwise.parts import part
from pertwise.select.base import Selector
from pertwise.select.chat import recipes
from pertwise.select.chat.recipes import PREFILTER

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat
    from pertwise.screen import Screen


@part(
    needs="chat",
    words=("prefilter", "fallbacks"),
    source="Märtens et al. 2025",
)
def langpert(
    llm: str | Chat | None = None,
    *,
    k: int | None = None,
    ledger: str | os.PathLike[str] | None = None,
    chat_settings: dict[str, Any] | None = None,
    max_candidates: int | None = None,
    prefilter: str = PREFILTER,
    seed: int = 0,
    context_text: str = "",
    n_related: int = 5,
    name: str = "langpert",
    **settings: Any,
) -> ByContexts:
    """LangPert (Märtens et al. 2025): a chat model names 5-10 measured knock-downs; their mean.

    Parameters
    ----------
    llm
        "MODEL@URL" or an opened chat.
    k
        Fixed number of neighbours; None leaves 5 to 10 to the model.
    ledger
        SQLite file that stores every exchange, to resume and replay.
    max_candidates, prefilter
        Show at most this many candidates, the first of `prefilter` (a selector in words; needs
        knowledge); the whole list by default. What was shown is in the provenance of the answer.
    seed
        Of the order of the candidates in the prompt.
    settings
        Of `NeighbourPredictor`: how, shrinkage, min_support, fallbacks.
    """

    def selector(knowledge: Knowledge | None, screen: Screen) -> Selector:
        return recipes.langpert(
            screen,
            knowledge,
            llm=llm,
            k=k,
            ledger=ledger,
            chat_settings=chat_settings,
            max_candidates=max_candidates,
            prefilter=prefilter,
            seed=seed,
        )

    selector.needs_screen = True  # type: ignore[attr-defined]
    selector.needs_knowledge = False  # type: ignore[attr-defined]

    def build(text: str) -> NeighbourPredictor:
        said = joined(context_text, text)
        return NeighbourPredictor(selector, k=k or 10, context_text=said, name=name, **settings)

    return in_contexts(build, n_related)


@part(label="graph+edit", needs=("knowledge", "chat"), words=("prefilter", "fallbacks"))
def graph_edit(
    llm: str | Chat | None = None,
    *,
    graphs: Sequence[str] | str = ("string",),
    k: int = 20,
    weighted: bool = True,
    ledger: str | os.PathLike[str] | None = None,
    chat_settings: dict[str, Any] | None = None,
    exclude_from_screen: bool = True,
    rewire_seed: int | None = None,
    max_candidates: int | None = None,
    prefilter: str = PREFILTER,
    max_edits: int = 5,
    prompt: str | os.PathLike[str] = "edit",
    seed: int = 0,
    context_text: str = "",
    name: str = "graph+edit",
    **settings: Any,
) -> NeighbourPredictor:
    """Graph neighbours, additions and removals by a chat model, then their mean.

    Parameters
    ----------
    graphs, weighted, exclude_from_screen, rewire_seed
        As in `GraphSelector`; at most `k` neighbours are shown to the model.
    max_candidates, prefilter
        At most this many other measured knock-downs are offered as additions; all by default.
    max_edits
        Most additions, and most removals, that count.
    prompt
        Built-in name or file of a template.
    """

    def selector(knowledge: Knowledge, screen: Screen) -> Selector:
        return recipes.edit(
            screen,
            knowledge,
            graphs,
            weighted=weighted,
            exclude_from_screen=exclude_from_screen,
            rewire_seed=rewire_seed,
            llm=llm,
            ledger=ledger,
            chat_settings=chat_settings,
            max_candidates=max_candidates,
            prefilter=prefilter,
            max_edits=max_edits,
            prompt=prompt,
            seed=seed,
        )

    selector.needs_screen = True  # type: ignore[attr-defined]
    return NeighbourPredictor(selector, k=k, context_text=context_text, name=name, **settings)
