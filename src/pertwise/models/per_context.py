"""Any one-context predictor, context by context: retrieval (chats, chemistry, graphs) and others.

The general `NeighbourPredictor` (select, then aggregate) and most predictors of genes learn from
one context. `PerContext` gives them the pool of each context, P_c = what was measured there; for a
context without measurements, pool and responses are borrowed from related ones, which is stated.
`ByContexts` chooses between a predictor of one context and one of several by the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError
from pertwise.models.base import MEAN_FALLBACK, Prediction, Predictor, predict_in
from pertwise.models.context_means import ContextMean
from pertwise.models.contexts import (
    ContextData,
    ContextPredictor,
    Contexts,
    Floats,
    joined,
    make_prediction,
)
from pertwise.parts import facts
from pertwise.screen.core import Screen, make_obs

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge


class PerContext(ContextPredictor):
    """A predictor of one context, fitted in each context on what was measured there.

    Parameters
    ----------
    build
        Facts about the context as text ("" where unknown) -> a fresh predictor, which may show them
        to a chat model.
    n_related
        How many contexts an unmeasured one borrows from.
    """

    def __init__(self, build: Callable[[str], Predictor], *, name: str, n_related: int = 5) -> None:
        super().__init__(n_related=n_related, name=name)
        self.build = build

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Keep the screen; the predictor of a context is fitted when the context is asked for."""
        super().fit(screen, knowledge)
        self._fitted: dict[str, Predictor] = {}
        return self

    def predict(self, names: Sequence[str], context: str | None = None) -> Prediction:
        """What the predictor of the context says; its fallback is the mean of the context."""
        here = self._here(context)
        if here not in self._fitted:
            pool = borrowed_context(self.training, self.contexts, here)
            known = self._knowledge
            text = "" if known is None else known.context_facts(here)
            self._fitted[here] = self.build(text).fit(pool, known)
        found = self._fitted[here].predict(names)
        note = self.contexts.mean(here)[1]
        said = [x.replace(MEAN_FALLBACK, "context mean") for x in found.support["fallback"]]
        return make_prediction(
            self.name, found.perturbations, here, found.features, found.mean,
            found.support["n_support"].tolist(),
            [joined(note, x) for x in said],
            spread=found.spread,
            neighbours=found.neighbours,
            provenance=found.provenance,
        )  # fmt: skip


def borrowed_context(data: ContextData, contexts: Contexts, context: str) -> Screen:
    """The screen of one context: its own rows, or those of related ones if it is unmeasured.

    Borrowed responses are the weighted mean of the related contexts' means plus the mean deviation
    of the perturbation in those of them that measured it, so that contexts with different means mix
    without a shift. `obs` names the context asked for.
    """
    weights = contexts.related(context)
    base = contexts.mean(context)[0]
    rows = np.flatnonzero(np.isin(data.where, [data.contexts.index(n) for n in weights]))
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(data.names[data.who[row]], []).append(int(row))
    values = [_carried(data, contexts, np.array(own), base) for own in found.values()]
    borrowed = {"borrowed": sorted(weights)} if context not in contexts.names else {}
    return _one(data, list(found), values, context, borrowed)


class ByContexts:
    """`one` for genes in one context, `several` for several contexts or for compounds.

    Both predict the same perturbations by the same knowledge; `one` is the model that is best where
    there is nothing to share between contexts.
    """

    def __init__(self, one: Predictor, several: Predictor) -> None:
        self.one, self.several, self.name = one, several, one.name
        self.needs: tuple[str, ...] = tuple(getattr(one, "needs", ()))
        self._chosen: Predictor | None = None

    @property
    def chosen(self) -> Predictor:
        """The predictor that was fitted.

        Raises
        ------
        pertwise.errors.InputError
            Before `fit`.
        """
        if self._chosen is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._chosen

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Choose by the screen, and fit."""
        self._given = (screen, knowledge)
        self._chosen = (self.several if has_contexts(screen, knowledge) else self.one).fit(
            screen, knowledge
        )
        return self

    def predict(self, names: Sequence[str], context: str | None = None) -> Prediction:
        """What the chosen predictor says; in a context that was not learned, `several`."""
        if context is not None and self.chosen is self.one:
            screen, knowledge = self._given
            if context not in screen.only_measured().contexts:
                self._chosen = self.several.fit(screen, knowledge)
        return predict_in(self.chosen, names, context)


def has_contexts(screen: Screen, knowledge: Knowledge | None = None) -> bool:
    """Whether measured rows are of several contexts, or of compounds that `knowledge` knows."""
    measured = screen.obs[screen.measured]
    if measured["context"].nunique() > 1:
        return True
    if knowledge is None or knowledge.drugs is None:
        return False
    drugs = knowledge.drugs
    return any(name in drugs for name in set(measured["perturbation"]))


def learns_contexts(model: object) -> bool:
    """Whether a predictor learns from all contexts of a screen and is asked for one at a time."""
    if isinstance(model, ContextPredictor | ByContexts):
        return True
    return "contexts" in facts(model).needs


def local_screen(screen: Screen, context: str, knowledge: Knowledge | None = None) -> Screen:
    """What is known of every perturbation in one context: its own rows, else what is borrowed.

    A perturbation measured elsewhere only has the mean of the context plus its mean deviation
    elsewhere (``meta["borrowed"]`` names the contexts).
    """
    model = ContextMean().fit(screen, knowledge)
    data, contexts = model.training, model.contexts
    if context not in data.contexts:
        return borrowed_context(data, contexts, context)
    at, values = data.contexts.index(context), []
    for i in range(len(data.names)):
        own = data.who == i
        here = own & (data.where == at)
        values.append(
            data.responses[here][0]
            if here.any()
            else _carried(data, contexts, own, contexts.means[at])
        )
    return _one(data, list(data.names), values, context, {})


def _carried(data: ContextData, contexts: Contexts, own: NDArray[Any], base: Floats) -> Floats:
    """(d,) a context's mean plus the mean deviation of the rows `own` from that of their contexts;
    NaN where none of them was measured."""
    rest = data.responses[own] - contexts.means[data.where[own]]
    return np.where(np.isfinite(rest).any(axis=0), base + masked_mean(rest), np.nan)


def _one(
    data: ContextData, names: list[str], values: list[Floats], context: str, meta: dict[str, Any]
) -> Screen:
    return Screen(
        responses=np.array(values, dtype=np.float32),
        obs=make_obs(names, context=context),
        features=data.features,
        control_mean=np.full((1, len(data.features)), np.nan, dtype=np.float32),
        meta=meta,
    )


def in_contexts(build: Callable[[str], Any], n_related: int = 5) -> ByContexts:
    """A predictor of one context made fit for several: as it is, or context by context."""
    one = build("")
    return ByContexts(one, PerContext(build, name=one.name, n_related=n_related))
