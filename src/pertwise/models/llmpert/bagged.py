"""Ridge regressions on bootstrap samples: an ensemble that needs no torch, on the same features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pertwise.models.llmpert.ensemble import FittedEnsemble
from pertwise.models.llmpert.predictor import LLMPertEnsemble
from pertwise.models.llmpert.train import EnsembleSettings

#: Penalties tried, in units of the number of rows (inputs have a root mean square of one).
PENALTIES = np.geomspace(1e-3, 1e2, 11)


@dataclass(frozen=True)
class FittedRidges(FittedEnsemble):
    """Members as (M, d, F) `coefficients` of scaled inputs, added to the (M, F) `level`."""

    coefficients: NDArray[np.float32]
    level: NDArray[np.float32]
    penalty: float

    def _chunks(
        self, x: NDArray[Any], features: NDArray[np.intp] | None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        wanted = slice(None) if features is None else features
        weight, level = self.coefficients[:, :, wanted], self.level[:, None, wanted]
        for start, rows in self._scaled(x):
            yield start, rows @ weight + level


class BaggedRidge(LLMPertEnsemble):
    """Ridge regressions, each on a bootstrap sample of the rows (Breiman 1996, bagging).

    Member m: ``y = b_m + x W_m`` with ``W_m`` minimising ``sum_i c_i |y_i - b_m - x_i W_m|^2 + a
    |W_m|^2``; ``c_i`` is how often row i was drawn, ``a`` the penalty of the least leave-one-out
    error on all rows. Features, combinations, fallbacks and what is returned are those of
    `LLMPertEnsemble`; members disagree where few rows say what a feature does.
    """

    name = "bagged ridge"

    def __init__(
        self, embedding: str | Mapping[str, Any] = "text", *, members: int = 10, **options: Any
    ) -> None:
        super().__init__(embedding, settings=EnsembleSettings(members=members), **options)

    def fit(self, screen: Any, knowledge: Any = None) -> Self:
        """As `LLMPertEnsemble.fit`."""
        super().fit(screen, knowledge)
        assert isinstance(self._fitted, FittedRidges)  # noqa: S101
        self._provenance["settings"] = {
            "members": self.settings.members,
            "penalty": self._fitted.penalty,
        }
        return self

    def _fit_arrays(self, x: NDArray[Any], y: NDArray[Any]) -> FittedEnsemble:
        from sklearn.linear_model import Ridge, RidgeCV

        x = np.asarray(x, dtype=np.float32)
        level = np.nanmean(y, axis=0)
        filled = np.where(np.isfinite(y), y, level)
        mean = x.mean(axis=0)
        scale = float(np.sqrt(np.mean(np.square(x - mean, dtype=np.float64)))) or 1.0
        rows = (x - mean) / np.float32(scale)
        penalty = float(RidgeCV(PENALTIES * len(x)).fit(rows, filled).alpha_) if len(x) > 2 else 1.0
        rng = np.random.default_rng(self.seed)
        coefficients, levels = [], []
        for _ in range(self.settings.members):
            drawn = np.bincount(rng.integers(0, len(x), len(x)), minlength=len(x))
            made = Ridge(penalty).fit(rows, filled, sample_weight=drawn)
            coefficients.append(np.asarray(made.coef_).reshape(y.shape[1], -1).T)
            levels.append(np.atleast_1d(made.intercept_))
        fitted = FittedRidges(
            networks=None,
            settings=self.settings,
            input_mean=mean,
            input_scale=scale,
            target_scale=1.0,
            noise=np.zeros(y.shape[1], dtype=np.float32),
            n_inputs=x.shape[1],
            n_outputs=y.shape[1],
            coefficients=np.array(coefficients, dtype=np.float32),
            level=np.array(levels, dtype=np.float32),
            penalty=penalty,
        )
        fitted.noise[:] = np.nanmean((fitted.moments(x)[0] - y) ** 2, axis=0)
        return fitted
