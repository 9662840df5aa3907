"""Kernels from named neighbours: what a language model (or a person) said is alike, and why.

Neighbour lists become a graph, the short reasons a text. Both are knowledge about names and
functions, made without any response, so they are used like any other kernel. For perturbation
p of the training set its own list counts as well as that of the query: a model that is asked about
the query only gives the query's row, and the kernels shrink to what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from pertwise.errors import InputError
from pertwise.knowledge.genes.features import unit_rows
from pertwise.knowledge.recorded import Answer, list_ranks, row_shares

#: Kernels made from the lists alone; the others need reasons.
GRAPH_KINDS = (
    "named",
    "named both ways",
    "named diffused 1",
    "named diffused 3",
    "named diffused 8",
)
REASON_KINDS = (
    "reason",
    "reason letters",
    "reason of neighbours",
    "reason pairs",
    "reason pairs of neighbours",
    "reason pairs of all who are linked",
)


class NamedNeighbours:
    """Feature blocks of perturbations from recorded neighbour lists.

    Parameters
    ----------
    answers
        subject -> (neighbours, best first; reason), e.g. `RecordedSelector.answers`.
    source
        Who named them.
    label
        Before the names of the kernels: "named", and another one for a second set of lists.
    """

    def __init__(self, answers: Mapping[str, Answer], source: str, *, label: str = "named") -> None:
        if not answers:
            raise InputError("no recorded answer to build a kernel from")
        self.source = source
        self._answers, self._before = answers, "" if label == "named" else f"{label}: "
        reasons = REASON_KINDS if any(r.strip() for _, r in answers.values()) else ()
        self.kinds = tuple(self._before + kind for kind in (*GRAPH_KINDS, *reasons))

    # Models that fall to another member of a mixture never ask for the rows.
    @cached_property
    def _made(self) -> tuple[dict[str, int], dict[str, np.ndarray]]:
        """name -> its row, kind -> the rows of all."""
        answers = self._answers
        names, ranks = list_ranks(answers)
        n, w = len(names), (ranks > 0).astype(float)
        both = np.maximum(w, w.T)
        rows = {"named": w + np.eye(n), "named both ways": both + np.eye(n)}
        degree = both.sum(axis=1)
        half = np.divide(1.0, np.sqrt(degree), out=np.zeros(n), where=degree > 0)
        values, vectors = np.linalg.eigh(both * half[:, None] * half[None, :])
        for t in (1, 3, 8):
            # Row products of V exp(t (e - 1) / 2) are the heat kernel exp(t (A - I)) of the graph.
            rows[f"named diffused {t}"] = vectors * np.exp(0.5 * t * (values - 1.0))
        if len(self.kinds) > len(GRAPH_KINDS):
            rows |= _reason_rows([answers[x][1] if x in answers else "" for x in names], w)
        place = {name: i for i, name in enumerate(names)}
        return place, {self._before + kind: found for kind, found in rows.items()}

    def rows(self, kind: str, genes: Sequence[str]) -> csr_matrix:
        """(n_genes, k) unit rows; zero for genes that nobody named or was asked about."""
        place, made = self._made
        matrix = made[kind]
        out = np.zeros((len(genes), matrix.shape[1]), dtype=np.float64)
        for i, gene in enumerate(genes):
            if gene in place:
                out[i] = matrix[place[gene]]
        return unit_rows(csr_matrix(out))


def _reason_rows(reasons: Sequence[str], w: np.ndarray) -> dict[str, np.ndarray]:
    """Texts as words, as letters, and as words and pairs of words.

    Pairs are made with all words: "no effect" and "effect" must not be the same.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    word = r"(?u)\b[\w-]+\b"
    words = TfidfVectorizer(sublinear_tf=True, token_pattern=word, stop_words="english")
    letters = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5))
    pairs = TfidfVectorizer(sublinear_tf=True, token_pattern=word, ngram_range=(1, 2))
    try:
        by_word = words.fit_transform(reasons).toarray()
    except ValueError as error:  # scikit-learn: "empty vocabulary"
        raise InputError(f"the recorded reasons hold no usable word: {error}") from error
    by_pair = pairs.fit_transform(reasons).toarray()
    named, namers = row_shares(w), row_shares(w.T)
    return {
        "reason": by_word,
        "reason letters": letters.fit_transform(reasons).toarray(),
        "reason of neighbours": by_word + named @ by_word,
        "reason pairs": by_pair,
        "reason pairs of neighbours": by_pair + named @ by_pair,
        "reason pairs of all who are linked": by_pair + named @ by_pair + namers @ by_pair,
    }
