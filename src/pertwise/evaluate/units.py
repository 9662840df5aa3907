"""One unit of work: one method on one split, fitted, predicted and scored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.arrays.means import masked_mean
from pertwise.errors import (
    BudgetError,
    InputError,
    LedgerError,
    PertwiseError,
    ReplayMissError,
)
from pertwise.evaluate.calibration import LEVELS, interval_coverage, spread_and_error
from pertwise.evaluate.cells import CellBank, energy_distances
from pertwise.evaluate.score import Scores, score_predictions
from pertwise.evaluate.sides import Question, Sides, settings_of, signature_table
from pertwise.evaluate.specs import ORACLE, MetricSpec
from pertwise.evaluate.splits import Split
from pertwise.llm import FatalChatError
from pertwise.models.base import Prediction
from pertwise.models.methods import Method
from pertwise.models.neighbours import list_cuts
from pertwise.screen.degs import compare_to_control
from pertwise.screen.signatures import is_ranked

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Raised when a chat model cannot be asked any further: the run stops and can go on later.
STOPS = (BudgetError, FatalChatError, LedgerError, ReplayMissError)
ORACLE_NEIGHBOURS = 5
#: Features with a smaller Benjamini-Hochberg q are called differential.
FDR = 0.05


@dataclass(frozen=True)
class UnitResult:
    """What one unit leaves behind.

    Attributes
    ----------
    scores
        Tidy: method, split, seed, fold, n_train, perturbation, setting (`splits.SETTINGS`),
        stratum, metric, value, undefined, fallback, and context where a split of rows holds
        several. Interval coverages ("coverage_90"), "spread", "error" and "n_support" are rows like
        any metric. With `MetricSpec.by_row` the `sides.signature_table`.
    neighbours
        Prediction.neighbours with method, seed and fold, or None.
    answers
        What selectors said about their own answers: method, seed, fold, perturbation, source, kind
        of repair, item, action, and how the list shown was cut; one row a repair (kind "" for an
        answer without any). None for methods that keep no such record.
    means
        Long table of predicted means, or None when not kept.
    facts
        seconds, error text (what made the whole unit fall back; "" otherwise).
    """

    scores: pd.DataFrame
    neighbours: pd.DataFrame | None
    answers: pd.DataFrame | None
    means: pd.DataFrame | None
    facts: dict[str, Any]


def run_unit(
    method: Method,
    split: Split,
    screen: Screen,
    source: Screen,
    knowledge: Knowledge | None,
    metrics: MetricSpec,
    *,
    keep_means: bool = False,
    cells: CellBank | None = None,
    sides: Sides | None = None,
) -> UnitResult:
    """Fit on the training side of a split of `source`, predict and score the held-out of `screen`.

    `source` is `screen` itself except in transfer. A split of rows (`Split.by`) may hold several
    contexts: the method is fitted once and asked context by context, and every context is scored
    with its own candidates and the context mean as reference. A method that raises one of
    pertwise's own errors answers the whole unit with the training (context) mean, declared as its
    fallback, so that the unit stays in every average; any other exception is a defect and is raised
    with the method and split named.

    Parameters
    ----------
    sides
        Of this split, where many methods come to it in turn; made here by default.

    Raises
    ------
    pertwise.errors.InputError
        If a predictor breaks its contract (other names, features or an exception).
    pertwise.errors.BudgetError, pertwise.errors.ReplayMissError, pertwise.llm.FatalChatError
        A chat model cannot be asked any further; what was answered is in its ledger.
    """
    if sides is None:
        sides = Sides.of(split, screen, source, knowledge)
    train, questions = sides.train, sides.questions
    started = time.perf_counter()
    error, found = "", []
    try:
        if method.use == ORACLE:
            found = [oracle(train, q.truth) for q in questions]
        else:
            hold_out = split.hold_out if split.by == "row" else ""
            hidden = sides.truth.perturbations if split.unseen_anywhere else ()
            model = method.build(hold_out, hidden, knowledge).fit(train, knowledge)
            found = [q.ask(model) for q in questions]
    except STOPS:
        # The run must stop and can go on later; a stored fallback would never be asked again.
        raise
    except PertwiseError as problem:
        error = f"{type(problem).__name__}: {problem}"
        found = [q.fallback(train) for q in questions]
    except Exception as problem:
        raise InputError(
            f"method {method.label!r} failed on {split.kind} seed {split.seed} fold "
            f"{split.fold} ({len(split.train)} training perturbations): "
            f"{type(problem).__name__}: {problem}"
        ) from problem
    seconds = time.perf_counter() - started
    labels = _labels(method, split, len(train))
    tables, near, answers, means = [], [], [], []
    for question, prediction in zip(questions, found, strict=True):
        here = {} if question.context is None else {"context": question.context}
        _check(prediction, question.names, screen.features, method.label)
        if not metrics.by_row:
            told = settings_of(split, train, question.truth, knowledge)
            table = _table(question, prediction, metrics, cells).assign(**labels, **here)
            setting = dict(zip(question.names, told, strict=True))
            tables.append(table.assign(setting=table["perturbation"].map(setting)))
        near.append(_neighbours(prediction, method, split))
        answers.append(_answers(prediction, method, split))
        means.append(_means(prediction, method, split) if keep_means else None)
    if metrics.by_row:
        table = signature_table(sides, found, metrics, knowledge)
    else:
        table = pd.concat(tables, ignore_index=True)
        table["stratum"] = table["perturbation"].map(dict(split.strata)).fillna("").astype(str)
    return UnitResult(
        scores=table,
        neighbours=_together(near),
        answers=_together(answers),
        means=_together(means),
        facts={"seconds": seconds, "error": error},
    )


def _together(parts: Sequence[pd.DataFrame | None]) -> pd.DataFrame | None:
    there = [p for p in parts if p is not None]
    return pd.concat(there, ignore_index=True) if there else None


def _table(
    question: Question, prediction: Prediction, metrics: MetricSpec, cells: CellBank | None
) -> pd.DataFrame:
    """Scores of one context, tidy."""
    truth = question.truth
    variance, n_cells = truth_variance(truth, cells)
    scores = _score(prediction, question, metrics, variance, n_cells)
    if cells is not None:
        distances = energy_distances(cells, question.names, prediction.mean)
        scores.values["energy_distance"] = distances
        scores.undefined["energy_distance"] = False
    return _tidy(scores, prediction, truth)


def oracle(train: Screen, truth: Screen, k: int = ORACLE_NEIGHBOURS) -> Prediction:
    """The bound: mean of the k training responses nearest (L2) to the *measured* answer.

    It sees what it should predict, so it is shown as a ceiling and never ranked or tested.
    """
    from pertwise.evaluate.retrieval import distances

    table = distances(truth.responses, train.responses)
    order = np.argsort(np.nan_to_num(table, nan=np.inf), axis=1, kind="stable")[:, :k]
    mean = np.stack([masked_mean(train.responses[rows]) for rows in order])
    names = list(truth.obs["perturbation"])
    others = train.obs["perturbation"].to_numpy()
    neighbours = pd.DataFrame(
        {
            "perturbation": np.repeat(names, order.shape[1]),
            "neighbour": others[order].ravel(),
            "rank": np.tile(np.arange(1, order.shape[1] + 1), len(names)),
            "weight": 1.0,
            "reason": "nearest measured response (sees the answer)",
        }
    )
    return Prediction(
        perturbations=tuple(names),
        features=train.features,
        mean=mean.astype(np.float32),
        spread=None,
        support=pd.DataFrame({"n_support": order.shape[1], "fallback": ""}, index=pd.Index(names)),
        neighbours=neighbours,
        provenance={"ceiling": True},
    )


def _check(
    prediction: Prediction, names: Sequence[str], features: tuple[str, ...], label: str
) -> None:
    if prediction.perturbations != tuple(names):
        raise InputError(
            f"method {label!r} was asked for {len(names)} perturbations and answered "
            f"{len(prediction.perturbations)} or in another order"
        )
    if prediction.features != features:
        raise InputError(f"method {label!r} predicts other features than the screen measures")


def truth_variance(
    truth: Screen, cells: CellBank | None
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """(n, d) sampling variance that orders the differential features, and (n,) cells.

    That of the screen's means where it is known feature by feature (pseudobulk keeps it), else from
    the cells; None when there is neither. Cells are NaN where unknown.
    """
    n_cells = truth.obs["n_cells"].to_numpy(dtype=np.float64)
    if truth.sampling_variance is not None:
        return np.asarray(truth.sampling_variance, dtype=np.float64), n_cells
    if cells is None:
        return None, n_cells
    names = list(truth.obs["perturbation"])
    return cells.sampling_variance(names), np.array([cells.totals.get(n, np.nan) for n in names])


def _significant(
    truth: Screen, variance: NDArray[np.float64] | None, n_cells: NDArray[np.float64]
) -> NDArray[np.bool_] | None:
    """(n, d) features called differential in the truth; None without a variance."""
    if variance is None or not np.isfinite(variance).any():
        return None
    known = n_cells if np.isfinite(n_cells).any() else None
    tests = compare_to_control(truth.responses, variance, known)
    return np.asarray(np.nan_to_num(tests.q, nan=1.0) < FDR)


def _score(
    prediction: Prediction,
    question: Question,
    metrics: MetricSpec,
    variance: NDArray[np.float64] | None,
    n_cells: NDArray[np.float64],
) -> Scores:
    truth, screen = question.truth, question.candidates
    position = {p: i for i, p in enumerate(screen.obs["perturbation"])}
    own = [position[p] for p in truth.obs["perturbation"]]
    return score_predictions(
        truth.responses,
        prediction.mean,
        perturbations=prediction.perturbations,
        features=screen.features,
        reference=question.reference,
        sampling_variance=variance,
        significant=_significant(truth, variance, n_cells),
        candidates=screen.responses,
        own=own,
        tops=metrics.tops,
        include_target=metrics.include_target,
        retrieval_distances=metrics.retrieval,
        more=metrics.more,
        ranked=is_ranked(screen),
    )


def _tidy(scores: Scores, prediction: Prediction, truth: Screen) -> pd.DataFrame:
    extra = pd.DataFrame({"n_support": prediction.support["n_support"].to_numpy(dtype=float)})
    if prediction.spread is not None:
        parts = (truth.responses, prediction.mean, prediction.spread)
        extra = pd.concat(
            [extra, interval_coverage(*parts, levels=LEVELS), spread_and_error(*parts)], axis=1
        )
    extra.index = scores.values.index
    values = pd.concat([scores.values, extra], axis=1)
    undefined = scores.undefined.reindex(columns=values.columns, fill_value=False)
    table = Scores(values, undefined).tidy()
    fallback = pd.Series(
        prediction.support["fallback"].to_numpy(dtype=object) != "", index=values.index
    )
    table["fallback"] = table["perturbation"].map(fallback).to_numpy(dtype=bool)
    return table


def _labels(method: Method, split: Split, n_train: int) -> dict[str, Any]:
    return {
        "method": method.label,
        "split": split.kind,
        "seed": split.seed,
        "fold": split.fold,
        "n_train": n_train,
    }


def _neighbours(prediction: Prediction, method: Method, split: Split) -> pd.DataFrame | None:
    if prediction.neighbours is None or not len(prediction.neighbours):
        return None
    wanted = ["perturbation", "neighbour", "rank", "weight"]
    table = prediction.neighbours[wanted].reset_index(drop=True)
    if split.elsewhere:
        table["elsewhere"] = True
    return table.assign(method=method.label, seed=split.seed, fold=split.fold)


def _answers(prediction: Prediction, method: Method, split: Split) -> pd.DataFrame | None:
    rows = []
    for answer in prediction.provenance.get("answers", ()):
        repairs = answer["repairs"] or [{"kind": "", "item": "", "action": ""}]
        base = {
            "method": method.label,
            "seed": split.seed,
            "fold": split.fold,
            "perturbation": answer["perturbation"],
            "source": answer["source"],
            "n_neighbours": len(answer["neighbours"]),
            "fallback": bool(answer["fallback"]),
            "cut": "; ".join(sorted(set(list_cuts(answer["provenance"])))),
        }
        rows += [{**base, **r} for r in repairs]
    return pd.DataFrame(rows) if rows else None


def _means(prediction: Prediction, method: Method, split: Split) -> pd.DataFrame:
    mean: NDArray[np.float32] = prediction.mean
    table = pd.DataFrame(mean, columns=list(prediction.features))
    table.insert(0, "perturbation", list(prediction.perturbations))
    table.insert(0, "fold", split.fold)
    table.insert(0, "seed", split.seed)
    table.insert(0, "method", method.label)
    return table
