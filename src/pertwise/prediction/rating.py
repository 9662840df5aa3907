"""Marks on programs: a chat model is asked, and what it said is written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack, cast

from pertwise.errors import InputError
from pertwise.knowledge.agreement import low_agreement
from pertwise.knowledge.programs import checked_programs
from pertwise.prediction.marking import ToMark, WhatToMark, check_keys, list_marks
from pertwise.prediction.rated import Rated

if TYPE_CHECKING:
    from anndata import AnnData

    from pertwise.llm.base import Chat
    from pertwise.screen import Screen
    from pertwise.select.chat.rate import ChatRater
    from pertwise.select.chat.sheets import Answered


class HowToMark(WhatToMark, total=False):
    """Settings of `rate`: what is marked, and those of `ChatRater`."""

    replicates: int
    reasons: bool
    batch_size: int | None
    max_reasks: int
    prompt: str | os.PathLike[str]
    seed: int
    anonymise: bool
    shuffle_annotations: bool


def rater_of(asked: ToMark, chat: Chat, **settings: Any) -> ChatRater:
    """The chat rater that puts these questions, with facts and aliases of the knowledge.

    Raises
    ------
    pertwise.errors.InputError
        For ``anonymise`` or ``shuffle_annotations`` without knowledge to show instead of names.
    """
    from pertwise.knowledge.annotations import anonymous_facts
    from pertwise.llm.templates import load_prompt
    from pertwise.select.chat.rate import ChatRater
    from pertwise.select.chat.selector import knowledge_resolver

    if "prompt" in settings:
        settings["prompt"] = load_prompt(settings["prompt"])
    known = asked.knowledge
    blind = settings.get("anonymise", False)
    if known is None and (blind or settings.get("shuffle_annotations")):
        raise InputError(
            "without knowledge there are no annotations to show (--knowledge DIR, or --drugs TABLE)"
        )
    given: dict[str, Any] = {}
    if known is not None:
        given["facts"] = partial(anonymous_facts, known) if blind else known.facts
        given["resolve"] = knowledge_resolver(known)
    return ChatRater(chat, kind=asked.kind, species=asked.species, **given, **settings)


def rate_all(
    asked: ToMark,
    rater: ChatRater,
    *,
    min_agreement: float | None = None,
    ask_anew: bool = False,
    on_answer: Callable[[Answered], None] | None = None,
) -> Rated:
    """Ask everything (or read it from the chat's ledger); errors as of `ChatRater.rate`.

    Parameters
    ----------
    ask_anew
        Ask once more about programs on which replicates agree less than `min_agreement`, their
        definition restated; the new marks replace the old ones.
    """
    marked = []
    for context, names in asked.names.items():
        programs = asked.programs_in(context)
        ask = partial(rater.rate, names, context=context, context_text=asked.texts[context])
        found = ask(programs, on_answer=on_answer)
        if ask_anew and min_agreement is not None:
            low = set(low_agreement(found.agreement, min_agreement))
            again = [p for p in checked_programs(programs) if p.name in low]
            if again:
                found = found.with_columns(ask(again, anew=True))
        marked.append(found)
    return Rated(tuple(marked), asked.programs, min_agreement, asked.notes, dict(asked.inputs))


def rate(
    screen: Screen | str | os.PathLike[str] | AnnData | None = None,
    names: Sequence[str] = (),
    *,
    llm: str | Chat,
    min_agreement: float | None = 0.5,
    ask_anew: bool = False,
    ledger: str | os.PathLike[str] | None = None,
    replay: bool = False,
    out: str | os.PathLike[str] | None = None,
    dask: str | None = None,
    **settings: Unpack[HowToMark],
) -> Rated:
    """Ask a chat model what each perturbation does to each program, on a closed scale.

    Parameters
    ----------
    screen, names
        What to mark; see `list_marks`.
    llm
        "MODEL@URL" or an opened chat.
    min_agreement, ask_anew
        Rank correlation between replicates below which a program is left out (None: none is), and
        whether it is asked once more before that, its definition restated.
    ledger, replay
        SQLite file that keeps every exchange, and whether to answer from it alone.
    out
        Also write the table; see `Rated.write`.
    dask
        Address of a running scheduler ("tcp://host:8786") whose workers ask; not for a chat that
        is open already.
    settings
        What is marked (`WhatToMark`) and how (those of `ChatRater`).

    Raises
    ------
    pertwise.errors.InputError
        As `list_marks`.
    pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
        When the endpoint refuses for good, the budget is spent, or the ledger lacks an answer.
    pertwise.errors.MissingDependencyError
        If `dask` is given and dask is not installed.
    """
    from pertwise.llm.client import chat_for
    from pertwise.prediction.rated import check_out

    check_keys(settings, HowToMark)
    if out is not None:
        check_out(out)
    what = {k: v for k, v in settings.items() if k in WhatToMark.__annotations__}
    how = {k: v for k, v in settings.items() if k not in what}
    asked = list_marks(screen, names, **cast("WhatToMark", what))
    chat: contextlib.AbstractContextManager[Chat]
    if isinstance(llm, str):
        chat = chat_for(llm, dask=dask, ledger=ledger, replay=replay, run="rate")
    elif dask is not None:
        raise InputError("an open chat asks by itself: give its address, or open it with `client`")
    else:
        chat = contextlib.nullcontext(llm)
    with chat as opened:
        rater = rater_of(asked, opened, **how)
        rated = rate_all(asked, rater, min_agreement=min_agreement, ask_anew=ask_anew)
    if out is not None:
        rated.write(out)
    return rated
