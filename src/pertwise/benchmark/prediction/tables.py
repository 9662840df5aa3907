"""From tidy results to the tables people read."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pertwise.errors import InputError
from pertwise.evaluate.metrics import learning_curve_area
from pertwise.evaluate.specs import DIAGNOSTICS, ORACLE
from pertwise.evaluate.statistics import (
    bootstrap_mean,
    compare_methods,
    quantile_strata,
    summarise_seeds,
)


def per_perturbation(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """(n_perturbations, n_methods) value of one metric, averaged over the seeds.

    Raises
    ------
    pertwise.errors.InputError
        If no row has that metric.
    """
    part = results[results["metric"] == metric]
    if not len(part):
        known = sorted(set(results["metric"]))
        raise InputError(f"no result has the metric {metric!r}; there are {', '.join(known)}")
    return part.pivot_table(
        index="perturbation", columns="method", values="value", aggfunc="mean", observed=True
    )


def summary(results: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """One row per (n_train, setting, stratum, method, metric).

    Columns: mean (over seeds of the mean over perturbations), se_seeds, n_seeds, low, high (95 %
    bootstrap over perturbations of the mean over seeds), n (perturbations), undefined (share where
    the prediction left the metric undefined and the stated value was used), unscored (share the
    truth leaves undefined), coverage (share answered without a fallback).
    """
    growing = (results["split"] == "growing").any()
    keys = ["setting", "stratum", "method", "metric"]
    data = results.assign(n_train=results["n_train"] if growing else -1)
    data = data if "setting" in data else data.assign(setting="")
    rows = []
    for key, part in data.groupby(["n_train", *keys], observed=True, sort=False):
        mean, error, n_seeds = summarise_seeds(part["value"], part["seed"])
        by_perturbation = part.groupby("perturbation", observed=True)["value"].mean()
        interval = bootstrap_mean(by_perturbation.to_numpy(dtype=float), rng, n_resamples=1000)
        rows.append(
            {
                "n_train": key[0],
                **dict(zip(keys, key[1:], strict=True)),
                "mean": mean,
                "se_seeds": error,
                "n_seeds": n_seeds,
                "low": interval.low,
                "high": interval.high,
                "n": interval.n,
                "undefined": float(part["undefined"].mean()),
                "unscored": float(part["value"].isna().mean()),
                "coverage": 1.0 - float(part["fallback"].mean()),
            }
        )
    out = pd.DataFrame(rows)
    if not growing:
        out["n_train"] = round(float(results["n_train"].mean()))
    return out


def main_table(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Methods x metrics ("mean ± standard error over seeds") with coverage, of one stratum."""
    rows = []
    for method, part in table.groupby("method", observed=True, sort=False):
        by_metric = part.set_index("metric")
        row: dict[str, object] = {"method": str(method)}
        for metric in metrics:
            if metric not in by_metric.index:
                row[metric] = ""
                continue
            value, error = by_metric.loc[metric, "mean"], by_metric.loc[metric, "se_seeds"]
            digits = 2 if abs(value) >= 1 else 3
            text = f"{value:.{digits}f}"
            row[metric] = text if np.isnan(error) else f"{text} ± {error:.{digits}f}"
        row["coverage"] = f"{float(part['coverage'].mean()):.3f}"
        rows.append(row)
    return pd.DataFrame(rows)


def one_setting(results: pd.DataFrame) -> pd.DataFrame:
    """The rows of the setting (`splits.SETTINGS`) that has most of them: settings never mix."""
    counts = results.groupby("setting", observed=True, sort=False).size()
    return results[results["setting"] == counts.idxmax()] if len(counts) > 1 else results


def comparisons(
    results: pd.DataFrame,
    metrics: Sequence[str],
    rng: np.random.Generator,
    *,
    reference: str | None = None,
    ceilings: Sequence[str] = (ORACLE,),
) -> pd.DataFrame:
    """Wilcoxon tests between methods per setting and metric, Holm-corrected over all rows.

    Only perturbations that every method was scored on count. Methods that see the answer
    (`ceilings`) are left out.
    """
    from pertwise.evaluate.statistics import holm

    parts = []
    told = results if "setting" in results else results.assign(setting="")
    blocks = list(told.groupby("setting", observed=True, sort=False))
    for (setting, block), metric in itertools.product(blocks, metrics):
        table = per_perturbation(block, metric).dropna()
        table = table[[c for c in table.columns if c not in ceilings]]
        if table.shape[1] < 2:
            continue
        compared = compare_methods(table, rng, reference=reference)
        parts.append(compared.assign(metric=metric, setting=setting))
    if not parts:
        return pd.DataFrame()
    out = pd.concat(parts, ignore_index=True)
    out["p_holm"] = holm(out["p"].to_numpy(dtype=float))
    return out


