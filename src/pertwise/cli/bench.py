"""`pertwise bench ...`: how good is it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pertwise.cli.asking import Figures
from pertwise.cli.groups import Asking, Facts, Llm
from pertwise.cli.options import grouped, refuse_given
from pertwise.report.style import figures_as, wanted_formats

if TYPE_CHECKING:
    import pandas as pd

    from pertwise.benchmark.engine import BenchmarkRun
    from pertwise.benchmark.prediction.config import PredictionConfig

app = typer.Typer(
    help="Benchmarks: prediction, PerturbQA.", no_args_is_help=True, pretty_exceptions_enable=False
)


def show_table(table: pd.DataFrame, title: str, digits: int = 3) -> None:
    """Print a data frame as a table on standard output."""
    from rich.table import Table

    from pertwise.cli.door import console as clean_console

    shown = Table(title=title, title_justify="left")
    numeric = {c: str(table[c].dtype).startswith(("float", "int")) for c in table.columns}
    for column in table.columns:
        right = numeric[column]
        shown.add_column(str(column), justify="right" if right else "left", no_wrap=right)
    for row in table.itertuples(index=False):
        shown.add_row(*(f"{v:.{digits}f}" if isinstance(v, float) else str(v) for v in row))
    clean_console().print(shown)


@app.command()
@grouped
def perturbqa(
    folder: Annotated[
        Path, typer.Argument(help="Folder with LINE-de.csv(.gz), LINE-dir.csv(.gz).")
    ],
    facts: Facts,
    llm: Llm,
    asking: Asking,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Method name, or path/to/file.py:Class; repeat for several (without it and "
            "--vote: kernel-vote, where there is knowledge)."
        ),
    ] = None,
    vote: Annotated[
        list[str] | None,
        typer.Option(help="Vote of the nearest by this embedding of the knowledge: text, go ..."),
    ] = None,
    line: Annotated[list[str] | None, typer.Option(help="Only these cell lines.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only de or dir.")] = None,
    other_lines: Annotated[
        str | None,
        typer.Option(
            metavar="anywhere|elsewhere",
            help="Score methods once more with the labels of the folder's other lines: the "
            "knock-downs scored hidden there, or only those that another line measured.",
        ),
    ] = None,
    inner: Annotated[
        int | None,
        typer.Option(help="Score this many folds inside the training split (to choose settings)."),
    ] = None,
    genes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Score so many target genes only, drawn from those with both labels."
        ),
    ] = None,
    neighbours: Annotated[
        str | None,
        typer.Option(help="Selector in words: whose measured labels the model is shown."),
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the same run with another model (or prompt), such as the one that was "
            "tuned: a table of both, paired over target genes."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for summary.csv, per_gene.csv.")] = None,
) -> None:
    """AUROC per target gene, averaged, on the PerturbQA labels: methods, votes, a chat model.

    With --llm the model marks every pair, from 0 to 3 (does the gene change?) or -3 to 3 (in which
    direction?), and is shown what was measured of alike knock-downs and genes.
    """
    from pertwise._io import write_csv_atomic
    from pertwise.benchmark.engine import run_task
    from pertwise.benchmark.perturbqa import PerturbqaConfig, PerturbqaTask
    from pertwise.benchmark.perturbqa.before import before_and_after, check_before
    from pertwise.config import check_settings
    from pertwise.llm import parse_address

    facts.refuse("PerturbQA is about genes", but=("knowledge", "ratings"))
    if llm.llm is None:
        why = "no model is asked (--llm MODEL@URL)"
        llm.refuse(why)
        asking.refuse(why, but=("seed",))
        refuse_given(["neighbours", "before"], why)
    usual = ["kernel-vote"] if facts.knowledge is not None and not vote else ()
    given = {
        "labels": str(folder), "methods": method or usual, "votes": vote or (), "lines": line,
        "other_lines": other_lines,
        "knowledge": None if facts.knowledge is None else str(facts.knowledge),
        "ratings": list(map(str, facts.ratings or ())), "inner": inner, "genes": genes,
        "llm": None if llm.llm is None else str(parse_address(llm.llm)),
        "seed": asking.seed, **({"tasks": task} if task else {}),
        **({"neighbours": neighbours} if neighbours else {}),
        **({"prompt": asking.prompt} if asking.prompt else {}),
    }  # fmt: skip
    settings = check_settings(given, PerturbqaConfig, "options")
    made = PerturbqaTask(
        settings, address=llm.llm, replay=llm.replay, ledger=asking.ledger, **llm.limits()
    )
    earlier = None if before is None else check_before(before, made)
    if asking.dry_run:
        made.ledger = asking.kept(None if out is None else out / "ledger.sqlite")
        typer.echo(made.estimate())
        return
    run = run_task(made, out)
    where = "test split" if inner is None else f"mean of {inner} folds inside the training split"
    where += "" if genes is None else f", {genes} genes drawn"
    show_table(run.summary, f"PerturbQA, AUROC per target gene ({where})")
    if llm.llm is not None:
        typer.echo(made.words(run))
    if earlier is not None:
        table = before_and_after(earlier, run)
        show_table(
            table, f"{made.model} against {earlier.task.model} before, AUROC per target gene"
        )
        if out is not None:
            write_csv_atomic(out / "before_after.csv", table)
    tell_failures(run, "every gene's frequency stands in for it")
    if out is not None:
        typer.echo(f"written: {out / 'summary.csv'}, {out / 'per_gene.csv'}")
    end_without_answers(run, "model", "every gene's frequency stands in for it")


@app.command()
@grouped
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
        list[Path] | None,
        typer.Option(
            help="Take the folds of a file of recorded answers, or of split files of PIE, TxPert, "
            "STATE (JSON, TOML, folder); repeat for several settings."
        ),
    ] = None,
    regime: Annotated[
        str | None,
        typer.Option(
            help="Several contexts: three-settings (unseen perturbation, unseen context, both), "
            "compound, context, both, pair, scaffold, perturbation."
        ),
    ] = None,
    train_size: Annotated[
        list[int] | None, typer.Option(help="Growing training sets of these sizes.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of splits and bootstrap.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of results; reused to resume.")] = Path(
        "bench-prediction"
    ),
    figures: Figures = None,
) -> None:
    """Held-out prediction of every method on the same splits: tables, tests, figures."""
    from pertwise.benchmark.prediction.config import PredictionConfig
    from pertwise.config import check_settings, read_settings
    from pertwise.errors import InputError

    if figures is not None:
        wanted_formats(figures)
    if config is not None:
        if screen is not None or method:
            raise InputError("give either a TOML file or --screen with --method, not both")
        refuse_given(
            ["context", "knowledge", "folds", "shuffles", "folds_from", "train_size", "seed"],
            f"{config.name} says it",
        )
        settings = read_settings(config, PredictionConfig)
    else:
        if screen is None or not method:
            raise InputError("give a TOML file, or --screen FILE and at least one --method")
        if folds_from:
            refuse_given(
                ["folds", "shuffles", "regime", "train_size"], "--folds-from says who is held out"
            )
        if regime is not None:
            refuse_given(["train_size"], "--regime says who is held out")
        split: dict[str, object] = {"folds": folds, "shuffles": shuffles}
        if train_size:
            split |= {"kind": "growing", "train_sizes": train_size}
        if regime is not None:
            split |= {"kind": regime}
        if folds_from:
            split |= split_of_files(folds_from)
        settings = check_settings(
            {
                "screen": str(screen),
                "context": context,
                "knowledge": None if knowledge is None else str(knowledge),
                "seed": seed,
                "split": split,
                "methods": [{"use": m} for m in method],
            },
            PredictionConfig,
            "options",
        )
    play(settings, out, jobs, figures)


def split_of_files(files: list[Path]) -> dict[str, object]:
    """The split that files name: folds of recorded answers, or other tools' split files."""
    from pertwise._files import read_json

    other = (".toml", ".pkl", ".pickle")
    if len(files) == 1 and files[0].is_file() and files[0].suffix not in other:
        data = read_json(files[0], "a split or recorded answers")
        folds = data.get("folds") if isinstance(data, dict) else None
        named = {"answers", "available_genes"}
        if isinstance(folds, list) and any(isinstance(f, dict) and named & f.keys() for f in folds):
            return {"kind": "given", "folds_from": str(files[0])}
    return {"kind": "files", "files": [str(f) for f in files]}


