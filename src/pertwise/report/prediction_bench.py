"""The written report of a prediction benchmark: one page, markdown, csv tables, figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from pertwise._files import read_frame, read_json_object
from pertwise._io import atomic_path, write_text_atomic
from pertwise.evaluate.prediction import analyses, tables
from pertwise.evaluate.prediction.config import ORACLE, PredictionConfig
from pertwise.evaluate.prediction.run import Inputs, make_splits
from pertwise.evaluate.score import metric_of
from pertwise.report import prediction_figures as figures
from pertwise.report.page import render_page
from pertwise.report.style import figure_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pertwise.evaluate.splits import Split

#: Graphs compared with named neighbours when none were asked for and the folder has them.
USUAL_GRAPHS = ("string", "go", "reactome", "complexes", "omnipath")


TITLE = "Predicting unmeasured perturbations"
#: Longer tables are folded on the page.
FOLDED_ROWS = 12


@dataclass
class _Report:
    """Page and markdown under construction; every table is also a csv, every figure a svg."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    #: (kind, content) for the page: kind is the HTML tag of a text, "table", "folded" or "figure".
    blocks: list[tuple[str, Any]] = field(default_factory=list)

    def head(self, text: str, level: int = 2) -> None:
        self.lines += ["", "#" * level + " " + text, ""]
        self.blocks.append((f"h{level}", _inline(text)))

    def say(self, text: str) -> None:
        self.lines += [text, ""]
        self.blocks.append(("p", _inline(text)))

    def table(self, table: pd.DataFrame, name: str, digits: int = 3) -> None:
        with atomic_path(self.folder / "tables" / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        self.lines += [markdown(table, digits), "", f"(`tables/{name}.csv`)", ""]
        grid = {
            "columns": [str(c) for c in table.columns],
            "rows": [[_cell(v, digits) for v in row] for row in table.itertuples(index=False)],
            "file": f"tables/{name}.csv",
        }
        self.blocks.append(("folded" if len(table) > FOLDED_ROWS else "table", grid))

    def figure(self, figure: Figure, name: str, words: str) -> None:
        import matplotlib.pyplot as plt

        text = figure_svg(figure)
        plt.close(figure)
        header = '<?xml version="1.0" encoding="utf-8"?>\n'
        write_text_atomic(self.folder / "figures" / f"{name}.svg", header + text)
        self.lines += [f"![{words}](figures/{name}.svg)", ""]
        # A page is wider than most figures; blown up, their letters would be larger than headings.
        points = re.search(r'width="([\d.]+)pt"', text)
        width = round(float(points[1]) * 4 / 3) if points else 600
        self.blocks.append(("figure", {"svg": Markup(text), "words": words, "width": width}))


def _inline(text: str) -> Markup:
    """Markdown's `code` and **bold** as HTML; everything else is escaped."""
    safe = str(escape(text))
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe))


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return ""
        if 0 < abs(float(value)) < 10.0**-digits:
            return f"{value:.0e}"
        return f"{value:.{digits}f}"
    return str(value)


def markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """A data frame as a markdown table; floats with `digits`, small p values as powers."""

    def text(value: Any) -> str:
        return _cell(value, digits).replace("|", "\\|")

    head = "| " + " | ".join(map(str, table.columns)) + " |"
    rule = "| " + " | ".join("---" for _ in table.columns) + " |"
    rows = ["| " + " | ".join(map(text, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join([head, rule, *rows])


_ANEW = "run the benchmark again: finished parts are kept"


def write_report(folder: Path, config: PredictionConfig, inputs: Inputs) -> pd.DataFrame:
    """Write summary.csv, tables/, figures/, report.md and report.html of a finished benchmark.

    Returns
    -------
    The main table (methods x main metrics, as text), for the terminal.
    """
    results = read_frame(folder / "results.parquet", "results", _ANEW)
    items = read_frame(folder / "items.parquet", "results", _ANEW)
    path = folder / "neighbours.parquet"
    neighbours = read_frame(path, "results", _ANEW) if path.exists() else None
    rng = np.random.default_rng(config.seed)
    known = set(results["metric"].unique())
    main = [m for m in config.metrics.main if m in known]
    full = tables.summary(results, rng)
    with atomic_path(folder / "summary.csv") as temporary:
        full.to_csv(temporary, index=False)

    report = _Report(folder)
    _opening(report, config, inputs, results)
    shown = _main_section(report, full, main)
    _ceiling_section(report, results, items, config, main)
    if results["split"].iloc[0] == "growing":
        _curve_section(report, results, main)
    largest = results[results["n_train"] == results["n_train"].max()]
    final = largest if results["split"].iloc[0] == "growing" else results
    _test_section(report, final, main, rng, config)
    _strata_section(report, final, items, config, main)
    _calibration_section(report, final)
    _plane_section(report, final, known)
    splits = _splits_of(final, config, inputs)
    graphs = _graphs(config, inputs, splits)
    _measured_neighbours_section(report, final, graphs, main)
    if neighbours is not None:
        _neighbour_section(report, neighbours, config, inputs, splits, graphs)
    _failures(report, results)
    path = folder / "answers.parquet"
    if path.exists():
        _repair_section(report, read_frame(path, "results", _ANEW))
    report.head("How to read the numbers")
    report.say(
        "Definitions, formulas and sources of every metric: docs/metrics.md. Mean ± standard error "
        "over shuffles; intervals are 95 % bootstrap over perturbations. Undefined scores "
        "(a constant has no correlation) take the stated value and are counted in summary.csv."
    )
    write_text_atomic(folder / "report.md", "\n".join(report.lines).strip() + "\n")
    page = render_page(
        "prediction_bench.html.j2",
        title=TITLE,
        simulated=inputs.screen.simulated,
        blocks=report.blocks,
    )
    write_text_atomic(folder / "report.html", page)
    return shown


def _opening(
    report: _Report, config: PredictionConfig, inputs: Inputs, results: pd.DataFrame
) -> None:
    screen = inputs.screen
    report.lines.append(f"# {TITLE}")
    report.lines.append("")
    if screen.simulated:
        report.say("**Simulated data**: this screen comes from the simulator, not from cells.")
    source = screen.meta.get("source", config.screen)
    report.say(
        f"{len(screen)} measured perturbations x {screen.n_features} features"
        f"{', context ' + repr(screen.contexts[0]) if screen.contexts[0] else ''} ({source}). "
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


def _main_section(report: _Report, full: pd.DataFrame, main: Sequence[str]) -> pd.DataFrame:
    report.head("Methods")
    better = {"low": "lower is better", "high": "higher is better", "one": "1 is best"}
    described = [(m, metric_of(m)) for m in main]
    report.say("; ".join(f"{name}: {m.about} ({better[m.better]})" for name, m in described))
    shown = pd.DataFrame()
    for (n_train, stratum), part in full.groupby(["n_train", "stratum"], observed=True, sort=True):
        table = tables.main_table(part, main)
        if str(stratum):
            report.head(f"{stratum}", 3)
        if full["n_train"].nunique() > 1:
            report.head(f"{n_train} training perturbations", 3)
        name = "_".join(str(x).replace(" ", "-") for x in ("methods", n_train, stratum) if str(x))
        report.table(table, name)
        shown = table if shown.empty else shown
        if full["n_train"].nunique() > 1:
            shown = table
    if ORACLE in set(full["method"]):
        report.say(
            f"`{ORACLE}` is the mean of the 5 training responses nearest to the measured answer: a "
            "bound for any choice of neighbours, never a method."
        )
    return shown


def _ceiling_section(
    report: _Report,
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


def _curve_section(report: _Report, results: pd.DataFrame, main: Sequence[str]) -> None:
    report.head("Learning curves")
    curves = tables.learning_curves(results, main)
    report.figure(figures.learning_curves(curves), "learning_curves", "score by training size")
    report.table(curves, "learning_curves")
    areas = tables.curve_areas(curves)
    wide = areas.pivot(index="method", columns="metric", values="area").reset_index()
    report.say("Area under the curve (trapezoid over training size, divided by its range):")
    report.table(wide, "learning_curve_areas")


def _test_section(
    report: _Report,
    results: pd.DataFrame,
    main: Sequence[str],
    rng: np.random.Generator,
    config: PredictionConfig,
) -> None:
    table = tables.comparisons(results, main, rng, reference=config.reference)
    if table.empty:
        return
    report.head("Are the differences real?")
    report.say(
        "Wilcoxon signed-rank tests over perturbations (seeds averaged first), Holm-corrected over "
        "the table; difference = mean of a minus b with its paired bootstrap interval."
    )
    first = ["metric", "method_a", "method_b", "n", "difference", "low", "high", "p_holm"]
    report.table(table[first], "comparisons")


def _strata_section(
    report: _Report,
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


def _calibration_section(report: _Report, results: pd.DataFrame) -> None:
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


def _plane_section(report: _Report, results: pd.DataFrame, known: set[str]) -> None:
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


def _splits_of(results: pd.DataFrame, config: PredictionConfig, inputs: Inputs) -> list[Split]:
    done = results[["seed", "fold"]].drop_duplicates()
    pairs = set(zip(done["seed"], done["fold"], strict=True))
    return [s for s in make_splits(config, inputs) if (s.seed, s.fold) in pairs]


def _graphs(
    config: PredictionConfig, inputs: Inputs, splits: Sequence[Split]
) -> dict[str, pd.DataFrame]:
    if inputs.knowledge is None:
        return {}
    there = set(inputs.knowledge.graph_names())
    wanted = config.graphs if config.graphs is not None else USUAL_GRAPHS
    chosen = [g for g in wanted if config.graphs is not None or g in there]
    return analyses.graph_tables(inputs.knowledge, chosen, splits)


def _measured_neighbours_section(
    report: _Report,
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
    report: _Report,
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
        from pertwise.evaluate.prediction.neighbour_sets import overlap_matrix

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


def _repair_section(report: _Report, answers: pd.DataFrame) -> None:
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
    if len(cuts):
        report.say(
            "Lists that were cut before the model saw them (`pertwise bench prefilter` gives the "
            "recall):"
        )
        report.table(cuts.rename("rows").reset_index().head(10), "cut_lists")


def _failures(report: _Report, results: pd.DataFrame) -> None:
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


def read_provenance(folder: Path) -> dict[str, Any]:
    """provenance.json of a benchmark folder."""
    found = read_json_object(folder / "provenance.json", "provenance", _ANEW)
    return found
