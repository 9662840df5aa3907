"""Is a metric worth reading, and where between known answers does a score lie?

A *positive* control is an answer as good as an experiment gives (a technical duplicate), a
*negative* one an answer that says nothing of the perturbation (the mean of the others). Dynamic
range fraction and bound discrimination say how far a metric tells them apart (Miller et al. 2025;
Schaefer et al. 2026, scPertEval); scaled scores say where a prediction lies between a baseline and
a replicate (Virtual Cell Challenge 2026).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats

if TYPE_CHECKING:
    from anndata import AnnData

    from pertwise.screen.layouts import Keys

Better = Literal["high", "low"]
#: Added to the range that is divided by, as scPertEval does.
_LITTLE = 1e-6
#: Error metrics worse than the baseline: exponent of the tail, and where it ends.
TAIL_EXPONENT, TAIL_CAP = 2.0, 6.0


def dynamic_range_fraction(
    positive: ArrayLike, negative: ArrayLike, *, perfect: float, better: Better
) -> Floats:
    """(n,) share of the range from the negative control to perfection that the positive reaches.

    (positive - negative) / (perfect - negative), cut to [-1, 1]; NaN where the negative control is
    unknown or beyond perfect.
    """
    p, n = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    sign = 1.0 if better == "high" else -1.0
    room = sign * (perfect - n)
    found = np.clip(sign * (p - n) / (room + _LITTLE), -1.0, 1.0)
    return np.where(np.isfinite(n) & (room >= 0), found, np.nan)


def bound_discrimination(positive: ArrayLike, negative: ArrayLike, *, better: Better) -> Floats:
    """(n,) 1 where the positive control scores better than the negative one, else 0 (ties too)."""
    p, n = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    return np.asarray((p > n) if better == "high" else (p < n), dtype=np.float64)


def scaled_score(
    value: float,
    baseline: float,
    anchor: float,
    *,
    tail: Literal["none", "boxcox"] = "none",
    low: float | None = None,
    high: float | None = None,
) -> float:
    """A score on the scale where the baseline is 0 and the anchor 1.

    (value - baseline) / (anchor - baseline): with a perfect score as anchor the *baseline-scaled*,
    with that of a replicate the *replicate-scaled* score. With ``tail = "boxcox"``, for errors,
    what is worse than the baseline is -(r^2 - 1) / 2, r = (value - anchor) / (baseline - anchor),
    -6 at least. `low` and `high` cut; a value that is not finite takes `low`.

    Raises
    ------
    pertwise.errors.InputError
        If baseline and anchor are the same or unknown.
    """
    if not np.isfinite([baseline, anchor]).all() or anchor == baseline:
        raise InputError(
            f"baseline {baseline} and anchor {anchor} give no scale: the replicate must differ "
            "from the baseline"
        )
    floor = low if low is not None else -TAIL_CAP if tail == "boxcox" else -np.inf
    if not np.isfinite(value):
        return float(floor)
    score = (value - baseline) / (anchor - baseline)
    if score < 0 and tail == "boxcox":
        r = (value - anchor) / (baseline - anchor)
        score = max(-TAIL_CAP, -(r**TAIL_EXPONENT - 1) / TAIL_EXPONENT)
    return float(np.clip(score, floor, np.inf if high is None else high))


def calibrate(positive: pd.DataFrame, negative: pd.DataFrame) -> pd.DataFrame:
    """Dynamic range fraction and bound discrimination of every metric.

    Parameters
    ----------
    positive, negative
        Scores of the two controls (`evaluate.score.Scores.values`): the same perturbations and
        columns.

    Returns
    -------
    One row a metric, best told apart first: metric, better, positive and negative (mean values),
    drf (mean), drf_median, bds (mean), n (perturbations). Metrics best at 1 (slope) are taken by
    their distance from 1. A metric that no perturbation defines is left out.
    """
    from pertwise.evaluate.score import metric_of

    rows = []
    for column in positive.columns:
        about = metric_of(column)
        p, n = positive[column].to_numpy(float), negative[column].to_numpy(float)
        better: Better = "high" if about.better == "high" else "low"
        if about.better == "one":
            p, n = np.abs(p - 1.0), np.abs(n - 1.0)
        known = np.isfinite(p) & np.isfinite(n)
        drf = dynamic_range_fraction(
            p[known], n[known], perfect=1.0 if better == "high" else 0.0, better=better
        )
        if not np.isfinite(drf).any():
            continue
        rows.append(
            {
                "metric": column,
                "better": about.better,
                "positive": float(positive[column][known].mean()),
                "negative": float(negative[column][known].mean()),
                "drf": float(np.nanmean(drf)),
                "drf_median": float(np.nanmedian(drf)),
                "bds": float(bound_discrimination(p[known], n[known], better=better).mean()),
                "n": int(known.sum()),
            }
        )
    return pd.DataFrame(rows).sort_values("drf", ascending=False, ignore_index=True)


def calibrate_cells(
    cells: str | os.PathLike[str] | AnnData,
    *,
    seed: int = 0,
    min_cells: int = 30,
    keys: Keys | None = None,
    target_sum: float = 1e4,
) -> pd.DataFrame:
    """`calibrate` on a file of single cells: what each metric can tell on these data.

    Each perturbation's cells are cut into random halves: the first half is the truth, the second
    (the technical duplicate) the positive control; the negative one is the mean response of all
    other perturbations. Perturbations with fewer than `min_cells` cells are left out.

    Raises
    ------
    pertwise.errors.InputError
        For fewer than three perturbations with enough cells, or what `read_halves` finds.
    """
    from pertwise.evaluate.cell_halves import read_halves
    from pertwise.evaluate.score import score_predictions

    halves = read_halves(cells, seed=seed, min_cells=min_cells, keys=keys, target_sum=target_sum)
    names, first, second = halves.perturbations, halves.first, halves.second
    if len(names) < 3:
        raise InputError(
            f"{len(names)} perturbations have at least {min_cells} cells; three are needed"
        )
    whole = (first + second) / 2
    others = (whole.sum(axis=0) - whole) / (len(names) - 1)
    found = {}
    for side, answer in (("positive", second), ("negative", others)):
        scored = score_predictions(
            first, answer, perturbations=names, features=halves.features, reference=others,
            sampling_variance=halves.variance, significant=halves.significant,
            tops=(20, 50, 100),
        )  # fmt: skip
        found[side] = scored.values
    return calibrate(found["positive"], found["negative"])
