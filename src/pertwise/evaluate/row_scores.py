"""Scores of rows of any screen: which metrics its unit allows, sets of features, one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pertwise import parts
from pertwise.errors import InputError, unknown_name
from pertwise.evaluate.metrics import Floats, filled
from pertwise.evaluate.score import METRICS, Metric, metric_named, metric_of
from pertwise.evaluate.specs import DIAGNOSTICS, MetricSpec
from pertwise.screen.core import Screen
from pertwise.screen.signatures import is_ranked

#: Metrics that compare one row with one row, those without magnitude first.
ROWWISE = (
    "pearson_reference", "pearson_delta", "cosine", "direction_accuracy", "mae", "mse", "slope",
    "r2",
)  # fmt: skip
RANKED = tuple(n for n in ROWWISE if not METRICS[n].magnitude)


def allowed_metrics(screen: Screen, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """The metrics to compute: those asked for, else all that the screen's unit allows.

    Raises
    ------
    pertwise.errors.InputError
        For a metric of magnitude on ranked signatures, by name, or an unknown metric.
    """
    ranked = is_ranked(screen)
    if wanted is None:
        return RANKED if ranked else ROWWISE
    for name in wanted:
        own = name not in METRICS and parts.describe("metric", name).own
        if name not in ROWWISE and not own and not (name in METRICS and METRICS[name].magnitude):
            raise unknown_name("metric", name, ROWWISE)
        if ranked:
            refuse_magnitude(name)
    return tuple(wanted)


def check_asked(spec: MetricSpec, screen: Screen) -> None:
    """Refuse what was asked for by name and cannot be scored; the usual metrics are just left out.

    Raises
    ------
    pertwise.errors.InputError
        For a name that is no metric (or a column of one, "cosine_top50"), or a metric of magnitude
        on ranked signatures.
    """
    if spec.by_row:
        allowed_metrics(screen, spec.only)
    for name in spec.main if "main" in spec.model_fields_set else ():
        if name in DIAGNOSTICS:
            continue
        found = metric_of(name, spec.more)
        if found.magnitude and is_ranked(screen):
            refuse_magnitude(name, found)
    for name in spec.more if is_ranked(screen) else ():
        refuse_magnitude(name)


def refuse_magnitude(name: str, metric: Metric | None = None) -> None:
    """Refuse a metric that speaks of how large a response is, for a screen of ranks.

    Raises
    ------
    pertwise.errors.InputError
        Names those that may be asked for.
    """
    if (metric or metric_named(name)).magnitude:
        raise InputError(
            f"metric {name!r} compares magnitudes, but this screen holds ranks, which have none; "
            f"use any of {', '.join(RANKED)}"
        )


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
    """One row a response, one column a metric, and metric + suffix for each feature set.

    Parameters
    ----------
    truth, prediction, reference
        (n, d); the reference is the context mean of the same split.
    tops
        Suffix -> (d,) mask of features, e.g. the most variable ones.

    A score that the prediction leaves undefined takes the stated value, one that the truth leaves
    undefined is NaN (`metrics.filled`).
    """
    t = np.asarray(truth)
    out: dict[str, Floats] = {}
    for suffix, columns in {"": np.ones(t.shape[1], dtype=bool), **(tops or {})}.items():
        arrays = [np.asarray(x)[:, columns] for x in (truth, prediction, reference)]
        for name in names:
            part = parts.describe("metric", name)
            further = arrays[2:] if "reference" in part.facts.needs else []
            score = part.load()
            values, perfect = (
                score(arrays[0], guess, *further) for guess in (arrays[1], np.nan_to_num(arrays[0]))
            )
            out[part.label + suffix] = filled(values, perfect, metric_named(name).undefined)[0]
    return pd.DataFrame(out)
