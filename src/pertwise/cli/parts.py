"""`pertwise parts`: what can be named, what it needs and reads, and where it comes from."""

from __future__ import annotations

from typing import Annotated

import typer


def parts(
    kind: Annotated[
        str | None,
        typer.Argument(help="predictor, strategy, selector, kernel, metric ...; default: all."),
    ] = None,
) -> None:
    """Every part by name: one line about it, what it needs and reads, its source."""
    from pertwise.cli.bench import show_table
    from pertwise.parts import table

    found = table(kind)
    for name, rows in found.groupby("kind", sort=False):
        show_table(rows.drop(columns="kind"), str(name))
    typer.echo("Also: path/to/file.py:Class or package.module:Class, a part of your own.")
