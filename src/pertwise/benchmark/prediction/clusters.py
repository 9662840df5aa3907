"""Scores of signatures to the table people read: intervals over clusters of what is one thing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pertwise.evaluate.statistics import cluster_interval

_DESCRIPTION = (
    "data", "regime", "seed", "fold", "method", "drug", "context", "compound", "setting", "effect",
    "n_support", "fallback",
)  # fmt: skip


def metric_columns(table: pd.DataFrame) -> list[str]:
    """The metric columns of a bench table."""
    return [c for c in table.columns if c not in _DESCRIPTION]


def summarise(
    table: pd.DataFrame,
    *,
    seed: int = 0,
    weight: str | None = None,
    baseline: str = "context mean",
    n_resamples: int = 2000,
) -> pd.DataFrame:
    """Mean over signatures per (data, regime, setting, method, metric), 95 % cluster intervals.

    Repeats of a signature over seeds are averaged first. ``difference`` is the paired difference
    from `baseline` on the same signatures, with its own interval; ``coverage`` is the share of
    signatures answered without a fallback. Clusters are compounds; in the unseen-line and given
    regimes, lines.
    """
    rows = []
    names = metric_columns(table)
    table = table if "setting" in table else table.assign(setting="")
    for (data, regime, setting), block in table.groupby(["data", "regime", "setting"], sort=False):
        block = block.dropna(axis=1, how="all")
        present = [n for n in names if n in block]
        keys = ["method", "drug", "context", "compound"]
        if regime == "dose":
            keys = ["method", "drug", "compound"]
        block = block.assign(covered=(block["fallback"] == "").astype(float))
        merged = block.groupby(keys, sort=False)[
            [*present, "effect", "n_support", "covered"]
        ].mean()
        wide = merged.reset_index()
        wide["cluster"] = wide["context" if regime in ("context", "given") else "compound"]
        first = baseline if baseline in set(wide["method"]) else wide["method"].iloc[0]
        base = wide[wide["method"] == first].set_index(keys[1:])
        for method, own in wide.groupby("method", sort=False):
            own = own.set_index(keys[1:])
            weights = own["effect"].to_numpy() if weight == "effect" else None
            other = base.reindex(own.index)
            for metric in present:
                value, gap = (
                    cluster_interval(
                        values,
                        own["cluster"].to_numpy(),
                        np.random.default_rng([seed, names.index(metric)]),
                        weights=weights,
                        n_resamples=n_resamples,
                    )
                    for values in (own[metric], own[metric].to_numpy() - other[metric].to_numpy())
                )
                rows.append(
                    {
                        "data": data, "regime": regime, "setting": setting, "method": method,
                        "metric": metric,
                        "mean": value.mean, "low": value.low, "high": value.high,
                        "difference": gap.mean, "difference_low": gap.low,
                        "difference_high": gap.high, "n_signatures": len(own),
                        "n_clusters": value.n, "coverage": float(own["covered"].mean()),
                        "k_used": float(own["n_support"].mean()),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)
