"""The page of a benchmark without one of its own: summary, notes, failures, provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pertwise.benchmark.engine import BenchmarkRun
from pertwise.report.page import Page, record_facts, significant


def write_page(run: BenchmarkRun[Any], path: Path) -> Path:
    """Write the page, and its Markdown beside it."""
    page = Page(f"Benchmark: {run.task.name}", simulated=bool(run.record.get("simulated")))
    for note in run.notes:
        page.warn(note)
    for failure in run.failed:
        page.warn(f"{failure['unit']}: {failure['error']}; the declared fallback stands in")
    page.head("Summary")
    page.table(run.summary, show=significant)
    page.head("Provenance")
    page.facts(record_facts(run.record))
    return page.write(path, path.with_suffix(".md"))
