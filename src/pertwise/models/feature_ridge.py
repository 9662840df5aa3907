"""PCA + ridge on features of perturbations: the linear baseline of drug-response papers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pertwise._names import canonical_perturbation, split_combination
from pertwise.arrays.folds import group_folds
from pertwise.errors import InputError
from pertwise.kernels.drugs import FeatureKernel
from pertwise.kernels.known import drug_kernels, kernel
from pertwise.models.base import Prediction
from pertwise.models.contexts import (
    ContextData,
    ContextPredictor,
    Floats,
    joined,
    make_prediction,
)
from pertwise.parts import part


@part(label="PCA + ridge", needs="knowledge", argument="features")
class FeatureRidge(ContextPredictor):
    """Ridge from features to the principal components of the deviations from context means.

    y = m_c + V W x_p: V the first components of the training deviations, x_p the features (bits of
    a fingerprint, an embedding of genes) scaled to length 1 and centred on the training rows, W by
    ridge. The penalty is chosen by cross-validation inside the training rows, one thing under
    several names (`Knowledge.identity`) on one side.

    Parameters
    ----------
    features
        "chemistry" for compounds, else an embedding of genes (`Knowledge.embedding`); None:
        chemistry where the drug table holds structures, else "text".
    dim
        Columns of a computed embedding.
    """

    needs = ("knowledge",)
    name = "PCA + ridge"

    def __init__(
        self,
        features: str | None = None,
        *,
        n_components: int = 50,
        penalties: Sequence[float] = (0.1, 1.0, 10.0, 100.0),
        dim: int = 128,
        n_related: int = 5,
        n_folds: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(n_related=n_related)
        if n_components < 1 or not penalties or min(penalties) <= 0:
            raise InputError(
                f"n_components must be >= 1 and penalties > 0: {n_components}, {penalties}"
            )
        self.features, self.n_components, self.dim = features, n_components, dim
        self.penalties, self.n_folds, self.seed = tuple(penalties), n_folds, seed

    def _features(self, names: Sequence[str]) -> Floats:
        """(n_names, k) unit rows, zero where nothing is known."""
        known = self._knowledge
        if known is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        kind = self.features or ("chemistry" if "chemistry" in drug_kernels(known) else "text")
        if kind == "chemistry":
            rows = _bits(kernel(known, kind), names)
        else:
            parts = [split_combination(n) for n in names]
            genes = sorted({g for group in parts for g in group})
            matrix = known.embedding(genes, kind, self.dim).matrix.astype(np.float64)
            at = {g: i for i, g in enumerate(genes)}
            rows = np.array([matrix[[at[g] for g in group]].mean(axis=0) for group in parts])
            rows = rows.reshape(len(names), matrix.shape[1])
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

    def _learn(self, data: ContextData, means: Floats) -> None:
        from sklearn.linear_model import Ridge

        rest = data.residuals(means)
        _, _, axes = np.linalg.svd(rest, full_matrices=False)
        self._axes = axes[: self.n_components]
        scores = rest @ self._axes.T
        # One unit of feature deviation is one row, so repeats in many contexts count.
        features = self._features(data.names)[data.who]
        self._centre = features.mean(axis=0)
        x = features - self._centre
        self.penalty = self._choose(data, x, scores)
        self._model = Ridge(alpha=self.penalty, fit_intercept=False).fit(x, scores)

    def _choose(self, data: ContextData, x: Floats, scores: NDArray[np.float64]) -> float:
        from sklearn.linear_model import Ridge

        things = np.array(self._identity(data.names), dtype=object)[data.who].tolist()
        fold = group_folds(things, self.n_folds, self.seed)
        loss = np.zeros(len(self.penalties))
        for held in range(self.n_folds):
            test = fold == held
            if not test.any() or test.all():
                continue
            for i, penalty in enumerate(self.penalties):
                model = Ridge(alpha=penalty, fit_intercept=False).fit(x[~test], scores[~test])
                loss[i] += float(((model.predict(x[test]) - scores[test]) ** 2).sum())
        return self.penalties[int(np.argmin(loss))]

    def predict(self, names: Sequence[str], context: str | None = None) -> Prediction:
        """Context mean + linear effect; the context mean where no feature is known, stated."""
        data, here = self.training, self._here(context)
        asked = [canonical_perturbation(n) for n in names]
        mean, borrowed = self.contexts.mean(here)
        features = self._features(asked)
        known = np.flatnonzero(features.any(axis=1))
        effect = np.zeros((len(asked), len(self._axes)))
        if len(known):
            x = features[known] - self._centre
            effect[known] = np.asarray(self._model.predict(x)).reshape(len(known), -1)
        silent = set(range(len(asked))) - set(known.tolist())
        return make_prediction(
            self.name, asked, here, data.features, mean + effect @ self._axes,
            [0 if i in silent else len(data.names) for i in range(len(asked))],
            [
                joined(borrowed, "no features: context mean" if i in silent else "")
                for i in range(len(asked))
            ],
            provenance={"penalty": self.penalty, "components": len(self._axes)},
        )  # fmt: skip


def _bits(chemistry: object, names: Sequence[str]) -> Floats:
    if not isinstance(chemistry, FeatureKernel):
        raise InputError("the chemistry kernel has no features")
    return chemistry.rows(names)
