"""Marks on programs: which perturbations, programs and cells to ask about, and what is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pertwise._names import canonical_perturbation
from pertwise._text import one_line
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.genes.species import species_notes
from pertwise.knowledge.programs import (
    Program,
    checked_programs,
    distinct_keys,
    feature_programs,
    general_programs,
    pathway_programs,
    programs_for,
    read_programs,
)
from pertwise.prediction.asked import unknown_genes
from pertwise.prediction.predicting import screen_of
from pertwise.prediction.rated import Rated
from pertwise.select.chat.similar import cell_line_text

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat
    from pertwise.screen import Screen
    from pertwise.select.chat.rate import Answered, ChatRater, Question

#: The general lists, and what a perturbation of each is called.
KINDS: Mapping[str, str] = {"genes": "knock-down", "drugs": "drug"}
#: Most programs of a question: each costs tokens in every row.
MOST_PROGRAMS = 60


@dataclass(frozen=True)
class ToMark:
    """What will be marked.

    Attributes
    ----------
    names
        context -> perturbations, sorted.
    texts
        context -> what is said of the cells.
    programs
        Of every context; `programs_in` says which are asked in one.
    kind
        What a perturbation is called.
    notes
        What a person must know before paying.
    """

    names: Mapping[str, tuple[str, ...]]
    texts: Mapping[str, str]
    programs: tuple[Program, ...]
    kind: str
    knowledge: Knowledge | None = None
    notes: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def programs_in(self, context: str) -> tuple[Program, ...]:
        """Programs that are asked in a context."""
        return programs_for(self.programs, context)

    def questions(self, rater: ChatRater) -> list[Question]:
        """Every question that a rater would ask."""
        return [
            q
            for context, names in self.names.items()
            for q in rater.questions(
                names,
                self.programs_in(context),
                context=context,
                context_text=self.texts[context],
            )
        ]


def list_marks(
    screen: Screen | str | os.PathLike[str] | None = None,
    names: Sequence[str] = (),
    *,
    programs: Sequence[Program] | str | os.PathLike[str] | None = None,
    features: bool | Sequence[str] = False,
    pathways: Sequence[str] = (),
    knowledge: Knowledge | None = None,
    context: str | None = None,
    context_text: str = "",
    kind: str | None = None,
    reading: Mapping[str, Any] | None = None,
) -> ToMark:
    """Perturbations, programs and cells of a question for marks.

    Parameters
    ----------
    screen
        Its perturbations are marked, in each of its contexts, or in `context`.
    names
        Marked instead of those of the screen. Without both, every compound of the drug table.
    programs
        "genes" or "drugs" (the general lists), a file (`read_programs`) or programs. Default: the
        general list of what most of the names are, unless `features` or `pathways` are given.
    features, pathways
        Also the features of the screen (all, or these), and gene sets of the knowledge folder.
    kind
        What a perturbation is called in the question; default "knock-down" or "drug".

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a context, feature or pathway that does not exist.
    pertwise.errors.InputError
        If there is nothing to mark, or too many programs.
    """
    where = str(screen) if isinstance(screen, str | os.PathLike) else ""
    if isinstance(screen, str | os.PathLike):
        screen = screen_of(screen, context, **dict(reading or {}))
    asked = _names_by_context(screen, names, knowledge, context)
    every = sorted({n for group in asked.values() for n in group})
    drugs = _mostly_drugs(every, knowledge)
    notes = unknown_genes([n for n in dict.fromkeys(names) if n in every], knowledge)
    if knowledge is not None:
        notes += species_notes({"perturbations": every}, knowledge)
    texts = {c: context_text or _facts_of(c, knowledge) for c in asked}
    notes += [_cells_note(c) for c, text in texts.items() if not cell_line_text(c, text)]
    own = _own_programs(screen, features, pathways, knowledge)
    listed = _listed(programs, "drugs" if drugs else "genes", has_own=bool(own))
    more = [p for p in listed if p.name not in {o.name for o in own}]
    whole = checked_programs(distinct_keys([*more, *own]))
    columns = tuple(p for p in whole if any(p in programs_for(whole, c) for c in asked))
    notes += _program_notes(whole, columns, tuple(asked))
    if len(columns) > MOST_PROGRAMS:
        raise InputError(
            f"{len(columns)} programs are too many for one question (at most {MOST_PROGRAMS}): "
            "choose some with --feature NAME or a table of programs"
        )
    inputs = {"screen": where} if where else {}
    if isinstance(programs, str | os.PathLike) and str(programs) not in KINDS:
        inputs["programs"] = os.fspath(programs)
    return ToMark(
        asked,
        texts,
        columns,
        kind or KINDS["drugs" if drugs else "genes"],
        knowledge,
        tuple(notes),
        inputs,
    )


def _names_by_context(
    screen: Screen | None,
    names: Sequence[str],
    knowledge: Knowledge | None,
    context: str | None,
) -> dict[str, tuple[str, ...]]:
    given = tuple(sorted({n for n in (one_line(canonical_perturbation(x)) for x in names) if n}))
    if screen is None:
        if not given and knowledge is not None and knowledge.drugs is not None:
            given = tuple(sorted(knowledge.drugs.cards))
        if not given:
            raise InputError("nothing to mark: give a screen, --names MYC,SMG5 or --drugs TABLE")
        return {context or "": given}
    contexts = screen.contexts
    if context is not None:
        if context not in contexts:
            raise unknown_name("context", context, contexts)
        contexts = (context,)
    found = {c: given or tuple(sorted(screen.in_context(c).perturbations)) for c in contexts}
    if not any(found.values()):
        raise InputError("the screen holds no perturbation to mark")
    return {c: group for c, group in found.items() if group}


def _mostly_drugs(names: Sequence[str], knowledge: Knowledge | None) -> bool:
    if knowledge is None or knowledge.drugs is None:
        return False
    kinds = list(knowledge.kinds(names).values())
    return 2 * kinds.count("compound") > len(kinds)


def _facts_of(context: str, knowledge: Knowledge | None) -> str:
    return "" if knowledge is None else knowledge.context_facts(context)


def _cells_note(context: str) -> str:
    if not context:
        return "nothing names the cells, so the question does not: give --context"
    return f"the question says no more of the cells than {context!r}: give --context-text"


def _program_notes(
    whole: Sequence[Program], columns: Sequence[Program], contexts: Sequence[str]
) -> list[str]:
    notes = []
    open_ones = [p.name for p in columns if p.signed and not p.plus]
    if open_ones:
        shown = ", ".join(open_ones[:3]) + (" ..." if len(open_ones) > 3 else "")
        notes.append(
            f"{len(open_ones)} programs have no marker genes ({shown}), so that what + means is "
            "left open: name genes in a table of programs (--template writes one; --programs FILE)"
        )
    lineages = {c for p in whole for c in p.contexts}
    bare = [c for c in contexts if c and not any(p.contexts for p in programs_for(whole, c))]
    if lineages and bare:
        notes.append(
            f"no program of its lineage is known for {', '.join(bare[:5])} (there is one for "
            f"{', '.join(sorted(lineages))}): add one by --programs FILE"
        )
    return notes


def _own_programs(
    screen: Screen | None,
    features: bool | Sequence[str],
    pathways: Sequence[str],
    knowledge: Knowledge | None,
) -> list[Program]:
    """Programs of the screen's features and of gene sets."""
    found: list[Program] = []
    if features:
        if screen is None:
            raise InputError("features are those of a screen: give one")
        chosen = screen if features is True else screen.of_features(list(features))
        if chosen.n_features > MOST_PROGRAMS:
            raise InputError(
                f"the screen has {chosen.n_features} features, and at most {MOST_PROGRAMS} fit a "
                "question: choose some with --feature NAME"
            )
        found += feature_programs(chosen.features, chosen.feature_table)
    if pathways:
        if knowledge is None:
            raise InputError("pathways are those of a knowledge folder: give --knowledge DIR")
        found += pathway_programs(knowledge, pathways)
    return found


