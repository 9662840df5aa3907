"""Scores of drug responses: which metrics a screen allows, HVGs, weights, plates, intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pertwise import parts
from pertwise.errors import InputError, unknown_name
from pertwise.evaluate import metrics as m
from pertwise.evaluate.metrics import Floats
from pertwise.evaluate.score import metric_named
from pertwise.evaluate.statistics import Interval
from pertwise.screen.core import Screen
from pertwise.screen.signatures import is_ranked

#: Metric -> function(truth, prediction, mask); "pearson_reference" takes the line mean as well.
METRICS: Mapping[str, Callable[..., Floats]] = {
    name: parts.find("metric", name)
    for name in (
        "pearson_reference", "pearson_delta", "cosine", "direction_accuracy", "mae", "mse", "slope",
        "r2",
    )
}  # fmt: skip
#: They speak of how large a response is, which a rank does not know.
MAGNITUDE = frozenset(
    part.label
    for part in (parts.describe("metric", n) for n in parts.names("metric", offered=False))
    if part.facts.more["magnitude"]
)
RANKED_METRICS = tuple(n for n in METRICS if n not in MAGNITUDE)


def allowed_metrics(screen: Screen, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """The metrics to compute: those asked for, else all that the screen's unit allows.

    Raises
    ------
    pertwise.errors.InputError
        For a metric of magnitude on ranked signatures, by name, or an unknown metric.
    """
    ranked = is_ranked(screen)
    if wanted is None:
        return RANKED_METRICS if ranked else tuple(METRICS)
    for name in wanted:
        if name not in METRICS and name not in MAGNITUDE:
            raise unknown_name("metric", name, METRICS)
        if ranked and name in MAGNITUDE:
            raise InputError(
                f"metric {name!r} compares magnitudes, but this screen holds ranks as normal "
                f"scores, which have none; use any of {', '.join(RANKED_METRICS)}"
            )
    return tuple(wanted)


def top_variable(training: Screen, n: int) -> NDArray[np.bool_]:
    """(d,) True for the n features that vary most over the *training* rows (NaN left out)."""
    if not 1 <= n <= training.n_features:
        raise InputError(f"top {n} features asked for, but the screen has {training.n_features}")
    values = np.asarray(training.responses, dtype=np.float64)
    seen = np.isfinite(values)
    count = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, values, 0.0).sum(axis=0) / count
    variance = np.where(seen, (values - mean) ** 2, 0.0).sum(axis=0) / count
    out = np.zeros(training.n_features, dtype=bool)
    out[np.lexsort((np.arange(len(variance)), -variance))[:n]] = True
    return out


def score_rows(
    truth: ArrayLike,
    prediction: ArrayLike,
    reference: ArrayLike,
    names: Sequence[str],
    tops: Mapping[str, NDArray[np.bool_]] | None = None,
) -> pd.DataFrame:
    """One row a signature, one column a metric, and metric + suffix for each feature set.

    Parameters
    ----------
    truth, prediction, reference
        (n, d); the reference is the cell-mean prediction of the same split.
    tops
        Suffix -> (d,) mask of features, e.g. the most variable ones.
    """
    t = np.asarray(truth)
    out: dict[str, Floats] = {}
    for suffix, columns in {"": np.ones(t.shape[1], dtype=bool), **(tops or {})}.items():
        arrays = [np.asarray(x)[:, columns] for x in (truth, prediction, reference)]
        for name in names:
            if name == "pearson_reference":
                values = m.pearson_reference(arrays[0], arrays[1], arrays[2])
            else:
                values = METRICS[name](arrays[0], arrays[1])
            fill = metric_named(name).undefined
            out[name + suffix] = np.where(np.isnan(values), fill, values)
    return pd.DataFrame(out)


def cluster_interval(
    values: ArrayLike,
    clusters: Sequence[str] | NDArray[np.object_],
    rng: np.random.Generator,
    *,
    weights: ArrayLike | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Weighted mean over signatures with a bootstrap interval over clusters.

    Signatures of one compound in many lines are not independent, so whole compounds (in the
    unseen-line regime, whole lines) are drawn with replacement and the mean over their signatures
    is taken (cluster bootstrap, Davison & Hinkley 1997, 3.8). ``n`` counts clusters.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    ok = np.isfinite(x) & np.isfinite(w) & (w > 0)
    codes, distinct = pd.factorize(np.asarray(clusters, dtype=object)[ok], sort=True)
    if not len(distinct):
        return Interval(np.nan, np.nan, np.nan, 0)
    top = np.bincount(codes, weights=(w * x)[ok], minlength=len(distinct))
    bottom = np.bincount(codes, weights=w[ok], minlength=len(distinct))
    mean = float(top.sum() / bottom.sum())
    if len(distinct) < 2:
        return Interval(mean, np.nan, np.nan, len(distinct))
    drawn = rng.integers(0, len(distinct), size=(n_resamples, len(distinct)))
    means = top[drawn].sum(axis=1) / bottom[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), len(distinct))


def centre_within(screen: Screen, column: str, *, least: int = 3) -> tuple[Screen, int]:
    """Responses minus the mean of their (line, plate) group: what a plate adds to all is removed.

    Groups of fewer than `least` rows cannot tell a plate from a drug and are left out.

    Returns
    -------
    The centred screen (``meta["centred_within"]`` says so) and the number of rows left out.

    Raises
    ------
    pertwise.errors.InputError
        Without that column, or when no group is large enough.
    """
    if column not in screen.obs:
        raise InputError(f"no column {column!r} in the screen; there are {list(screen.obs)}")
    groups = screen.obs.groupby(["context", column], sort=False).indices
    values = np.array(screen.responses, dtype=np.float64)
    keep = np.zeros(len(screen), dtype=bool)
    for rows in groups.values():
        if len(rows) >= least:
            block = values[rows]
            seen = np.isfinite(block)
            mean = np.where(seen, block, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
            values[rows] = block - mean
            keep[rows] = True
    if not keep.any():
        raise InputError(f"no (line, {column}) group has {least} rows; plates cannot be centred")
    out = Screen(
        responses=values.astype(np.float32),
        obs=screen.obs,
        features=screen.features,
        control_mean=np.array(screen.control_mean),
        feature_table=screen.feature_table,
        meta={**screen.meta, "centred_within": ["context", column]},
    )
    return out.take(keep), int((~keep).sum())


def plate_confounding(screen: Screen, column: str) -> dict[str, float]:
    """How alike different drugs are on one plate and on two, in one line.

    Responses are centred on their line; ``within`` and ``between`` are mean correlations of two
    drugs of one line on the same and on different plates. Without confounding they are equal; the
    difference is the size of the plate effect. ``share`` = variance between plates within lines /
    variance within lines.

    Raises
    ------
    pertwise.errors.InputError
        When no line has two plates with two drugs.
    """
    if column not in screen.obs:
        raise InputError(f"no column {column!r} in the screen; there are {list(screen.obs)}")
    within, between, explained, total, expected = [], [], 0.0, 0.0, 0.0
    for rows in screen.obs.groupby("context", sort=False).indices.values():
        plates = screen.obs[column].to_numpy(dtype=object)[rows]
        if len(set(plates)) < 2:
            continue
        block = np.asarray(screen.responses[rows], dtype=np.float64)
        seen = np.isfinite(block)
        mean = np.where(seen, block, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        rest = np.where(seen, block - mean, 0.0)
        total += float((rest**2).sum())
        # Sorted: sums of floats must not depend on the order of a set, which differs between runs.
        for plate in sorted(set(plates)):
            own = rest[plates == plate]
            explained += float(len(own) * (own.mean(axis=0) ** 2).sum())
        # Random groups differ in their means too: by (groups - 1) / (rows - 1) of the variance.
        expected += float((rest**2).sum()) * (len(set(plates)) - 1) / (len(rows) - 1)
        length = np.maximum(np.linalg.norm(rest, axis=1), 1e-12)
        cosines = (rest @ rest.T) / np.outer(length, length)
        same = plates[:, None] == plates[None, :]
        upper = np.triu(np.ones_like(same, dtype=bool), 1)
        within.append(cosines[same & upper])
        between.append(cosines[~same & upper])
    if not within:
        raise InputError(f"no line has two values of {column!r}: nothing can be confounded")
    a, b = np.concatenate(within), np.concatenate(between)
    return {
        "within": float(a.mean()) if len(a) else float("nan"),
        "between": float(b.mean()) if len(b) else float("nan"),
        "share": explained / total if total > 0 else float("nan"),
        "share_by_chance": expected / total if total > 0 else float("nan"),
        "n_within": float(len(a)),
        "n_between": float(len(b)),
    }
