"""From round records to the tables a reader trusts: areas, paired differences, labels needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from pertwise.benchmark.acquisition.config import Curve
from pertwise.errors import InputError
from pertwise.evaluate.metrics import learning_curve_area
from pertwise.evaluate.statistics import holm, wilcoxon_p

#: What one learning curve is identified by, besides its seed and metric.
CURVE = ("target", "predictor", "strategy", "initial", "batch")
#: Columns of the tidy rounds.
ROUND = [*CURVE, "seed", "round", "n_acquired", "metric", "value"]
#: What `replay.selection_bias` tells of a round.
BIAS = ["mean_acquired", "mean_heldout", "size_acquired", "size_heldout", "shift"]
#: Columns of `curve_areas` that hold an area, and what they are the mean height of.
PHASES = {"area": "whole", "area_first": "first half", "area_second": "second half"}
#: Metrics where smaller is better.
LOWER_IS_BETTER = frozenset({"mse", "mse_mean"})


def round_table(curve: Curve, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Tidy rounds of one curve: one row per (target, round, metric) with n_acquired and value."""
    rows = [
        (
            target, curve.predictor, curve.strategy, curve.initial, curve.batch, curve.seed,
            record["round"], record["n_acquired"], metric,
            np.nan if value is None else float(value),
        )
        for record in records
        for target, measures in record["measures"].items()
        for metric, value in measures.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=ROUND)


