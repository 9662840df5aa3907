"""One page, or Markdown, for one or several runs of the acquisition replay."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from pertwise._io import write_text_atomic
from pertwise.benchmark.acquisition.run import AcquisitionTask
from pertwise.benchmark.acquisition.tables import DIFFERENCES, paper_table
from pertwise.benchmark.engine import BenchmarkRun
from pertwise.parts import slugify
from pertwise.report.page import Page, record_facts, significant
from pertwise.report.style import COLOURS, asked_formats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Run = BenchmarkRun[AcquisitionTask]

#: Line colours in turn; random is always grey.
CYCLE = ("blue", "vermilion", "green", "purple", "orange", "sky", "ink")
STYLES = ("-", "--", "-.", ":")
_AREA = (
    "Area under the curve of held-out mean squared error over the number of acquired "
    "perturbations, divided by its range"
)
_MARKS = (
    "mean ± SE over seeds, lower is better. * better, † worse than random (paired t-test within "
    "seeds, Holm over strategies, 5 %)"
)
_BIOLOGY = {
    "coverage.csv": "Modules of the target pathway touched, by round (mean over seeds)",
    "enrichment.csv": "Gene sets over-represented among early picks",
    "relations.csv": "Relation of early picks to the target pathway, beside the pool",
    "overlap.csv": "Overlap of everything acquired (Jaccard)",
}


def write_run(run: Run, path: Path) -> Path:
    """The page of one run."""
    return write_page([run], path)


def write_page(runs: Sequence[Run], path: str | os.PathLike[str]) -> Path:
    """Write the page; runs are shown one after another, each with its own provenance."""
    seeds = max(r.task.settings.protocol.seeds for r in runs)
    page = Page(
        "Which strategy chooses better than random?",
        simulated=any(r.record.get("simulated", False) for r in runs),
        folder=Path(path).parent if asked_formats() else None,
        lead=(
            "Rounds of acquisition replayed on finished screens: each strategy chooses batches, a "
            "predictor is fitted on what was chosen, and its error is measured on perturbations "
            f"held out from all of them (up to {seeds} seeds; one held-out set a seed)."
        ),
    )
    prefixes = ["" if len(runs) == 1 else f"{_name(run)}: " for run in runs]
    for prefix, run in zip(prefixes, runs, strict=True):
        for note in run.notes:
            page.warn(prefix + note)
    for prefix, run in zip(prefixes, runs, strict=True):
        for predictor in run.task.settings.predictors:
            _section(page, run, predictor, prefix)
    found = [(p + title, t) for p, run in zip(prefixes, runs, strict=True)
             for title, t in _biology(run)]  # fmt: skip
    if found:
        page.head("What was picked")
    for title, table in found:
        page.head(title, 3)
        page.table(table, show=significant)
    page.head("Provenance")
    for run in runs:
        page.head(_name(run), 3)
        page.facts(_facts(run))
    return page.write(path)


def write_markdown(runs: Sequence[Run], path: str | os.PathLike[str]) -> Path:
    """Per run and predictor: one sentence, the table, differences with intervals, labels needed."""
    page = Page("")
    for run in runs:
        _markdown(page, run)
    write_text_atomic(path, page.markdown())
    return Path(path)


ALONE = "Nothing to compare: that takes the strategy random and at least one other."


def _to_random(run: Run) -> pd.DataFrame:
    """Paired differences to random; no rows where there was nothing to compare."""
    if not run.has("differences.csv"):
        return pd.DataFrame(columns=list(DIFFERENCES))
    return run.read("differences.csv")


def _markdown(page: Page, run: Run) -> None:
    settings = run.task.settings
    protocol, areas = settings.protocol, run.read("areas.parquet")
    differences = _to_random(run)
    screen = Path(run.record["inputs"]["screen"]["path"]).name
    page.head(settings.name)
    page.say(
        f"Screen `{screen}`, {protocol.seeds} seeds from "
        f"{protocol.first_seed}, {protocol.heldout:.0%} held out, batches of "
        f"{', '.join(map(str, protocol.batch))}, {areas['n_rounds'].max()} rounds, settings "
        f"`{run.record['settings_sha256'][:12]}`. {_AREA}; {_MARKS}."
    )
    for note in run.notes:
        page.say(f"Note: {note}.")
    for predictor in settings.predictors:
        mine = differences[differences["predictor"] == predictor]
        page.head(f"{settings.name}, predictor: {predictor}", 3)
        page.say(verdict_text(mine) if len(mine) else ALONE)
        shown = paper_table(areas, differences, "mse", predictor).reset_index()
        page.table(shown, show=significant)
        if mine.empty:
            continue
        needed = run.read("labels_needed.csv")
        page.say("Differences to random (area; negative = lower error), 95 % interval:")
        page.table(_differences(mine, needed, predictor), show=significant)
        for words, table in _early_and_biased(run, predictor):
            page.say(words)
            page.table(table, show=significant)


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


def _section(page: Page, run: Run, predictor: str, prefix: str) -> None:
    """Table, curves and differences to random of one predictor."""
    areas, rounds = run.read("areas.parquet"), run.read("rounds.parquet")
    differences = _to_random(run)
    page.head(f"{prefix}Predictor: {predictor}")
    mine = differences[differences["predictor"] == predictor]
    page.say(verdict_text(mine) if len(mine) else ALONE)
    table = paper_table(areas, differences, "mse", predictor)
    page.table(table.reset_index(), show=significant)
    page.say(
        f"{_AREA}: the mean error over the campaign, {_MARKS}; unmarked = no difference shown.",
        small=True,
    )
    page.figure(
        _curves(rounds[rounds["predictor"] == predictor]),
        _file(run, "curves", predictor),
        words="Held-out error by number of acquired perturbations: mean over seeds, band = SE. "
        "Dashed: the mean of the acquired responses under random acquisition (no model).",
    )
    if mine.empty:
        return
    page.head("Difference to random, with 95 % interval", 3)
    page.figure(
        _forest(mine),
        _file(run, "differences", predictor),
        words="Mean paired difference in area within seeds; left of zero = lower error than "
        "random.",
    )
    keep = ["target", "metric", "strategy", "difference", "se", "low", "high"]
    keep += ["gain_percent", "p_t", "p_wilcoxon", "p_holm", "verdict"]
    page.table(mine[keep], show=significant, fold="All measures: paired differences")
    for words, table in _early_and_biased(run, predictor):
        page.say(words)
        page.table(table, show=significant)
    needed = run.read("labels_needed.csv")
    page.table(
        needed[needed["predictor"] == predictor],
        show=significant,
        fold="Perturbations needed to reach random's final error",
    )
    page.say(
        'ratio 0.6 = the same error with 40 % fewer measurements; "-" = not reached within the '
        "rounds.",
        small=True,
    )


_PHASES = (
    "Early and late: error saved against random over the first and the second half of the rounds, "
    "in per cent of random's (95 % interval leaves out zero: *, not corrected for the number of "
    "comparisons):"
)
_BIAS = (
    "How biased the acquired are: mean squared response of the acquired over that of the held-out, "
    "and, in brackets, the distance of their means (root mean square over features). A predictor "
    "centred on the mean of the acquired begins with that distance as error:"
)


_HITS = (
    "Hits found: share of the 5 % of the pool with the strongest measured response in the target "
    "that is among the acquired, mean over seeds (a screen for hits wants much; it does not "
    "measure what a predictor learns):"
)


def _early_and_biased(run: Run, predictor: str) -> list[tuple[str, pd.DataFrame]]:
    """Halves of the curve, bias of what was acquired, hits among it; empty for an older run."""
    found = []
    if run.has("phases.csv"):
        part = run.read("phases.csv")
        part = part[(part["predictor"] == predictor) & (part["metric"] == "mse")]
        part = part[part["phase"] != "whole"].dropna(subset=["gain_percent"])
        if len(part):
            sure = (part["low"] > 0) | (part["high"] < 0)
            part = part.assign(cell=[
                f"{g:+.1f}{' *' if s else ''}"
                for g, s in zip(part["gain_percent"], sure, strict=True)
            ])  # fmt: skip
            found.append((_PHASES, _wide(part, "phase")))
    if run.has("bias.csv"):
        part = run.read("bias.csv")
        part = part[part["predictor"] == predictor]
        last = part["round"].max()
        part = part[part["round"].isin([1, last])]
        if len(part):
            ratio = part["size_acquired"] / part["size_heldout"]
            part = part.assign(
                cell=[f"{r:.2f} ({s:.2g})" for r, s in zip(ratio, part["shift"], strict=True)],
                when=[f"round {r}" for r in part["round"]],
            )
            found.append((_BIAS, _wide(part, "when")))
    if run.has("hits.csv"):
        part = run.read("hits.csv")
        part = part[part["predictor"] == predictor].dropna(subset=["hit_ratio"])
        last = part["round"].max()
        part = part[part["round"].isin([1, (last + 1) // 2, last])]
        if len(part):
            part = part.assign(
                cell=[f"{r:.2f}" for r in part["hit_ratio"]],
                when=[f"round {r}" for r in part["round"]],
            )
            found.append((_HITS, _wide(part, "when")))
    return found


def _wide(part: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row a target and strategy (with start and batch where there are several)."""
    sweep = [k for k in ("initial", "batch") if part[k].nunique() > 1]
    keys = ["target", "strategy", *sweep]
    wide = part.pivot_table(index=keys, columns=column, values="cell", aggfunc="first", sort=False)
    return wide.reset_index().rename_axis(columns=None)


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


