"""The score of a scorer: AUROC per target gene, with an interval over genes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pertwise.benchmark.perturbqa.scorers import Scorer, gene_frequency
from pertwise.errors import InputError
from pertwise.evaluate.auroc import auroc, grouped_auroc
from pertwise.evaluate.statistics import bootstrap_mean


@dataclass(frozen=True)
class QaResult:
    """Outcome of one scorer on one split.

    Attributes
    ----------
    auroc
        Mean AUROC per target gene over the genes with both labels.
    low, high
        95 % bootstrap interval of that mean over genes.
    n_genes
        Genes with both labels (those averaged).
    pooled
        AUROC over all pairs at once.
    n_pairs, coverage
        Pairs scored and the share for which the scorer had an answer of its own (not NaN); the
        others got the training frequency of their gene.
    per_gene
        AUROC of every gene with both labels, indexed by gene.
    """

    auroc: float
    low: float
    high: float
    n_genes: int
    pooled: float
    n_pairs: int
    coverage: float
    per_gene: pd.Series = field(repr=False)


def evaluate_scorer(
    scorer: Scorer,
    train: pd.DataFrame,
    test: pd.DataFrame,
    rng: np.random.Generator,
) -> QaResult:
    """Score one split. The scorer never sees the labels of `test`.

    NaN scores are pairs without an answer: they get the training frequency of their gene (on the
    0..1 scale of the labels, rescaled to the range of the scorer's own scores) and stay in.

    Raises
    ------
    pertwise.errors.InputError
        If train and test share a pair, or the scorer returns another number of scores.
    """
    shared = train.merge(test, on=["pert", "gene"], how="inner")
    if len(shared):
        pert, gene = shared["pert"][0], shared["gene"][0]
        raise InputError(f"{len(shared)} pairs, ({pert}, {gene}) first, are in train and in test")
    pairs = test[["pert", "gene"]].reset_index(drop=True)
    scores = np.asarray(scorer(train, pairs), dtype=np.float64)
    if scores.shape != (len(pairs),):
        raise InputError(f"the scorer gave {scores.shape} scores for {len(pairs)} pairs")
    known = ~np.isnan(scores)
    if not known.all():
        fill = gene_frequency(train, pairs)[~known]
        if known.any():
            low, high = float(scores[known].min()), float(scores[known].max())
            fill = low + fill * (high - low)
        scores = scores.copy()
        scores[~known] = fill
    labels = test["label"].to_numpy()
    genes, names = pd.factorize(test["gene"], sort=True)
    values = grouped_auroc(scores, labels, genes, len(names))
    interval = bootstrap_mean(values, rng)
    per_gene = pd.Series(values, index=pd.Index(names, name="gene")).dropna()
    return QaResult(
        auroc=interval.mean,
        low=interval.low,
        high=interval.high,
        n_genes=interval.n,
        pooled=auroc(scores, labels),
        n_pairs=len(pairs),
        coverage=float(known.mean()),
        per_gene=per_gene,
    )
