"""`pertwise bench acquisition`, `pertwise bench report`, `pertwise judge`: thin callers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pertwise.cli.bench import show_table

if TYPE_CHECKING:
    from pertwise.evaluate.acquisition.config import AcquisitionConfig


def register(bench: typer.Typer, app: typer.Typer) -> None:
    """Add the commands to the `bench` group and to the program."""
    bench.command("acquisition")(acquisition)
    bench.command("report")(report)
    app.command("judge")(judge)


def _config_from_flags(
    screen: Path,
    knowledge: Path | None,
    strategies: list[str],
    predictors: list[str],
    features: list[str],
    pathway: str | None,
    protocol: dict[str, Any],
) -> AcquisitionConfig:
    from pertwise.evaluate.acquisition.config import AcquisitionConfig

    name = ", ".join(features) or pathway or "whole response"
    values: dict[str, Any] = {
        "screen": str(screen.resolve()),
        "knowledge": None if knowledge is None else str(knowledge.resolve()),
        "strategies": strategies,
        "predictors": predictors,
        "targets": [{"name": name, "features": features, "pathway": pathway}],
        "protocol": protocol,
    }
    return AcquisitionConfig.parse(values, where="command line")


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
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    batch: Annotated[int, typer.Option(min=1)] = 20,
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    heldout: Annotated[float, typer.Option(help="Held-out fraction.")] = 0.1,
    initial: Annotated[int, typer.Option(help="Measured at the start.", min=0)] = 0,
) -> None:
    """Replay rounds of acquisition on a finished screen and compare strategies with random."""
    from pertwise.errors import InputError
    from pertwise.evaluate.acquisition.config import AcquisitionConfig
    from pertwise.evaluate.acquisition.run import Run

    if source.suffix == ".toml":
        config = AcquisitionConfig.read(source)
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
            predictor or ["kernel ridge"],
            features or [],
            pathway,
            protocol,
        )
    chosen = "dask" if dask else executor
    if chosen not in ("serial", "processes", "dask"):
        raise InputError(f"unknown executor {executor!r}: serial, processes or dask")
    run = Run.create(out, config, resume=resume)
    run.execute(
        executor=chosen,  # type: ignore[arg-type]
        workers=workers,
        address=dask,
        replay=replay,
    )
    _show(run)


def _show(run: Any) -> None:
    from pertwise.evaluate.acquisition.tables import paper_table
    from pertwise.report.acquisition_page import write_page

    for note in run.notes():
        typer.echo(f"note: {note}")
    areas = run.table("areas.parquet")
    differences = run.differences()
    for predictor in run.config.predictors:
        table = paper_table(areas, differences, "mse", predictor).reset_index()
        show_table(table, f"area under the held-out MSE curve, predictor {predictor}")
    typer.echo("mean ± SE over seeds; lower is better; * better, † worse than random (paired t,")
    typer.echo("Holm over strategies, 5 %); unmarked = no difference shown")
    seconds = run.seconds()
    if len(seconds):
        for predictor, part in seconds.groupby("predictor"):
            typer.echo(
                f"time, {predictor}: {part['processor'].sum():.0f} processor seconds in "
                f"{len(part)} units, median {part['processor'].median():.1f} s a unit"
            )
    page = write_page([run], run.folder / "report.html")
    typer.echo(f"page: {page}")


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
    from pertwise.evaluate.acquisition.run import Run
    from pertwise.report.acquisition_markdown import write_markdown
    from pertwise.report.acquisition_page import write_page

    opened = [Run.open(r) for r in runs]
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
    budget_usd: Annotated[float | None, typer.Option(help="Stop before this much a judge.")] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Answer from the run's ledger only, never call out.")
    ] = False,
    context_text: Annotated[str, typer.Option(help="Free text about the cells.")] = "",
) -> None:
    """Blinded pairwise comparison of size-matched batches by a panel of LLM judges."""
    from pertwise.evaluate.acquisition.judged import judge_run

    result = judge_run(
        run,
        llm,
        reference=reference,
        rounds=rounds,
        max_pairs=max_pairs,
        seed=seed,
        dry_run=dry_run,
        budget_usd=budget_usd,
        replay=replay,
        context_text=context_text,
    )
    for name, estimate in result.estimates.items():
        typer.echo(f"{name}: {estimate}")
    if dry_run:
        return
    for title in ("overall", "per_target", "per_judge", "position"):
        show_table(result.tables[title], title.replace("_", " "))
    typer.echo(f"answers and tables: {result.folder}")
