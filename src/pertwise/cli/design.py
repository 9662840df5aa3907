"""`pertwise design`: how many cells, controls and perturbations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pertwise.cli.groups import Reading
from pertwise.cli.options import grouped


@grouped
def design(
    reading: Reading,
    screen: Annotated[Path, typer.Argument(help="A screen with cells and sampling variances.")],
    effect: Annotated[
        float | None,
        typer.Option(help="Change to be seen, in the unit of SCREEN; default: its own effects."),
    ] = None,
    power: Annotated[float, typer.Option(help="Chance to see it.")] = 0.8,
    fdr: Annotated[
        float, typer.Option(help="False discovery rate over the features of a perturbation.")
    ] = 0.05,
    alpha: Annotated[
        float | None, typer.Option(help="Level of a test of each feature alone, instead of --fdr.")
    ] = None,
    changed: Annotated[
        float | None, typer.Option(help="Share of changed features; default: that of SCREEN.")
    ] = None,
    perturbations: Annotated[int, typer.Option(help="Perturbations of the next experiment.")] = 20,
    budget_cells: Annotated[
        float | None, typer.Option(help="Cells in all: how many perturbations do they hold?")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Money: how many perturbations does it hold?")
    ] = None,
    cost_cell: Annotated[float, typer.Option(help="Money a cell.")] = 0.0,
    cost_perturbation: Annotated[float, typer.Option(help="Money a perturbation (guides).")] = 0.0,
    features: Annotated[
        list[str] | None, typer.Option(help="Features that count, by name or glob; repeat.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Cell line or type, where SCREEN has several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Cells, controls and batch size from the noise and the effects of a screen."""
    from pertwise.acquire.design import SOURCES
    from pertwise.acquire.design import design as advise
    from pertwise.cli.bench import show_table
    from pertwise.screen import read_screen

    opened = read_screen(screen, **reading.settings())
    found = advise(
        opened,
        effect=effect,
        power=power,
        fdr=fdr,
        alpha=alpha,
        changed=changed,
        perturbations=perturbations,
        budget_cells=budget_cells,
        budget=budget,
        cost_cell=cost_cell,
        cost_perturbation=cost_perturbation,
        features=features or (),
        context=context,
    )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
        return
    for line in found.lines:
        typer.echo(line[0].upper() + line[1:] + ".")
    show_table(found.table, f"Power by cells of a perturbation, for {perturbations}")
    show_table(found.trade, "What more cells or more perturbations buy")
    for text in SOURCES:
        typer.echo(f"source: {text}")
