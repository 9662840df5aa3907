"""What a plan's page hands out without a server: its tables, inside the page itself."""

from __future__ import annotations

import base64

import pandas as pd

from pertwise._io import csv_lines, installed
from pertwise._tables import workbook_bytes
from pertwise.acquire.panel import Plan

_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def downloads(plan: Plan) -> list[tuple[str, str]]:
    """(file name, data: address): the panel as csv and, where openpyxl is installed, a workbook."""
    table = plan.table.assign(data="simulated") if plan.simulated else plan.table
    csv = csv_lines(table, header=True, float_format="%.6g")
    found = [("plan.csv", _address("text/csv;charset=utf-8", csv))]
    if installed("openpyxl"):
        found.append(("plan.xlsx", _address(_XLSX, workbook(plan))))
    return found


def workbook(plan: Plan) -> bytes:
    """Sheets Panel, Coverage and Decisions as xlsx."""
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
    return workbook_bytes(sheets)


def _address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