def _listed(
    programs: Sequence[Program] | str | os.PathLike[str] | None, usual: str, *, has_own: bool
) -> Sequence[Program]:
    if programs is None:
        return () if has_own else general_programs(usual)
    if isinstance(programs, str) and programs in KINDS:
        return general_programs(programs)
    if isinstance(programs, str | os.PathLike):
        return read_programs(programs)
    return programs


def rater_of(asked: ToMark, chat: Chat, **settings: Any) -> ChatRater:
    """The chat rater that puts these questions, with facts and aliases of the knowledge."""
    from pertwise.llm.templates import load_prompt
    from pertwise.select.chat.rate import ChatRater
    from pertwise.select.chat.selector import knowledge_resolver

    if "prompt" in settings:
        settings["prompt"] = load_prompt(settings["prompt"])
    known = asked.knowledge
    return ChatRater(
        chat,
        kind=asked.kind,
        facts=None if known is None else known.facts,
        resolve=None if known is None else knowledge_resolver(known),
        **settings,
    )


def rate_all(
    asked: ToMark,
    rater: ChatRater,
    *,
    min_agreement: float | None = None,
    on_answer: Callable[[Answered], None] | None = None,
) -> Rated:
    """Ask everything (or read it from the chat's ledger); errors as of `ChatRater.rate`."""
    marked = [
        rater.rate(
            names,
            asked.programs_in(context),
            context=context,
            context_text=asked.texts[context],
            on_answer=on_answer,
        )
        for context, names in asked.names.items()
    ]
    return Rated(tuple(marked), asked.programs, min_agreement, asked.notes, dict(asked.inputs))


