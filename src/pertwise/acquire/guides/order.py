"""The order: guides.csv, the sheet a vendor takes, plate maps, a workbook, and their record."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pertwise._io import optional_import, write_csv_atomic, write_json_atomic
from pertwise._tables import workbook_bytes
from pertwise._together import together
from pertwise.acquire.guides.choose import Choice
from pertwise.acquire.guides.plates import SHAPES, Edges, Well, lay_out
from pertwise.errors import InputError
from pertwise.provenance import input_facts, versions

_PAIR = str.maketrans("ACGT", "TGCA")


def write_order(
    choice: Choice,
    out: str | os.PathLike[str],
    library: str | os.PathLike[str],
    *,
    wells: int = 96,
    edges: Edges = "fill",
    overhangs: tuple[str, str] | None = None,
    workbook: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Write guides.csv, order.csv, plates.csv, guides.json and, when asked, guides.xlsx.

    All of them or none. Cells that a spreadsheet would run as a formula begin with an apostrophe.

    Parameters
    ----------
    overhangs
        Bases before the forward and before the reverse oligo, for cloning by annealed pairs; a G is
        put before spacers that begin with another base, as polymerase III starts with one. None
        orders the spacers themselves.
    workbook
        Also the three tables as sheets of one Excel file.

    Returns
    -------
    kind ("csv", "order", "plates", "json", "xlsx") -> path.

    Raises
    ------
    pertwise.errors.MissingDependencyError
        For a workbook without openpyxl.
    """
    if workbook:
        optional_import("openpyxl", "excel", "Writing an Excel workbook")
    places = lay_out((choice.table["kind"] == "control").tolist(), wells, edges)
    guides = choice.table.assign(plate=[w.plate for w in places], well=[w.name for w in places])
    if not (guides["sequence_b"] != "").any():
        guides = guides.drop(columns="sequence_b").rename(columns={"sequence_a": "sequence"})
    tables = {
        "guides": guides,
        "order": order_sheet(choice.table, places, overhangs),
        "plates": plate_maps(choice.table, places, wells),
    }
    if choice.plan.simulated:
        tables = {n: t.assign(data="simulated") for n, t in tables.items()}
    folder = Path(out)
    paths = {
        "csv": folder / "guides.csv",
        "order": folder / "order.csv",
        "plates": folder / "plates.csv",
        "json": folder / "guides.json",
    }
    record = {
        "kind": "pertwise guides",
        "simulated": choice.plan.simulated,
        "plan": {"title": choice.plan.title, "revision": choice.plan.revision,
                 "genes": list(choice.plan.genes)},
        "library": input_facts(library),
        "settings": dict(settings or {})
        | {"wells": wells, "edges": edges, "overhangs": overhangs},
        "missing": choice.missing,
        "replaced": choice.replaced,
        "notes": list(choice.notes),
        "versions": versions(),
    }  # fmt: skip
    with together(folder, "guides") as stage:
        for name, file in (("guides", "csv"), ("order", "order"), ("plates", "plates")):
            write_csv_atomic(stage / paths[file].name, tables[name])
        write_json_atomic(stage / paths["json"].name, record)
        if workbook:
            paths["xlsx"] = folder / "guides.xlsx"
            (stage / "guides.xlsx").write_bytes(workbook_bytes(tables))
    return paths


def order_sheet(
    table: pd.DataFrame, places: list[Well], overhangs: tuple[str, str] | None
) -> pd.DataFrame:
    """One row an oligo, with the columns that vendors of plates take: Plate, Well Position, Name,
    Sequence.

    Raises
    ------
    pertwise.errors.InputError
        For an overhang with letters other than ACGT.
    """
    for bases in overhangs or ():
        if set(bases) - set("ACGT"):
            raise InputError(f"the overhang {bases!r} holds letters other than A, C, G, T")
    rows = []
    for guide, well in zip(table.to_dict("records"), places, strict=True):
        spacers = [("", guide["sequence_a"])]
        if guide["sequence_b"]:
            spacers = [("_A", guide["sequence_a"]), ("_B", guide["sequence_b"])]
        for mark, spacer in spacers:
            oligos = [("", spacer)]
            if overhangs is not None:
                whole = spacer if spacer.startswith("G") else "G" + spacer
                oligos = [
                    ("_F", overhangs[0] + whole),
                    ("_R", overhangs[1] + whole.translate(_PAIR)[::-1]),
                ]
            rows += [
                {
                    "Plate": f"plate {well.plate}",
                    "Well Position": well.name,
                    "Name": f"{guide['name']}{mark}{end}",
                    "Sequence": oligo,
                }
                for end, oligo in oligos
            ]
    return pd.DataFrame(rows)


def plate_maps(table: pd.DataFrame, places: list[Well], wells: int) -> pd.DataFrame:
    """Every plate as a grid: columns plate, row (A ...), 1, 2 ...; "" = an empty well."""
    rows, columns = SHAPES[wells]
    name = {(w.plate, w.row, w.column): n for w, n in zip(places, table["name"], strict=True)}
    grid = [
        [f"plate {p}", chr(ord("A") + r), *(name.get((p, r, c), "") for c in range(columns))]
        for p in sorted({w.plate for w in places})
        for r in range(rows)
    ]
    return pd.DataFrame(grid, columns=["plate", "row", *map(str, range(1, columns + 1))])
