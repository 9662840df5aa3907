"""`pertwise bench acquisition`, `pertwise bench report`, `pertwise judge`: thin callers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pertwise.cli.asking import (
    BudgetTokens,
    BudgetUsd,
    Concurrency,
    Figures,
    Timeout,
    limits,
    nothing_usable,
)
from pertwise.cli.bench import end_without_answers, show_table
from pertwise.cli.options import grouped, refuse_given
from pertwise.report.style import figures_as, wanted_formats

if TYPE_CHECKING:
    from pertwise.benchmark.acquisition.config import AcquisitionConfig
    from pertwise.benchmark.acquisition.run import AcquisitionTask
    from pertwise.benchmark.engine import BenchmarkRun


def register(bench: typer.Typer, app: typer.Typer) -> None:
    """Add the commands to the `bench` group and to the program."""
    bench.command("acquisition")(grouped(acquisition))
    bench.command("report")(report)
    app.command("judge")(judge)


def _config_from_flags(
    screen: Path,
    knowledge: Path | None,
    strategies: list[str],
    predictors: list[str],
    features: list[str],
    pathway: str | None,
    context: str | None,
    protocol: dict[str, Any],
) -> AcquisitionConfig:
    from pertwise.benchmark.acquisition.config import AcquisitionConfig
    from pertwise.config import check_settings

    name = ", ".join(features) or pathway or "whole response"
    values: dict[str, Any] = {
        "screen": str(screen.resolve()),
        "context": context,
        "knowledge": None if knowledge is None else str(knowledge.resolve()),
        "strategies": strategies,
        "predictors": predictors,
        "targets": [{"name": name, "features": features, "pathway": pathway}],
        "protocol": protocol,
    }
    return check_settings(values, AcquisitionConfig, "command line")


def acquisition(
    source: Annotated[
        Path, typer.Argument(help="CONFIG.toml, or a screen file for the common case with flags.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Run folder.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a killed run.")] = False,
    executor: Annotated[
        str, typer.Option(help="serial, processes, or dask (implied by --dask).")
    ] = "processes",
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1)] = 2,
    dask: Annotated[
        str | None, typer.Option("--dask", help="Scheduler address, e.g. tcp://host:8786.")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Language models answer from the ledger only.")
    ] = False,
    knowledge: Annotated[Path | None, typer.Option(help="Knowledge folder.")] = None,
    strategy: Annotated[
        list[str] | None, typer.Option(help="Strategy; repeat for several.")
    ] = None,
    predictor: Annotated[
        list[str] | None, typer.Option(help="Predictor; repeat for several.")
    ] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="Target features or globs; repeat for several.")
    ] = None,
    pathway: Annotated[str | None, typer.Option(help="Target pathway.")] = None,
    context: Annotated[
        str | None, typer.Option(help="Cell line or type, where the screen has several.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    batch: Annotated[int, typer.Option(min=1)] = 20,
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    heldout: Annotated[float, typer.Option(help="Held-out fraction.")] = 0.1,
    initial: Annotated[int, typer.Option(help="Measured at the start.", min=0)] = 0,
    figures: Figures = None,
) -> None:
    """Replay rounds of acquisition on a finished screen and compare strategies with random."""
    from pertwise.benchmark.acquisition.config import AcquisitionConfig
    from pertwise.benchmark.acquisition.run import AcquisitionTask
    from pertwise.benchmark.engine import run_task
    from pertwise.config import read_settings

    if figures is not None:
        wanted_formats(figures)
    if source.suffix == ".toml":
        refuse_given(
            ["knowledge", "strategy", "predictor", "features", "pathway", "context", "seeds",
             "batch", "rounds", "heldout", "initial"], f"{source.name} says it",
        )  # fmt: skip
        config = read_settings(source, AcquisitionConfig)
    else:
        protocol = {
            "seeds": seeds,
            "batch": batch,
            "rounds": rounds,
            "heldout": heldout,
            "initial": initial,
        }
        config = _config_from_flags(
            source,
            knowledge,
            strategy or ["random", "knowledge"],
            predictor or ["kernel-ridge"],
            features or [],
            pathway,
            context,
            protocol,
        )
    run = run_task(
        AcquisitionTask(config, replay=replay),
        out,
        executor="dask" if dask else executor,  # type: ignore[arg-type]  # checked there
        workers=workers,
        address=dask,
        resume=resume,
    )
    with figures_as(figures):
        _show(run)
    end_without_answers(run, "strategy", "every pick of it is the fallback's")


def _show(run: BenchmarkRun[AcquisitionTask]) -> None:
    from pertwise.benchmark.acquisition.tables import paper_table

    for note in run.notes:
        typer.echo(f"note: {note}")
    areas = run.read("areas.parquet")
    differences = run.read("differences.csv") if run.has("differences.csv") else areas[:0]
    for predictor in run.task.settings.predictors:
        table = paper_table(areas, differences, "mse", predictor).reset_index()
        show_table(table, f"area under the held-out MSE curve, predictor {predictor}")
    typer.echo("mean ± SE over seeds; lower is better; * better, † worse than random (paired t,")
    typer.echo("Holm over strategies, 5 %); unmarked = no difference shown")
    units = run.read("units.csv")
    for predictor, part in units.dropna(subset=["processor"]).groupby("predictor"):
        typer.echo(
            f"time, {predictor}: {part['processor'].sum():.0f} processor seconds in "
            f"{len(part)} units, median {part['processor'].median():.1f} s a unit"
        )
    if run.folder is not None:
        typer.echo(f"page: {run.page(run.folder / 'report.html')}")


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Page to write.")] = Path(
        "acquisition.html"
    ),
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables as markdown, too.")
    ] = None,
) -> None:
    """One HTML page comparing runs of `bench acquisition`."""
    from pertwise.benchmark.acquisition.run import AcquisitionTask
    from pertwise.benchmark.engine import BenchmarkRun
    from pertwise.report.acquisition_page import write_markdown, write_page

    opened = [BenchmarkRun.open(r, AcquisitionTask) for r in runs]
    typer.echo(f"page: {write_page(opened, out)}")
    if markdown is not None:
        typer.echo(f"tables: {write_markdown(opened, markdown)}")


def judge(
    run: Annotated[Path, typer.Argument(help="Run folder of `bench acquisition`.")],
    llm: Annotated[
        list[str], typer.Option("--llm", help="Judge: MODEL@URL or anthropic:MODEL; repeat.")
    ],
    reference: Annotated[
        str | None, typer.Option(help="Compare with this strategy only (default: all pairs).")
    ] = None,
    rounds: Annotated[list[int] | None, typer.Option(help="Only these rounds.")] = None,
    max_pairs: Annotated[
        int | None, typer.Option(help="At most so many pairs, drawn at random.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides sides, orders and thinning.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate the cost only.")] = False,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    timeout: Timeout = None,
    concurrency: Concurrency = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Answer from the run's ledger only, never call out.")
    ] = False,
    context_text: Annotated[str, typer.Option(help="Free text about the cells.")] = "",
) -> None:
    """Blinded pairwise comparison of size-matched batches by a panel of LLM judges."""
    from pertwise.benchmark.acquisition.judged import JudgeConfig, JudgeTask
    from pertwise.benchmark.engine import run_task
    from pertwise.config import check_settings
    from pertwise.llm import parse_address

    # Stored and shown without the query of an address, which may hold a key.
    named = [str(parse_address(j)) for j in llm]
    given = {
        "run": str(run), "judges": named, "reference": reference, "rounds": rounds,
        "max_pairs": max_pairs, "seed": seed, "context_text": context_text,
    }  # fmt: skip
    task = JudgeTask(
        check_settings(given, JudgeConfig, "options"),
        addresses=llm,
        replay=replay,
        **limits(budget_tokens, budget_usd, timeout, concurrency),
    )
    for name, estimate in task.estimates().items():
        typer.echo(f"{name}: {estimate}")
    if dry_run:
        return
    made = run_task(task, task.place)
    for title in ("overall", "per_target", "per_judge", "position"):
        show_table(made.read(f"{title}.csv"), title.replace("_", " "))
    typer.echo(f"answers and tables: {task.place}")
    for who, repairs in task.unanswered(made).items():
        nothing_usable(who, repairs)
