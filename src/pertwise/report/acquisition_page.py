"""One page for one or several runs of the acquisition replay."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pertwise._io import write_text_atomic
from pertwise.evaluate.acquisition.run import Run
from pertwise.evaluate.acquisition.tables import paper_table
from pertwise.report.page import render_page
from pertwise.report.style import COLOURS, figure_svg

ALONE = "Nothing to compare: that takes the strategy random and at least one other."
#: Line colours in turn; random is always grey.
CYCLE = ("blue", "vermilion", "green", "purple", "orange", "sky", "ink")
STYLES = ("-", "--", "-.", ":")


def write_page(runs: Sequence[Run], path: str | os.PathLike[str]) -> Path:
    """Write the page; runs are shown one after another, each with its own provenance."""
    sections: list[dict[str, Any]] = []
    notes: list[str] = []
    provenance = []
    biology: list[tuple[str, dict[str, Any]]] = []
    simulated = False
    for run in runs:
        prefix = "" if len(runs) == 1 else f"{run.folder.name}: "
        sections += [{**s, "title": prefix + s["title"]} for s in _sections(run)]
        notes += [prefix + n for n in run.notes()]
        facts = run.facts()
        simulated = simulated or bool(facts.get("simulated", False))
        provenance.append({"name": run.folder.name, "facts": _facts(run, facts)})
        biology += [(prefix + t, table) for t, table in _biology(run)]
    seeds = max(r.config.protocol.seeds for r in runs)
    text = render_page(
        "acquisition.html.j2",
        title="Which strategy chooses better than random?",
        simulated=simulated,
        lead=(
            "Rounds of acquisition replayed on finished screens: each strategy chooses batches, a "
            "predictor is fitted on what was chosen, and its error is measured on perturbations "
            f"held out from all of them (up to {seeds} seeds; one held-out set a seed)."
        ),
        notes=notes,
        sections=sections,
        biology=biology,
        provenance=provenance,
    )
    write_text_atomic(path, text)
    return Path(path)


def _grid(table: pd.DataFrame) -> dict[str, Any]:
    def show(value: Any) -> str:
        if isinstance(value, float | np.floating):
            return "-" if np.isnan(value) else f"{value:.4g}"
        return str(value)

    rows = [[show(v) for v in row] for row in table.itertuples(index=False)]
    return {"columns": [str(c) for c in table.columns], "rows": rows}


def _sections(run: Run) -> list[dict[str, Any]]:
    areas, rounds = run.table("areas.parquet"), run.table("rounds.parquet")
    differences = run.differences()
    with_random = len(differences) > 0
    needed = run.table("labels_needed.csv") if with_random else pd.DataFrame()
    found = []
    for predictor in run.config.predictors:
        table = paper_table(areas, differences, "mse", predictor).reset_index()
        mine = differences[differences["predictor"] == predictor] if with_random else differences
        keep = ["target", "metric", "strategy", "difference", "se", "low", "high"]
        keep += ["gain_percent", "p_t", "p_wilcoxon", "p_holm", "verdict"]
        found.append(
            {
                "title": f"Predictor: {predictor}",
                "verdict": verdict_text(mine) if with_random else ALONE,
                "table": _grid(table),
                "curves": Markup(_curves(rounds[rounds["predictor"] == predictor])),
                "forest": Markup(_forest(mine)) if with_random else Markup(""),
                "differences": _grid(mine[keep]) if with_random else _grid(pd.DataFrame()),
                "needed": _grid(needed[needed["predictor"] == predictor]) if with_random else None,
            }
        )
    return found


def verdict_text(differences: pd.DataFrame, metric: str = "mse") -> str:
    """One plain sentence: who beats random, who loses to it, and on how many targets."""
    part = differences[differences["metric"] == metric]
    n_targets = part["target"].nunique()
    better, worse = [], []
    for strategy, group in part.groupby("strategy", sort=True):
        wins = sorted(group.loc[group["verdict"] == "better", "target"])
        losses = sorted(group.loc[group["verdict"] == "worse", "target"])
        if wins:
            better.append(f"{strategy} on {len(wins)} of {n_targets} ({', '.join(wins)})")
        if losses:
            worse.append(f"{strategy} on {len(losses)} of {n_targets} ({', '.join(losses)})")
    text = (
        f"Lower error than random: {'; '.join(better)}."
        if better
        else "No strategy has a lower error than random that the seeds can tell from chance."
    )
    return text + (f" Higher error than random: {'; '.join(worse)}." if worse else "")


def _colours(strategies: Sequence[str]) -> dict[str, tuple[str, str]]:
    others = [s for s in strategies if s != "random"]
    chosen = {
        s: (COLOURS[CYCLE[i % len(CYCLE)]], STYLES[i // len(CYCLE) % len(STYLES)])
        for i, s in enumerate(others)
    }
    return {"random": (COLOURS["grey"], "-"), **chosen}


def _curves(rounds: pd.DataFrame) -> str:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    part = rounds[rounds["metric"] == "mse"]
    base = rounds[(rounds["metric"] == "mse_mean") & (rounds["strategy"] == "random")]
    targets = sorted(part["target"].unique())
    colours = _colours(sorted(part["strategy"].unique()))
    columns = min(2, len(targets))
    lines = -(-len(targets) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(5.2 * columns, 3.4 * lines), squeeze=False, layout="constrained"
    )
    for axis, target in zip(axes.flat, targets, strict=False):
        for strategy, group in part[part["target"] == target].groupby("strategy", sort=True):
            stats = group.groupby("n_acquired")["value"].agg(["mean", "sem"])
            colour, style = colours[strategy]
            axis.plot(stats.index, stats["mean"], style, color=colour, label=strategy, lw=1.8)
            axis.fill_between(
                stats.index,
                stats["mean"] - stats["sem"],
                stats["mean"] + stats["sem"],
                color=colour,
                alpha=0.12,
                lw=0,
            )
        flat = base[base["target"] == target].groupby("n_acquired")["value"].mean()
        axis.plot(flat.index, flat, "--", color=COLOURS["ink"], lw=1, label="mean (no model)")
        axis.set_title(target, fontsize=10)
        axis.set_xlabel("acquired perturbations")
        axis.set_ylabel("held-out MSE")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in list(axes.flat)[len(targets) :]:
        axis.set_visible(False)
    axes.flat[0].legend(frameon=False, fontsize=8)
    text = figure_svg(figure)
    plt.close(figure)
    return text


def _forest(differences: pd.DataFrame) -> str:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    part = differences[differences["metric"] == "mse"].reset_index(drop=True)
    targets = sorted(part["target"].unique())
    strategies = sorted(part["strategy"].unique())
    colours = _colours(strategies)
    figure, axes = plt.subplots(
        1,
        len(targets),
        figsize=(max(3.0 * len(targets), 4.5), 0.9 + 0.32 * len(strategies)),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, target in zip(axes.flat, targets, strict=True):
        for y, strategy in enumerate(strategies):
            rows = part[(part["target"] == target) & (part["strategy"] == strategy)]
            for _, row in rows.iterrows():
                colour = colours[strategy][0]
                axis.plot([row["low"], row["high"]], [y, y], "-", color=colour, lw=2)
                axis.plot(row["difference"], y, "o", color=colour, ms=5)
        axis.axvline(0, color=COLOURS["ink"], lw=0.8)
        axis.set_yticks(range(len(strategies)), strategies)
        axis.set_title(target, fontsize=9)
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes.flat[0].invert_yaxis()
    text = figure_svg(figure)
    plt.close(figure)
    return text


def _biology(run: Run) -> list[tuple[str, dict[str, Any]]]:
    found = []
    titles = {
        "coverage.csv": "Modules of the target pathway touched, by round (mean over seeds)",
        "enrichment.csv": "Gene sets over-represented among early picks",
        "relations.csv": "Relation of early picks to the target pathway, beside the pool",
        "overlap.csv": "Overlap of everything acquired (Jaccard)",
    }
    for name, title in titles.items():
        if (run.folder / name).is_file():
            table = run.table(name)
            if name == "coverage.csv" and len(table):
                keys = ["target", "predictor", "strategy", "round"]
                table = table.groupby(keys, as_index=False)[["share", "n_related"]].mean()
                table = table[table["round"].isin([1, 3, 5, table["round"].max()])]
            if len(table):
                found.append((title, _grid(table)))
    return found


def _facts(run: Run, provenance: dict[str, Any]) -> list[tuple[str, str]]:
    protocol = run.config.protocol
    packages = ", ".join(f"{k} {v}" for k, v in provenance["packages"].items())
    return [
        ("screen", str(provenance["inputs"]["screen"])),
        ("knowledge", str(provenance["inputs"].get("knowledge", "none"))),
        ("protocol", protocol.model_dump_json()),
        ("strategies", json.dumps(run.config.strategies)),
        ("predictors", json.dumps(run.config.predictors)),
        ("embedding", run.config.embedding),
        (
            "versions",
            f"pertwise {provenance['pertwise']}, Python {provenance['python']}, {packages}",
        ),
        ("settings sha256", provenance["settings_sha256"]),
    ]


__all__ = ["verdict_text", "write_page"]
