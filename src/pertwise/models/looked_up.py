"""`LookedUp`: one model for perturbations that other screens measured, one for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from pertwise._names import split_combination
from pertwise.errors import InputError
from pertwise.kernels.transfer import GivenScreens, measured_in
from pertwise.models.base import Prediction, Predictor
from pertwise.screen.training import canonical

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


class LookedUp:
    """A predictor with other screens, made twice.

    How far to trust another line differs with what is asked: weights that suit a perturbation that
    was measured there shrink one that was not. Each of the two is fitted when it is first needed.

    Parameters
    ----------
    build
        Whether to look up what was measured (`kernels.transfer`) -> a fresh predictor.
    other
        The other screens.
    """

    def __init__(self, build: Callable[[bool], Predictor], other: GivenScreens) -> None:
        self._build, self.other = build, other
        # Also a check of the settings: a wrong one is told when the predictor is made.
        made = build(True)
        self.name = made.name
        self.needs: tuple[str, ...] = tuple(getattr(made, "needs", ()))
        self._given: tuple[Screen, Knowledge | None] | None = None
        self._fitted: dict[bool, Predictor] = {}

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Keep the screen; a predictor is fitted when a perturbation of its kind is asked for."""
        self._given, self._fitted = (screen, knowledge), {}
        return self

    def fitted(self, look_up: bool) -> Predictor:
        """One of the two.

        Raises
        ------
        pertwise.errors.InputError
            Before `fit`, or as the predictor says.
        """
        if self._given is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        if look_up not in self._fitted:
            self._fitted[look_up] = self._build(look_up).fit(*self._given)
        return self._fitted[look_up]

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Each name by the predictor of its kind; a combination is measured if its parts are."""
        names = canonical(perturbations)
        if self._given is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        genes = sorted({g for n in names for g in split_combination(n)})
        there = measured_in(self.other, genes, self._given[1]).values()
        known = frozenset[str]().union(*there)
        seen = np.array([all(g in known for g in split_combination(n)) for n in names], dtype=bool)
        groups = [up for up in (True, False) if (seen == up).any()] or [False]
        found: dict[bool, Prediction] = {}
        for up in groups:
            own = [n for n, s in zip(names, seen, strict=True) if s == up]
            found[up] = self.fitted(up).predict(own, context=context)
        return _joined(names, seen, found)


def _joined(names: tuple[str, ...], seen: np.ndarray, found: dict[bool, Prediction]) -> Prediction:
    first = next(iter(found.values()))
    told: dict[str, Any] = {
        ("measured in other screens" if up else "not measured in other screens"): p.provenance
        for up, p in found.items()
    }
    if len(found) == 1:
        return first
    rows = np.empty(len(names), dtype=int)
    order = [np.flatnonzero(seen == up) for up in found]
    rows[np.concatenate(order)] = np.arange(len(names))
    parts = list(found.values())
    spreads = [p.spread for p in parts if p.spread is not None]
    tables = [p.neighbours for p in parts if p.neighbours is not None]
    near = [t for t in tables if len(t)] or tables[:1]
    return Prediction(
        perturbations=names,
        features=first.features,
        mean=np.concatenate([p.mean for p in parts])[rows],
        spread=np.concatenate(spreads)[rows] if len(spreads) == len(parts) else None,
        support=pd.concat([p.support for p in parts]).iloc[rows],
        neighbours=pd.concat(near, ignore_index=True) if near else None,
        provenance={**first.provenance, "models": told},
    )
