"""Ask a chat model LangPert's question about named and measured perturbations, into a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pertwise.errors import InputError
from pertwise.evaluate.predicting import one_context_of, screen_of, unknown_genes
from pertwise.knowledge.species import species_note
from pertwise.screen.core import COMBINATION, canonical_perturbation, genes_of
from pertwise.select.base import Query, Selection
from pertwise.select.similar_chat import Question, cell_line_text

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Neighbours that LangPert asks for at least, where their number is left to the model.
LEAST = 5


@dataclass(frozen=True)
class LangPertQuestions:
    """What will be asked.

    Attributes
    ----------
    screen
        The measured rows of one context.
    questions
        One a gene: those named first, in their order, then the measured ones by name. Candidates
        are the measured perturbations without the gene itself.
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

    @property
    def context(self) -> str:
        """The cells that are asked about; "" where nothing names them."""
        return self.screen.contexts[0]


def langpert_questions(
    screen: Screen | str | os.PathLike[str],
    genes: Sequence[str],
    *,
    knowledge: Knowledge | str | os.PathLike[str] | None = None,
    context: str | None = None,
    context_text: str = "",
    measured: bool = True,
    k: int | None = None,
) -> LangPertQuestions:
    """Which of the measured knock-downs are most like this one? One question a gene.

    The question is about the loss of one gene, so combinations (asked or measured) are asked gene
    by gene, which is how `fused` looks them up; measured combinations stay candidates.

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
    if isinstance(screen, str | os.PathLike):
        where = str(screen)
        screen = screen_of(screen, context)
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
        if COMBINATION in name
    ]
    notes += [f"{g} is measured: it is asked as if it were not" for g in named if g in set(rows)]
    notes += unknown_genes(named, knowledge)
    if foreign := species_note(rows):
        notes.append(f"measured perturbations: {foreign}")
    subjects = list(dict.fromkeys([*named, *(genes_of(rows) if measured else ())]))
    if not subjects:
        raise InputError("no gene to ask about: give --genes MYC,SMG5, or leave out --no-measured")
    cells = whole.contexts[0]
    if not cells:
        notes.append("the screen does not name its cells, so the question does not: give --context")
    elif not cell_line_text(cells, context_text):
        notes.append(f"the question says no more of the cells than {cells!r}: give --context-text")
    questions: tuple[Question, ...] = tuple(
        (Query(gene, cells or None, context_text), tuple(r for r in rows if r != gene))
        for gene in subjects
    )
    return LangPertQuestions(whole, knowledge, questions, len(named), tuple(notes))


def unusable(
    questions: Sequence[Question], answers: Sequence[Selection]
) -> list[tuple[str, dict[str, int]]]:
    """(subject, repairs by kind) of every question that was answered with no usable neighbour."""
    return [
        (str(query.subject), answer.repair_counts())
        for (query, _), answer in zip(questions, answers, strict=True)
        if not answer.picks
    ]
