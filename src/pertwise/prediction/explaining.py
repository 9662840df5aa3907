"""Why a prediction says what it says: neighbours, their agreement, their own failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri  # scipy.stats takes a second to import

from pertwise._shown import Shown
from pertwise.arrays.means import masked_mean
from pertwise.errors import unknown_name
from pertwise.evaluate import metrics

if TYPE_CHECKING:
    from pertwise.models import Prediction
    from pertwise.prediction.standing import Standing
    from pertwise.screen import Screen

#: Half-width of a central 90 % Gaussian interval in standard deviations.
Z90 = float(ndtri(0.95))
NAMED = "named by the method"
POST_HOC = "most like the prediction"
#: Neighbours listed when a method names none.
LISTED = 10
FAILURES = 3


@dataclass(frozen=True, repr=False)
class Explanation(Shown):
    """What one predicted response rests on.

    Attributes
    ----------
    neighbours
        neighbour, rank, weight, reason, length (of its measured response), to_prediction (cosine
        of its response and the prediction), cv_mse, cv_difference (mse minus that of the mean; on
        ranks the cosines, other way round: negative = the method helped), cv_cosine (its own
        held-out prediction; NaN without cross-validation).
    neighbours_from
        `NAMED`, or `POST_HOC` for a method that names none: measured responses most like the
        prediction, which describe it and did not make it.
    agreement
        Mean pairwise cosine of the neighbours' responses; NaN with fewer than two.
    weighted_agreement
        The same with the product of both weights as the weight of a pair.
    disagreement
        Root mean square over features of their standard deviation, in the unit of the screen.
    failures
        The rows of `neighbours` that the method itself predicted worst when they were held out.
    top
        feature, predicted, spread, low, high (90 % interval), training_mean, neighbour_mean
        (weighted), measured (NaN when it was not): features with the largest predicted change.
    heat
        (1 + n_neighbours, n_top): the prediction, then the neighbours' measured responses.
    """

    perturbation: str
    fallback: str
    n_support: int
    neighbours: pd.DataFrame
    neighbours_from: str
    agreement: float
    weighted_agreement: float
    disagreement: float
    failures: pd.DataFrame
    top: pd.DataFrame
    heat: NDArray[np.float64]
    to_training_mean: float


def explain(
    gene: str,
    prediction: Prediction,
    train: Screen,
    standing: Standing | None = None,
    measured: Screen | None = None,
    n_top: int = 25,
) -> Explanation:
    """Explain one row of a prediction from the measured responses it was learned from.

    Parameters
    ----------
    train
        Measured rows the method was fitted on.
    standing
        Cross-validation on the same rows: how well the method predicted each neighbour.
    measured
        Rows that were measured but hidden for this prediction.

    Raises
    ------
    pertwise.errors.UnknownNameError
        If `gene` was not predicted.
    """
    if gene not in prediction.perturbations:
        raise unknown_name("predicted perturbation", gene, prediction.perturbations)
    row = prediction.perturbations.index(gene)
    mean = prediction.mean[row].astype(np.float64)
    y = train.responses.astype(np.float64)
    names = list(train.obs["perturbation"])
    similar = metrics.cosine(y, np.broadcast_to(mean, y.shape))
    table, origin = _neighbours(gene, prediction, names, similar)
    place = [names.index(n) for n in table["neighbour"]]
    responses = y[place]
    table["length"] = np.sqrt(np.nansum(responses**2, axis=1))
    table["to_prediction"] = similar[place]
    for column, source in (("cv_mse", "mse"), ("cv_cosine", "cosine")):
        table[column] = _own(standing, source, table["neighbour"])
    ranked = standing is not None and standing.decisive != "mse"
    error = -table["cv_cosine"] if ranked else table["cv_mse"]
    constant = _own(standing, "cosine_baseline" if ranked else "mse_baseline", table["neighbour"])
    table["cv_difference"] = error + constant if ranked else error - constant
    reference = masked_mean(y)
    failed = table[table["cv_difference"] > 0].sort_values(
        "cv_difference", ascending=False, kind="stable"
    )
    top = _top(row, prediction, reference, responses, table, measured, n_top)
    columns = [prediction.features.index(f) for f in top["feature"]]
    return Explanation(
        perturbation=gene,
        fallback=str(prediction.support["fallback"].iloc[row]),
        n_support=int(prediction.support["n_support"].iloc[row]),
        neighbours=table,
        neighbours_from=origin,
        agreement=mean_pairwise_cosine(responses),
        weighted_agreement=mean_pairwise_cosine(
            responses, table["weight"].fillna(1.0).to_numpy(dtype=np.float64)
        ),
        disagreement=_disagreement(responses),
        failures=failed.head(FAILURES).reset_index(drop=True),
        top=top,
        heat=np.vstack([mean, responses])[:, columns],
        to_training_mean=float(metrics.cosine(reference[None], mean[None])[0]),
    )


def mean_pairwise_cosine(
    responses: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> float:
    """Mean cosine over all pairs of rows, pair (i, j) weighted by w_i w_j (equally without).

    Pairs with an undefined cosine (nothing in common) are left out; NaN when none is left.
    """
    first, second = np.triu_indices(len(responses), k=1)
    if not len(first):
        return float("nan")
    a, b = responses[first], responses[second]
    shared = np.isfinite(a) & np.isfinite(b)
    values = metrics.cosine(np.where(shared, a, np.nan), np.nan_to_num(b))
    pair = np.ones(len(values)) if weights is None else weights[first] * weights[second]
    pair = np.where(np.isfinite(values), pair, 0.0)
    total = float(pair.sum())
    return float((pair * np.nan_to_num(values)).sum() / total) if total > 0 else float("nan")


def _disagreement(responses: NDArray[np.float64]) -> float:
    known = np.isfinite(responses).sum(axis=0) > 1
    if not known.any():
        return float("nan")
    return float(np.sqrt(np.nanvar(responses[:, known], axis=0, ddof=1).mean()))


def _neighbours(
    gene: str, prediction: Prediction, names: list[str], similar: NDArray[np.float64]
) -> tuple[pd.DataFrame, str]:
    columns = ["neighbour", "rank", "weight", "reason"]
    if prediction.neighbours is not None:
        own = prediction.neighbours
        part = own.loc[own["perturbation"] == gene, columns].sort_values("rank", kind="stable")
        return part[part["neighbour"].isin(names)].reset_index(drop=True), NAMED
    order = np.argsort(-np.nan_to_num(similar, nan=-2.0), kind="stable")[:LISTED]
    table = pd.DataFrame(
        {
            "neighbour": [names[i] for i in order],
            "rank": np.arange(1, len(order) + 1),
            "weight": np.full(len(order), np.nan),
            "reason": [f"cosine {similar[i]:.2f} with the prediction" for i in order],
        }
    )
    return table, POST_HOC


def _own(standing: Standing | None, column: str, names: pd.Series) -> NDArray[np.float64]:
    if standing is None or column not in standing.per_perturbation:
        return np.full(len(names), np.nan)
    values = standing.per_perturbation[column].reindex(names)
    return np.asarray(values, dtype=np.float64)


def _top(
    row: int,
    prediction: Prediction,
    reference: NDArray[np.float64],
    responses: NDArray[np.float64],
    table: pd.DataFrame,
    measured: Screen | None,
    n_top: int,
) -> pd.DataFrame:
    mean = prediction.mean[row].astype(np.float64)
    order = np.argsort(-np.abs(mean), kind="stable")[:n_top]
    spread = (
        np.full(len(mean), np.nan)
        if prediction.spread is None
        else prediction.spread[row].astype(np.float64)
    )
    weight = table["weight"].fillna(1.0).to_numpy(dtype=np.float64)[:, None]
    known = np.isfinite(responses)
    total = (weight * known).sum(axis=0)
    average = np.full(len(mean), np.nan)
    np.divide((weight * np.nan_to_num(responses)).sum(axis=0), total, out=average, where=total > 0)
    truth = np.full(len(mean), np.nan)
    if measured is not None:
        rows = np.flatnonzero(measured.obs["perturbation"] == prediction.perturbations[row])
        if len(rows):
            truth = measured.responses[rows[0]].astype(np.float64)
    return pd.DataFrame(
        {
            "feature": [prediction.features[i] for i in order],
            "predicted": mean[order],
            "spread": spread[order],
            "low": (mean - Z90 * spread)[order],
            "high": (mean + Z90 * spread)[order],
            "training_mean": reference[order],
            "neighbour_mean": average[order],
            "measured": truth[order],
        }
    )