def by_stratum(
    results: pd.DataFrame, items: pd.DataFrame, column: str, metric: str, n_strata: int
) -> pd.DataFrame:
    """Mean of a metric per method and quantile of an item column (effect, control_likeness ...).

    Returns
    -------
    Columns stratum (0 = smallest), low, high (range of `column`), n, then one per method; empty
    when the column is unknown for all.
    """
    wide = per_perturbation(results, metric)
    values = items[column].reindex(wide.index)
    if values.notna().sum() == 0:
        return pd.DataFrame()
    stratum = quantile_strata(values.to_numpy(dtype=float), n_strata)
    rows = []
    for s in sorted(set(stratum) - {-1}):
        chosen = (stratum == s).to_numpy()
        rows.append(
            {
                "stratum": int(s),
                "low": float(values[chosen].min()),
                "high": float(values[chosen].max()),
                "n": int(chosen.sum()),
                **{str(m): float(v) for m, v in wide[chosen].mean().items()},
            }
        )
    return pd.DataFrame(rows)


def by_support(
    results: pd.DataFrame, metric: str, edges: Sequence[int] = (1, 3, 5, 10)
) -> pd.DataFrame:
    """Mean of a metric by the number of measured items each answer rests on.

    Groups: 0 (or a fallback), then [edge, next edge). Long: method, support, n, mean.
    """
    keys = ["method", "seed", "fold", "perturbation"]
    value = results[results["metric"] == metric].set_index(keys)["value"]
    support = results[results["metric"] == "n_support"].set_index(keys)
    number = support["value"].where(~support["fallback"], 0.0)
    bounds = [*edges, None]
    names = [f"< {edges[0]}"]
    for low, high in itertools.pairwise(bounds):
        last = None if high is None else high - 1
        names.append(f">= {low}" if last is None else str(low) if last == low else f"{low}-{last}")
    bins = [-np.inf, *[e - 0.5 for e in edges], np.inf]
    group = pd.cut(number, bins, labels=names)
    table = pd.DataFrame({"value": value, "support": group.reindex(value.index)}).reset_index()
    out = table.groupby(["method", "support"], observed=True)["value"].agg(["size", "mean"])
    return out.rename(columns={"size": "n"}).reset_index()


def calibration_table(results: pd.DataFrame) -> pd.DataFrame:
    """Per method with a spread: mean coverage at every level and Spearman of spread against error.

    The correlation is taken within each seed over all perturbations and averaged.
    """
    from pertwise.evaluate.calibration import spread_rank_correlation

    rows = []
    for method, part in results[results["metric"].isin(DIAGNOSTICS)].groupby(
        "method", observed=True, sort=False
    ):
        mean = part.groupby("metric", observed=True)["value"].mean()
        if "spread" not in mean.index:
            continue
        ranks = []
        for _, seed in part.groupby("seed"):
            wide = seed.pivot_table(
                index=["fold", "perturbation"], columns="metric", values="value", observed=True
            )
            ranks.append(spread_rank_correlation(wide["spread"], wide["error"]))
        coverages = {c: float(mean[c]) for c in DIAGNOSTICS if c.startswith("coverage")}
        known = [r for r in ranks if not np.isnan(r)]
        rank = float(np.mean(known)) if known else np.nan
        rows.append({"method": str(method), **coverages, "spearman_spread_error": rank})
    return pd.DataFrame(rows)


def learning_curves(results: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Points of the learning curves: method, metric, n_train, mean, se_seeds, n_seeds."""
    rows = []
    part = results[results["metric"].isin(metrics)]
    for (method, metric, n), group in part.groupby(
        ["method", "metric", "n_train"], observed=True, sort=True
    ):
        mean, error, seeds = summarise_seeds(group["value"], group["seed"])
        rows.append((str(method), str(metric), int(n), mean, error, seeds))
    return pd.DataFrame(
        rows, columns=["method", "metric", "n_train", "mean", "se_seeds", "n_seeds"]
    )


def curve_areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Normalised area under every learning curve (`learning_curve_area`): method, metric, area."""
    rows = []
    for (method, metric), part in curves.groupby(["method", "metric"], sort=False):
        ordered = part.sort_values("n_train")
        area = learning_curve_area(ordered["n_train"], ordered["mean"])
        rows.append({"method": method, "metric": metric, "area": area})
    return pd.DataFrame(rows, columns=["method", "metric", "area"])
