"""The written report of a drug benchmark: a table a regime, as a page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pertwise.benchmark.engine import BenchmarkRun
from pertwise.benchmark.prediction.clusters import metric_columns
from pertwise.benchmark.prediction.regimes import RegimesTask
from pertwise.report.page import Page, record_facts


def write_page(run: BenchmarkRun[RegimesTask], path: Path) -> Path:
    """Write the page, and report.md beside it."""
    name = run.task.settings.data.name
    page = Page(f"Drug responses: {name}", simulated=bool(run.record.get("simulated")))
    page.say(
        "Mean over signatures with 95 % intervals from a bootstrap over clusters; answered: share "
        "without a fallback; k used: measured signatures an answer rests on."
    )
    for failure in run.failed:
        page.warn(f"{failure['unit']}: {failure['error']}; the context mean stands in")
    regimes(page, run.summary, metric_columns(run.table))
    page.head("Provenance")
    page.facts(record_facts(run.record))
    return page.write(path, path.with_suffix(".md"))


def regimes(page: Page, summary: pd.DataFrame, metrics: Sequence[str]) -> None:
    """A table a regime and setting: mean [95 % interval] per metric, coverage, k used."""
    told = summary.assign(setting=summary["setting"].fillna("").astype(str))
    for (data, regime, setting), block in told.groupby(["data", "regime", "setting"], sort=False):
        kind = "lines" if regime in ("unseen line", "given") else "compounds"
        named = f"{data}, {regime}" + (f": {setting}" if setting else "")
        page.say(
            f"**{named}** ({int(block.iloc[0]['n_signatures'])} signatures, "
            f"{int(block['n_clusters'].max())} {kind})"
        )
        page.table(_regime(block, [x for x in metrics if x in set(block["metric"])]))


def _regime(block: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    rows = []
    for method, own in block.groupby("method", sort=False):
        by = own.set_index("metric")
        cells = {
            x: f"{by.loc[x, 'mean']:.3f} [{by.loc[x, 'low']:.3f}, {by.loc[x, 'high']:.3f}]"
            for x in metrics
        }
        answered, used = f"{by['coverage'].iloc[0]:.0%}", f"{by['k_used'].iloc[0]:.1f}"
        rows.append({"method": method, **cells, "answered": answered, "k used": used})
    return pd.DataFrame(rows)
