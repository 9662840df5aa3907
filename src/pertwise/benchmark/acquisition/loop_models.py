"""Predictors behind the loop: by name or file, with the round's seed and members to disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pertwise import parts
from pertwise.models.base import Prediction, Predictor, predict_in

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Members drawn for a predictor that states a spread but has no members.
DRAWS = 10


class PosteriorDraws:
    """A predictor with a spread, given members so that BALD and its kin can be asked.

    Member m of perturbation p and feature f is mean + spread * z_m,f(p), with z_m,f = X g, g
    standard normal and X the unit-length knowledge features: each draw has exactly the stated
    spread, and related perturbations deviate together, as they do under a Gaussian process with
    kernel X X^T. A perturbation without features deviates on its own.

    Parameters
    ----------
    rows
        name -> (k,) unit-length features (zero vector: nothing known).
    """

    def __init__(
        self, inner: Predictor, rows: Mapping[str, NDArray[np.float32]], seed: int, n: int = DRAWS
    ) -> None:
        self.inner, self.rows, self.seed, self.n = inner, rows, seed, n
        self.name = inner.name

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Fit the inner predictor."""
        self.inner.fit(screen, knowledge)
        return self

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Predict, and draw members when the inner predictor has a spread but no members."""
        made = predict_in(self.inner, perturbations, context)
        if made.members is not None or made.spread is None:
            return made
        rng = np.random.default_rng(self.seed)
        x = np.stack([self.rows[p] for p in made.perturbations]).astype(np.float64)
        noise = rng.standard_normal((self.n, x.shape[1], len(made.features)))
        z = x @ noise
        blank = ~x.any(axis=1)
        z[:, blank] = rng.standard_normal((self.n, int(blank.sum()), len(made.features)))
        members = made.mean + made.spread * z
        return replace(made, members=members.astype(np.float32))


def open_loop_model(
    label: str,
    settings: Mapping[str, Any],
    rows: Mapping[str, NDArray[np.float32]] | None,
    embedding: str,
    seed: int,
) -> Predictor:
    """A fresh predictor of one label for one round.

    The settings key ``use`` names the predictor (any form of `pertwise.parts`) when the label is
    something else. A constructor that takes ``seed``
    gets the round's, one that takes ``embedding`` the run's.
    """
    values = dict(settings)
    use = str(values.pop("use", label))
    part = parts.describe("predictor", use)
    taken = part.parameters
    if "seed" in taken:
        values.setdefault("seed", seed)
    if "embedding" in taken:
        values.setdefault("embedding", embedding)
    predictor: Predictor = part.load(**values)
    return predictor if rows is None else PosteriorDraws(predictor, rows, seed)
