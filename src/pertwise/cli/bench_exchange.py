"""`pertwise bench external` and `bench calibrate`: other tools' predictions, what metrics tell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertwise.cli.asking import Figures
from pertwise.cli.bench import play, show_table
from pertwise.cli.groups import Reading
from pertwise.cli.options import grouped
from pertwise.report.style import wanted_formats


def register(bench: typer.Typer) -> None:
    """Add the commands to the `bench` group."""
    bench.command("external")(external)
    bench.command("calibrate")(calibrate)


def external(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Predictions of any tool: h5ad (means or cells; GEARS, scPerturb, STATE, "
            "prediction.h5ad), parquet, csv, tsv."
        ),
    ],
    screen: Annotated[Path, typer.Option(help="What was measured.")],
    method: Annotated[
        list[str] | None,
        typer.Option(help="Method beside them, fitted on the rest (context-mean); repeat."),
    ] = None,
    knowledge: Annotated[Path | None, typer.Option(help="Knowledge folder.")] = None,
    context: Annotated[str | None, typer.Option(help="Score this context only.")] = None,
    values: Annotated[
        str,
        typer.Option(help="Of files without controls: deltas, or means (the screen's control)."),
    ] = "auto",
    rank: Annotated[
        bool, typer.Option("--rank", help="Ranks of what is predicted, for a ranked screen.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of results; reused to resume.")] = Path(
        "bench-external"
    ),
    figures: Figures = None,
) -> None:
    """Other tools' predictions of genes or drugs in one table, with the same scores and tests.

    Scored is what all files predict; methods beside them learn from the other measured rows.
    """
    from pertwise.benchmark.prediction.config import PredictionConfig
    from pertwise.config import check_settings

    if figures is not None:
        wanted_formats(figures)
    labels = [f.name for f in files]
    theirs = [
        {
            "use": "external",
            "label": label if labels.count(label) == 1 else str(file),
            "settings": {"file": str(file), "values": values, "rank": rank},
        }
        for file, label in zip(files, labels, strict=True)
    ]
    given = {
        "screen": str(screen),
        "context": context,
        "knowledge": None if knowledge is None else str(knowledge),
        "seed": seed,
        "split": {"kind": "predicted", "files": [str(f) for f in files]},
        "methods": [*({"use": m} for m in method or ["context-mean"]), *theirs],
    }
    play(check_settings(given, PredictionConfig, "options"), out, jobs, figures)


@grouped
def calibrate(
    cells: Annotated[Path, typer.Argument(help="Single cells (h5ad and the like) with controls.")],
    reading: Reading,
    min_cells: Annotated[
        int, typer.Option(min=4, help="Leave out perturbations with fewer cells.")
    ] = 30,
    seed: Annotated[int, typer.Option(help="Seed of the halves.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the table to this csv file.")] = None,
) -> None:
    """What every metric can tell on these data: a technical duplicate against the others' mean.

    drf: share of the range from the mean of all other perturbations to perfection that a second
    half of the same cells reaches. bds: share of perturbations in which that half scores better.
    """
    from pertwise._io import write_csv_atomic
    from pertwise.evaluate.metric_calibration import calibrate_cells
    from pertwise.screen.layouts import Keys

    used = ("perturbation_key", "control", "context_key", "dose_key")
    reading.refuse("cells are read, not means", but=used)
    keys = Keys(
        reading.perturbation_key, tuple(reading.control or ()), reading.context_key,
        reading.dose_key,
    )  # fmt: skip
    table = calibrate_cells(cells, seed=seed, min_cells=min_cells, keys=keys)
    show_table(table, f"{cells.name}: metrics between a technical duplicate and the mean of others")
    if out is not None:
        write_csv_atomic(out, table)
        typer.echo(f"written: {out}")
