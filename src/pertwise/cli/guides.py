"""`pertwise guides`: from a panel to an order of guides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from pertwise._process import only_writer
from pertwise.cli.options import OptionGroup, grouped
from pertwise.errors import InputError

if TYPE_CHECKING:
    from pertwise.acquire import Plan
    from pertwise.knowledge import Knowledge

_GUIDES = "Guides"


@dataclass(frozen=True)
class Guides(OptionGroup):
    """Which library, how many guides and controls, and how they are ordered."""

    spelled: ClassVar[dict[str, str]] = {"skip_bad": "--skip-bad-guides"}

    library: Annotated[
        Path | None,
        typer.Option(
            help="Guide library (csv, tsv, xlsx): Brunello, Dolcetto, Horlbeck, Replogle "
            "dual-guide, or a table with a gene and a sequence column.",
            rich_help_panel=_GUIDES,
        ),
    ] = None
    guides_per_gene: Annotated[
        int, typer.Option(help="Guides (or pairs) a gene.", rich_help_panel=_GUIDES)
    ] = 3
    controls: Annotated[
        int | None,
        typer.Option(
            help="Non-targeting controls; default: 10, or all where there are fewer.",
            rich_help_panel=_GUIDES,
        ),
    ] = None
    replace_missing: Annotated[
        bool,
        typer.Option(
            "--replace-missing",
            help="Put the next candidate that has guides in the place of a gene without any.",
            rich_help_panel=_GUIDES,
        ),
    ] = False
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad-guides",
            help="Leave out guides that cannot be ordered instead of refusing the library.",
            rich_help_panel=_GUIDES,
        ),
    ] = False
    library_gene: Annotated[
        str | None, typer.Option(help="Its column of genes.", rich_help_panel=_GUIDES)
    ] = None
    library_sequence: Annotated[
        list[str] | None,
        typer.Option(
            help="Its column of sequences; twice for pairs of guides.", rich_help_panel=_GUIDES
        ),
    ] = None
    library_id: Annotated[
        str | None, typer.Option(help="Its column of guide names.", rich_help_panel=_GUIDES)
    ] = None
    library_rank: Annotated[
        str | None,
        typer.Option(
            help="Its column that ranks guides, smallest first; '-COLUMN': largest first.",
            rich_help_panel=_GUIDES,
        ),
    ] = None
    library_control: Annotated[
        list[str] | None,
        typer.Option(help="Gene label of its controls; repeat.", rich_help_panel=_GUIDES),
    ] = None
    library_sheet: Annotated[
        str | None, typer.Option(help="Sheet of an Excel workbook.", rich_help_panel=_GUIDES)
    ] = None
    plate: Annotated[
        int, typer.Option(help="Wells of a plate: 96 or 384.", rich_help_panel=_GUIDES)
    ] = 96
    edges: Annotated[
        str,
        typer.Option(
            help="Outer wells: fill, empty, or controls (nothing else there).",
            rich_help_panel=_GUIDES,
        ),
    ] = "fill"
    overhangs: Annotated[
        str | None,
        typer.Option(
            metavar="FWD,REV",
            help="Order annealing pairs with these bases before them (CACC,AAAC for BsmBI "
            "vectors); default: the spacers.",
            rich_help_panel=_GUIDES,
        ),
    ] = None
    xlsx: Annotated[
        bool, typer.Option("--xlsx", help="Also guides.xlsx.", rich_help_panel=_GUIDES)
    ] = False

    def check(self) -> None:
        """Refuse guide options without a library, and what can be refused before planning."""
        from pertwise.acquire.guides.order import order_sheet
        from pertwise.acquire.guides.plates import lay_out

        if self.library is None:
            self.refuse("no guide library is given (--library FILE)")
            return
        import pandas as pd

        lay_out([], self.plate, self.edges)  # type: ignore[arg-type]
        order_sheet(pd.DataFrame(), [], self._overhangs())
        if self.xlsx:
            from pertwise._io import optional_import

            optional_import("openpyxl", "excel", "Writing an Excel workbook")

    def _overhangs(self) -> tuple[str, str] | None:
        if self.overhangs is None:
            return None
        first, sign, second = self.overhangs.upper().partition(",")
        if not sign:
            raise InputError(f"--overhangs wants FORWARD,REVERSE, got {self.overhangs!r}")
        return first.strip(), second.strip()

    def opened(self) -> Any:
        """The library, read; None without one."""
        from pertwise.acquire.guides.library import LibraryColumns, read_library

        if self.library is None:
            return None
        return read_library(
            self.library,
            LibraryColumns(
                gene=self.library_gene,
                sequence=tuple(self.library_sequence or ()),
                id=self.library_id,
                rank=self.library_rank,
                controls=tuple(self.library_control or ()),
                sheet=self.library_sheet,
            ),
        )

    def order(
        self, plan: Plan, opened: Any, out: Path, knowledge: Knowledge | None
    ) -> tuple[Plan, list[str]]:
        """Write the order; the plan (amended when genes were replaced) and lines to show."""
        from pertwise.acquire.guides.choose import choose_guides
        from pertwise.acquire.guides.order import write_order

        choice = choose_guides(
            plan,
            opened,
            per_gene=self.guides_per_gene,
            controls=self.controls,
            replace_missing=self.replace_missing,
            skip_bad=self.skip_bad,
            knowledge=knowledge,
        )
        paths = write_order(
            choice,
            out,
            str(self.library),
            wells=self.plate,
            edges=self.edges,  # type: ignore[arg-type]
            overhangs=self._overhangs(),
            workbook=self.xlsx,
            settings={
                "layout": opened.layout,
                "guides_per_gene": self.guides_per_gene,
                "controls": self.controls,
                "replace_missing": self.replace_missing,
                "skip_bad": self.skip_bad,
            },
        )
        kinds = choice.table["kind"].value_counts()
        lines = [
            f"library {opened.layout}: {len(opened.table)} guides, {len(opened.controls)} controls",
            *(f"replaced {old} by {new}: no guide" for old, new in choice.replaced.items()),
            *(f"note {text}" for text in choice.notes),
            f"guides {paths['csv']} ({kinds.get('target', 0)} for "
            f"{choice.table.loc[choice.table['kind'] == 'target', 'gene'].nunique()} genes, "
            f"{kinds.get('control', 0)} controls)",
            f"order  {paths['order']}\nplates {paths['plates']}",
            *([f"book   {paths['xlsx']}"] if "xlsx" in paths else []),
        ]
        return choice.plan, lines


@grouped
def guides(
    given: Guides,
    plan: Annotated[Path, typer.Argument(help="plan.json, or the folder that holds it.")],
    knowledge: Annotated[
        Path | None,
        typer.Option(help="Knowledge folder: finds genes under the former symbols of a library."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write into; default: that of the plan.")
    ] = None,
) -> None:
    """Guides for a panel from a library: guides.csv, order.csv, plates.csv, guides.xlsx."""
    from pertwise.acquire import Plan
    from pertwise.knowledge import Knowledge
    from pertwise.report import write_plan

    if given.library is None:
        raise InputError("--library FILE is needed: where the guides come from")
    given.check()
    file = plan / "plan.json" if plan.is_dir() else plan
    before = Plan.load(file)
    opened = given.opened()
    known = None if knowledge is None else Knowledge.open(knowledge)
    folder = out or file.parent
    with only_writer(file.parent):
        after, lines = given.order(before, opened, folder, known)
        if after.revision > before.revision:
            write_plan(after, file.parent, name=file.stem)
    for line in lines:
        typer.echo(line)
