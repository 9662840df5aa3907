"""The small knowledge of `pertwise.testing`, and an ensemble whose members disagree as told."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from pertwise.testing.knowledge import SmallKnowledge as FakeKnowledge

__all__ = ["FakeEnsemble", "FakeKnowledge"]


class FakeEnsemble:
    """Members disagree about gene G_i by an amount that grows with i."""

    name = "fake ensemble"

    def fit(self, screen, knowledge=None):
        self.features = screen.features
        return self

    def predict(self, perturbations):
        rng = np.random.default_rng(3)
        base = rng.normal(size=(5, 1000, len(self.features)))
        members = np.stack(
            [base[:, int(p[-3:])] * (1 + int(p[-3:])) / 100 for p in perturbations], axis=1
        ).astype(np.float32)
        return SimpleNamespace(
            perturbations=tuple(perturbations),
            features=self.features,
            mean=members.mean(axis=0),
            spread=None,
            members=members,
            support=pd.DataFrame({"n_support": 1, "fallback": [""] * len(perturbations)}),
        )
