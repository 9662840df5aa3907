"""`pertwise ask`: neighbour lists of a chat model, for genes and compounds, into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pertwise._process import Interrupted, only_writer
from pertwise.cli.asking import Anonymise, check_answers
from pertwise.cli.groups import Asking, Cells, Facts, Llm, Reading
from pertwise.cli.options import grouped
from pertwise.errors import InputError

if TYPE_CHECKING:
    from pertwise.prediction.asking import Questions
    from pertwise.select.base import Selection
    from pertwise.select.chat.selector import ChatSelector

#: Subjects without a usable answer that are named on the terminal.
SHOWN = 10


@grouped
def ask(
    screen: Annotated[Path, typer.Argument(help="What is measured (h5ad, csv, tsv, parquet).")],
    llm: Llm,
    facts: Facts,
    cells: Cells,
    reading: Reading,
    asking: Asking,
    out: Annotated[Path, typer.Option(help="JSON lines {subject, neighbours, reasons, ...}.")],
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--names",
            "--genes",
            help="Perturbations, comma-separated or repeated; @FILE for one a line.",
        ),
    ] = None,
    measured: Annotated[
        bool,
        typer.Option(
            help="Ask about everything measured too: the method `fused` learns from it how far "
            "to trust the model."
        ),
    ] = True,
    k: Annotated[
        int | None,
        typer.Option(help="Neighbours asked for (default: 5 to 10 for genes, 10 for compounds)."),
    ] = None,
    max_candidates: Annotated[
        int | None,
        typer.Option(help="Show at most this many measured ones (default: all); needs knowledge."),
    ] = None,
    prefilter: Annotated[
        str | None,
        typer.Option(help="Selector in words that ranks them; see `pertwise bench prefilter`."),
    ] = None,
    anonymise: Anonymise = False,
) -> None:
    """Ask a chat model which measured perturbations act like each one (resumable).

    Knock-downs: LangPert's question, in one cell line. Compounds (with --drugs TABLE): LGR's, in
    every cell line or the one of --context. The file is what `pertwise predict --method fused --set
    answers=OUT` reads.
    """
    from pertwise.cli.predict import read_names
    from pertwise.prediction.asking import list_questions, selector_of
    from pertwise.select.chat.similar import estimate_questions

    if prefilter is not None and max_candidates is None:
        raise InputError("--prefilter cuts the list to --max-candidates N: give N")
    if max_candidates is not None and facts.folder is None:
        raise InputError("--max-candidates ranks the list by what is known: give --knowledge DIR")
    facts.refuse("marks are not shown to a model", but=("knowledge", "drugs", "lines"))
    who = llm.name
    asked = list_questions(
        screen,
        read_names(names or []),
        knowledge=facts.open(),
        context=cells.context,
        context_text=cells.context_text,
        measured=measured,
        k=k,
        reading=reading.settings(),
    )
    _tell_questions(asked)
    stored = asking.kept(out.with_suffix(".ledger.sqlite"))
    given = {"max_candidates": max_candidates, "prefilter": prefilter, "prompt": asking.prompt}
    settings = {name: value for name, value in given.items() if value is not None}
    settings |= {"anonymise": True} if anonymise else {}
    with llm.asked("ask", stored) as chat:
        selector = selector_of(asked, chat, k, seed=asking.seed, **settings)
        if asking.dry_run:
            typer.echo(str(estimate_questions(selector, asked.questions, k or asked.most)))
            return
        then = "" if llm.replay else f". The same command goes on from {stored}"
        answers = _asked(selector, asked, k or asked.most, out, then)
    _tell_answers(asked, answers, k or asked.least)
    typer.echo(f"written: {out}")
    check_answers(who, answers)
    typer.echo(f"next: pertwise predict {screen} --names ... --method fused --set answers={out}")


def _asked(
    selector: ChatSelector, asked: Questions, n: int, out: Path, then: str
) -> list[Selection]:
    from pertwise.select.chat.similar import (
        ask_lists,
        neighbour_record,
        partial_path,
        subject_record,
    )

    record = neighbour_record if asked.compounds else subject_record
    try:
        with only_writer(out):
            return ask_lists(selector, asked.questions, n, out, record=record)
    except BaseException as error:
        so_far = partial_path(out)
        held = f"; the answers so far: {so_far}" if so_far.is_file() else ""
        if isinstance(error, Interrupted):
            error.add_note(f"{held}{then}".lstrip("; ."))
        else:
            typer.echo(f"stopped early{held}{then}", err=True)
        raise


def _tell_questions(asked: Questions) -> None:
    for note in asked.notes:
        typer.echo(f"note: {note}")
    n = len(asked.questions)
    typer.echo(
        f"questions: {n} ({asked.n_named} named, {n - asked.n_named} measured), among "
        f"{len(asked.screen.perturbations)} measured in {asked.context or 'unnamed cells'}"
    )


def _tell_answers(asked: Questions, answers: list[Selection], least: int) -> None:
    """How many answers can be used, what was repaired, and who got none."""
    from pertwise.prediction.asking import unusable
    from pertwise.select.chat.similar import total_repairs

    lost = unusable(asked.questions, answers)
    few = sum(0 < len(a.picks) < least for a in answers)
    counts = ", ".join(f"{kind} {n}" for kind, n in total_repairs(answers).items())
    typer.echo(
        f"answers: {len(answers) - len(lost)} of {len(answers)} usable, {few} of them with fewer "
        f"than {least} neighbours; repairs: {counts or 'none'}"
    )
    for subject, repairs in lost[:SHOWN]:
        why = ", ".join(f"{kind} {n}" for kind, n in repairs.items())
        typer.echo(f"no usable answer for {subject}: {why}; written as an empty list")
    if len(lost) > SHOWN:
        typer.echo(f"... and {len(lost) - SHOWN} more without a usable answer")
