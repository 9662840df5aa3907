"""Linear baselines on gene features: ridge on embeddings, and Y ~ A K B."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from pertwise._names import split_combination
from pertwise.arrays.gaussian_process import Floats, choose_noise
from pertwise.errors import InputError
from pertwise.models.base import MEAN_FALLBACK, Prediction, only_context, support_table
from pertwise.parts import part
from pertwise.screen.training import TrainingData, canonical

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

PENALTIES = np.geomspace(1e-3, 1e3, 25)


def bilinear(y: Floats, a: Floats, b: Floats, penalty: float) -> Floats:
    """K of Y ~ A K B^T by ridge on both sides (Ahlmann-Eltze, Huber and Anders 2025).

    K = (A^T A + penalty I)^-1 A^T Y B (B^T B + penalty I)^-1, the minimiser in the paper's closed
    form, with Y the centred responses.

    Parameters
    ----------
    y
        (n, d); a (n, p) perturbation features; b (d, q) features of the response features.

    Returns
    -------
    (p, q) K.
    """
    left = np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ y)
    right = np.linalg.solve(b.T @ b + penalty * np.eye(b.shape[1]), (left @ b).T).T
    return np.asarray(right)


class _EmbeddingModel:
    """Shared by both: standardised rows of a gene embedding, combinations as means of parts."""

    def __init__(self, kind: str, dim: int, name: str) -> None:
        self.kind, self.dim, self.name = kind, dim, name
        self._knowledge: Knowledge | None = None
        self._data: TrainingData | None = None

    def _start(self, screen: Screen, knowledge: Knowledge | None) -> tuple[TrainingData, Floats]:
        if knowledge is None:
            raise InputError(f"{self.name!r} needs a knowledge folder: pass knowledge to fit")
        self._knowledge = knowledge
        self._data = TrainingData.from_screen(screen, self.name)
        return self._data, self._rows(self._data.names)[0]

    def _rows(self, names: Sequence[str]) -> tuple[Floats, np.ndarray]:
        """(n, k) unit rows and whether any part of a name is known."""
        if self._knowledge is None or self._data is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        parts = [split_combination(n) for n in names]
        genes = list(dict.fromkeys(g for group in parts for g in group))
        matrix = self._knowledge.embedding(genes, self.kind, self.dim).matrix.astype(np.float64)
        place = {g: i for i, g in enumerate(genes)}
        rows = np.zeros((len(names), matrix.shape[1]))
        for i, group in enumerate(parts):
            rows[i] = matrix[[place[g] for g in group]].mean(axis=0)
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0)
        return unit, norm[:, 0] > 0

    def _asked(
        self, perturbations: Sequence[str], context: str | None
    ) -> tuple[tuple[str, ...], Floats, np.ndarray]:
        """Canonical names, their rows and which are known; the context is checked."""
        if self._data is not None:
            only_context(self.name, self._data.context, context)
        names = canonical(perturbations)
        return names, *self._rows(names)

    def _prediction(
        self, names: tuple[str, ...], change: Floats, known: np.ndarray, error: Floats
    ) -> Prediction:
        data = self._data
        if data is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        change = np.where(known[:, None], change, 0.0)
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=(data.mean + change).astype(np.float32),
            spread=np.tile(error.astype(np.float32), (len(names), 1)),
            support=support_table(
                names,
                np.where(known, len(data.names), 0),
                ["" if i else MEAN_FALLBACK for i in known],
            ),
            provenance={"method": self.name, "embedding": self.kind, "dim": self.dim},
        )


@part(label="ridge on embedding", needs="knowledge", argument="kind")
class RidgePredictor(_EmbeddingModel):
    """Ridge regression of the centred responses on a gene embedding.

    The penalty is chosen by leave-one-out squared error inside the training set.
    """

    def __init__(
        self, kind: str = "text", dim: int = 128, name: str = "ridge on embedding"
    ) -> None:
        super().__init__(kind, dim, name)

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Choose the penalty, then fit on every measured row."""
        data, x = self._start(screen, knowledge)
        y = data.filled
        gram = x @ x.T
        n = len(y)
        if n > 2:
            self.penalty, errors = choose_noise(gram, y @ y.T, PENALTIES)
            total = max(float((y**2).sum()), np.finfo(float).tiny)
            self._error = data.feature_spread() * np.sqrt(errors.min() / total)
        else:
            self.penalty, self._error = 1.0, data.feature_spread()
        self._coefficients = x.T @ np.linalg.solve(gram + self.penalty * np.eye(n), y)
        return self

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Training mean + embedding x coefficients."""
        names, x, known = self._asked(perturbations, context)
        return self._prediction(names, x @ self._coefficients, known, self._error)


@part(needs="knowledge", argument="kind", source="Ahlmann-Eltze et al. 2025")
class BilinearPredictor(_EmbeddingModel):
    """Y ~ A K B^T: gene embeddings on one side, principal directions of the screen on the other.

    A = gene embedding of the perturbations, B = the first `n_directions` principal directions of
    the training responses, K by ridge on both sides with the paper's penalty of 0.1
    (`bilinear`). The linear model of Ahlmann-Eltze, Huber and Anders (2025).
    """

    def __init__(
        self,
        kind: str = "graph",
        dim: int = 64,
        n_directions: int = 10,
        penalty: float = 0.1,
        name: str = "bilinear",
    ) -> None:
        super().__init__(kind, dim, name)
        self.n_directions, self.penalty = n_directions, penalty

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Closed form; NaN responses count as the training mean."""
        data, x = self._start(screen, knowledge)
        y = data.filled
        q = min(self.n_directions, *y.shape)
        _, s, vt = np.linalg.svd(y, full_matrices=False)
        # B carries the singular values, as the principal component scores of the paper do.
        self._b = (vt[:q] * (s[:q, None] / np.sqrt(max(len(y), 1)))).T
        self._k = bilinear(y, x, self._b, self.penalty)
        residual = y - x @ self._k @ self._b.T
        self._error = np.sqrt((residual**2).sum(axis=0) / max(len(y) - 1, 1))
        return self

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Training mean + A K B^T."""
        names, x, known = self._asked(perturbations, context)
        return self._prediction(names, x @ self._k @ self._b.T, known, self._error)
