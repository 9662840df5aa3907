"""The questions the papers ask of a finished benchmark, one table each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pertwise.benchmark.prediction import neighbour_sets as sets
from pertwise.benchmark.prediction.tables import per_perturbation
from pertwise.evaluate.specs import ORACLE, MetricSpec
from pertwise.evaluate.statistics import quantile_strata

if TYPE_CHECKING:
    from pertwise.evaluate.splits import Split
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Ensembles of every two models and of all; more would be a table nobody reads.
MAX_MODELS = 6
SET_METRICS = ("squared_error", "cosine", "retrieval_l2")


def gap_to_ceiling(
    results: pd.DataFrame, items: pd.DataFrame, metric: str, n_quantiles: int = 4
) -> pd.DataFrame:
    """Score against the reproducibility ceiling, by quantile of perturbations.

    Perturbations are grouped by their ceiling (0 = least reproducible). For cosine and Pearson.

    Returns
    -------
    quantile, n, replicate (mean score of a repeat of the experiment), perfect (mean bound of a
    prediction without noise), one column per method with its mean score, and "METHOD / perfect":
    share of the bound reached. Empty when there is no ceiling.
    """
    kind = "pearson" if metric.startswith("pearson") else "cosine"
    wide = per_perturbation(results, metric)
    replicate = items[f"replicate_{kind}"].reindex(wide.index)
    perfect = items[f"perfect_{kind}"].reindex(wide.index)
    if replicate.notna().sum() == 0:
        return pd.DataFrame()
    group = quantile_strata(replicate.to_numpy(dtype=float), n_quantiles)
    rows = []
    for q in sorted(set(group) - {-1}):
        chosen = (group == q).to_numpy()
        bound = float(perfect[chosen].mean())
        means = {str(m): float(v) for m, v in wide[chosen].mean().items()}
        shares = {f"{m} / perfect": v / bound if bound > 0.1 else np.nan for m, v in means.items()}
        rows.append(
            {
                "quantile": int(q),
                "n": int(chosen.sum()),
                "replicate": float(replicate[chosen].mean()),
                "perfect": bound,
                **means,
                **shares,
            }
        )
    return pd.DataFrame(rows)


def error_correlation_plane(
    results: pd.DataFrame, error: str = "squared_error", correlation: str = "cosine"
) -> pd.DataFrame:
    """Every method as a point (error, correlation), with the training mean dividing the plane.

    Returns
    -------
    method, error, correlation, and quadrant: "better in both", "worse in both", "only error" or
    "only correlation" against the training mean ("" for the training mean itself, "bound" for the
    oracle). Empty when the training mean is not among the methods.
    """
    e = per_perturbation(results, error).mean()
    c = per_perturbation(results, correlation).mean()
    centre = "training mean"
    if centre not in e.index:
        return pd.DataFrame()
    rows = []
    for method in e.index:
        better = (e[method] < e[centre], c[method] > c[centre])
        words = {
            (True, True): "better in both",
            (False, False): "worse in both",
            (True, False): "only error",
            (False, True): "only correlation",
        }[better]
        if method == centre:
            words = ""
        elif method == ORACLE:
            words = "bound"
        rows.append((str(method), float(e[method]), float(c[method]), words))
    return pd.DataFrame(rows, columns=["method", error, correlation, "against_training_mean"])


def by_measured_neighbours(
    results: pd.DataFrame,
    graph_neighbours: pd.DataFrame,
    metric: str,
    edges: Sequence[int] = (1, 3, 6, 11),
) -> pd.DataFrame:
    """Mean of a metric by how many of the held-out gene's graph neighbours were measured.

    Long: method, measured_neighbours, n, mean.
    """
    counts = graph_neighbours.groupby(sets.QUERY).size()
    part = results[results["metric"] == metric]
    index = pd.MultiIndex.from_frame(part[sets.QUERY].astype({"perturbation": str}))
    number = counts.reindex(index, fill_value=0).to_numpy()
    bounds = [0, *edges]
    names = [str(a) if b - a == 1 else f"{a}-{b - 1}" for a, b in itertools.pairwise(bounds)] + [
        f">= {edges[-1]}"
    ]
    group = pd.cut(number, [-0.5, *[e - 0.5 for e in edges], np.inf], labels=names)
    table = part.assign(measured_neighbours=group)
    out = table.groupby(["method", "measured_neighbours"], observed=True)["value"]
    return out.agg(["size", "mean"]).rename(columns={"size": "n"}).reset_index()


def neighbour_tables(neighbours: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """method -> neighbour table, answer-seeing ones left out."""
    return {
        str(method): part[[*sets.PAIR, "weight"]].astype({"perturbation": str, "neighbour": str})
        for method, part in neighbours.groupby("method", observed=True, sort=False)
        if method != ORACLE
    }


def graph_overlaps(
    tables: Mapping[str, pd.DataFrame], graphs: Mapping[str, pd.DataFrame], n_train: float
) -> pd.DataFrame:
    """Overlap of every method's neighbours with every graph's.

    Columns method, graph and those of `overlap`, and chance: the share of named neighbours that
    would be in the graph set if they were drawn at random among the training perturbations.
    """
    rows = []
    for method, table in tables.items():
        for name, graph in graphs.items():
            found = sets.overlap(table, graph)
            chance = found["size_second"] / n_train if n_train else np.nan
            rows.append({"method": method, "graph": name, **found, "chance": chance})
    return pd.DataFrame(rows)


def set_predictions(
    tables: Mapping[str, pd.DataFrame],
    graphs: Mapping[str, pd.DataFrame],
    splits: Sequence[Split],
    screen: Screen,
    source: Screen,
    metrics: MetricSpec,
) -> pd.DataFrame:
    """Scores of predictions from the intersection and from each difference of method and graph.

    Returns
    -------
    method, graph, part ("both", "METHOD only", "graph only", and the two whole sets), then the
    means of `SET_METRICS`, answered (share of held-out perturbations with a neighbour in the
    part; the rest is the training mean and stays in the score).
    """
    wanted: dict[str, pd.DataFrame] = {}
    labels: dict[str, tuple[str, str, str]] = {}

    def add(method: str, graph: str, part: str, table: pd.DataFrame) -> None:
        key = str(len(wanted))
        wanted[key] = table
        labels[key] = (method, graph, part)

    for method, table in tables.items():
        add(method, "", "all named", table.assign(weight=1.0))
        for name, graph in graphs.items():
            parts = sets.combine(table, graph)
            add(method, name, "both", parts["both"])
            add(method, name, "named only", parts["first only"])
            add(method, name, "graph only", parts["second only"])
    for name, graph in graphs.items():
        add("", name, "all in graph", graph.assign(weight=1.0))
    scores = sets.score_tables(wanted, splits, screen, source, metrics)
    return _means(scores, labels, ["method", "graph", "part"])


def vote_ensembles(
    tables: Mapping[str, pd.DataFrame],
    splits: Sequence[Split],
    screen: Screen,
    source: Screen,
    metrics: MetricSpec,
) -> pd.DataFrame:
    """Scores of each model's neighbours alone, of every two and of all together, by votes.

    Returns
    -------
    models, n_models, weighting ("votes", "rank"), then as `set_predictions`. Empty with fewer
    than two models.
    """
    names = list(tables)[:MAX_MODELS]
    if len(names) < 2:
        return pd.DataFrame()
    groups: list[tuple[str, ...]] = [(n,) for n in names]
    groups += itertools.combinations(names, 2)
    if len(names) > 2:
        groups.append(tuple(names))
    wanted: dict[str, pd.DataFrame] = {}
    labels: dict[str, tuple[object, ...]] = {}
    for group in groups:
        for by_rank in (False, True):
            key = str(len(wanted))
            wanted[key] = sets.votes([tables[n] for n in group], by_rank=by_rank)
            labels[key] = (" + ".join(group), len(group), "rank" if by_rank else "votes")
    scores = sets.score_tables(wanted, splits, screen, source, metrics)
    return _means(scores, labels, ["models", "n_models", "weighting"])


def _means(
    scores: pd.DataFrame, labels: Mapping[str, tuple[object, ...]], names: Sequence[str]
) -> pd.DataFrame:
    rows = []
    for key, label in labels.items():
        part = scores[scores["method"] == key]
        row: dict[str, object] = dict(zip(names, label, strict=True))
        for metric in SET_METRICS:
            chosen = part[part["metric"] == metric]
            by_perturbation = chosen.groupby("perturbation", observed=True)["value"].mean()
            row[metric] = float(by_perturbation.mean())
        row["answered"] = 1.0 - float(part["fallback"].mean())
        rows.append(row)
    return pd.DataFrame(rows)


def graph_tables(
    knowledge: Knowledge, names: Sequence[str], splits: Sequence[Split]
) -> dict[str, pd.DataFrame]:
    """Neighbour table of every named graph of a knowledge folder."""
    return {n: sets.graph_table(knowledge.graph(n), knowledge, splits) for n in names}
