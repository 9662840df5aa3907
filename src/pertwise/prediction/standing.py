"""How good is one method on this very screen? Cross-validation against the training mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise._progress import track
from pertwise.errors import InputError
from pertwise.evaluate.calibration import spread_rank_correlation
from pertwise.evaluate.specs import MetricSpec
from pertwise.evaluate.splits import split_folds
from pertwise.evaluate.statistics import bootstrap_mean
from pertwise.evaluate.units import run_unit
from pertwise.models.methods import Method

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.models import Predictor
    from pertwise.screen import Screen

BASELINE = "training mean"
BASELINE_USE = "training-mean"
#: Column of the score table -> words; all of them are defined in `score.METRICS`.
SHOWN = {
    "mse": "mean squared error (lower is better)",
    "cosine": "cosine with the measured response",
    "pearson_delta": "Pearson of deltas against control",
    "pearson_reference": "Pearson after subtracting the training mean",
    "retrieval_l2": "retrieval among measured responses (0.5 = chance)",
}
LOWER_IS_BETTER = ("mse",)
#: The promise of a 90 % interval counts as kept within these bounds.
COVERAGE_KEPT = (0.85, 0.95)


@dataclass(frozen=True)
class BuiltMethod(Method):
    """A `Method` made by a function instead of a name."""

    make: Callable[[], Predictor] | None = field(default=None, compare=False)

    def build(self) -> Predictor:
        """A fresh, unfitted predictor."""
        return super().build() if self.make is None else self.make()


@dataclass(frozen=True)
class Standing:
    """Held-out scores of a method and of the training mean on the same folds.

    Attributes
    ----------
    per_perturbation
        Index perturbation; the columns of `SHOWN` for the method, the same with the suffix
        ``"_baseline"``, coverage_90 and spread where the method states a spread, and fallback.
    summary
        Index metric; method, baseline (means over perturbations), difference (method - baseline),
        low, high (95 % bootstrap interval of the paired difference, Efron & Tibshirani 1993). The
        perturbations of a fold share their training set, so the interval is somewhat too narrow.
    coverage
        Mean share of measured values within the stated 90 % interval; NaN without a spread.
    spread_rank
        Spearman correlation of stated spread and realised error over perturbations.
    verdict
        "better", "not distinguishable", "worse" (all by mean squared error) or "baseline".
    errors
        What made whole folds fall back to the training mean; empty when nothing did.
    """

    method: str
    n_folds: int
    seed: int
    per_perturbation: pd.DataFrame
    summary: pd.DataFrame
    coverage: float
    spread_rank: float
    verdict: str
    errors: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The statement in words, with the numbers that decided."""
        row = self.summary.loc["mse"]
        n = len(self.per_perturbation)
        where = f"in {self.n_folds}-fold cross-validation over {n} measured perturbations"
        numbers = (
            f"mean squared error {row['method']:.3g} against {row['baseline']:.3g} "
            f"(difference {row['difference']:+.2g}, 95 % interval {row['low']:+.2g} to "
            f"{row['high']:+.2g})"
        )
        text = {
            "better": f"{self.method!r} beats the training mean {where}: {numbers}.",
            "worse": f"{self.method!r} does NOT beat the training mean {where}: it is worse, "
            f"{numbers}. Do not use it on this screen.",
            "not distinguishable": f"{self.method!r} does NOT beat the training mean {where}: "
            f"the two cannot be told apart, {numbers}. Its predictions say no more than the "
            "average response.",
            "baseline": f"This is the training mean itself: {where} its mean squared error is "
            f"{row['method']:.3g}. It says the same of every perturbation.",
        }[self.verdict]
        return text + " " + self.coverage_sentence

    @property
    def coverage_sentence(self) -> str:
        """Whether the error bars hold."""
        if np.isnan(self.coverage):
            return "The method states no spread, so there are no error bars."
        low, high = COVERAGE_KEPT
        words = (
            "as they should"
            if low <= self.coverage <= high
            else "so they are too narrow"
            if self.coverage < low
            else "so they are wider than needed"
        )
        return f"90 % intervals covered {100 * self.coverage:.0f} % of held-out values, {words}."

    def as_json(self) -> dict[str, Any]:
        """JSON-able record; NaN becomes None."""
        summary = {
            str(metric): {str(k): _number(v) for k, v in row.items()}
            for metric, row in self.summary.iterrows()
        }
        return {
            "method": self.method,
            "baseline": BASELINE,
            "n_folds": self.n_folds,
            "n_perturbations": len(self.per_perturbation),
            "seed": self.seed,
            "metrics": summary,
            "coverage_90": _number(self.coverage),
            "spread_error_spearman": _number(self.spread_rank),
            "fallbacks": int(self.per_perturbation["fallback"].sum()),
            "verdict": self.verdict,
            "sentence": self.sentence,
            "failed_folds": list(self.errors),
        }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def cross_validate(
    method: Method,
    screen: Screen,
    knowledge: Knowledge | None,
    *,
    n_folds: int = 5,
    seed: int = 0,
) -> Standing:
    """k-fold over the measured perturbations, the method and the training mean on the same folds.

    Fold membership depends on names, `n_folds` and `seed` only. Perturbations that the method
    answers by a fallback stay in every mean.

    Raises
    ------
    pertwise.errors.InputError
        If there are fewer than two folds or fewer perturbations than folds, or the method breaks
        its contract.
    """
    measured = screen.only_measured()
    if n_folds > len(measured.perturbations):
        raise InputError(
            f"--folds {n_folds}, but only {len(measured.perturbations)} perturbations are "
            "measured; use fewer folds, or 0 to skip the cross-validation"
        )
    splits = split_folds(measured.perturbations, n_folds, 1, seed)
    metrics = MetricSpec(tops=(), retrieval=("l2",))
    baseline = Method(BASELINE, BASELINE_USE)
    tables: dict[str, list[pd.DataFrame]] = {"method": [], "baseline": []}
    errors = []
    for split in track(splits, "cross-validation"):
        for kind, one in (("method", method), ("baseline", baseline)):
            done = run_unit(one, split, measured, measured, knowledge, metrics)
            tables[kind].append(done.scores)
            if done.facts["error"]:
                errors.append(f"fold {split.fold}: {done.facts['error']}")
    own, mean = (_wide(pd.concat(tables[k], ignore_index=True)) for k in ("method", "baseline"))
    rng = np.random.default_rng([seed, 1])
    rows = {}
    for metric in SHOWN:
        difference = bootstrap_mean(own[metric] - mean[metric].reindex(own.index), rng)
        rows[metric] = {
            "method": float(own[metric].mean()),
            "baseline": float(mean[metric].mean()),
            "difference": difference.mean,
            "low": difference.low,
            "high": difference.high,
        }
    summary = pd.DataFrame.from_dict(rows, orient="index")
    both = own.join(mean[list(SHOWN)].add_suffix("_baseline"))
    spread = both["spread"] if "spread" in both else pd.Series(np.nan, index=both.index)
    return Standing(
        method=method.label,
        n_folds=n_folds,
        seed=seed,
        per_perturbation=both,
        summary=summary,
        coverage=float(both["coverage_90"].mean()) if "coverage_90" in both else float("nan"),
        spread_rank=spread_rank_correlation(spread, np.sqrt(both["mse"])),
        verdict=_verdict(method.use, summary.loc["mse"]),
        errors=tuple(errors),
    )


def _verdict(use: str, row: pd.Series) -> str:
    if use == BASELINE_USE:
        return "baseline"
    if row["high"] < 0:
        return "better"
    return "worse" if row["low"] > 0 else "not distinguishable"


def _wide(scores: pd.DataFrame) -> pd.DataFrame:
    """Tidy scores -> one row a perturbation, sorted by name."""
    wide = scores.pivot(index="perturbation", columns="metric", values="value")
    wide.columns.name = None
    wide.index = wide.index.astype(str)
    fallback = scores.drop_duplicates("perturbation").set_index("perturbation")["fallback"]
    wide = wide.astype(float).sort_index()
    return wide.assign(fallback=fallback.reindex(wide.index).to_numpy(dtype=bool))
