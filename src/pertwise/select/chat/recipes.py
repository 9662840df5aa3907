"""The chat selectors of `pertwise.select.words`, with facts and aliases of the knowledge folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pertwise.errors import InputError
from pertwise.knowledge.annotations import anonymous_facts
from pertwise.knowledge.genes.species import species_told
from pertwise.llm import load_prompt, open_chat
from pertwise.parts import part
from pertwise.select.base import Selector
from pertwise.select.chat.edit import EditSelector
from pertwise.select.chat.selector import ChatSelector, knowledge_resolver
from pertwise.select.chat.similar import langpert_selector, lgr_selector
from pertwise.select.graph import GraphSelector
from pertwise.select.words import selector_from

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat
    from pertwise.screen import Screen

#: What ranks the measured list where it is too long to show (`pertwise bench prefilter` says
#: how much of what matters it keeps).
PREFILTER = "embedding:text+graph"


@part(
    needs="chat",
    words="prefilter",
    argument="llm",
    source="Märtens et al. 2025 (LangPert)",
)
def langpert(
    screen: Screen,
    knowledge: Knowledge | None = None,
    *,
    llm: str | Chat | None = None,
    k: int | None = None,
    ledger: str | os.PathLike[str] | None = None,
    chat_settings: dict[str, Any] | None = None,
    max_candidates: int | None = None,
    prefilter: str = PREFILTER,
    prompt: str | os.PathLike[str] = "langpert",
    anonymise: bool = False,
    seed: int = 0,
) -> ChatSelector:
    """A chat model names measured knock-downs that act alike, with gene facts and aliases shown."""
    return langpert_selector(
        _chat(llm, ledger, **(chat_settings or {})),
        k=k,
        facts=_facts(knowledge, anonymise),
        resolve=None if knowledge is None else knowledge_resolver(knowledge),
        max_candidates=max_candidates,
        prefilter=_prefilter(prefilter, max_candidates, knowledge, screen),
        prompt=prompt,
        anonymise=anonymise,
        seed=seed,
        species=species_told(knowledge, screen.perturbations, screen.features),
    )


@part(needs="chat", words="prefilter", argument="llm", source="Tahoe-100M retrieval (LGR)")
def lgr(
    screen: Screen,
    knowledge: Knowledge | None = None,
    *,
    llm: str | Chat | None = None,
    k: int = 10,
    ledger: str | os.PathLike[str] | None = None,
    chat_settings: dict[str, Any] | None = None,
    max_candidates: int | None = None,
    prefilter: str = PREFILTER,
    prompt: str | os.PathLike[str] = "lgr",
    anonymise: bool = False,
    seed: int = 0,
) -> ChatSelector:
    """A chat model names the measured compounds that act alike in one line, with facts shown."""
    return lgr_selector(
        _chat(llm, ledger, **(chat_settings or {})),
        k=k,
        facts=_facts(knowledge, anonymise),
        resolve=None if knowledge is None else knowledge.canonical,
        max_candidates=max_candidates,
        prefilter=_prefilter(prefilter, max_candidates, knowledge, screen),
        prompt=prompt,
        anonymise=anonymise,
        seed=seed,
        species=species_told(knowledge, screen.features),
    )


@part(needs=("knowledge", "chat"), words="prefilter", argument="graphs*")
def edit(
    screen: Screen,
    knowledge: Knowledge,
    graphs: Sequence[str] | str = ("string",),
    *,
    weighted: bool = True,
    exclude_from_screen: bool = True,
    rewire_seed: int | None = None,
    max_neighbours: int = 20,
    llm: str | Chat | None = None,
    ledger: str | os.PathLike[str] | None = None,
    chat_settings: dict[str, Any] | None = None,
    max_candidates: int | None = None,
    prefilter: str = PREFILTER,
    max_edits: int = 5,
    prompt: str | os.PathLike[str] = "edit",
    seed: int = 0,
) -> EditSelector:
    """Graph neighbours, corrected by a chat model."""
    base = GraphSelector(
        knowledge,
        graphs,
        weighted=weighted,
        exclude_from_screen=exclude_from_screen,
        rewire_seed=rewire_seed,
        max_neighbours=max_neighbours,
    )
    return EditSelector(
        base,
        _chat(llm, ledger, **(chat_settings or {})),
        load_prompt(prompt),
        max_edits=max_edits,
        facts=knowledge.facts,
        resolve=knowledge_resolver(knowledge),
        max_candidates=max_candidates,
        prefilter=_prefilter(prefilter, max_candidates, knowledge, screen),
        seed=seed,
    )


def _facts(knowledge: Knowledge | None, anonymise: bool) -> Callable[[str], str] | None:
    """What a question says of a name; without names, only what does not give it away."""
    if knowledge is None:
        if anonymise:
            raise InputError(
                "without names there are only annotations to go by, and no knowledge was given "
                "(--knowledge DIR, or --drugs TABLE)"
            )
        return None
    return partial(anonymous_facts, knowledge) if anonymise else knowledge.facts


def _chat(llm: str | Chat | None, ledger: str | os.PathLike[str] | None, **settings: Any) -> Chat:
    if llm is None:
        raise InputError("this method asks a chat model: give llm='MODEL@URL' (--llm)")
    return open_chat(llm, ledger=ledger, **settings) if isinstance(llm, str) else llm


def _prefilter(
    words: str,
    max_candidates: int | None,
    knowledge: Knowledge | None,
    screen: Screen,
) -> Selector | None:
    if max_candidates is None:
        return None
    if knowledge is None:
        raise InputError("max_candidates needs a knowledge folder to prefilter by")
    return selector_from(words, max_neighbours=max_candidates)(knowledge, screen)
