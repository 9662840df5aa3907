"""Predictors behind the loop: by name or file, with the round's seed and members to disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pertwise import parts
from pertwise.kernels.ratings import mark_kernels
from pertwise.knowledge.programs import named_by
from pertwise.knowledge.ratings import SCALE
from pertwise.models.base import Prediction, Predictor, predict_in

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: How many perturbations the pull of the slope of marks to 0 counts as.
PULL = 10.0
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


class AroundMarks:
    """A predictor of what marks that name a feature directly leave unexplained.

    y_f(p) = b_f m_f(p) + rest_f(p), where m_f is the mark (-1 to 1) of the program that the feature
    is named after (`named_by`) and b_f is learned from the measured: least squares beside a level
    of its own, pulled to 0 as by `PULL` further perturbations. `inner` predicts the rest.
    """

    def __init__(self, inner: Predictor) -> None:
        self.inner, self.name = inner, inner.name
        self.slopes: dict[str, float] = {}

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Learn the slopes, then fit the inner predictor to the rest."""
        known = () if knowledge is None else knowledge.ratings
        here = [r for r in known if r.context == screen.contexts[0]]
        self._marks = mark_kernels(knowledge, tuple(here) or known)
        self.slopes = {}
        for feature in screen.features:
            m = self._mark(feature, screen.perturbations)
            y = screen.responses[:, screen.features.index(feature)].astype(np.float64)
            use = np.isfinite(y)
            if m is None or use.sum() < 3:
                continue
            x = m[use] - m[use].mean()
            pull = PULL * float(np.mean(m**2))
            self.slopes[feature] = float(x @ y[use]) / max(float(x @ x) + pull, 1e-12)
        rest = screen.responses - self._prior(screen.perturbations, screen.features)
        self.inner.fit(replace(screen, responses=rest), knowledge)
        return self

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """The inner prediction, and what the marks say."""
        made = predict_in(self.inner, perturbations, context)
        prior = self._prior(made.perturbations, made.features)
        members = None if made.members is None else made.members + prior
        return replace(made, mean=made.mean + prior, members=members)

    def _prior(self, names: Sequence[str], features: Sequence[str]) -> NDArray[np.float32]:
        out = np.zeros((len(names), len(features)), dtype=np.float32)
        for feature, slope in self.slopes.items():
            mark = self._mark(feature, names)
            if mark is not None and feature in features:
                out[:, list(features).index(feature)] = slope * mark
        return out

    def _mark(self, feature: str, names: Sequence[str]) -> NDArray[np.float64] | None:
        """(n_names,) marks of the program that names the feature; 0 where none was given."""
        for table in self._marks:
            program = named_by(feature, table.ratings.programs)
            if program is None:
                continue
            where = table.places(names)
            marks = table.ratings.marks[:, table.ratings.programs.index(program)] / SCALE
            return np.nan_to_num(np.where(where >= 0, marks[where], 0.0))
        return None


def open_loop_model(
    label: str,
    settings: Mapping[str, Any],
    rows: Mapping[str, NDArray[np.float32]] | None,
    embedding: str,
    seed: int,
) -> Predictor:
    """A fresh predictor of one label for one round.

    The settings key ``use`` names the predictor (any form of `pertwise.parts`) when the label is
    something else, ``prior_marks = true`` predicts around the marks that name a feature
    (`AroundMarks`). A constructor that takes ``seed`` gets the round's, one that takes
    ``embedding`` the run's.
    """
    values = dict(settings)
    use = str(values.pop("use", label))
    around = bool(values.pop("prior_marks", False))
    part = parts.describe("predictor", use)
    taken = part.parameters
    if "seed" in taken:
        values.setdefault("seed", seed)
    if "embedding" in taken:
        values.setdefault("embedding", embedding)
    predictor: Predictor = part.load(**values)
    if around:
        predictor = AroundMarks(predictor)
    return predictor if rows is None else PosteriorDraws(predictor, rows, seed)
