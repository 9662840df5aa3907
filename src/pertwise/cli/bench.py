"""`pertwise bench ...`: how good is it?"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from pertwise.benchmark.perturbqa import Scorer
    from pertwise.knowledge import Knowledge
    from pertwise.models.methods import Method

app = typer.Typer(
    help="Benchmarks: prediction, PerturbQA.", no_args_is_help=True, pretty_exceptions_enable=False
)


def show_table(table: pd.DataFrame, title: str, digits: int = 3) -> None:
    """Print a data frame as a table on standard output."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left")
    numeric = {c: str(table[c].dtype).startswith(("float", "int")) for c in table.columns}
    for column in table.columns:
        right = numeric[column]
        shown.add_column(str(column), justify="right" if right else "left", no_wrap=right)
    for row in table.itertuples(index=False):
        shown.add_row(*(f"{v:.{digits}f}" if isinstance(v, float) else str(v) for v in row))
    # A pipe or file has no width of its own; 80 columns would cut most tables.
    Console(width=None if sys.stdout.isatty() else 160).print(shown)


def _label_scorer(method: Method, knowledge: Knowledge | None, line: str, task: str) -> Scorer:
    from pertwise.benchmark.perturbqa import predictor_scorer

    return predictor_scorer(method.build, task, knowledge, context=line)


def _vote_scorer(knowledge: Knowledge, kind: str, line: str, task: str) -> Scorer:
    from pertwise.benchmark.perturbqa import selector_scorer
    from pertwise.select.embedding import EmbeddingSelector

    return selector_scorer(EmbeddingSelector(knowledge, kind))


@app.command()
def perturbqa(
    folder: Annotated[
        Path, typer.Argument(help="Folder with LINE-de.csv(.gz), LINE-dir.csv(.gz).")
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(help="Method name, or path/to/file.py:Class; repeat for several."),
    ] = None,
    vote: Annotated[
        list[str] | None,
        typer.Option(help="Vote of the nearest by this embedding of the knowledge: text, go ..."),
    ] = None,
    knowledge: Annotated[Path | None, typer.Option(help="Knowledge folder.")] = None,
    line: Annotated[list[str] | None, typer.Option(help="Only these cell lines.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only de or dir.")] = None,
    inner: Annotated[
        int | None,
        typer.Option(help="Score this many folds inside the training split (to choose settings)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of folds and bootstrap.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for summary.csv, per_gene.csv.")] = None,
) -> None:
    """AUROC per target gene, averaged, of predictors on the PerturbQA labels."""
    from pertwise._io import write_csv_atomic
    from pertwise.benchmark.perturbqa import TASKS, gene_frequency, run_perturbqa
    from pertwise.errors import InputError
    from pertwise.models.methods import make_method

    facts = None
    if knowledge is not None:
        from pertwise.knowledge import Knowledge as Opened

        facts = Opened.open(knowledge)

    scorers: dict[str, Callable[[str, str], Scorer]] = {
        "gene frequency": lambda line, task: gene_frequency
    }
    for spec in method or ():
        chosen = make_method(spec)
        scorers[chosen.label] = partial(_label_scorer, chosen, facts)
    for kind in vote or ():
        if facts is None:
            raise InputError("--vote needs --knowledge FOLDER")
        scorers[f"vote ({kind})"] = partial(_vote_scorer, facts, kind)
    summary, per_gene = run_perturbqa(
        folder, scorers, tasks=task or TASKS, lines=line, inner=inner, seed=seed
    )
    where = "test split" if inner is None else f"mean of {inner} folds inside the training split"
    show_table(summary, f"PerturbQA, AUROC per target gene ({where})")
    if out is not None:
        for name, table in (("summary.csv", summary), ("per_gene.csv", per_gene)):
            write_csv_atomic(out / name, table)
        typer.echo(f"written: {out / 'summary.csv'}, {out / 'per_gene.csv'}")


