"""Several contexts at once: what every predictor of (perturbation, context) rows shares.

A context predictor is fitted on a screen of all contexts and asked for one at a time. What it
predicts is always "context mean + something": the context mean is what all perturbations do to
that line against its controls, the strongest simple baseline, and the place to which the others
fall back. A screen of one context is the smallest case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import canonical_perturbation
from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError
from pertwise.knowledge.lines import CellTable
from pertwise.models.base import Prediction
from pertwise.screen.core import Screen

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

Floats = NDArray[np.float64]
#: Pseudo-rows at the mean of all contexts that a shrunk context mean starts from.
CONTEXT_PRIOR = 3.0


def context_means(
    responses: NDArray[Any], where: NDArray[Any], n_contexts: int, prior: float = 0.0
) -> Floats:
    """(n_contexts, d) mean response of each context over its measured rows, NaN targets masked.

    Parameters
    ----------
    responses, where
        (n, d) and the (n,) number of each row's context.
    prior
        Number of pseudo-rows at the mean of all contexts' means: with few perturbations in a
        context its mean is pulled to what they do elsewhere, m_c = (sum_c + a M) / (n_c + a).

    A feature never measured in a context takes M; one never measured anywhere takes 0.
    """
    data = np.asarray(responses, dtype=np.float64)
    finite = np.isfinite(data)
    member = np.equal.outer(np.arange(n_contexts), where).astype(np.float64)
    if finite.all():
        total, count = member @ data, np.tile(member.sum(axis=1)[:, None], data.shape[1])
    else:
        total, count = member @ np.where(finite, data, 0.0), member @ finite
    own = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    overall = masked_mean(own)
    weight = count + prior
    return np.asarray(
        np.where(weight > 0, (total + prior * overall) / np.maximum(weight, 1e-12), overall)
    )


@dataclass(frozen=True)
class Contexts:
    """The contexts of a training screen and the rule for one that is not among them.

    Attributes
    ----------
    names, means
        Contexts with measured rows and their (n_contexts, d) mean responses.
    cells
        Facts that say which lines are related; None = all contexts count alike.
    n_related
        How many related contexts an unmeasured one borrows from.
    """

    names: tuple[str, ...]
    means: Floats
    cells: CellTable | None = None
    n_related: int = 5

    def related(self, context: str) -> dict[str, float]:
        """Context -> weight (sum 1): itself, or the related ones when it is not measured.

        Weights are metadata similarities (organ, driver genes); without any known relation, all
        contexts count alike.
        """
        if context in self.names:
            return {context: 1.0}
        found: dict[str, float] = {}
        if self.cells is not None:
            near = self.cells.related(context, self.names, self.n_related)
            found = {name: score for name, score in near if score > 0}
        if not found:
            found = dict.fromkeys(self.names, 1.0)
        total = sum(found.values())
        return {name: weight / total for name, weight in found.items()}

    def mean(self, context: str) -> tuple[Floats, str]:
        """(d,) mean response of a context, and "" or what it was borrowed from."""
        weights = self.related(context)
        rows = np.array([self.names.index(n) for n in weights])
        mean = np.asarray(np.array(list(weights.values())) @ self.means[rows])
        return mean, "" if context in self.names else _borrowed(weights)


def _borrowed(weights: Mapping[str, float]) -> str:
    shown = ", ".join(list(weights)[:5]) + (" ..." if len(weights) > 5 else "")
    return f"context not measured: borrowed from {len(weights)} contexts ({shown})"


@dataclass(frozen=True)
class ContextData:
    """Arrays of a training screen of (perturbation, context) rows.

    Attributes
    ----------
    responses
        (n, d) float64, NaN = not measured.
    names, who
        Perturbations, and for each row the position of its own.
    contexts, where
        Contexts, and for each row the position of its own.
    """

    responses: Floats
    names: tuple[str, ...]
    who: NDArray[np.int64]
    contexts: tuple[str, ...]
    where: NDArray[np.int64]
    features: tuple[str, ...]

    @classmethod
    def of(cls, screen: Screen) -> ContextData:
        """Measured rows in a canonical order, so that the order of the screen does not matter.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured, or a perturbation has several doses in one context.
        """
        measured = screen.only_measured()
        if not len(measured):
            raise InputError("no measured response to learn from: every row is NaN")
        keys = measured.obs[["perturbation", "context"]].reset_index(drop=True)
        if keys.duplicated().any():
            name, context = keys[keys.duplicated()].iloc[0]
            raise InputError(
                f"{name!r} has several doses in {context!r}; keep one dose, or use the predictor "
                "'dose'"
            )
        order = keys.sort_values(["context", "perturbation"], kind="stable").index.to_numpy()
        names = tuple(sorted(set(keys["perturbation"])))
        contexts = tuple(sorted(set(keys["context"])))
        at_name = {p: i for i, p in enumerate(names)}
        at_context = {c: i for i, c in enumerate(contexts)}
        return cls(
            responses=np.asarray(measured.responses[order], dtype=np.float64),
            names=names,
            who=keys["perturbation"].map(at_name).to_numpy(dtype=np.int64)[order],
            contexts=contexts,
            where=keys["context"].map(at_context).to_numpy(dtype=np.int64)[order],
            features=measured.features,
        )

    def residuals(self, means: Floats) -> Floats:
        """(n, d) responses minus the context means; what was not measured is 0 (no difference)."""
        rest = self.responses - means[self.where]
        return np.where(np.isfinite(rest), rest, 0.0)

    def effects(self, means: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """(n_names, d) mean residual of each perturbation over its contexts, and their number."""
        member = np.equal.outer(np.arange(len(self.names)), self.who).astype(np.float64)
        total = member @ self.residuals(means)
        count = np.bincount(self.who, minlength=len(self.names))
        return total / np.maximum(count, 1)[:, None], count.astype(np.int64)


def make_prediction(
    method: str,
    names: Sequence[str],
    context: str,
    features: tuple[str, ...],
    mean: NDArray[Any],
    n_support: Sequence[int],
    fallback: Sequence[str],
    **more: Any,
) -> Prediction:
    """A `Prediction` for one context; `more` are its other fields."""
    asked = tuple(canonical_perturbation(n) for n in names)
    return Prediction(
        perturbations=asked,
        features=features,
        mean=np.asarray(mean, dtype=np.float32).reshape(len(asked), len(features)),
        spread=more.pop("spread", None),
        support=pd.DataFrame(
            {"n_support": list(n_support), "fallback": list(fallback)},
            index=pd.Index(asked, dtype=object),
        ),
        provenance={"method": method, "context": context, **more.pop("provenance", {})},
        **more,
    )


def joined(*notes: str) -> str:
    """The notes that say something, as one."""
    return "; ".join(n for n in notes if n)


class ContextPredictor:
    """Base of the context predictors: arrays of the training screen and the context means.

    Parameters
    ----------
    n_related
        How many related contexts an unmeasured one borrows from (related by
        `Knowledge.lines`; all alike without).
    prior
        Pseudo-rows at the mean of all contexts (`context_means`).
    """

    #: What `fit` must be given, for the registry of parts.
    needs: tuple[str, ...] = ()
    name: str = "context"

    def __init__(self, *, n_related: int = 5, prior: float = 0.0, name: str = "") -> None:
        if prior < 0 or n_related < 1:
            raise InputError(f"prior must be >= 0 and n_related >= 1: {prior}, {n_related}")
        self.n_related, self.prior = n_related, prior
        self.name = name or self.name
        self._knowledge: Knowledge | None = None
        self._data: ContextData | None = None
        self._contexts: Contexts | None = None

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Fit on the measured rows of every context.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured, a perturbation has several doses in one context, or the
            knowledge that is needed is not given.
        """
        if knowledge is None and "knowledge" in self.needs:
            raise InputError(
                f"{self.name!r} needs knowledge: give a knowledge folder or a table of drugs"
            )
        data = ContextData.of(screen)
        means = context_means(data.responses, data.where, len(data.contexts), self.prior)
        self._data, self._knowledge = data, knowledge
        self._contexts = self._among(data.contexts, means)
        self._learn(data, means)
        return self

    def _learn(self, data: ContextData, means: Floats) -> None:
        """What a subclass computes beyond the context means."""

    def _among(self, names: tuple[str, ...], means: Floats) -> Contexts:
        """Contexts with the facts and the rule of this predictor."""
        cells = None if self._knowledge is None else self._knowledge.lines
        return Contexts(names, means, cells, self.n_related)

    def _identity(self, names: Sequence[str]) -> list[str]:
        """What each name is under any of its names; see `Knowledge.identity`."""
        if self._knowledge is None:
            return list(names)
        found = self._knowledge.identity(sorted(set(names)))
        return [found[n] for n in names]

    @property
    def training(self) -> ContextData:
        """The training arrays.

        Raises
        ------
        pertwise.errors.InputError
            Before `fit`.
        """
        if self._data is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._data

    @property
    def contexts(self) -> Contexts:
        """The contexts of the training screen."""
        if self._contexts is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._contexts

    def _here(self, context: str | None) -> str:
        """The context asked for; None is the only one there is."""
        known = self.training.contexts
        if context is None:
            if len(known) > 1:
                shown = ", ".join(map(repr, known[:8]))
                raise InputError(
                    f"{self.name!r} learned {len(known)} contexts ({shown}); say which"
                )
            return known[0]
        if context in known or self._knowledge is None or self._knowledge.lines is None:
            return context
        return self._knowledge.lines.resolve(context) or context
