"""`pertwise train ...`: tasks, and what a tuned judge is worth."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from pertwise.cli.groups import Facts, Reading
from pertwise.cli.options import grouped

app = typer.Typer(
    help="Tune a judge by reward: tasks, evaluation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
@grouped
def tasks(
    screen: Annotated[list[Path], typer.Argument(help="Screens, one or several cell lines.")],
    facts: Facts,
    reading: Reading,
    out: Annotated[Path, typer.Option(help="JSON lines, one task a line.")],
    kind: Annotated[
        list[str] | None, typer.Option(help="edit (default), pick, rate, acquire; repeat.")
    ] = None,
    split: Annotated[str, typer.Option(help="What is held out: gene, family, line, drug.")] = (
        "gene"
    ),
    fold: Annotated[int, typer.Option(help="Which fold, from 0.")] = 0,
    folds: Annotated[int, typer.Option(help="Folds.")] = 5,
    folds_from: Annotated[
        Path | None, typer.Option(help="Take the folds of a file of recorded answers.")
    ] = None,
    near: Annotated[
        float,
        typer.Option(
            help="STRING weight that makes a neighbourhood: measured perturbations that near to a "
            "held-out one are named in no training prompt either; above 1: they are."
        ),
    ] = 0.9,
    base: Annotated[str, typer.Option(help="Selector in words whose neighbours are edited.")] = "",
    k: Annotated[int, typer.Option(help="Most neighbours shown.")] = 20,
    max_edits: Annotated[int, typer.Option(help="Most additions, and most removals.")] = 5,
    max_candidates: Annotated[
        int | None, typer.Option(help="Show at most this many to add or pick; all by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of folds and orders.")] = 0,
) -> None:
    """Write training and test tasks; no training prompt names what is held out."""
    from pertwise.screen import read_screen
    from pertwise.train.making import Making, make_tasks
    from pertwise.train.tasks import write_tasks

    screens = [read_screen(path, **reading.settings()) for path in screen]
    made = make_tasks(
        screens,
        facts.open(),
        kind or ["edit"],
        split=split,
        fold=fold,
        n_folds=folds,
        seed=seed,
        folds_from=folds_from,
        near=near,
        how=Making(base=base, k=k, max_edits=max_edits, max_candidates=max_candidates),
    )
    write_tasks(out, made)
    counts = Counter((t.kind, t.context, t.split) for t in made)
    for (what, context, side), n in sorted(counts.items()):
        typer.echo(f"{what}, {context or 'unnamed cells'}, {side}: {n}")
    typer.echo(f"written: {out} ({len(made)} tasks, {out.stat().st_size / 1e6:.1f} MB)")
