"""PCA + ridge on fingerprints: the linear baseline of drug-response papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.kernels.drugs import FeatureSimilarity
from pertwise.knowledge.lines import CellTable
from pertwise.models.base import Prediction
from pertwise.models.drugs import Floats, LinePredictor, Training, make_prediction
from pertwise.models.drugs_ridge import group_folds
from pertwise.screen.core import canonical_perturbation


class FingerprintRidge(LinePredictor):
    """Ridge from fingerprint bits to the principal components of the deviations from line means.

    y = m_c + V W x_d: V the first components of the training deviations, x_d the fingerprint
    scaled to length 1 and centred on the training drugs, W by ridge. The penalty is chosen by
    cross-validation over compounds inside the training rows.
    """

    name = "PCA + ridge"

    def __init__(
        self,
        chemistry: FeatureSimilarity,
        *,
        n_components: int = 50,
        penalties: Sequence[float] = (0.1, 1.0, 10.0, 100.0),
        compounds: Mapping[str, str] | None = None,
        cells: CellTable | None = None,
        n_related: int = 5,
        n_folds: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(cells=cells, n_related=n_related)
        if n_components < 1 or not penalties or min(penalties) <= 0:
            raise InputError(
                f"n_components must be >= 1 and penalties > 0: {n_components}, {penalties}"
            )
        self.chemistry, self.n_components = chemistry, n_components
        self.penalties, self.compounds = tuple(penalties), dict(compounds or {})
        self.n_folds, self.seed = n_folds, seed

    def _features(self, drugs: Sequence[str]) -> Floats:
        position = {n: i for i, n in enumerate(self.chemistry.names)}
        out = np.zeros((len(drugs), self.chemistry.features.shape[1]))
        for i, drug in enumerate(drugs):
            if drug in position:
                row = self.chemistry.features[position[drug]]
                out[i] = row / max(float(np.linalg.norm(row)), 1e-12)
        return out

    def _learn(self, data: Training, means: Floats) -> None:
        from sklearn.linear_model import Ridge

        rest = data.residuals(means)
        _, _, axes = np.linalg.svd(rest, full_matrices=False)
        self._axes = axes[: self.n_components]
        scores = rest @ self._axes.T
        # One unit of fingerprint deviation is one row, so repeats of a drug in many lines count.
        self._centre = self._features(data.drugs)[data.drug].mean(axis=0)
        x = self._features(data.drugs)[data.drug] - self._centre
        self.penalty = self._choose(data, x, scores)
        self._model = Ridge(alpha=self.penalty, fit_intercept=False).fit(x, scores)

    def _choose(self, data: Training, x: Floats, scores: NDArray[np.float64]) -> float:
        from sklearn.linear_model import Ridge

        compounds = [self.compounds.get(data.drugs[i], data.drugs[i]) for i in data.drug]
        fold = group_folds(compounds, self.n_folds, self.seed)
        loss = np.zeros(len(self.penalties))
        for held in range(self.n_folds):
            test = fold == held
            if not test.any() or test.all():
                continue
            for i, penalty in enumerate(self.penalties):
                model = Ridge(alpha=penalty, fit_intercept=False).fit(x[~test], scores[~test])
                loss[i] += float(((model.predict(x[test]) - scores[test]) ** 2).sum())
        return self.penalties[int(np.argmin(loss))]

    def predict(self, drugs: Sequence[str], context: str) -> Prediction:
        """Line mean + linear effect; the line mean for a drug without a structure, stated."""
        data = self.training
        names = [canonical_perturbation(d) for d in drugs]
        mean, borrowed = self.lines.mean(context)
        missing = set(self.chemistry.missing(names))
        effect = np.zeros((len(names), len(self._axes)))
        known = [i for i, n in enumerate(names) if n not in missing]
        if known:
            x = self._features([names[i] for i in known]) - self._centre
            effect[known] = np.asarray(self._model.predict(x)).reshape(len(known), -1)
        return make_prediction(
            self.name, names, context, data.features, mean + effect @ self._axes,
            [0 if n in missing else len(data.drugs) for n in names],
            [
                "; ".join(x for x in (borrowed, "no structure: cell mean" * (n in missing)) if x)
                for n in names
            ],
            provenance={"penalty": self.penalty, "components": len(self._axes)},
        )  # fmt: skip
