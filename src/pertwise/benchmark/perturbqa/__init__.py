"""PerturbQA: does the knock-down change this gene, and in which direction?

Wu et al. 2025 (PerturbQA): labelled pairs (perturbation, gene) of CRISPRi screens. Task ``de``: 1 =
the knock-down changes the gene; ``dir``: among changed pairs, 1 = up, 0 = down. The labels are a
*sample* of all pairs: a pair that is not listed is unknown, not 0.

The published metric is the AUROC per target gene, averaged over the genes that have both labels in
the split scored: it asks which knock-downs move this gene, so a method that only knows how often a
gene changes scores exactly 0.5. The pooled AUROC over all pairs, where that knowledge is most of
the score, is given for contrast.
"""

from pertwise.benchmark.perturbqa.asked import ChatScorer
from pertwise.benchmark.perturbqa.labels import (
    TASKS,
    find_label_files,
    inner_folds,
    labels_screen,
    read_labels,
)
from pertwise.benchmark.perturbqa.scorers import (
    Scorer,
    gene_frequency,
    neighbour_vote,
    predictor_scorer,
    selector_scorer,
)
from pertwise.benchmark.perturbqa.scoring import QaResult, evaluate_scorer
from pertwise.benchmark.perturbqa.task import PerturbqaConfig, PerturbqaTask

__all__ = [
    "TASKS",
    "ChatScorer",
    "PerturbqaConfig",
    "PerturbqaTask",
    "QaResult",
    "Scorer",
    "evaluate_scorer",
    "find_label_files",
    "gene_frequency",
    "inner_folds",
    "labels_screen",
    "neighbour_vote",
    "predictor_scorer",
    "read_labels",
    "selector_scorer",
]