def rate(
    screen: Screen | str | os.PathLike[str] | None = None,
    names: Sequence[str] = (),
    *,
    llm: str | Chat,
    programs: Sequence[Program] | str | os.PathLike[str] | None = None,
    features: bool | Sequence[str] = False,
    pathways: Sequence[str] = (),
    knowledge: Knowledge | None = None,
    context: str | None = None,
    context_text: str = "",
    kind: str | None = None,
    replicates: int = 1,
    min_agreement: float | None = 0.5,
    ledger: str | os.PathLike[str] | None = None,
    replay: bool = False,
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Rated:
    """Ask a chat model what each perturbation does to each program, on a closed scale.

    Parameters
    ----------
    screen, names, programs, features, pathways, knowledge, context, context_text, kind
        What to mark; see `list_marks`.
    llm
        "MODEL@URL" or an opened chat.
    replicates, min_agreement
        Times that everything is asked, and the rank correlation between them below which a program
        is left out (None: none is).
    ledger, replay
        SQLite file that keeps every exchange, and whether to answer from it alone.
    out
        Also write the table; see `Rated.write`.
    settings
        Of `ChatRater`: reasons, batch_size, max_reasks, prompt, seed.

    Raises
    ------
    pertwise.errors.InputError
        As `list_marks`.
    pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
        When the endpoint refuses for good, the budget is spent, or the ledger lacks an answer.
    """
    from pertwise.llm import open_chat
    from pertwise.prediction.rated import check_out

    if out is not None:
        check_out(out)
    asked = list_marks(
        screen, names, programs=programs, features=features, pathways=pathways,
        knowledge=knowledge, context=context, context_text=context_text, kind=kind,
    )  # fmt: skip
    own = open_chat(llm, ledger=ledger, replay=replay, run="rate") if isinstance(llm, str) else None
    try:
        rater = rater_of(asked, own or cast("Chat", llm), replicates=replicates, **settings)
        rated = rate_all(asked, rater, min_agreement=min_agreement)
    finally:
        if own is not None:
            own.shutdown()
    if out is not None:
        rated.write(out)
    return rated
