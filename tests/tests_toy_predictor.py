"""A predictor for tests of the replay: ridge on GO features, with bootstrap members."""

import numpy as np
import pandas as pd

from pertwise.models.base import Prediction


class Toy:
    """Ridge regression; members are fits to bootstrap samples drawn with `seed`."""

    name = "toy"

    def __init__(self, seed: int = 0, strength: float = 1.0) -> None:
        self.seed, self.strength = seed, strength

    def fit(self, screen, knowledge=None):
        self.knowledge, self.features = knowledge, screen.features
        self.names = list(screen.obs["perturbation"])
        x = self._x(self.names)
        y = np.nan_to_num(screen.responses.astype(float))
        rng = np.random.default_rng(self.seed)
        self.weights = []
        for _ in range(4):
            rows = np.sort(rng.integers(len(x), size=len(x)))
            gram = x[rows].T @ x[rows] + self.strength * np.eye(x.shape[1])
            self.weights.append(np.linalg.solve(gram, x[rows].T @ y[rows]))
        return self

    def _x(self, names):
        rows = self.knowledge.embedding(list(names), kind="go", dim=16).matrix.astype(float)
        return np.hstack([rows, np.ones((len(rows), 1))])

    def predict(self, perturbations):
        x = self._x(perturbations)
        members = np.stack([x @ w for w in self.weights]).astype(np.float32)
        support = pd.DataFrame({"n_support": len(self.names), "fallback": ""}, index=perturbations)
        return Prediction(
            tuple(perturbations), self.features, members.mean(axis=0), None, support, None, members
        )
