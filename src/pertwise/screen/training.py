"""What a fitted predictor keeps of a screen: the measured rows as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pertwise._names import canonical_perturbation
from pertwise.arrays.means import masked_mean
from pertwise.errors import InputError
from pertwise.screen.core import Screen

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TrainingData:
    """Measured perturbations of one context, sorted by name so that row order cannot matter.

    Attributes
    ----------
    names
        (n,) perturbations.
    y
        (n, d) float64 responses; NaN = not measured.
    mean
        (d,) masked training mean; 0 where no perturbation was measured.
    features
        (d,) names.
    sampling_variance
        (n,) sampling variance of each mean summed over features; NaN where unknown.
    """

    names: tuple[str, ...]
    y: Floats
    mean: Floats
    features: tuple[str, ...]
    context: str
    sampling_variance: Floats

    @classmethod
    def from_screen(cls, screen: Screen, method: str) -> TrainingData:
        """The measured rows.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured, or the screen holds several contexts or doses.
        """
        measured = screen.only_measured()
        if not len(measured):
            raise InputError("no measured perturbation to learn from: every response is NaN")
        if len(measured.contexts) > 1:
            raise InputError(
                f"{method!r} learns from one context at a time, but the screen holds "
                f"{list(measured.contexts)[:5]}; slice it with screen.in_context(...)"
            )
        names = list(measured.obs["perturbation"])
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError(
                f"{twice!r} was measured at several doses; {method!r} needs one row a perturbation"
            )
        order = np.argsort(np.asarray(names, dtype=object))
        y = measured.responses[order].astype(np.float64)
        return cls(
            tuple(names[i] for i in order),
            y,
            masked_mean(y),
            measured.features,
            measured.contexts[0],
            measured.obs["sampling_variance"].to_numpy(dtype=np.float64)[order],
        )

    @property
    def centred(self) -> Floats:
        """(n, d) responses minus the training mean, NaN kept."""
        return self.y - self.mean

    @property
    def filled(self) -> Floats:
        """(n, d) centred responses with 0 (the training mean) where nothing was measured."""
        return np.nan_to_num(self.centred)

    def feature_spread(self) -> Floats:
        """(d,) standard deviation around the training mean; 0 with fewer than two values."""
        count = np.isfinite(self.y).sum(axis=0)
        squares = np.nansum(self.centred**2, axis=0)
        return np.asarray(np.sqrt(squares / np.maximum(count - 1, 1)))


def one_context(screen: Screen, context: str | None, where: str) -> Screen:
    """Measured rows of one context, one row per perturbation.

    Raises
    ------
    pertwise.errors.InputError
        If several contexts are there and none was chosen, nothing is measured, or a perturbation
        has several doses.
    """
    if context is None and len(screen.contexts) > 1:
        raise InputError(
            f"{where} holds the contexts {', '.join(map(repr, screen.contexts))}; choose one with "
            'context = "..."'
        )
    part = screen if context is None else screen.in_context(context)
    part = part.only_measured()
    if not len(part):
        raise InputError(f"{where}: no perturbation is measured")
    twice = part.obs["perturbation"].duplicated()
    if twice.any():
        name = part.obs["perturbation"][twice].iloc[0]
        raise InputError(
            f"{where}: {name!r} has several rows (doses); keep one dose per perturbation first"
        )
    return part


def canonical(perturbations: Sequence[str]) -> tuple[str, ...]:
    """Names in canonical form ("B+A" -> "A+B"), order kept."""
    return tuple(canonical_perturbation(p) for p in perturbations)
