"""Is a metric worth reading, and where between known answers does a score lie?

A *positive* control is an answer as good as an experiment gives (a technical duplicate), a
*negative* one an answer that says nothing of the perturbation (the mean of the others). Dynamic
range fraction and bound discrimination say how far a metric tells them apart (Miller et al. 2025;
Schaefer et al. 2026, scPertEval); scaled scores say where a prediction lies between a baseline and
a replicate (Virtual Cell Challenge 2026).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pertwise.errors import InputError
from pertwise.evaluate import vcc2026
from pertwise.evaluate.cell_halves import FDR, Halves, read_halves
from pertwise.evaluate.distribution import energy_distance, mmd
from pertwise.evaluate.metrics import Floats
from pertwise.screen.degs import compare_to_control

if TYPE_CHECKING:
    from anndata import AnnData

    from pertwise.screen.layouts import Keys

Better = Literal["high", "low"]
#: Added to the range that is divided by, as scPertEval does.
_LITTLE = 1e-6
#: Error metrics worse than the baseline: exponent of the tail, and where it ends.
TAIL_EXPONENT, TAIL_CAP = 2.0, 6.0
#: Cells of each half, and genes, between which distances of cells are taken (scPertEval: top 50).
MOST_CELLS, MOST_GENES = 100, 50


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


def calibrate(
    positive: pd.DataFrame, negative: pd.DataFrame, more: Mapping[str, Better] | None = None
) -> pd.DataFrame:
    """Dynamic range fraction and bound discrimination of every metric.

    Parameters
    ----------
    positive, negative
        Scores of the two controls (`evaluate.score.Scores.values`): the same perturbations and
        columns.
    more
        Whether high or low is better in the columns that are no metric of a score table.

    Returns
    -------
    One row a metric, best told apart first: metric, better, positive and negative (mean values),
    drf (mean), drf_median, bds (mean), n (perturbations). Metrics best at 1 (slope) are taken by
    their distance from 1. A metric that no perturbation defines is left out.
    """
    from pertwise.evaluate.score import metric_of

    rows = []
    for column in positive.columns:
        direction = (more or {}).get(column) or metric_of(column).better
        p, n = positive[column].to_numpy(float), negative[column].to_numpy(float)
        better: Better = "high" if direction == "high" else "low"
        if direction == "one":
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
                "better": direction,
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

    Of cells are taken, besides: energy distance and MMD to the second half, and to as many cells of
    the other perturbations, in the `MOST_GENES` genes of largest truth (up to `MOST_CELLS` cells a
    half); and the members of `evaluate.vcc2026` by Welch tests of each side against the controls.

    Raises
    ------
    pertwise.errors.InputError
        For fewer than three perturbations with enough cells, or what `read_halves` finds.
    """
    from pertwise.evaluate.score import score_predictions

    halves = read_halves(
        cells, seed=seed, min_cells=min_cells, keys=keys, target_sum=target_sum, sample=MOST_CELLS
    )
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
    # The mean of the others is as sure as they are together; the share of the controls in it is
    # counted as often as there are others, so it is too large rather than too small.
    both = (halves.variance + halves.second_variance) / 4
    spread = (both.sum(axis=0) - both) / (len(names) - 1) ** 2
    others_q = np.nan_to_num(compare_to_control(others, spread).q, nan=1.0)
    pairs = _cell_distances(halves, seed)
    for side, answer, q in (
        ("positive", second, halves.second_q), ("negative", others, others_q)
    ):  # fmt: skip
        extra = pairs[side] | _members(halves, answer, q)
        found[side] = found[side].assign(**extra)
    return calibrate(found["positive"], found["negative"], _OF_CELLS)


#: Columns that only cells have -> what is better.
_OF_CELLS: Mapping[str, Better] = {
    "energy_distance": "low",
    "mmd": "low",
    "de_sig_jaccard": "high",
    "de_lfc_error": "low",
    "de_direction_yield": "high",
    "de_direction_reach": "high",
}


def _cell_distances(halves: Halves, seed: int) -> dict[str, dict[str, Floats]]:
    """Energy distance and MMD of the first half's cells to each control, by side and name."""
    n = len(halves.perturbations)
    rng = np.random.default_rng(seed)
    found = {
        side: {m: np.full(n, np.nan) for m in ("energy_distance", "mmd")}
        for side in ("positive", "negative")
    }
    size = np.abs(halves.first) / np.sqrt(halves.variance)
    owner = halves.half_of // 2
    for i in np.unique(owner[owner >= 0]):
        genes = np.argsort(-size[i], kind="stable")[:MOST_GENES]
        truth, repeat = (np.flatnonzero(halves.half_of == 2 * i + h) for h in (0, 1))
        rest = np.flatnonzero((owner >= 0) & (owner != i))
        if min(len(truth), len(repeat), len(rest)) < 2:
            continue
        others = rng.choice(rest, min(len(repeat), len(rest)), replace=False)
        t, *sides = (halves.cells[np.sort(r)][:, genes].toarray() for r in (truth, repeat, others))
        for side, cells in zip(found, sides, strict=True):
            found[side]["energy_distance"][i] = energy_distance(t, cells, unbiased=True)
            found[side]["mmd"][i] = mmd(t, cells)
    return found


def _members(halves: Halves, answer: Floats, q: Floats) -> dict[str, Floats]:
    """The members of vcc2026 without each perturbation's own gene; fold changes are natural logs,
    whose base no member depends on."""
    keep = np.array([[f != p for f in halves.features] for p in halves.perturbations])
    truth, real, called = halves.first, halves.significant, q < FDR
    return {
        "de_sig_jaccard": vcc2026.sig_jaccard(real, called, keep),
        "de_lfc_error": vcc2026.lfc_error(truth, answer, real, keep),
        "de_direction_yield": vcc2026.direction_yield(truth, answer, real, called, keep),
        "de_direction_reach": vcc2026.direction_reach(truth, answer, real, q, keep=keep),
    }
