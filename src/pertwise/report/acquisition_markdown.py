"""The tables of acquisition runs as markdown, for a results page that names its commands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pertwise._io import write_text_atomic
from pertwise.evaluate.acquisition.run import Run
from pertwise.evaluate.acquisition.tables import markdown, paper_table
from pertwise.report.acquisition_page import ALONE, verdict_text

LEGEND = (
    "Area under the curve of held-out mean squared error over the number of acquired "
    "perturbations, divided by its range; mean ± SE over seeds, lower is better. * better, † worse "
    "than random (paired t-test within seeds, Holm over strategies, 5 %)."
)


def write_markdown(runs: Sequence[Run], path: str | os.PathLike[str]) -> Path:
    """Per run and predictor: one sentence, the table, differences with intervals, labels needed."""
    parts: list[str] = []
    for run in runs:
        areas = run.table("areas.parquet")
        differences = run.differences()
        facts = run.facts()
        protocol = run.config.protocol
        parts.append(f"## {run.config.name}")
        rounds = areas["n_rounds"].max()
        parts.append(
            f"Screen `{facts['inputs']['screen']['name']}`, {protocol.seeds} seeds from "
            f"{protocol.first_seed}, {protocol.heldout:.0%} held out, batches of "
            f"{', '.join(map(str, protocol.batch))}, {rounds} rounds, settings "
            f"`{facts['settings_sha256'][:12]}`. {LEGEND}"
        )
        parts += [f"Note: {n}." for n in run.notes()]
        for predictor in run.config.predictors:
            mine = differences[differences["predictor"] == predictor]
            parts.append(f"### {run.config.name}, predictor: {predictor}")
            parts.append(verdict_text(mine) if len(mine) else ALONE)
            parts.append(markdown(paper_table(areas, differences, "mse", predictor)))
            if mine.empty:
                continue
            needed = run.table("labels_needed.csv")
            parts.append("Differences to random (area; negative = lower error), 95 % interval:")
            parts.append(markdown(_differences(mine, needed, predictor), index=False))
    write_text_atomic(path, "\n\n".join(parts) + "\n")
    return Path(path)


def _differences(mine: pd.DataFrame, needed: pd.DataFrame, predictor: str) -> pd.DataFrame:
    part = mine[mine["metric"] == "mse"].copy()
    part["95 % interval"] = [
        f"{low:.4g} to {high:.4g}" for low, high in zip(part["low"], part["high"], strict=True)
    ]
    part["error saved (%)"] = [f"{g:.1f}" for g in part["gain_percent"]]
    keys = ["target", "initial", "batch", "strategy"]
    ratio = needed[needed["predictor"] == predictor].set_index(keys)["ratio"]
    rows = pd.MultiIndex.from_frame(part[keys])
    part["measurements to random's final error (ratio)"] = ratio.reindex(rows).to_numpy()
    part = part.rename(columns={"p_holm": "p (Holm)"})
    shown = ["target", "strategy", "difference", "95 % interval", "error saved (%)", "p (Holm)"]
    return part[[*shown, "measurements to random's final error (ratio)", "verdict"]]
