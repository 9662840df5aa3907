"""Which measured perturbations act alike? Questions to a chat model, for genes and compounds."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from pertwise._names import canonical_perturbation, genes_of, is_combination, with_parts_of
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.genes.species import same_species
from pertwise.prediction.asked import unknown_genes
from pertwise.prediction.predicting import one_context_of, screen_of
from pertwise.screen.core import Screen
from pertwise.select.base import Query, Selection
from pertwise.select.chat.similar import Question, cell_line_text

if TYPE_CHECKING:
    from anndata import AnnData

    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat
    from pertwise.select.chat.selector import ChatSelector

#: Neighbours that LangPert asks for at least, where their number is left to the model.
LEAST = 5
#: Neighbours asked for where their number is left open: LGR's question has a fixed number.
LEAST_COMPOUNDS = 10


@dataclass(frozen=True)
class Questions:
    """What will be asked.

    Attributes
    ----------
    screen
        The measured rows: of one context for genes, of the contexts asked about for compounds.
    questions
        One a gene, or one a compound and context: those named first, in their order, then the
        measured ones by name. Candidates are what was measured there, without the subject itself.
    n_named
        How many of the questions were asked for by name.
    notes
        What a person must know before paying: measured, unknown and combined genes.
    """

    screen: Screen
    knowledge: Knowledge | None
    questions: tuple[Question, ...]
    n_named: int
    notes: tuple[str, ...]
    compounds: bool = False

    @property
    def context(self) -> str:
        """The cells that are asked about; "" where nothing names them."""
        return ", ".join(self.screen.contexts)

    @property
    def most(self) -> int:
        """Neighbours that are kept, where their number is left open."""
        return 10

    @property
    def least(self) -> int:
        """Neighbours that a question asks for at least, where their number is left open."""
        return LEAST_COMPOUNDS if self.compounds else LEAST


def list_questions(
    screen: Screen | str | os.PathLike[str] | AnnData,
    names: Sequence[str] = (),
    *,
    knowledge: Knowledge | None = None,
    context: str | None = None,
    context_text: str = "",
    measured: bool = True,
    k: int | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Questions:
    """The questions about a screen: `compound_questions` where most of what it measures is known
    as compounds, else `langpert_questions`; see there.
    """
    from pertwise.screen import read_screen

    if knowledge is not None and knowledge.drugs is not None:
        if not isinstance(screen, Screen):
            screen = read_screen(screen, **dict(reading or {}))
        if knowledge.mostly_compounds(screen.perturbations):
            return compound_questions(
                screen, names, knowledge=knowledge, context=context, context_text=context_text,
                measured=measured, k=k,
            )  # fmt: skip
    return langpert_questions(
        screen, names, knowledge=knowledge, context=context, context_text=context_text,
        measured=measured, k=k, reading=reading,
    )  # fmt: skip


def compound_questions(
    screen: Screen,
    names: Sequence[str] = (),
    *,
    knowledge: Knowledge,
    context: str | None = None,
    context_text: str = "",
    measured: bool = True,
    k: int | None = None,
) -> Questions:
    """Which compounds measured in this line act like this one there? One question a pair (LGR).

    Other names of the subject's compound are left out of its list, so that lists made once can be
    used in every split without a leak.

    Parameters
    ----------
    names
        Compounds to be predicted, in any spelling that the drug table knows.
    context
        Only this line; None = every line of the screen.
    measured
        Ask about every measured compound too.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a line that was not measured, or a name that is no known compound.
    pertwise.errors.InputError
        If there is nothing to ask.
    """
    if k is not None and k < 1:
        raise InputError(f"k is the number of neighbours to ask for, at least 1; got {k}")
    whole = screen.only_measured()
    if context is not None:
        if context not in whole.contexts:
            raise unknown_name("cell line", context, whole.contexts)
        whole = whole.in_context(context)
    asked = list(dict.fromkeys(canonical_perturbation(n) for n in names))
    found = knowledge.canonical(asked)
    lost = [n for n in asked if n not in found and n not in whole.perturbations]
    if lost:
        drugs = () if knowledge.drugs is None else tuple(knowledge.drugs.cards)
        raise unknown_name("compound", lost[0], drugs, "(give its facts with --drugs TABLE)")
    named = [found.get(n, n) for n in asked]
    same = knowledge.identity([*whole.perturbations, *named])
    questions: list[Question] = []
    n_named = 0
    for line in whole.contexts:
        pool = whole.in_context(line).perturbations
        text = context_text or knowledge.context_facts(line)
        subjects = list(dict.fromkeys([*named, *(pool if measured else ())]))
        for subject in subjects:
            others = tuple(d for d in pool if same[d] != same[subject])
            if others:
                questions.append((Query(subject, line, text), others))
                n_named += subject in named
    if not questions:
        raise InputError("no line has two compounds to compare: there is nothing to ask")
    taken = {same[d] for d in whole.perturbations}
    notes = [f"{n} is measured: it is asked as if it were not" for n in named if same[n] in taken]
    return Questions(whole, knowledge, tuple(questions), n_named, tuple(notes), compounds=True)


def langpert_questions(
    screen: Screen | str | os.PathLike[str] | AnnData,
    genes: Sequence[str],
    *,
    knowledge: Knowledge | str | os.PathLike[str] | None = None,
    context: str | None = None,
    context_text: str = "",
    measured: bool = True,
    k: int | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Questions:
    """Which of the measured knock-downs are most like this one? One question a gene.

    The question is about the loss of one gene, so combinations (asked or measured) are asked gene
    by gene, which is how `fused` looks them up; measured combinations of others are candidates.

    Parameters
    ----------
    genes
        Perturbations to be predicted.
    measured
        Ask about every measured gene too: `fused` learns from them how far to trust the answers.
    k
        Fixed number of neighbours; None = `LEAST` or more.

    Raises
    ------
    pertwise.errors.InputError
        If there is nothing to ask, fewer perturbations are measured than one may choose from, or
        the screen holds several contexts and none was chosen.
    """
    from pertwise.knowledge import Knowledge

    if k is not None and k < 1:
        raise InputError(f"k is the number of neighbours to ask for, at least 1; got {k}")
    where = "the screen"
    if not isinstance(screen, Screen):
        where = str(screen)
        screen = screen_of(screen, context, **dict(reading or {}))
    whole = one_context_of(screen, context)
    if knowledge is not None and not isinstance(knowledge, Knowledge):
        knowledge = Knowledge.open(knowledge)
    rows = sorted(whole.perturbations)
    least = k or LEAST
    if len(rows) <= least:
        raise InputError(
            f"{where} measures {len(rows)} perturbations; LangPert asks for at least {least} of "
            f"the others, so {least + 1} or more must be measured"
        )
    asked = list(dict.fromkeys(n for n in map(canonical_perturbation, genes) if n))
    named = genes_of(asked)
    notes = [
        f"{name} is a combination: its genes are asked one by one"
        for name in asked
        if is_combination(name)
    ]
    measured_rows = set(rows)
    notes += [
        f"{g} is measured: it is asked as if it were not" for g in named if g in measured_rows
    ]
    notes += unknown_genes(named, knowledge)
    if knowledge is not None:
        notes += same_species("measured", rows, knowledge)
    subjects = list(dict.fromkeys([*named, *(genes_of(rows) if measured else ())]))
    if not subjects:
        raise InputError("no gene to ask about: give --genes MYC,SMG5, or leave out --no-measured")
    cells = whole.contexts[0]
    if not cells:
        notes.append("the screen does not name its cells, so the question does not: give --context")
    elif not cell_line_text(cells, context_text):
        notes.append(f"the question says no more of the cells than {cells!r}: give --context-text")
    questions: tuple[Question, ...] = tuple(
        (Query(gene, cells or None, context_text), _others(rows, gene)) for gene in subjects
    )
    return Questions(whole, knowledge, questions, len(named), tuple(notes))


def _others(rows: Sequence[str], gene: str) -> tuple[str, ...]:
    """Measured rows to choose from: neither the gene itself nor a combination with it."""
    gone = {gene} | with_parts_of(rows, [gene])
    return tuple(r for r in rows if r not in gone)


def unusable(
    questions: Sequence[Question], answers: Sequence[Selection]
) -> list[tuple[str, dict[str, int]]]:
    """(subject, repairs by kind) of every question that was answered with no usable neighbour."""
    return [
        (str(query.subject), answer.repair_counts())
        for (query, _), answer in zip(questions, answers, strict=True)
        if not answer.picks
    ]


def selector_of(asked: Questions, chat: Chat, k: int | None, **settings: Any) -> ChatSelector:
    """The chat selector that puts these questions: LangPert's for genes, LGR's for compounds."""
    from pertwise.select.chat.recipes import langpert, lgr

    make = lgr if asked.compounds else langpert
    if k is not None:
        settings["k"] = k
    return make(asked.screen, asked.knowledge, llm=chat, **settings)


def ask(
    screen: Screen | str | os.PathLike[str] | AnnData,
    names: Sequence[str] = (),
    *,
    llm: str | Chat,
    knowledge: Knowledge | None = None,
    context: str | None = None,
    context_text: str = "",
    measured: bool = False,
    k: int | None = None,
    ledger: str | os.PathLike[str] | None = None,
    replay: bool = False,
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Ask a chat model which measured perturbations act like each of `names`.

    Parameters
    ----------
    llm
        "MODEL@URL" or an opened chat.
    ledger, replay
        SQLite file that keeps every exchange, and whether to answer from it alone.
    out
        Also write the answers as JSON lines, which `fused` reads as its ``answers``.
    settings
        Of the selector: max_candidates, prefilter, prompt, anonymise, seed.

    Returns
    -------
    One row a neighbour, best first: subject, context, neighbour, rank, reason. A subject without a
    usable answer has one row with an empty neighbour and the problem as its reason.

    Raises
    ------
    pertwise.errors.InputError
        As `list_questions`.
    pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
        When the endpoint refuses for good, the budget is spent, or the ledger lacks an answer.
    """
    from pertwise.llm import open_chat
    from pertwise.select.chat.similar import (
        neighbour_record,
        subject_record,
        write_neighbours,
    )

    asked = list_questions(
        screen, names, knowledge=knowledge, context=context, context_text=context_text,
        measured=measured, k=k,
    )  # fmt: skip
    own = open_chat(llm, ledger=ledger, replay=replay, run="ask") if isinstance(llm, str) else None
    try:
        selector = selector_of(asked, own or cast("Chat", llm), k, **settings)
        answers = selector.select_many(list(asked.questions), k or asked.most)
    finally:
        if own is not None:
            own.shutdown()
    pairs = [(query, a) for (query, _), a in zip(asked.questions, answers, strict=True)]
    if out is not None:
        write_neighbours(out, pairs, neighbour_record if asked.compounds else subject_record)
    return _answer_table(pairs)


def _answer_table(pairs: Sequence[tuple[Query, Selection]]) -> pd.DataFrame:
    rows = []
    for query, answer in pairs:
        where = (query.subject, query.context or "")
        rows += [(*where, p.item, rank, p.reason) for rank, p in enumerate(answer.picks, start=1)]
        if not answer.picks:
            problem = "; ".join(f"{r.kind}: {r.action}" for r in answer.repairs)
            rows.append((*where, "", 0, problem or "no usable answer"))
    return pd.DataFrame(rows, columns=["subject", "context", "neighbour", "rank", "reason"])