def play(settings: PredictionConfig, out: Path, jobs: int, figures: str | None) -> None:
    """Run a benchmark of predictions, write its page, show its table."""
    from pertwise.benchmark.engine import run_task
    from pertwise.benchmark.prediction.run import PredictionTask
    from pertwise.report.prediction_bench import shown_table

    task = PredictionTask(settings)
    run = run_task(task, out, executor="serial" if jobs == 1 else "processes", workers=jobs)
    with figures_as(figures):
        page = run.page(out / "report.html")
    show_table(shown_table(run), f"{settings.split.kind}, {len(task.opened.screen)} perturbations")
    if run.record["simulated"]:
        typer.echo("SIMULATED data: this screen comes from the simulator.")
    tell_failures(run, "the training mean stands in for it")
    written = (page, out / "report.md", out / run.task.scores)
    typer.echo("written: " + ", ".join(map(str, written)))
    end_without_answers(run, "method", "every prediction of it is a fallback")


def tell_failures(run: BenchmarkRun[Any], then: str) -> None:
    """One line a method that could not play some units: the table alone shows a low coverage."""
    units = run.read("units.csv")
    failed = units[units["error"].fillna("") != ""]
    for method, part in failed.groupby("method", sort=False):
        typer.echo(
            f"warning: {method} could not do every split, {then}: {part['error'].iloc[0]}", err=True
        )


def end_without_answers(run: BenchmarkRun[Any], kind: str, then: str) -> None:
    """End with exit status 1 when of some method no answer of a chat model could be used."""
    from pertwise.cli.asking import nothing_usable

    for label, repairs in run.task.unanswered(run).items():
        nothing_usable(f"{kind} {label!r}", repairs, then)


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
    from pertwise.benchmark.engine import run_task
    from pertwise.benchmark.prefilter import PrefilterConfig, PrefilterTask
    from pertwise.config import check_settings

    given = {
        "screen": str(screen), "knowledge": str(knowledge), "context": context, "sizes": size,
        "answers": None if answers is None else str(answers), "folds": folds, "seed": seed,
        **({"prefilters": by} if by else {}),
    }  # fmt: skip
    task = PrefilterTask(check_settings(given, PrefilterConfig, "options"))
    table = run_task(task).summary
    # Folds differ by one perturbation, so chance does in the fourth decimal.
    wide = (
        table.assign(chance=table["chance"].round(3))
        .pivot_table(
            index=["prefilter", "size", "chance"], columns="target", values="recall", sort=False
        )
        .reset_index()
    )
    show_table(
        wide, f"recall of prefilters, held-out perturbations, lists of {len(task.splits[0].train)}"
    )
    if out is not None:
        write_csv_atomic(out, table)
        typer.echo(f"written: {out}")