def sorted_rounds(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rounds in one table, in an order that does not depend on that of the units."""
    return pd.concat(parts, ignore_index=True).sort_values(ROUND[:-1], ignore_index=True)


def pick_table(curve: Curve, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per pick: who, when, why, and the strategy's own fields (module, relation, rank);
    `repairs` are the kinds of all repairs of the round."""
    rows = []
    for record in records:
        repairs = ", ".join(k for k, n in record["repairs"].items() for _ in range(n))
        for place, item in enumerate(record["picks"], start=1):
            extra = record["extra"].get(item, {})
            rank = extra.get("uncertainty_rank")
            rows.append(
                {
                    **curve.model_dump(),
                    "round": record["round"],
                    "place": place,
                    "perturbation": item,
                    "reason": record["reasons"].get(item, ""),
                    "module": extra.get("module") or "",
                    "relation": extra.get("relation") or "",
                    "uncertainty_rank": np.nan if rank is None else float(rank),
                    "fallback": record["fallback"],
                    "pick_fallback": bool(extra.get("fallback")),
                    "repairs": repairs,
                }
            )
    return pd.DataFrame(rows)


def bias_table(curve: Curve, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per (target, round): the fields of `replay.selection_bias`."""
    rows = [
        {
            **curve.model_dump(),
            "target": target,
            "round": record["round"],
            "n_acquired": record["n_acquired"],
            **{key: np.nan if v is None else float(v) for key, v in found.items()},
        }
        for record in records
        for target, found in record.get("bias", {}).items()
    ]
    return pd.DataFrame(rows, columns=[*CURVE, "seed", "round", "n_acquired", *BIAS])


def mean_bias(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Bias of every round, mean over seeds: one row per (curve, round)."""
    keys = [*CURVE, "round", "n_acquired"]
    if not parts:
        return pd.DataFrame(columns=[*keys, *BIAS])
    return pd.concat(parts, ignore_index=True).groupby(keys, as_index=False, sort=True)[BIAS].mean()


def hit_table(curve: Curve, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per (target, round): hits of the pool, those found so far, those in the batch."""
    rows = [
        {
            **curve.model_dump(),
            "target": target,
            "round": record["round"],
            "n_acquired": record["n_acquired"],
            **found,
            "n_batch": len(record["picks"]),
        }
        for record in records
        for target, found in record.get("hits", {}).items()
    ]
    columns = [*CURVE, "seed", "round", "n_acquired", "n_hits", "found", "in_batch", "n_batch"]
    return pd.DataFrame(rows, columns=columns)


def mean_hits(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Hit rates of every round, mean and standard error over seeds: one row per (curve, round).

    hit_ratio
        Share of all hits of the pool found so far (the measure of BioDiscoveryAgent, Roohani et
        al. 2024, whose hits are the strongest phenotypes of a screen).
    batch_rate
        Share of the round's batch that are hits; by chance `replay.HIT_SHARE`.
    """
    keys = [*CURVE, "round", "n_acquired"]
    if not parts:
        return pd.DataFrame(columns=[*keys, "hit_ratio", "hit_ratio_se", "batch_rate"])
    rows = pd.concat(parts, ignore_index=True)
    rows["hit_ratio"] = rows["found"] / rows["n_hits"]
    rows["batch_rate"] = rows["in_batch"] / rows["n_batch"]
    found = rows.groupby(keys, as_index=False, sort=True)
    return found.agg(
        hit_ratio=("hit_ratio", "mean"),
        hit_ratio_se=("hit_ratio", "sem"),
        batch_rate=("batch_rate", "mean"),
    )


def curve_areas(rounds: pd.DataFrame) -> pd.DataFrame:
    """Normalised area under each learning curve: one row per (curve, seed, metric).

    Trapezoid over the number of acquired perturbations, divided by the range of that number, so
    that the area is the mean height of the curve in the unit of the metric (the first paper's
    K562 random row, 75.59 over 20..200, is 75.59 / 180 = 0.42 mean Pearson delta).
    ``area_first`` and ``area_second`` are the same over each half of that range (`area` is their
    mean): a strategy may gain early and lose late. NaN with fewer than three rounds.
    """
    keys = [*CURVE, "seed", "metric"]
    rows = []
    for key, group in rounds.sort_values("n_acquired").groupby(keys, sort=True):
        x, y = group["n_acquired"].to_numpy(float), group["value"].to_numpy(float)
        area = (
            learning_curve_area(x, y, normalise=True)
            if len(x) > 1 and np.isfinite(y).all()
            else (float(y[0]) if len(y) == 1 else float("nan"))
        )
        halves = half_areas(x, y)
        rows.append((*key, area, *halves, float(y[-1]), len(x), int(x[0]), int(x[-1])))
    found = [*keys, *PHASES, "last", "n_rounds", "n_first", "n_last"]
    return pd.DataFrame(rows, columns=found)


def half_areas(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Mean height of a curve over the first and the second half of the range of `x`.

    The curve is linear between its points, so the middle need not be one of them. NaN, NaN for
    fewer than three points or an undefined value.
    """
    if len(x) < 3 or not np.isfinite(y).all():
        return float("nan"), float("nan")
    middle = (x[0] + x[-1]) / 2
    halves = []
    for side in (x < middle, x > middle):
        at = np.sort(np.append(x[side], middle))
        halves.append(float(learning_curve_area(at, np.interp(at, x, y), normalise=True)))
    return halves[0], halves[1]


def phase_differences(areas: pd.DataFrame, reference: str = "random") -> pd.DataFrame:
    """`paired_differences` of the whole curve and of its two halves, told by the column phase."""
    found = []
    for column, phase in PHASES.items():
        part = areas.drop(columns="area").rename(columns={column: "area"})
        part = areas if column == "area" else part
        table = paired_differences(part, reference)
        table.insert(0, "phase", phase)
        found.append(table)
    return pd.concat(found, ignore_index=True)


#: Columns of `paired_differences`, also when nothing was there to compare.
DIFFERENCES = (
    "target", "predictor", "initial", "batch", "metric", "strategy", "reference", "n_seeds",
    "difference", "se", "low", "high", "p_t", "p_wilcoxon", "gain_percent", "p_holm", "verdict",
)  # fmt: skip


def paired_differences(areas: pd.DataFrame, reference: str = "random") -> pd.DataFrame:
    """Each strategy minus `reference` over the same seeds.

    The seed fixes held-out set and pool, so differences are taken within seeds. Columns: mean
    difference, its standard error and 95 % interval (Student's t, n_seeds - 1 degrees of freedom),
    `gain_percent` (improvement relative to the reference, positive = better), `p_t` (paired
    t-test), `p_wilcoxon` (signed-rank, two-sided), `p_holm` (t-test, Holm over the strategies of
    one target, predictor and metric) and `verdict`: better / worse / no difference at 5 % after
    Holm.

    Raises
    ------
    pertwise.errors.InputError
        When the reference strategy was not run.
    """
    if reference not in set(areas["strategy"]):
        raise InputError(f"no strategy {reference!r} in this run to compare with")
    group_keys = ["target", "predictor", "initial", "batch", "metric"]
    rows = []
    for key, group in areas.groupby(group_keys, sort=True):
        wide = group.pivot(index="seed", columns="strategy", values="area")
        if reference not in wide:
            continue
        sign = -1.0 if key[-1] in LOWER_IS_BETTER else 1.0
        found = []
        for strategy in wide.columns.drop(reference):
            both = wide[[reference, strategy]].dropna()
            d = (both[strategy] - both[reference]).to_numpy()
            found.append(
                {
                    **dict(zip(group_keys, key, strict=True)),
                    "strategy": strategy,
                    "reference": reference,
                    "n_seeds": len(d),
                    **_paired(d),
                    "gain_percent": 100 * sign * d.mean() / abs(both[reference].mean())
                    if len(d) and both[reference].mean() != 0
                    else float("nan"),
                    "sign": sign,
                }
            )
        p = np.array([f["p_t"] for f in found])
        for f, adjusted in zip(found, holm(p), strict=True):
            f["p_holm"] = adjusted
            sign = f.pop("sign")
            if not adjusted < 0.05:
                f["verdict"] = "no difference"
            else:
                f["verdict"] = "better" if sign * f["difference"] > 0 else "worse"
        rows.extend(found)
    return pd.DataFrame(rows, columns=list(DIFFERENCES))


def _paired(d: NDArray[np.float64]) -> dict[str, float]:
    n = len(d)
    nan = float("nan")
    mean = float(d.mean()) if n else nan
    if n < 2:
        return {
            "difference": mean,
            "se": nan,
            "low": nan,
            "high": nan,
            "p_t": nan,
            "p_wilcoxon": nan,
        }
    se = float(d.std(ddof=1) / np.sqrt(n))
    half = float(stats.t.ppf(0.975, n - 1)) * se
    if se == 0:
        # Identical curves are no evidence of a difference; a constant shift is a sure one.
        p_t = 1.0 if mean == 0 else 0.0
        p_w = 1.0
    else:
        p_t = float(stats.ttest_1samp(d, 0.0).pvalue)
        p_w = wilcoxon_p(d)[1]
    return {
        "difference": mean,
        "se": se,
        "low": mean - half,
        "high": mean + half,
        "p_t": p_t,
        "p_wilcoxon": p_w,
    }


def labels_needed(
    rounds: pd.DataFrame, metric: str = "mse", reference: str = "random"
) -> pd.DataFrame:
    """Perturbations needed to reach the reference's final value, as a ratio to the reference.

    On the mean curve over seeds (linear between rounds); the level is the reference's mean at its
    last round, so its own count is the first time its mean curve gets there. ratio 0.6 = the same
    error with 40 % fewer measurements; NaN = never reached within the rounds.
    """
    sign = 1.0 if metric in LOWER_IS_BETTER else -1.0
    part = rounds[rounds["metric"] == metric]
    rows = []
    for key, group in part.groupby(["target", "predictor", "initial", "batch"], sort=True):
        mean = group.pivot_table(
            index="n_acquired", columns="strategy", values="value", aggfunc="mean"
        )
        if reference not in mean:
            continue
        x = mean.index.to_numpy(float)
        level = float(mean[reference].iloc[-1])
        own = first_crossing(x, sign * mean[reference].to_numpy(), sign * level)
        for strategy in mean.columns:
            n = first_crossing(x, sign * mean[strategy].to_numpy(), sign * level)
            rows.append((*key, strategy, level, n, n / own))
    return pd.DataFrame(
        rows,
        columns=["target", "predictor", "initial", "batch", "strategy", "level", "needed", "ratio"],
    )


def first_crossing(x: NDArray[np.float64], y: NDArray[np.float64], level: float) -> float:
    """Smallest x where the piecewise linear y is at or below `level`; NaN when never."""
    below = np.flatnonzero(y <= level)
    if not len(below):
        return float("nan")
    i = int(below[0])
    if i == 0 or y[i] == level:
        return float(x[i])
    share = (y[i - 1] - level) / (y[i - 1] - y[i])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))


def overlap(picks: pd.DataFrame) -> pd.DataFrame:
    """Jaccard overlap of everything acquired, between strategies within a seed and between seeds.

    Rows (target, predictor, first, second, kind, jaccard): kind "strategies" = two strategies, same
    seed, averaged over seeds; "seeds" = one strategy, averaged over pairs of seeds (pools differ by
    the held-out set, so 1 cannot be expected).
    """
    rows = []
    for key, group in picks.groupby(["target", "predictor", "initial", "batch"], sort=True):
        sets: dict[str, dict[int, set[str]]] = {}
        for (strategy, seed), part in group.groupby(["strategy", "seed"], sort=True):
            sets.setdefault(strategy, {})[seed] = set(part["perturbation"])
        names = sorted(sets)
        for i, a in enumerate(names):
            for b in names[i:]:
                if a == b:
                    seeds = sorted(sets[a])
                    pairs = [(s, t) for k, s in enumerate(seeds) for t in seeds[k + 1 :]]
                    values = [_jaccard(sets[a][s], sets[a][t]) for s, t in pairs]
                else:
                    common = sorted(set(sets[a]) & set(sets[b]))
                    values = [_jaccard(sets[a][s], sets[b][s]) for s in common]
                if values:
                    kind = "seeds" if a == b else "strategies"
                    rows.append((*key, a, b, kind, float(np.mean(values))))
    return pd.DataFrame(
        rows,
        columns=["target", "predictor", "initial", "batch", "first", "second", "kind", "jaccard"],
    )


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def paper_table(
    areas: pd.DataFrame, differences: pd.DataFrame, metric: str, predictor: str
) -> pd.DataFrame:
    """The first paper's layout: a row a strategy, a column a target, mean +- SE over seeds.

    A star marks a strategy that is better than the reference after Holm at 5 %, a dagger one that
    is worse; the best mean of a column is not marked otherwise, because without a test it is just
    the best of several.
    """
    part = areas[(areas["metric"] == metric) & (areas["predictor"] == predictor)]
    marks = {}
    if len(differences):
        chosen = differences[
            (differences["metric"] == metric) & (differences["predictor"] == predictor)
        ]
        for _, row in chosen.iterrows():
            sign = {"better": " *", "worse": " †"}.get(row["verdict"], "")
            marks[row["target"], row["strategy"], row["initial"], row["batch"]] = sign
    sweep = part[["initial", "batch"]].drop_duplicates()
    rows: dict[str, dict[str, str]] = {}
    for (strategy, target, initial, batch), group in part.groupby(
        ["strategy", "target", "initial", "batch"], sort=True
    ):
        label = strategy if len(sweep) == 1 else f"{strategy} (start {initial}, batch {batch})"
        values = group["area"].dropna()
        if values.empty:
            text = "undefined"
        else:
            se = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
            mark = marks.get((target, strategy, initial, batch), "")
            text = f"{values.mean():.4g} ± {se:.2g}{mark}"
        rows.setdefault(label, {})[target] = text
    table = pd.DataFrame.from_dict(rows, orient="index")
    order = sorted(table.index, key=lambda s: (not s.startswith("random"), s))
    table = table.loc[order]
    table.index.name = "strategy"
    return table
