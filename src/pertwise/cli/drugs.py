"""`pertwise bench drugs` and what `pertwise predict --drug` calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pertwise.benchmark.prediction.regimes import RegimesConfig


def bench_drugs(
    config: Annotated[
        Path, typer.Argument(help="TOML: data, regimes, methods (see docs/drugs.md).")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder that the file names in the config are in.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for scores, summary, report; resumable.")
    ] = Path("drug-bench"),
    regime: Annotated[list[str] | None, typer.Option(help="Only these regimes.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only these fold seeds.")] = None,
    ungrouped: Annotated[
        bool, typer.Option(help="Let salts of one compound stand on both sides (to compare).")
    ] = False,
    drop_duplicates: Annotated[
        bool, typer.Option(help="Leave out drugs that share a compound with another name.")
    ] = False,
) -> None:
    """Drug responses: regimes x methods on one screen, with intervals over compounds."""
    from pertwise.benchmark.engine import run_task
    from pertwise.benchmark.prediction.regimes import RegimesConfig, RegimesTask
    from pertwise.cli.bench import show_table, tell_failures
    from pertwise.config import read_settings

    settings = _with(
        read_settings(config, RegimesConfig, folder=data),
        regimes=regime,
        methods=method,
        seeds=seed,
        by_compound=False if ungrouped else None,
        drop_duplicates=True if drop_duplicates else None,
    )
    task = RegimesTask(settings)
    for key, value in task.opened.notes.items():
        if value:
            typer.echo(f"{key}: {value}")
    run = run_task(task, out)
    summary = run.summary
    run.page(out / "report.html")
    told = summary.assign(setting=summary["setting"].fillna("").astype(str))
    for (name, held, setting), block in told.groupby(["data", "regime", "setting"], sort=False):
        wide = block.pivot(index="method", columns="metric", values="mean")
        wide = wide.loc[list(dict.fromkeys(block["method"]))].dropna(axis=1, how="all")
        answered = block.drop_duplicates("method").set_index("method")["coverage"]
        show_table(
            wide.assign(answered=answered).reset_index(),
            f"{name}: {held}" + (f", {setting}" if setting else ""),
        )
    tell_failures(run, "the context mean stands in for it")
    typer.echo(f"written: {out}/scores.parquet, summary.csv, report.html, report.md, run.json")


def _with(config: RegimesConfig, **changes: object) -> RegimesConfig:
    """The config with the changes that are given, checked again."""
    given = {k: v for k, v in changes.items() if v is not None}
    return type(config).model_validate({**config.model_dump(), **given})
