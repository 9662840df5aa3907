"""Means over perturbations and contexts: the baselines of screens of several contexts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pertwise._names import canonical_perturbation
from pertwise.arrays.means import masked_mean
from pertwise.models.base import Prediction
from pertwise.models.contexts import (
    CONTEXT_PRIOR,
    ContextData,
    ContextPredictor,
    Floats,
    joined,
    make_prediction,
)
from pertwise.parts import part


@part(label="context mean")
class ContextMean(ContextPredictor):
    """The mean response of the context's measured perturbations, whichever is asked for.

    An unmeasured context gets the weighted mean of its related ones (stated in ``fallback``).
    """

    name = "context mean"

    def predict(self, names: Sequence[str], context: str | None = None) -> Prediction:
        """The same response for every perturbation."""
        data, here = self.training, self._here(context)
        mean, note = self.contexts.mean(here)
        n = int((data.where == data.contexts.index(here)).sum()) if here in data.contexts else 0
        return make_prediction(
            self.name, names, here, data.features, np.tile(mean, (len(names), 1)),
            [n] * len(names), [note] * len(names),
        )  # fmt: skip


@part(label="context mean (shrunk)")
def shrunk_context_mean(
    prior: float = CONTEXT_PRIOR, name: str = "context mean (shrunk)", **settings: Any
) -> ContextMean:
    """`ContextMean` pulled to the mean of all contexts by a few pseudo-rows."""
    return ContextMean(prior=prior, name=name, **settings)


@part(label="perturbation mean", needs="contexts")
class PerturbationMean(ContextPredictor):
    """The mean response of the same perturbation in the other contexts.

    The context mean for one that was measured in no other context, stated.
    """

    name = "perturbation mean"

    def predict(self, names: Sequence[str], context: str | None = None) -> Prediction:
        """Mean of the perturbation's rows outside `context`."""
        data, where = self.training, self._here(context)
        mean, note = self.contexts.mean(where)
        rows, support, fallback = [], [], []
        here = data.contexts.index(where) if where in data.contexts else -1
        for name in map(canonical_perturbation, names):
            known = data.names.index(name) if name in data.names else -1
            own = (data.who == known) & (data.where != here) if known >= 0 else np.zeros(1, bool)
            if own.any():
                value = masked_mean(data.responses[own])
                unmeasured = ~np.isfinite(data.responses[own]).any(axis=0)
                rows.append(np.where(unmeasured, mean, value))
            else:
                rows.append(mean)
            support.append(int(own.sum()))
            fallback.append("" if own.any() else joined("in no other context: context mean", note))
        return make_prediction(
            self.name, names, where, data.features, np.array(rows), support, fallback
        )


@part(label="additive contexts", needs="contexts")
class AdditiveContexts(ContextPredictor):
    """Additive: context mean + mean deviation of the perturbation from the context means elsewhere.

    The deviation is scaled by n / (n + 1) for a perturbation measured in n contexts: the posterior
    mean of a random effect whose variance equals that of one measurement.
    """

    name = "additive contexts"

    def _learn(self, data: ContextData, means: Floats) -> None:
        effects, count = data.effects(means)
        self._effects = effects * (count / (count + 1.0))[:, None]
        self._count = count

    def predict(self, names: Sequence[str], context: str | None = None) -> Prediction:
        """Context mean + effect of the perturbation; the context mean for a new one."""
        data, here = self.training, self._here(context)
        mean, note = self.contexts.mean(here)
        at = {d: i for i, d in enumerate(data.names)}
        rows, support, fallback = [], [], []
        for name in map(canonical_perturbation, names):
            i = at.get(name)
            rows.append(mean if i is None else mean + self._effects[i])
            support.append(0 if i is None else int(self._count[i]))
            fallback.append(joined(note, "not measured: context mean" if i is None else ""))
        return make_prediction(
            self.name, names, here, data.features, np.array(rows), support, fallback
        )
