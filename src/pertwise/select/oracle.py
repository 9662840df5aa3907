"""`OracleSelector`: the neighbours that really were most alike. A ceiling, not a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pertwise.errors import InputError, unknown_name
from pertwise.parts import part
from pertwise.screen import Screen
from pertwise.select.similarity import Floats, SimilaritySelector


@part(needs="truth")
class OracleSelector(SimilaritySelector):
    """Chooses by the measured responses themselves: it sees the answer.

    It bounds what any choice of neighbours could reach. It refuses to be built unless the caller
    states that the result is a ceiling, and the predictors refuse it outside evaluation.

    Parameters
    ----------
    truth
        Screen with the responses of subjects and candidates (one context).
    metric
        "l2" (similarity 1 / (1 + distance)) or "cosine".
    ceiling_only
        Must be True: "I use this as a ceiling in an evaluation".
    """

    sees_answers = True

    def __init__(
        self,
        truth: Screen,
        *,
        metric: Literal["l2", "cosine"] = "l2",
        max_neighbours: int = 5,
        weighted: bool = False,
        ceiling_only: bool = False,
        name: str = "oracle",
    ) -> None:
        super().__init__(max_neighbours, weighted)
        if not ceiling_only:
            raise InputError(
                "the oracle selector sees the answers, so it cannot predict anything; pass "
                "ceiling_only=True to use it as a ceiling in an evaluation"
            )
        if metric not in ("l2", "cosine"):
            raise unknown_name("oracle metric", metric, ("l2", "cosine"))
        self.metric = metric
        self.name = name
        measured = truth.only_measured()
        self._row = {p: i for i, p in enumerate(measured.obs["perturbation"])}
        # Means over the features both have would need pairs of masks; absent values count as 0.
        self._x = np.nan_to_num(measured.responses.astype(np.float64))

    def similarity(self, subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        """(n_subjects, n_candidates); 0 for what was never measured."""
        out = np.zeros((len(subjects), len(candidates)))
        rows = [i for i, s in enumerate(subjects) if s in self._row]
        columns = [j for j, c in enumerate(candidates) if c in self._row]
        a = self._x[[self._row[subjects[i]] for i in rows]]
        b = self._x[[self._row[candidates[j]] for j in columns]]
        if self.metric == "l2":
            square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
            block = 1.0 / (1.0 + np.sqrt(np.maximum(square, 0.0)))
        else:
            norm = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
            block = np.divide(a @ b.T, norm, out=np.zeros_like(norm), where=norm > 0)
        out[np.ix_(rows, columns)] = block
        return out

    def settings(self) -> Mapping[str, Any]:
        """States that the answers were seen."""
        return {**super().settings(), "metric": self.metric, "sees_answers": True}
