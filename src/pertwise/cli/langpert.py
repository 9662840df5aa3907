"""`pertwise langpert`: neighbour lists of a chat model for knock-downs, into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pertwise._process import Interrupted, only_writer
from pertwise.cli.asking import (
    BudgetTokens,
    BudgetUsd,
    Concurrency,
    Timeout,
    check_answers,
    limits,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pertwise.select.base import Selection
    from pertwise.select.chat.similar import Question

#: Genes without a usable answer that are named on the terminal.
SHOWN = 10


def langpert(
    screen: Annotated[Path, typer.Argument(help="What is measured (h5ad, csv, tsv, parquet).")],
    llm: Annotated[
        str,
        typer.Option(
            metavar="MODEL@URL",
            help="Chat endpoint (or openai:MODEL, anthropic:MODEL, ollama:MODEL); keys come from "
            "the environment.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="JSON lines {subject, neighbours, reasons, ...}.")],
    genes: Annotated[
        list[str] | None,
        typer.Option(help="Genes, comma-separated or repeated; @FILE for one a line."),
    ] = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(help="Knowledge folder: facts on the gene asked about, aliases."),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Cell line or type.")] = None,
    context_text: Annotated[str, typer.Option(help="Free text about the cells.")] = "",
    measured: Annotated[
        bool,
        typer.Option(
            help="Ask about every measured perturbation too: the method `fused` learns from them "
            "how far to trust the model."
        ),
    ] = True,
    k: Annotated[
        int | None, typer.Option(help="Neighbours asked for (default: 5 to 10, as the model sees).")
    ] = None,
    max_candidates: Annotated[
        int | None,
        typer.Option(help="Show at most this many measured ones (default: all); needs knowledge."),
    ] = None,
    prefilter: Annotated[
        str | None,
        typer.Option(help="Selector in words that ranks them; see `pertwise bench prefilter`."),
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(help="Template of your own; start from `pertwise llm prompt langpert`."),
    ] = "langpert",
    seed: Annotated[int, typer.Option(help="Of the order in which candidates are shown.")] = 0,
    ledger: Annotated[
        Path | None, typer.Option(help="SQLite ledger (default: beside OUT).")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Answer from the ledger only, never call out.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost; ask nothing.")
    ] = False,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    timeout: Timeout = None,
    concurrency: Concurrency = None,
) -> None:
    """Ask a chat model which measured knock-downs act like each gene (resumable).

    The file is what `pertwise predict --method fused --set answers=OUT` reads.
    """
    from pertwise.cli.predict import read_names
    from pertwise.errors import InputError
    from pertwise.llm import open_chat
    from pertwise.prediction.asking import LEAST, langpert_questions
    from pertwise.select.chat.recipes import PREFILTER
    from pertwise.select.chat.recipes import langpert as langpert_selector
    from pertwise.select.chat.similar import (
        ask_lists,
        estimate_questions,
        partial_path,
        subject_record,
    )

    if prefilter is not None and max_candidates is None:
        raise InputError("--prefilter cuts the list to --max-candidates N: give N")
    if max_candidates is not None and knowledge is None:
        raise InputError("--max-candidates ranks the list by what is known: give --knowledge DIR")
    asked = langpert_questions(
        screen,
        read_names(genes or []),
        knowledge=knowledge,
        context=context,
        context_text=context_text,
        measured=measured,
        k=k,
    )
    for note in asked.notes:
        typer.echo(f"note: {note}")
    n = len(asked.questions)
    typer.echo(
        f"questions: {n} ({asked.n_named} named, {n - asked.n_named} measured), among "
        f"{len(asked.screen.perturbations)} measured in {asked.context or 'unnamed cells'}"
    )
    stored = None if dry_run else ledger or out.with_suffix(".ledger.sqlite")
    chat = open_chat(
        llm,
        ledger=stored,
        replay=replay,
        run="langpert",
        **limits(budget_tokens, budget_usd, timeout, concurrency),
    )
    try:
        selector = langpert_selector(
            asked.screen,
            asked.knowledge,
            llm=chat,
            k=k,
            max_candidates=max_candidates,
            prefilter=prefilter or PREFILTER,
            prompt=prompt,
            seed=seed,
        )
        if dry_run:
            typer.echo(str(estimate_questions(selector, asked.questions, k or 10)))
            return
        try:
            with only_writer(out):
                answers = ask_lists(selector, asked.questions, k or 10, out, record=subject_record)
        except BaseException as error:
            so_far = partial_path(out)
            held = f"; the answers so far: {so_far}" if so_far.is_file() else ""
            then = "" if replay else f". The same command goes on from {stored}"
            if isinstance(error, Interrupted):
                error.add_note(f"{held}{then}".lstrip("; ."))
            else:
                typer.echo(f"stopped early{held}{then}", err=True)
            raise
    finally:
        chat.shutdown()
    _tell(asked.questions, answers, k or LEAST)
    typer.echo(f"written: {out}")
    check_answers(llm, answers)
    typer.echo(f"next: pertwise predict {screen} --genes ... --method fused --set answers={out}")


def _tell(questions: Sequence[Question], answers: Sequence[Selection], least: int) -> None:
    """How many answers can be used, what was repaired, and who got none."""
    from pertwise.prediction.asking import unusable
    from pertwise.select.chat.similar import total_repairs

    lost = unusable(questions, answers)
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
