"""Predictors that ask a chat model: LangPert, and graph neighbours corrected by a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pertwise.errors import InputError
from pertwise.llm import open_chat
from pertwise.predict.neighbours import NeighbourPredictor
from pertwise.select.chat import knowledge_resolver
from pertwise.select.edit import EditSelector
from pertwise.select.embedding import EmbeddingSelector
from pertwise.select.graph import GraphSelector
from pertwise.select.similar_chat import langpert_selector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat


def _chat(llm: str | Chat | None, ledger: str | os.PathLike[str] | None, **settings: Any) -> Chat:
    if llm is None:
        raise InputError("this method asks a chat model: give llm='MODEL@URL' (--llm)")
    return open_chat(llm, ledger=ledger, **settings) if isinstance(llm, str) else llm


def gene_facts(knowledge: Knowledge) -> Callable[[str], str]:
    """name -> "full name. summary" for a prompt; "" for unknown genes."""

    def facts(name: str) -> str:
        card = knowledge.cards([name])[name]
        return ". ".join(x for x in (card.full_name, card.summary) if x) if card.known else ""

    return facts


def langpert(
    llm: str | Chat | None = None,
    *,
    k: int | None = None,
    ledger: str | os.PathLike[str] | None = None,
    chat_settings: dict[str, Any] | None = None,
    max_candidates: int | None = None,
    context_text: str = "",
    name: str = "langpert",
    **settings: Any,
) -> NeighbourPredictor:
    """LangPert (Märtens et al. 2025): a chat model names 5-10 measured knock-downs; their mean.

    Parameters
    ----------
    llm
        "MODEL@URL" or an opened chat.
    k
        Fixed number of neighbours; None leaves 5 to 10 to the model.
    ledger
        SQLite file that stores every exchange, to resume and replay.
    max_candidates
        Show at most this many candidates, prefiltered by graph and text (needs knowledge); the
        whole list by default.
    """

    def selector(knowledge: Knowledge | None) -> Any:
        known = knowledge is not None
        prefilter = None
        if max_candidates is not None:
            if knowledge is None:
                raise InputError("max_candidates needs a knowledge folder to prefilter by")
            prefilter = EmbeddingSelector(knowledge, "text+graph", max_neighbours=max_candidates)
        return langpert_selector(
            _chat(llm, ledger, **(chat_settings or {})),
            k=k,
            facts=gene_facts(knowledge) if knowledge is not None else None,
            resolve=knowledge_resolver(knowledge) if known else None,
            max_candidates=max_candidates,
            prefilter=prefilter,
        )

    selector.needs_knowledge = False  # type: ignore[attr-defined]
    return NeighbourPredictor(selector, k=k or 10, context_text=context_text, name=name, **settings)


def graph_edit(
    llm: str | Chat | None = None,
    *,
    graphs: Sequence[str] | str = ("string",),
    k: int = 10,
    ledger: str | os.PathLike[str] | None = None,
    chat_settings: dict[str, Any] | None = None,
    exclude_from_screen: bool = True,
    context_text: str = "",
    name: str = "graph+edit",
    **settings: Any,
) -> NeighbourPredictor:
    """Graph neighbours, additions and removals by a chat model, then their mean."""

    def selector(knowledge: Knowledge) -> EditSelector:
        return EditSelector(
            GraphSelector(knowledge, graphs, exclude_from_screen=exclude_from_screen),
            _chat(llm, ledger, **(chat_settings or {})),
            facts=gene_facts(knowledge),
            resolve=knowledge_resolver(knowledge),
        )

    return NeighbourPredictor(selector, k=k, context_text=context_text, name=name, **settings)
