"""`pertwise screen`: look at screens, make them from cells, simulate them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pertwise.screen import Screen
    from pertwise.screen.info import ScreenInfo
    from pertwise.screen.layouts import Keys

app = typer.Typer(
    help="What was measured: recognise, pseudobulk and simulate screens.", no_args_is_help=True
)

_PERTURBATION = typer.Option(None, "--perturbation-key", help="Column with the perturbation names.")
_CONTROL = typer.Option(None, "--control", help="Label of unperturbed cells; may be repeated.")
_CONTEXT = typer.Option(
    None, "--context-key", help='Column with the cell line or type; "" for none.'
)
_DOSE = typer.Option(None, "--dose-key", help='Column with the dose; "" for none.')
_BATCH = typer.Option(None, "--batch-key", help='Column with the batch; "" for none.')
_FEATURE = typer.Option(None, "--feature-key", help="Column of var with the feature names.")
_LAYER = typer.Option(None, "--layer", help='Matrix to read: "X", "raw" or a layer.')
_LABELS = typer.Option(
    "auto",
    "--labels",
    help="auto: leave out non-calls, fold guides to genes when most labels are guides; genes: fold "
    "every guide; as-is: every label is a perturbation.",
)
_EMPTY = typer.Option(False, "--drop-empty", help="Leave out rows without a perturbation name.")

Text = str | None


def _keys(
    perturbation: Text,
    control: list[str] | None,
    context: Text,
    dose: Text,
    batch: Text,
    labels: str,
) -> Keys:
    from pertwise.screen.layouts import Keys

    return Keys(perturbation, tuple(control or ()), context, dose, batch, labels=labels)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="h5ad, zarr, parquet, csv or tsv.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
    perturbation_key: Text = _PERTURBATION,
    control: list[str] | None = _CONTROL,
    context_key: Text = _CONTEXT,
    dose_key: Text = _DOSE,
    batch_key: Text = _BATCH,
    feature_key: Text = _FEATURE,
    layer: Text = _LAYER,
    drop_empty: bool = _EMPTY,
    labels: str = _LABELS,
    values: Annotated[
        str, typer.Option(help="auto, means, or deltas (control-subtracted already).")
    ] = "auto",
    duplicates: Annotated[str, typer.Option(help="refuse or average repeated rows.")] = "refuse",
    infinite: Annotated[str, typer.Option(help="refuse, or nan = not measured.")] = "refuse",
) -> None:
    """Say what was recognised in FILE and count what is in it."""
    import json

    from pertwise.screen.info import describe_screen

    found = describe_screen(
        file,
        keys=_keys(perturbation_key, control, context_key, dose_key, batch_key, labels),
        layer=layer,
        feature_key=feature_key,
        drop_empty=drop_empty,
        values=_choice("values", values, "auto", "means", "deltas"),
        duplicates=_choice("duplicates", duplicates, "refuse", "average"),
        infinite=_choice("infinite", infinite, "refuse", "nan"),
    )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        _show(found)
    if found.problems:
        raise typer.Exit(2)


def _show(found: ScreenInfo) -> None:
    from rich.table import Table

    from pertwise.cli.door import console as clean_console

    console = clean_console()
    table = Table(title=found.path, title_justify="left", show_header=False, box=None)
    for name, value in _lines(found):
        table.add_row(name, value)
    console.print(table)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    for problem in found.problems:
        console.print(f"problem: {problem}", style="bold", markup=False)


def _lines(found: ScreenInfo) -> list[tuple[str, str]]:
    contexts = [f"{name or '(unnamed)'}: {n}" for name, n in list(found.contexts.items())[:8]]
    if len(found.contexts) > 8:
        contexts.append(f"... {len(found.contexts)} in all")
    more = found.n_features > len(found.first_features)
    combined = f" ({found.n_combinations} combinations)" if found.n_combinations else ""
    lines = [
        ("recognised", found.layout + (" (SIMULATED)" if found.simulated else "")),
        ("holds", f"{found.n_rows:,} {found.holds} x {found.n_features:,} features"),
        ("features", ", ".join(found.first_features) + (", ..." if more else "")),
        ("perturbations", f"{found.n_perturbations:,}{combined}"),
        ("contexts", ", ".join(contexts) or "-"),
    ]
    if found.doses:
        lines.append(("doses", str(found.doses)))
    rows = f" ({found.control_rows:,} rows)" if found.control_rows else ""
    lines.append(("control", (", ".join(found.control) or "none") + rows))
    if found.batches:
        lines.append(("batches", str(found.batches)))
    if found.cells:
        spread = ", ".join(f"{k} {v:g}" for k, v in found.cells.items())
        lines.append(("cells per perturbation", spread))
    if found.nan_share is not None:
        lines.append(("not measured", f"{found.nan_share:.1%} of values"))
    lines.append(("values", found.scale or "-"))
    return lines


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="Means: h5ad, csv, tsv or parquet.")],
    out: Annotated[Path, typer.Argument(help="The h5ad to write.")],
    perturbation_key: Text = _PERTURBATION,
    control: list[str] | None = _CONTROL,
    context_key: Text = _CONTEXT,
    context: Annotated[Text, typer.Option(help="Name of the one cell line or type.")] = None,
    dose_key: Text = _DOSE,
    feature_key: Text = _FEATURE,
    layer: Text = _LAYER,
    drop_empty: bool = _EMPTY,
    labels: str = _LABELS,
    values: Annotated[str, typer.Option(help="auto, means, or deltas.")] = "auto",
    duplicates: Annotated[str, typer.Option(help="refuse or average repeated rows.")] = "refuse",
    infinite: Annotated[str, typer.Option(help="refuse, or nan = not measured.")] = "refuse",
) -> None:
    """Write a file of means as a pertwise screen, with every choice and repair recorded."""
    from pertwise.errors import InputError
    from pertwise.screen import read_screen

    if out.suffix != ".h5ad":
        raise InputError(f"the output {out} must end in .h5ad")
    screen = read_screen(
        file,
        perturbation_key=perturbation_key,
        control=tuple(control or ()),
        context_key=context_key,
        context=context,
        dose_key=dose_key,
        feature_key=feature_key,
        layer=layer,
        drop_empty=drop_empty,
        labels=labels,
        values=_choice("values", values, "auto", "means", "deltas"),
        duplicates=_choice("duplicates", duplicates, "refuse", "average"),
        infinite=_choice("infinite", infinite, "refuse", "nan"),
    )
    screen.save(out)
    for note in screen.meta.get("notes", ()):
        typer.echo(f"note: {note}")
    typer.echo(f"wrote {out}: {screen!r}")


@app.command()
def join(
    screens: Annotated[
        list[Path],
        typer.Argument(help="Screens of rounds, batches or lines; without --out the last is made."),
    ],
    out: Annotated[Path | None, typer.Option(help="The h5ad to write.")] = None,
    features: Annotated[
        str, typer.Option(help="intersect: those of all; union: all, NaN where not measured.")
    ] = "intersect",
    duplicates: Annotated[
        str, typer.Option(help="A perturbation in several: refuse, average, first or last.")
    ] = "refuse",
    context: Annotated[
        Text, typer.Option(help="Name of the cells of screens that name none.")
    ] = None,
) -> None:
    """Put screens of several rounds, batches or lines together, each with its own controls."""
    from pertwise.errors import InputError
    from pertwise.screen.join import join as joined

    if out is None:
        *screens, out = screens
        if out.exists():
            raise InputError(f"{out} is there already: name the file to write with --out")
    if len(screens) < 2:
        raise InputError("give two screens or more, and the file to write with --out")
    if out.suffix != ".h5ad":
        raise InputError(f"the output {out} must end in .h5ad")
    if out in screens:
        raise InputError(f"the output {out} is one of the inputs")
    screen = joined(
        screens,
        features=_choice("features", features, "intersect", "union"),
        duplicates=_choice("duplicates", duplicates, "refuse", "average", "first", "last"),
        context=context,
    )
    screen.save(out)
    for note in screen.meta["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(f"wrote {out}: {screen!r}")


def _choice(name: str, value: str, *allowed: str) -> Any:
    """The value, if it is one of those allowed."""
    from pertwise.errors import InputError

    if value not in allowed:
        raise InputError(f"--{name} {value} is not one of {', '.join(allowed)}")
    return value


@app.command()
def pseudobulk(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Cells (h5ad, zarr, parquet), one file or many shards; the last name is the "
            "h5ad to write."
        ),
    ],
    perturbation_key: Text = _PERTURBATION,
    control: list[str] | None = _CONTROL,
    context_key: Text = _CONTEXT,
    dose_key: Text = _DOSE,
    batch_key: Text = _BATCH,
    feature_key: Text = _FEATURE,
    layer: Text = _LAYER,
    drop_empty: bool = _EMPTY,
    labels: str = _LABELS,
    scale: Annotated[
        str, typer.Option(help="What the values are: auto, counts, normalised, log1p, as-is.")
    ] = "auto",
    target_sum: Annotated[float, typer.Option(help="Counts per cell after scaling.")] = 1e4,
    library_key: Annotated[
        Text, typer.Option(help="Column with library sizes (when genes were removed).")
    ] = None,
    hvg: Annotated[int, typer.Option(help="Highly variable features to keep; 0 for all.")] = 5000,
    holdout: Annotated[
        Text,
        typer.Option(help="Held-out perturbations (a,b,c or a file of names): not used for HVGs."),
    ] = None,
    context: Annotated[
        Text,
        typer.Option(
            help="Only cells of this line or type; names the cells of files that name none."
        ),
    ] = None,
    min_cells: Annotated[
        int, typer.Option(help="Perturbations with fewer cells are set apart, not screened.")
    ] = 10,
    guide_key: Annotated[
        Text,
        typer.Option(help='Column with the guide of each cell; "" for none. Guides are compared.'),
    ] = None,
    keep_doublets: Annotated[
        bool, typer.Option("--keep-doublets", help="Do not leave out cells called doublets.")
    ] = False,
    skip_uncontrolled: Annotated[
        bool, typer.Option("--skip-uncontrolled", help="Leave out contexts without controls.")
    ] = False,
    gene_table: Annotated[
        Text, typer.Option(help="Table of gene tokens (parquet files of Tahoe-100M).")
    ] = None,
    workers: Annotated[int, typer.Option(help="Local processes.")] = 1,
    dask: Annotated[Text, typer.Option(help="Address of a dask scheduler (tcp://...).")] = None,
    workdir: Annotated[
        Path | None,
        typer.Option(help="Folder of partial sums, for resuming; default: OUT.h5ad.parts"),
    ] = None,
    rows_per_task: Annotated[int, typer.Option(help="Cells of one resumable task.")] = 250_000,
) -> None:
    """Average the cells of each perturbation and subtract matched controls.

    Run again after a kill with the same arguments, it continues from the partial sums.
    """
    from pertwise.errors import InputError
    from pertwise.screen import PseudobulkSettings
    from pertwise.screen.shards import pseudobulk_shards

    if len(files) < 2:
        raise InputError("give the file(s) of cells and, last, the h5ad file to write")
    *sources, out = files
    if out.suffix != ".h5ad":
        raise InputError(f"the output {out} must end in .h5ad")
    if out in sources:
        raise InputError(f"the output {out} is one of the inputs")
    settings = PseudobulkSettings(
        keys=replace(
            _keys(perturbation_key, control, context_key, dose_key, batch_key, labels),
            doublet="" if keep_doublets else None,
            guide=guide_key,
        ),
        scale=scale,
        target_sum=target_sum,
        library_key=library_key,
        n_hvg=hvg,
        holdout=_names(holdout),
        min_cells=min_cells,
        context=context,
        drop_empty=drop_empty,
        skip_uncontrolled=skip_uncontrolled,
        layer=layer,
        feature_key=feature_key,
        gene_table=gene_table,
    )
    screen = pseudobulk_shards(
        sources,
        settings,
        workdir=workdir or out.with_name(out.name + ".parts"),
        workers=workers,
        dask=dask,
        rows_per_task=rows_per_task,
    )
    screen.save(out)
    apart = _write_beside(out, screen)
    typer.echo(screen.meta["layout"])
    typer.echo(f"values: {screen.meta['scale']} ({screen.meta['scale_evidence']})")
    for note in screen.meta["notes"]:
        typer.echo(f"note: {note}")
    typer.echo(
        f"wrote {out}: {len(screen)} rows, {len(screen.perturbations)} perturbations x "
        f"{screen.n_features} features, from {screen.meta['n_cells']:,} cells"
    )
    for line in apart:
        typer.echo(line)


def _write_beside(out: Path, screen: Screen) -> list[str]:
    """Tables of what did not become a row: OUT.set_apart.csv, OUT.guides.csv; lines to show."""
    import pandas as pd

    from pertwise._io import write_csv_atomic

    lines = []
    for key, words in (("set_apart", "set apart"), ("guides", "guides")):
        path = out.with_name(f"{out.stem}.{key}.csv")
        rows = screen.meta.get(key)
        if rows:
            write_csv_atomic(path, pd.DataFrame(rows))
            lines.append(f"{words}: {path} ({len(rows)})")
        else:
            # A table of an earlier run would be taken for one of this.
            path.unlink(missing_ok=True)
    return lines


def _names(text: Text) -> tuple[str, ...]:
    if not text:
        return ()
    from pertwise._files import read_text

    path = Path(text)
    listed = read_text(path, "a list of names").split("\n") if path.is_file() else text.split(",")
    return tuple(name.strip() for name in listed if name.strip())


@app.command()
def simulate(
    out_dir: Annotated[Path, typer.Argument(help="Folder to write into.")],
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    perturbations: Annotated[int, typer.Option(help="Single perturbations.")] = 200,
    features: Annotated[int, typer.Option(help="Output genes.")] = 400,
    pathways: Annotated[int, typer.Option(help="Pathways.")] = 8,
    contexts: Annotated[str, typer.Option(help="Cell lines, comma-separated.")] = "SimLine1",
    combinations: Annotated[int, typer.Option(help="Pairs, as A+B.")] = 0,
    completeness: Annotated[
        float, typer.Option(help="Share of the true facts that the knowledge holds.")
    ] = 0.8,
    cells: Annotated[bool, typer.Option("--cells", help="Also write single cells.")] = False,
    batches: Annotated[int, typer.Option(help="Batches of the single cells.")] = 2,
) -> None:
    """Write a SIMULATED screen, its knowledge tables and its truth."""
    from pertwise._io import write_text_atomic
    from pertwise.screen import simulate_screen
    from pertwise.screen.simulate import NOTICE

    made = simulate_screen(
        seed,
        n_perturbations=perturbations,
        n_features=features,
        n_pathways=pathways,
        contexts=tuple(c.strip() for c in contexts.split(",") if c.strip()),
        n_combinations=combinations,
        knowledge_completeness=completeness,
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    write_text_atomic(out_dir / "SIMULATED.txt", NOTICE)
    made.screen.save(out_dir / "screen.h5ad")
    made.write_sources(out_dir / "knowledge_sources")
    _save_truth(made, out_dir / "truth")
    written: list[Any] = ["screen.h5ad", "knowledge_sources/", "truth/"]
    if cells:
        from pertwise._hdf5 import write_h5ad_atomic

        write_h5ad_atomic(out_dir / "cells.h5ad", made.cells(seed, n_batches=batches))
        written.append("cells.h5ad")
    typer.echo(f"SIMULATED: wrote {', '.join(written)} to {out_dir}")
    typer.echo(repr(made.screen))


def _save_truth(made: Any, folder: Path) -> None:
    import pandas as pd

    from pertwise._io import atomic_path, write_csv_atomic

    screen, truth = made.screen, made.truth
    tables = {
        "genes.tsv": truth.genes.reset_index(),
        "effect.parquet": pd.DataFrame(
            truth.effect, index=screen.obs.index, columns=list(screen.features)
        ),
    }
    for name, table in tables.items():
        if name.endswith(".tsv"):
            write_csv_atomic(folder / name, table, sep="\t")
            continue
        with atomic_path(folder / name) as temporary:
            table.to_parquet(temporary)
