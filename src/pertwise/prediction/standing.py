"""How good is one method on this very screen? Cross-validation against the training mean."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise._progress import track
from pertwise.arrays.folds import group_folds
from pertwise.errors import InputError
from pertwise.evaluate.calibration import spread_rank_correlation
from pertwise.evaluate.score import METRICS, metric_of
from pertwise.evaluate.specs import MetricSpec
from pertwise.evaluate.splits import (
    SETTINGS,
    Split,
    asked_elsewhere,
    check_leaks,
    split_folds,
    split_rows,
    things,
    with_held,
)
from pertwise.evaluate.statistics import bootstrap_mean
from pertwise.evaluate.units import run_unit
from pertwise.models.methods import Method
from pertwise.screen.signatures import is_ranked

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.models import Predictor
    from pertwise.screen import Screen

#: What a method is compared with: in one context, and in a screen of several.
BASELINES = {"training-mean": "training mean", "context-mean": "context mean"}
#: Regime of several contexts -> what it asks (`splits.SETTINGS`).
REGIME_SETTING = {"context": "line", "pair": "elsewhere", "compound": "anywhere"}
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

    def build(
        self, hold_out: str = "", hidden: Sequence[str] = (), knowledge: Knowledge | None = None
    ) -> Predictor:
        """A fresh, unfitted predictor."""
        return super().build(hold_out, hidden, knowledge) if self.make is None else self.make()


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
        "better", "not distinguishable", "worse" (all by `decisive`) or "baseline".
    baseline
        What it was compared with.
    decisive
        "mse"; "pearson_delta" on ranks, which have no magnitude.
    errors
        What made whole folds fall back to the training mean; empty when nothing did.
    setting
        What was unseen, of `splits.SETTINGS`: scores of other settings are not among these.
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
    baseline: str = "training mean"
    decisive: str = "mse"
    where: str = ""
    setting: str = ""

    @property
    def sentence(self) -> str:
        """The statement in words, with the numbers that decided."""
        row = self.summary.loc[self.decisive]
        n, mean = len(self.per_perturbation), f"the {self.baseline}"
        what = "mean squared error" if self.decisive == "mse" else "Pearson of deltas"
        where = f"in {self.n_folds}-fold cross-validation over {n} measured perturbations"
        where += f" {self.where}" if self.where else ""
        where += f" ({self.setting})" if self.setting else ""
        numbers = (
            f"{what} {row['method']:.3g} against {row['baseline']:.3g} "
            f"(difference {row['difference']:+.2g}, 95 % interval {row['low']:+.2g} to "
            f"{row['high']:+.2g})"
        )
        text = {
            "better": f"{self.method!r} beats {mean} {where}: {numbers}.",
            "worse": f"{self.method!r} does NOT beat {mean} {where}: it is worse, "
            f"{numbers}. Do not use it on this screen.",
            "not distinguishable": f"{self.method!r} does NOT beat {mean} {where}: "
            f"the two cannot be told apart, {numbers}. Its predictions say no more than the "
            "average response.",
            "baseline": f"This is {mean} itself: {where} its {what} is "
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
            "baseline": self.baseline,
            "setting": self.setting,
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
    regime: str = "",
    context: str | None = None,
    elsewhere: Collection[str] | None = None,
) -> Standing:
    """k-fold over the measured perturbations, the method and the mean on the same folds.

    Fold membership depends on names, `n_folds` and `seed` only. Perturbations that the method
    answers by a fallback stay in every mean.

    Parameters
    ----------
    regime
        For a screen of several contexts: what is held out (`splits.split_rows`), as in the question
        that the method is to answer; "" = perturbations of one context.
    context
        With a regime, the context whose held-out rows are scored (all, in the regime "context").
    elsewhere
        Of one context: perturbations that the method's other screens measured. Only these are
        scored, and may be looked up there; None hides every held-out one in the other screens.

    Raises
    ------
    pertwise.errors.InputError
        If there are fewer than two folds or fewer perturbations than folds, or the method breaks
        its contract.
    """
    measured = screen.only_measured()
    if not regime and n_folds > len(measured.perturbations):
        raise InputError(
            f"--folds {n_folds}, but only {len(measured.perturbations)} perturbations are "
            "measured; use fewer folds, or 0 to skip the cross-validation"
        )
    if regime:
        splits = _in_context(measured, regime, knowledge, n_folds, seed, context)
    else:
        splits = split_folds(measured.perturbations, n_folds, 1, seed)
        if elsewhere is not None:
            splits = asked_elsewhere(splits, elsewhere)
            if not splits:
                raise InputError(
                    "the other screens measured none of the perturbations learned from"
                )
    metrics = MetricSpec(tops=(), retrieval=("l2",))
    use = "context-mean" if regime else "training-mean"
    baseline = Method(BASELINES[use], use)
    tables: dict[str, list[pd.DataFrame]] = {"method": [], "baseline": []}
    errors = []
    for split in track(splits, "cross-validation"):
        for kind, one in (("method", method), ("baseline", baseline)):
            done = run_unit(one, split, measured, measured, knowledge, metrics)
            tables[kind].append(done.scores)
            if done.facts["error"]:
                errors.append(f"fold {split.fold}: {done.facts['error']}")
    setting = REGIME_SETTING.get(regime, "elsewhere" if elsewhere is not None else "anywhere")
    scores = {k: pd.concat(parts, ignore_index=True) for k, parts in tables.items()}
    told = scores["baseline"]["setting"]
    # What the folds hold of another setting is left out: settings are never averaged.
    word = SETTINGS[setting] if (told == SETTINGS[setting]).any() else str(told.mode().iloc[0])
    own, mean = (_wide(s[s["setting"] == word]) for s in (scores["method"], scores["baseline"]))
    ranked = is_ranked(measured)
    shown = [m for m in SHOWN if not (ranked and METRICS[metric_of(m).name].magnitude)]
    decisive = "pearson_delta" if ranked else "mse"
    rng = np.random.default_rng([seed, 1])
    rows = {}
    for metric in shown:
        difference = bootstrap_mean(own[metric] - mean[metric].reindex(own.index), rng)
        rows[metric] = {
            "method": float(own[metric].mean()),
            "baseline": float(mean[metric].mean()),
            "difference": difference.mean,
            "low": difference.low,
            "high": difference.high,
        }
    summary = pd.DataFrame.from_dict(rows, orient="index")
    both = own.join(mean[shown].add_suffix("_baseline"))
    spread = both["spread"] if "spread" in both else pd.Series(np.nan, index=both.index)
    error = both["error"] if ranked and "error" in both else both.get("mse", spread) ** 0.5
    return Standing(
        method=method.label,
        n_folds=len(splits) if regime else n_folds,
        seed=seed,
        per_perturbation=both,
        summary=summary,
        coverage=float(both["coverage_90"].mean()) if "coverage_90" in both else float("nan"),
        spread_rank=spread_rank_correlation(spread, error),
        verdict=_verdict(method.use, summary.loc[decisive], lower=decisive == "mse"),
        errors=tuple(errors),
        baseline=BASELINES[use],
        decisive=decisive,
        where="" if not regime or regime == "context" else f"in {context}",
        setting=word,
    )


def _in_context(
    screen: Screen,
    regime: str,
    knowledge: Knowledge | None,
    n_folds: int,
    seed: int,
    context: str | None,
) -> list[Split]:
    """Splits as the question: the regime "context" leaves out whole contexts; the others hold out
    what was measured in `context`, there ("pair") or everywhere ("compound"), and score it there.
    """
    if regime == "context":
        return split_rows(screen, regime, knowledge, n_folds=n_folds, seed=seed)
    same = things(screen.obs["perturbation"], knowledge)
    thing = screen.obs["perturbation"].map(same)
    here = (screen.obs["context"] == context).to_numpy()
    there = sorted(set(thing[here]))
    if n_folds > len(there):
        raise InputError(
            f"--folds {n_folds}, but only {len(there)} perturbations are measured in {context!r}; "
            "use fewer folds, or 0 to skip the cross-validation"
        )
    fold = dict(zip(there, group_folds(there, n_folds, seed).tolist(), strict=True))
    number, rows = thing.map(fold).to_numpy(), screen.obs.index.to_numpy(dtype=object)
    out = []
    for f in range(n_folds):
        held = number == f
        train = ~(held & here) if regime == "pair" else ~held
        train &= ~with_held(thing, held & here if regime == "pair" else held)
        split = Split(regime, seed, f, tuple(rows[train]), tuple(rows[held & here]), by="row")
        check_leaks(split, screen, knowledge)
        out.append(split)
    return out


def _verdict(use: str, row: pd.Series, *, lower: bool) -> str:
    if use in BASELINES:
        return "baseline"
    low, high = (row["low"], row["high"]) if lower else (-row["high"], -row["low"])
    if high < 0:
        return "better"
    return "worse" if low > 0 else "not distinguishable"


def _wide(scores: pd.DataFrame) -> pd.DataFrame:
    """Tidy scores -> one row a perturbation (and context, where several), sorted by name."""
    if "context" in scores and scores["context"].nunique() > 1:
        named = scores["perturbation"].astype(str) + "|" + scores["context"].astype(str)
        scores = scores.assign(perturbation=named)
    wide = scores.pivot(index="perturbation", columns="metric", values="value")
    wide.columns.name = None
    wide.index = wide.index.astype(str)
    fallback = scores.drop_duplicates("perturbation").set_index("perturbation")["fallback"]
    wide = wide.astype(float).sort_index()
    return wide.assign(fallback=fallback.reindex(wide.index).to_numpy(dtype=bool))