def _file(run: Run, what: str, predictor: str) -> str:
    """Name of a figure's file; "" where no files were asked for (`style.figures_as`)."""
    return slugify(f"{what} {_name(run)} {predictor}") if asked_formats() else ""


def _curves(rounds: pd.DataFrame) -> Figure:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    part = rounds[rounds["metric"] == "mse"]
    base = rounds[(rounds["metric"] == "mse_mean") & (rounds["strategy"] == "random")]
    targets = sorted(part["target"].unique())
    colours = _colours(sorted(part["strategy"].unique()))
    columns = min(2, len(targets))
    lines = -(-len(targets) // columns)
    figure: Figure
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
    return figure


def _forest(differences: pd.DataFrame) -> Figure:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    part = differences[differences["metric"] == "mse"].reset_index(drop=True)
    targets = sorted(part["target"].unique())
    strategies = sorted(part["strategy"].unique())
    colours = _colours(strategies)
    figure: Figure
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
    return figure


def _biology(run: Run) -> list[tuple[str, pd.DataFrame]]:
    found = []
    for name, title in _BIOLOGY.items():
        table = run.read(name) if run.has(name) else pd.DataFrame()
        if name == "coverage.csv" and len(table):
            keys = ["target", "predictor", "strategy", "round"]
            table = table.groupby(keys, as_index=False)[["share", "n_related"]].mean()
            table = table[table["round"].isin([1, 3, 5, table["round"].max()])]
        if len(table):
            found.append((title, table))
    return found


def _name(run: Run) -> str:
    return run.task.settings.name if run.folder is None else run.folder.name


def _facts(run: Run) -> list[tuple[str, str]]:
    settings = run.task.settings
    return record_facts(
        run.record,
        protocol=settings.protocol.model_dump_json(),
        strategies=json.dumps(settings.strategies),
        predictors=json.dumps(settings.predictors),
        embedding=settings.embedding,
    )


__all__ = ["verdict_text", "write_markdown", "write_page", "write_run"]
