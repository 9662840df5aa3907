"""`pertwise bench drugs` and what `pertwise predict --drug` calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pertwise._process import only_writer

if TYPE_CHECKING:
    from pertwise.benchmark.drugs.run import BenchConfig


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
    from pertwise.benchmark.drugs.run import (
        load_bench,
        read_config,
        run_bench,
        summarise,
        write_results,
    )
    from pertwise.cli.bench import show_table

    settings = _with(
        read_config(config),
        regimes=regime,
        methods=method,
        seeds=seed,
        by_compound=False if ungrouped else None,
        drop_duplicates=True if drop_duplicates else None,
    )
    loaded = load_bench(settings, data if data is not None else config.parent)
    for key, value in loaded.notes.items():
        if value:
            typer.echo(f"{key}: {value}")
    with only_writer(out):
        table = run_bench(loaded, out)
        summary = summarise(table, weight=settings.weight)
        write_results(loaded, table, summary, out)
    for (name, held), block in summary.groupby(["data", "regime"], sort=False):
        wide = block.pivot(index="method", columns="metric", values="mean")
        wide = wide.loc[list(dict.fromkeys(block["method"]))].dropna(axis=1, how="all")
        answered = block.drop_duplicates("method").set_index("method")["coverage"]
        show_table(wide.assign(answered=answered).reset_index(), f"{name}: {held}")
    typer.echo(f"written: {out}/scores.parquet, summary.csv, report.md, run.json")


def _with(config: BenchConfig, **changes: object) -> BenchConfig:
    """The config with the changes that are given, checked again."""
    given = {k: v for k, v in changes.items() if v is not None}
    return type(config).model_validate({**config.model_dump(), **given})
