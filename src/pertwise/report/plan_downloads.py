"""What a plan's page hands out without a server: its tables, inside the page itself."""

from __future__ import annotations

import base64
import io
import re
import zipfile
from importlib.util import find_spec

import pandas as pd

from pertwise._io import csv_cells, csv_lines, csv_text
from pertwise._text import clean_text
from pertwise.acquire.panel import Plan

_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
#: Characters that a cell of a workbook may have.
_CELL = 32_000


def downloads(plan: Plan) -> list[tuple[str, str]]:
    """(file name, data: address): the panel as csv and, where openpyxl is installed, a workbook."""
    table = plan.table.assign(data="simulated") if plan.simulated else plan.table
    csv = csv_lines(table, header=True, float_format="%.6g")
    found = [("plan.csv", _address("text/csv;charset=utf-8", csv))]
    if find_spec("openpyxl") is not None:
        found.append(("plan.xlsx", _address(_XLSX, workbook(plan))))
    return found


def workbook(plan: Plan) -> bytes:
    """Sheets Panel, Coverage and Decisions as xlsx; the same bytes for the same plan."""
    sheets = {
        "Panel": plan.table.assign(data="simulated") if plan.simulated else plan.table,
        "Coverage": pd.DataFrame(
            [
                {
                    "module": r.module,
                    "size": r.size,
                    **{
                        name: ", ".join(getattr(r, name))
                        for name in ("picked", "related", "measured", "open", "unavailable")
                    },
                }
                for r in plan.coverage
            ]
        ),
        "Decisions": pd.DataFrame(
            [
                {
                    "when": d.when,
                    "by": d.by,
                    "action": d.action,
                    "why": d.why,
                    "out": ", ".join(d.dropped),
                    "in": ", ".join(d.added),
                }
                for d in plan.decisions
            ]
        ),
    }
    made = io.BytesIO()
    with pd.ExcelWriter(made, engine="openpyxl") as writer:
        for name, table in sheets.items():
            if len(table.columns):
                # Neutral cells: a name or a reason must not run as a formula.
                safe = csv_cells(csv_cells(table, _fitting), csv_text)
                safe.to_excel(writer, sheet_name=name, index=False, freeze_panes=(1, 0))
    return _undated(made.getvalue())


def _fitting(value: object) -> object:
    return clean_text(value)[:_CELL] if isinstance(value, str) else value


def _undated(book: bytes) -> bytes:
    """The workbook without the time of its making, so that a page made twice is one page."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(book)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "docProps/core.xml":
                data = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"1980-01-01T00:00:00Z", data)
            new.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
