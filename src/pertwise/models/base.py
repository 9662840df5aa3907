"""What every predictor takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.errors import InputError

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


#: Said in `Prediction.support` where nothing was known about a perturbation.
MEAN_FALLBACK = "training mean"


@dataclass(frozen=True)
class Prediction:
    """Predicted responses (deltas against control) for perturbations in one context.

    Attributes
    ----------
    perturbations, features
        Row and column names.
    mean
        (n_perturbations, n_features) float32, control-subtracted, same unit as the screen.
    spread
        Same shape: predictive standard deviation of the *observed* response; None if the method
        gives none.
    support
        One row a perturbation (same order), at least the columns ``n_support`` (measured items
        the prediction rests on) and ``fallback`` (empty string, or what was used instead).
    neighbours
        Long table (perturbation, neighbour, rank, weight, reason); None for methods without.
    members
        (n_members, n_perturbations, n_features) for ensembles, else None.
    """

    perturbations: tuple[str, ...]
    features: tuple[str, ...]
    mean: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    support: pd.DataFrame
    neighbours: pd.DataFrame | None = None
    members: NDArray[np.float32] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.perturbations), len(self.features))
        if self.mean.shape != shape:
            raise InputError(f"mean has shape {self.mean.shape}, names say {shape}")
        if self.spread is not None and self.spread.shape != shape:
            raise InputError(f"spread has shape {self.spread.shape}, names say {shape}")
        if len(self.support) != shape[0]:
            raise InputError(f"support has {len(self.support)} rows for {shape[0]} perturbations")
        missing = {"n_support", "fallback"} - set(self.support.columns)
        if missing:
            raise InputError(f"support lacks the columns {sorted(missing)}")
        if not np.isfinite(self.mean).all():
            raise InputError("predicted means must be finite: use a declared fallback instead")


@runtime_checkable
class Predictor(Protocol):
    """Learns from the measured rows of a screen and predicts unmeasured perturbations.

    `fit` takes one context at a time (slice the screen first) unless the class says otherwise,
    ignores NaN targets, and never looks at rows outside the given screen.
    """

    name: str

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Fit on all measured perturbations of `screen`."""
        ...

    def predict(self, perturbations: Sequence[str]) -> Prediction:
        """Predict responses; unknown names get the declared fallback, never an omission."""
        ...


def support_table(
    names: Sequence[str], n_support: Sequence[int] | NDArray[np.int64], fallback: Sequence[str]
) -> pd.DataFrame:
    """`Prediction.support` with its two required columns."""
    return pd.DataFrame(
        {"n_support": np.asarray(n_support, dtype=int), "fallback": list(fallback)},
        index=pd.Index(list(names)),
    )
