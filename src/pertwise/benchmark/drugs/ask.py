"""Ask a chat model for the neighbours of every drug in every line (LGR), once, into a file."""

from __future__ import annotations

from collections.abc import Sequence

from pertwise.benchmark.drugs.run import Bench
from pertwise.errors import InputError, unknown_name
from pertwise.kernels.known import kernel
from pertwise.llm.base import Chat
from pertwise.select.base import Query
from pertwise.select.chat.selector import ChatSelector
from pertwise.select.chat.similar import Question, lgr_selector
from pertwise.select.kernel import KernelSelector


def lgr_questions(bench: Bench, lines: Sequence[str] = ()) -> list[Question]:
    """One question a (drug, line): the pool is what was measured in the line, minus the query.

    Other names of the query's compound are left out of its pool, so that lists made once can be
    used in every regime without a leak.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a line that was not measured.
    """
    screen = bench.screen
    for line in lines:
        if line not in screen.contexts:
            raise unknown_name("cell line", line, screen.contexts)
    compounds = bench.table.compounds(screen.perturbations)
    questions: list[Question] = []
    for line in lines or screen.contexts:
        pool = screen.in_context(line).perturbations
        for drug in pool:
            others = tuple(d for d in pool if compounds[d] != compounds[drug])
            if others:
                text = bench.knowledge.context_facts(line)
                questions.append((Query(drug, line, text), others))
    if not questions:
        raise InputError("no line has two drugs: there is nothing to ask")
    return questions


def bench_selector(bench: Bench, chat: Chat, *, k: int, fallback: bool = False) -> ChatSelector:
    """The LGR selector with this bench's names and facts; chemistry as fallback when asked."""
    known = bench.knowledge
    return lgr_selector(
        chat,
        k=k,
        facts=known.facts,
        resolve=known.canonical,
        fallback=KernelSelector(kernel(known, "chemistry")) if fallback else None,
    )
