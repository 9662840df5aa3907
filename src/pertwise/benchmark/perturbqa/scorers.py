"""Scorers without a language model: gene frequency, neighbour votes, any predictor.

A *scorer* is any function (train, pairs) -> scores: `train` has the columns pert, gene, label, the
pairs to be scored pert and gene; larger = more likely 1, NaN = no answer of its own. Everything
tuned must be tuned inside `train` (`pertwise.benchmark.perturbqa.labels.inner_folds`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pertwise.benchmark.perturbqa.labels import labels_screen
from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.models import Predictor
    from pertwise.select.similarity import SimilaritySelector

Scorer = Callable[[pd.DataFrame, pd.DataFrame], NDArray[np.floating]]


def gene_frequency(train: pd.DataFrame, pairs: pd.DataFrame, strength: float = 1.0) -> Floats:
    """Share of 1 among a gene's training labels, shrunk to the overall share.

    (ones_g + strength * overall) / (labels_g + strength); genes without training labels get the
    overall share. The baseline that knows the gene and nothing of the knock-down.
    """
    if not len(train):
        raise InputError("the training split has no pair")
    overall = float(train["label"].mean())
    by_gene = train.groupby("gene")["label"].agg(["sum", "count"])
    ones = by_gene["sum"].reindex(pairs["gene"], fill_value=0).to_numpy(dtype=float)
    count = by_gene["count"].reindex(pairs["gene"], fill_value=0).to_numpy(dtype=float)
    return np.asarray((ones + strength * overall) / (count + strength))


def neighbour_vote(
    train: pd.DataFrame,
    pairs: pd.DataFrame,
    similarity: ArrayLike,
    test_perts: Sequence[str],
    train_perts: Sequence[str],
    *,
    k: int | None = 20,
    prior_strength: float = 1.0,
    power: float = 1.0,
) -> Floats:
    """Similarity-weighted vote among the training knock-downs labelled for the same gene.

    score(p, g) = (sum_q w_pq y_qg + c f_g) / (sum_q w_pq + c) over the k training knock-downs q
    most similar to p *among those with a label for g* (a missing label is not a 0), with
    w = max(similarity, 0)^power, f_g the gene's training frequency (`gene_frequency`) and c the
    prior strength times the mean positive weight of the table.

    Parameters
    ----------
    similarity
        (n_test_perts, n_train_perts), larger = more alike; NaN = unknown, counts as 0.
    test_perts, train_perts
        Names of its rows and columns; a pair whose knock-down is not among them gets f_g.
    k
        Neighbours per pair; None = all labelled ones.

    Returns
    -------
    (n_pairs,) scores in [0, 1].

    Raises
    ------
    pertwise.errors.InputError
        If the names do not fit the matrix or k < 1.
    """
    weights = np.asarray(similarity, dtype=np.float64)
    if weights.shape != (len(test_perts), len(train_perts)):
        raise InputError(
            f"similarity has shape {weights.shape}, names say {(len(test_perts), len(train_perts))}"
        )
    if k is not None and k < 1:
        raise InputError(f"k must be >= 1, got {k}")
    weights = np.maximum(np.nan_to_num(weights, nan=0.0), 0.0) ** power
    positive = weights[weights > 0]
    prior = prior_strength * (float(positive.mean()) if positive.size else 1.0)
    frequency = gene_frequency(train, pairs)

    genes = pd.Index(pd.unique(train["gene"]))
    column = pd.Index(train_perts).get_indexer(train["pert"])
    usable = column >= 0
    train_gene = genes.get_indexer(train["gene"])[usable]
    train_label = train["label"].to_numpy(dtype=np.float64)[usable]
    column = column[usable]
    order = np.argsort(train_gene, kind="stable")
    bounds = np.searchsorted(train_gene[order], np.arange(len(genes) + 1))

    pair_gene = genes.get_indexer(pairs["gene"])
    pair_row = pd.Index(test_perts).get_indexer(pairs["pert"])
    pair_order = np.argsort(pair_gene, kind="stable")
    pair_bounds = np.searchsorted(pair_gene[pair_order], np.arange(len(genes) + 1))

    scores = frequency.copy()
    for g in range(len(genes)):
        asked = pair_order[pair_bounds[g] : pair_bounds[g + 1]]
        asked = asked[pair_row[asked] >= 0]
        labelled = order[bounds[g] : bounds[g + 1]]
        if not len(asked) or not len(labelled):
            continue
        w = weights[np.ix_(pair_row[asked], column[labelled])]
        if k is not None and k < w.shape[1]:
            kth = -np.partition(-w, k - 1, axis=1)[:, k - 1 : k]
            w = np.where(w >= kth, w, 0.0)  # equal weights at the border all vote
        votes = w @ train_label[labelled]
        scores[asked] = (votes + prior * frequency[asked]) / (w.sum(axis=1) + prior)
    return scores


def selector_scorer(selector: SimilaritySelector, **settings: Any) -> Scorer:
    """A scorer that votes (`neighbour_vote`) with the similarities of a selector.

    Any graph, embedding or other similarity of knock-downs thereby answers PerturbQA. `settings` go
    to `neighbour_vote` (k, prior_strength, power). A knock-down the selector knows nothing about
    (no positive similarity to any training knock-down) counts as not covered.
    """

    def scorer(train: pd.DataFrame, pairs: pd.DataFrame) -> Floats:
        asked, known = sorted(set(pairs["pert"])), sorted(set(train["pert"]))
        similarity = np.asarray(selector.similarity(asked, known), dtype=np.float64)
        scores = neighbour_vote(train, pairs, similarity, asked, known, **settings)
        blank = np.asarray(~(np.nan_to_num(similarity) > 0).any(axis=1))
        scores[blank[pd.Index(asked).get_indexer(pairs["pert"])]] = np.nan
        return scores

    return scorer


def predictor_scorer(
    make: Callable[[], Predictor],
    task: str,
    knowledge: Knowledge | None = None,
    context: str = "",
) -> Scorer:
    """A scorer that fits a predictor to the training labels and reads its mean response.

    A perturbation that the predictor answered with a fallback keeps that answer but counts as not
    covered (NaN here, so the gene's frequency is used and coverage shows it); genes without any
    training label likewise.
    """

    def scorer(train: pd.DataFrame, pairs: pd.DataFrame) -> Floats:
        model = make().fit(labels_screen(train, task, context), knowledge)
        names = sorted(set(pairs["pert"]))
        prediction = model.predict(names)
        row = pd.Index(prediction.perturbations).get_indexer(pairs["pert"])
        column = pd.Index(prediction.features).get_indexer(pairs["gene"])
        scores = np.where(column >= 0, prediction.mean[row, column], np.nan).astype(np.float64)
        fell_back = (prediction.support["fallback"] != "").to_numpy()
        scores[fell_back[row]] = np.nan
        return np.asarray(scores)

    return scorer
