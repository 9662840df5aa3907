"""The options of files that other tools read: layout of a prediction, predicted cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from pertwise.cli.groups import Reading
from pertwise.cli.options import OptionGroup
from pertwise.errors import InputError

_WRITTEN = "Files for other tools"


@dataclass(frozen=True)
class Written(OptionGroup):
    """How prediction.h5ad is laid out for other tools, and predicted cells."""

    spelled: ClassVar[dict[str, str]] = {"cells_from": "--cells"}
    column: Annotated[
        str,
        typer.Option(
            help="Column of labels: perturbation (scPerturb), target_gene (STATE, Virtual Cell "
            "Challenge), condition (GEARS) or any.",
            rich_help_panel=_WRITTEN,
        ),
    ] = "perturbation"
    control_label: Annotated[
        str | None,
        typer.Option(help="Label of the control row and cells.", rich_help_panel=_WRITTEN),
    ] = None
    write_values: Annotated[
        str,
        typer.Option(
            metavar="deltas|means",
            help="prediction.h5ad: against the control, or with its mean added.",
            rich_help_panel=_WRITTEN,
        ),
    ] = "deltas"
    cells_from: Annotated[
        Path | None,
        typer.Option(
            "--cells",
            metavar="FILE",
            help="Make predicted cells of the control cells in FILE: cells.h5ad.",
            rich_help_panel=_WRITTEN,
        ),
    ] = None
    n_cells: Annotated[
        int, typer.Option(min=1, help="Cells per perturbation.", rich_help_panel=_WRITTEN)
    ] = 100
    cells_model: Annotated[
        str | None,
        typer.Option(
            metavar="counts|scale|shift",
            help="How control cells change (counts where FILE holds them, else scale).",
            rich_help_panel=_WRITTEN,
        ),
    ] = None
    cells_spread: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Every cell a response of its own: times the predicted standard deviation.",
            rich_help_panel=_WRITTEN,
        ),
    ] = 0.0
    cells_as: Annotated[
        str,
        typer.Option(
            metavar="log|counts", help="What X of cells.h5ad holds.", rich_help_panel=_WRITTEN
        ),
    ] = "log"
    no_controls: Annotated[
        bool,
        typer.Option(
            "--no-controls",
            help="Leave the control cells out of cells.h5ad.",
            rich_help_panel=_WRITTEN,
        ),
    ] = False

    def check(self) -> None:
        """Refuse what would not be used, or is no choice.

        Raises
        ------
        pertwise.errors.InputError
            Names the option.
        """
        if self.cells_from is None:
            self.refuse(
                "no cells are made (--cells FILE)", but=("column", "control_label", "write_values")
            )
        for option, value, choices in (
            ("--write-values", self.write_values, ("deltas", "means")),
            ("--cells-as", self.cells_as, ("log", "counts")),
        ):
            if value not in choices:
                raise InputError(f"{option} {value!r} is not one of {', '.join(choices)}")

    @property
    def layout(self) -> dict[str, Any]:
        """As arguments of `write_prediction`."""
        return {"column": self.column, "control": self.control_label, "values": self.write_values}

    def write_cells(self, found: Any, out: Path, seed: int, reading: Reading) -> Path | None:
        """cells.h5ad in the folder `out`, if asked for."""
        if self.cells_from is None:
            return None
        from pertwise.prediction.cells import write_cells
        from pertwise.screen.layouts import Keys

        made = found.to_cells(
            self.cells_from, self.n_cells, seed, model=self.cells_model, spread=self.cells_spread,
            values=self.cells_as, column=self.column, control=self.control_label,
            with_controls=not self.no_controls, keys=Keys(
                reading.perturbation_key, tuple(reading.control or ()), reading.context_key
            ),
        )  # fmt: skip
        return write_cells(made, out / "cells.h5ad")