@app.command()
def prediction(
    config: Annotated[Path | None, typer.Argument(help="TOML file; or use the options.")] = None,
    screen: Annotated[Path | None, typer.Option(help="Screen file.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Method name, or path/to/file.py:Class; repeat for several."),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Cell line or type to use.")] = None,
    knowledge: Annotated[Path | None, typer.Option(help="Knowledge folder.")] = None,
    folds: Annotated[int, typer.Option(help="Folds over perturbations.")] = 5,
    shuffles: Annotated[int, typer.Option(help="Repeats with other folds.")] = 3,
    folds_from: Annotated[
        Path | None, typer.Option(help="Take the folds of a file of recorded answers.")
    ] = None,
    train_size: Annotated[
        list[int] | None, typer.Option(help="Growing training sets of these sizes.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of splits and bootstrap.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of results; reused to resume.")] = Path(
        "bench-prediction"
    ),
) -> None:
    """Held-out prediction of every method on the same splits: tables, tests, figures."""
    from pertwise.benchmark.prediction import (
        check_config,
        load_config,
        open_inputs,
        run_prediction,
    )
    from pertwise.benchmark.prediction.run import without_answers
    from pertwise.cli.asking import nothing_usable
    from pertwise.errors import InputError
    from pertwise.report.prediction_bench import write_report

    if config is not None:
        if screen is not None or method:
            raise InputError("give either a TOML file or --screen with --method, not both")
        settings = load_config(config)
    else:
        if screen is None or not method:
            raise InputError("give a TOML file, or --screen FILE and at least one --method")
        split: dict[str, object] = {"folds": folds, "shuffles": shuffles}
        if train_size:
            split |= {"kind": "growing", "train_sizes": train_size}
        if folds_from is not None:
            split |= {"kind": "given", "folds_from": str(folds_from)}
        settings = check_config(
            {
                "screen": str(screen),
                "context": context,
                "knowledge": None if knowledge is None else str(knowledge),
                "seed": seed,
                "split": split,
                "methods": [{"use": m} for m in method],
            },
            "options",
        )
    inputs = open_inputs(settings)
    folder = run_prediction(settings, out, jobs=jobs, inputs=inputs if jobs == 1 else None)
    table = write_report(folder, settings, inputs)
    show_table(table, f"{settings.split.kind}, {len(inputs.screen)} perturbations")
    if inputs.screen.simulated:
        typer.echo("SIMULATED data: this screen comes from the simulator.")
    _tell_failures(folder)
    written = ("report.html", "report.md", "results.parquet")
    typer.echo("written: " + ", ".join(str(folder / name) for name in written))
    for label, repairs in without_answers(folder, settings).items():
        nothing_usable(f"method {label!r}", repairs, "every prediction of it is a fallback")


def _tell_failures(folder: Path) -> None:
    """One line a method that could not do some splits: the table alone shows a low coverage."""
    import pandas as pd

    results = pd.read_parquet(folder / "results.parquet", columns=["method", "error"])
    failed = results[results["error"] != ""].drop_duplicates().astype(str)
    for method, part in failed.groupby("method"):
        typer.echo(
            f"warning: {method} could not do every split, the training mean stands in for it: "
            f"{part['error'].iloc[0]}",
            err=True,
        )


@app.command()
def prefilter(
    screen: Annotated[Path, typer.Option(help="Screen file.")],
    knowledge: Annotated[Path, typer.Option(help="Knowledge folder.")],
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Selector in words: embedding:text+graph, graph:string,go, learned, two of them "
            "joined by 'or'; repeat."
        ),
    ] = None,
    size: Annotated[
        list[int] | None, typer.Option(help="Length of the list shown; repeat.")
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="Recorded neighbour answers: are the named ones still on the list?"),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Cell line or type to use.")] = None,
    folds: Annotated[int, typer.Option(help="Folds over perturbations.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the table to this csv file.")] = None,
) -> None:
    """Recall of the prefilters that cut a long list before a chat model sees it."""
    from pertwise._io import write_csv_atomic
    from pertwise.benchmark.prediction.run import one_context
    from pertwise.evaluate.prefilter import PREFILTERS, prefilter_recall
    from pertwise.evaluate.splits import split_folds, split_given
    from pertwise.knowledge import Knowledge as Opened
    from pertwise.knowledge.recorded import read_recorded
    from pertwise.screen import read_screen

    measured = one_context(read_screen(screen), context, str(screen))
    names = list(measured.obs["perturbation"])
    said = None
    if answers is not None:
        splits = split_given(names, answers)
        said = read_recorded(answers)[0]
    else:
        splits = split_folds(names, folds, 1, seed)
    n_list = len(splits[0].train)
    sizes = size or sorted({max(1, n_list // k) for k in (10, 5, 2)})
    table = prefilter_recall(
        measured, Opened.open(knowledge), splits, by or PREFILTERS, sizes, answers=said
    )
    # Folds differ by one perturbation, so chance does in the fourth decimal.
    wide = (
        table.assign(chance=table["chance"].round(3))
        .pivot_table(
            index=["prefilter", "size", "chance"], columns="target", values="recall", sort=False
        )
        .reset_index()
    )
    show_table(wide, f"recall of prefilters, held-out perturbations, lists of {n_list}")
    if out is not None:
        write_csv_atomic(out, table)
        typer.echo(f"written: {out}")
