"""The written report of a prediction benchmark: one page, markdown, csv tables, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pertwise.benchmark.engine import BenchmarkRun
from pertwise.benchmark.prediction import analyses, tables
from pertwise.benchmark.prediction.config import PredictionConfig
from pertwise.benchmark.prediction.inputs import Inputs
from pertwise.benchmark.prediction.run import (
    PredictionTask,
    at_full_size,
    main_metrics,
)
from pertwise.evaluate.score import metric_of
from pertwise.evaluate.specs import ORACLE
from pertwise.report import prediction_figures as figures
from pertwise.report.page import Page

if TYPE_CHECKING:
    from pertwise.evaluate.splits import Split

#: Graphs compared with named neighbours when none were asked for and the folder has them.
USUAL_GRAPHS = ("string", "go", "reactome", "complexes", "omnipath")


def write_page(run: BenchmarkRun[PredictionTask], path: Path) -> Path:
    """Write the page, and beside it report.md, tables/ and figures/."""
    config, inputs = run.task.settings, run.task.opened
    everything, items = run.table, run.read("items.parquet")
    main = main_metrics(config, everything)
    results = tables.one_setting(everything)
    final = at_full_size(results)
    simulated = inputs.screen.simulated
    report = Page("Predicting unmeasured perturbations", simulated=simulated, folder=path.parent)
    _opening(report, config, inputs, everything)
    _others(report, run.task)
    _main_section(report, run.summary, main, config.metrics.more)
    if len(results) < len(everything):
        report.say(
            f"Settings are not mixed: all that follows, but the tests between methods, is of "
            f"“{results['setting'].iloc[0]}”."
        )
    _ceiling_section(report, results, items, config, main)
    if results["split"].iloc[0] == "growing":
        _curve_section(report, results, main)
    _test_section(report, run.read("comparisons.csv"))
    _strata_section(report, final, items, config, main)
    _calibration_section(report, final)
    _plane_section(report, final)
    splits = _splits_of(final, run.task)
    graphs = _graphs(config, inputs, splits)
    _measured_neighbours_section(report, final, graphs, main)
    if run.has("neighbours.parquet") and not config.split.by_rows:
        named = run.read("neighbours.parquet")
        if "elsewhere" in named and named["elsewhere"].isna().any():
            named = named[named["elsewhere"].isna()]
        _neighbour_section(report, named, config, inputs, splits, graphs)
    _failures(report, everything)
    if run.has("answers.parquet"):
        _repair_section(report, run.read("answers.parquet"))
    report.head("How to read the numbers")
    report.say(
        "Definitions, formulas and sources of every metric: docs/metrics.md. Mean ± standard error "
        "over shuffles; intervals are 95 % bootstrap over perturbations. Undefined scores "
        "(a constant has no correlation) take the stated value and are counted in summary.csv."
    )
    return report.write(path, path.with_suffix(".md"))


def shown_table(run: BenchmarkRun[PredictionTask]) -> pd.DataFrame:
    """Methods x main metrics, as text, for a terminal, of every setting: the first stratum, or the
    largest sets."""
    full, shown = run.summary, dict[str, pd.DataFrame]()
    main = main_metrics(run.task.settings, run.table)
    for (_, setting, _), part in _groups(full):
        if setting not in shown or full["n_train"].nunique() > 1:
            shown[setting] = tables.main_table(part, main)
    named = [t.assign(setting=s) if len(shown) > 1 else t for s, t in shown.items()]
    return pd.concat(named, ignore_index=True)


def _opening(report: Page, config: PredictionConfig, inputs: Inputs, results: pd.DataFrame) -> None:
    screen = inputs.screen
    if screen.simulated:
        report.say("**Simulated data**: this screen comes from the simulator, not from cells.")
    source = screen.meta.get("source", config.screen)
    rows = "rows" if config.split.by_rows else "perturbations"
    report.say(
        f"{len(screen)} measured {rows} x {screen.n_features} features"
        f"{_where(screen.contexts)} ({source}). "
        f"Split: {config.split.kind}; {results[['seed', 'fold']].drop_duplicates().shape[0]} "
        f"splits, seed {config.seed}. Target gene of each perturbation "
        f"{'included' if config.metrics.include_target else 'left out where it is a feature'}."
    )
    by = (
        "|delta| / standard error, the standard errors of the screen's means (Welch's t where they "
        "come from cells)"
        if screen.sampling_variance is not None
        else "Welch's t of the cells against controls"
        if inputs.cells is not None
        else "|delta| alone: neither cells nor standard errors of every feature are known"
    )
    report.say(f"Differential features of a perturbation (`top20` ...) are ordered by {by}.")


def _where(contexts: Sequence[str]) -> str:
    if len(contexts) > 1:
        return f", {len(contexts)} contexts"
    return f", context {contexts[0]!r}" if contexts[0] else ""


def _others(report: Page, task: PredictionTask) -> None:
    """What the other screens measured of the perturbations here, and what to beware of."""
    table = task.overlap()
    if table.empty:
        return
    report.head("Other screens")
    report.say(
        "Fitted on their own lines; the weight of each is learned from the training perturbations. "
        "Where a perturbation counts as unseen anywhere, its rows in them are hidden from every "
        "method. Screens made with one guide library share its failures: a guide that does not "
        "work is without effect in every line, which looks like agreement of the lines."
    )
    report.table(table, "other_screens")


def _groups(full: pd.DataFrame) -> list[tuple[tuple[int, str, str], pd.DataFrame]]:
    """The summary by training size, setting and stratum (missing = none, as csv has it)."""
    known = full.assign(**{key: full[key].fillna("").astype(str) for key in ("setting", "stratum")})
    found = known.groupby(["n_train", "setting", "stratum"], observed=True, sort=True)
    return [((int(n), str(setting), str(s)), part) for (n, setting, s), part in found]


def _main_section(
    report: Page, full: pd.DataFrame, main: Sequence[str], more: Sequence[str] = ()
) -> None:
    report.head("Methods")
    better = {"low": "lower is better", "high": "higher is better", "one": "1 is best"}
    described = [(m, metric_of(m, more)) for m in main]
    report.say("; ".join(f"{name}: {m.about} ({better[m.better]})" for name, m in described))
    settings = full["setting"].nunique()
    for (n_train, setting, stratum), part in _groups(full):
        table = tables.main_table(part, main)
        report.head(", ".join(x for x in (setting, stratum) if x) or "all", 3)
        if full["n_train"].nunique() > 1:
            report.head(f"{n_train} training perturbations", 3)
        words = ("methods", n_train, stratum, setting if settings > 1 else "")
        report.table(table, "_".join(str(x).replace(" ", "-") for x in words if str(x)))
    if ORACLE in set(full["method"]):
        report.say(
            f"`{ORACLE}` is the mean of the 5 training responses nearest to the measured answer: a "
            "bound for any choice of neighbours, never a method."
        )


def _ceiling_section(
    report: Page,
    results: pd.DataFrame,
    items: pd.DataFrame,
    config: PredictionConfig,
    main: Sequence[str],
) -> None:
    chosen = [m for m in main if m in ("cosine", "pearson_delta")]
    if not chosen or items["replicate_cosine"].isna().all():
        report.head("Reproducibility ceiling")
        report.say("Not known: neither cells nor sampling variances of the means were given.")
        return
    report.head("Gap to the reproducibility ceiling")
    report.say(
        "Perturbations in quantiles of their reproducibility (0 = least). `replicate`: expected "
        "score of a repeat of the experiment; `perfect`: bound of a prediction without noise, from "
        f"{items['ceiling_from'].iloc[0]}. An `{ORACLE}` sees the noise itself and may pass it."
    )
    if items["noise"].notna().any():
        report.say(
            "Mean squared error that no prediction can avoid: "
            f"{items['noise'].mean():.3f} (sampling variance of the means, summed over features)."
        )
    report.say(
        "Quantiles are of the measured reproducibility, itself noisy: the lowest one holds "
        "some perturbations that were unlucky rather than weak."
    )
    for metric in chosen:
        gap = analyses.gap_to_ceiling(results, items, metric, config.n_strata)
        report.table(gap, f"ceiling_{metric}")
        report.figure(
            figures.ceiling(gap, metric), f"ceiling_{metric}", f"{metric} against its ceiling"
        )


def _curve_section(report: Page, results: pd.DataFrame, main: Sequence[str]) -> None:
    report.head("Learning curves")
    curves = tables.learning_curves(results, main)
    report.figure(figures.learning_curves(curves), "learning_curves", "score by training size")
    report.table(curves, "learning_curves")
    areas = tables.curve_areas(curves)
    wide = areas.pivot(index="method", columns="metric", values="area").reset_index()
    report.say("Area under the curve (trapezoid over training size, divided by its range):")
    report.table(wide, "learning_curve_areas")


def _test_section(report: Page, table: pd.DataFrame) -> None:
    if table.empty:
        return
    report.head("Are the differences real?")
    report.say(
        "Wilcoxon signed-rank tests over perturbations (seeds averaged first), Holm-corrected over "
        "the table; difference = mean of a minus b with its paired bootstrap interval."
    )
    first = [c for c in ("setting",) if table["setting"].nunique() > 1]
    first += ["metric", "method_a", "method_b", "n", "difference", "low", "high", "p_holm"]
    report.table(table[first], "comparisons")


def _strata_section(
    report: Page,
    results: pd.DataFrame,
    items: pd.DataFrame,
    config: PredictionConfig,
    main: Sequence[str],
) -> None:
    words = {
        "effect": "size of the effect",
        "control_likeness": "likeness to control (1 = not distinguishable)",
        "n_cells": "cells measured",
    }
    for column, text in words.items():
        done = False
        for metric in main:
            part = tables.by_stratum(results, items, column, metric, config.n_strata)
            if part.empty:
                continue
            if not done:
                report.head(f"By {text}")
                done = True
            report.say(f"{metric}:")
            report.table(part, f"by_{column}_{metric}")
            report.figure(
                figures.strata(part, metric, text), f"by_{column}_{metric}", f"{metric} by {text}"
            )
    report.head("By support")
    report.say("Measured items each answer rests on; a fallback rests on none.")
    for metric in main[:2]:
        report.say(f"{metric}:")
        report.table(tables.by_support(results, metric), f"by_support_{metric}")


def _calibration_section(report: Page, results: pd.DataFrame) -> None:
    table = tables.calibration_table(results)
    report.head("Do the error bars hold?")
    if table.empty:
        report.say("No method states a spread.")
        return
    report.say(
        "Share of measured values inside the stated Gaussian intervals, and Spearman correlation "
        "over perturbations between stated spread and realised error (root mean square over "
        "features)."
    )
    report.table(table, "calibration")
    report.figure(figures.calibration(table), "calibration", "nominal against realised coverage")


def _plane_section(report: Page, results: pd.DataFrame) -> None:
    known = set(results["metric"].unique())
    pairs = [("squared_error", "cosine"), ("mse", "pearson_delta")]
    for error, correlation in pairs:
        if not {error, correlation} <= known:
            continue
        plane = analyses.error_correlation_plane(results, error, correlation)
        if plane.empty:
            return
        report.head(f"Error against correlation ({error}, {correlation})")
        report.table(plane, f"plane_{error}_{correlation}")
        report.figure(
            figures.plane(plane, error, correlation),
            f"plane_{error}_{correlation}",
            "methods in the plane that the training mean divides",
        )
        return


def _splits_of(results: pd.DataFrame, task: PredictionTask) -> list[Split]:
    done = results[["seed", "fold"]].drop_duplicates()
    pairs = set(zip(done["seed"], done["fold"], strict=True))
    return [s for s in task.splits if (s.seed, s.fold) in pairs and not s.elsewhere]


def _graphs(
    config: PredictionConfig, inputs: Inputs, splits: Sequence[Split]
) -> dict[str, pd.DataFrame]:
    if inputs.knowledge is None or config.split.by_rows:
        return {}
    there = set(inputs.knowledge.graph_names())
    wanted = config.graphs if config.graphs is not None else USUAL_GRAPHS
    chosen = [g for g in wanted if config.graphs is not None or g in there]
    return analyses.graph_tables(inputs.knowledge, chosen, splits)


def _measured_neighbours_section(
    report: Page,
    results: pd.DataFrame,
    graphs: Mapping[str, pd.DataFrame],
    main: Sequence[str],
) -> None:
    if not graphs:
        return
    report.head("By number of measured neighbours")
    report.say(
        "Neighbours of the held-out perturbation in a graph that were measured in training (at "
        "most 20 by weight)."
    )
    for metric in main[:2]:
        tables_of = {
            name: analyses.by_measured_neighbours(results, graph, metric)
            for name, graph in graphs.items()
        }
        for name, counts in tables_of.items():
            wide = counts.pivot_table(
                index="measured_neighbours", columns="method", values="mean", observed=True
            )
            n = counts.groupby("measured_neighbours", observed=True)["n"].first()
            wide.insert(0, "n", n)
            report.say(f"{metric}, {name}:")
            report.table(wide.reset_index(), f"by_measured_neighbours_{name}_{metric}")
        report.figure(
            figures.measured_neighbours(tables_of, metric),
            f"by_measured_neighbours_{metric}",
            f"{metric} by number of measured neighbours in each graph",
        )


def _neighbour_section(
    report: Page,
    neighbours: pd.DataFrame,
    config: PredictionConfig,
    inputs: Inputs,
    splits: Sequence[Split],
    graphs: Mapping[str, pd.DataFrame],
) -> None:
    named = analyses.neighbour_tables(neighbours)
    if not named:
        return
    screen, source, spec = inputs.screen, inputs.source, config.metrics
    report.head("Named neighbours")
    if len(named) > 1:
        from pertwise.benchmark.prediction.neighbour_sets import overlap_matrix

        matrix = overlap_matrix(named)
        report.say("Mean Jaccard overlap of the neighbour sets of every two methods:")
        report.table(matrix.rename_axis("method").reset_index(), "neighbour_overlap")
        report.say("Predictions from the votes of several methods' neighbours (`rank`: 1 / rank):")
        report.table(analyses.vote_ensembles(named, splits, screen, source, spec), "vote_ensembles")
    if graphs:
        n_train = float(np.mean([len(s.train) for s in splits]))
        report.say("Overlap with the neighbours in each graph that were measured in training:")
        report.table(analyses.graph_overlaps(named, graphs, n_train), "graph_overlap")
        report.say(
            "Mean of the neighbours that both name, that only the method names, that only the "
            "graph holds (an empty set is answered with the training mean and stays in the score):"
        )
        parts = analyses.set_predictions(named, graphs, splits, screen, source, spec)
        report.table(parts, "set_predictions")
        report.figure(
            figures.set_predictions(parts), "set_predictions",
            "prediction from what both name and from each difference",
        )  # fmt: skip


def _repair_section(report: Page, answers: pd.DataFrame) -> None:
    """What selectors that were asked name by name had to be corrected for."""
    report.head("What was repaired")
    queries = ["method", "seed", "fold", "perturbation"]
    counts = answers.pivot_table(
        index="method", columns="kind", values="item", aggfunc="size", observed=True, fill_value=0
    )
    counts = counts.drop(columns="", errors="ignore").rename_axis(columns=None)
    asked = answers.drop_duplicates(queries).groupby("method", observed=True)
    counts.insert(0, "asked", asked.size())
    counts.insert(1, "own fallback", asked["fallback"].sum().astype(int))
    report.say(
        "How often each kind of repair was needed (docs/llm.md says what each means); `own "
        "fallback`: the selector could not use the answer and declared what it gave instead."
    )
    report.table(counts.reset_index(), "repairs")
    cuts = answers.loc[answers["cut"] != "", ["method", "cut"]].value_counts(sort=True)
    # pandas 3 counts the categories of a method that never occur, too.
    cuts = cuts[cuts > 0]
    if len(cuts):
        report.say(
            "Lists that were cut before the model saw them (`pertwise bench prefilter` gives the "
            "recall):"
        )
        report.table(cuts.rename("rows").reset_index().head(10), "cut_lists")


def _failures(report: Page, results: pd.DataFrame) -> None:
    report.head("What fell back")
    one = results[results["metric"] == results["metric"].iloc[0]]
    share = one.groupby("method", observed=True, sort=False)["fallback"].agg(["sum", "size"])
    table = share.rename(columns={"sum": "fallbacks", "size": "answers"}).reset_index()
    report.table(table, "fallbacks")
    errors = results.loc[results["error"] != "", ["method", "seed", "fold", "error"]]
    if len(errors):
        report.say("Units that a method could not do (answered with the training mean):")
        report.table(errors.drop_duplicates(), "errors")
    seconds = results.groupby(["method", "seed", "fold"], observed=True)["seconds"].first()
    per_fit = seconds.groupby("method", observed=True).mean()
    report.say(
        "Seconds per split (fit and predict): "
        + ", ".join(f"{m} {s:.2f}" for m, s in per_fit.items())
        + "."
    )
