"""What every predictor takes and returns."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._shown import Shown
from pertwise.errors import InputError

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


#: Said in `Prediction.support` where nothing was known about a perturbation.
MEAN_FALLBACK = "training mean"


@dataclass(frozen=True, repr=False)
class Prediction(Shown):
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

    @property
    def epistemic(self) -> NDArray[np.float64] | None:
        """(n, d) standard deviation over `members`: what more measurements would settle; None for
        a method without members."""
        if self.members is None or len(self.members) < 2:
            return None
        found: NDArray[np.float64] = self.members.astype(np.float64).std(axis=0, ddof=1)
        return found

    @property
    def aleatoric(self) -> NDArray[np.float64] | None:
        """(n, d) the rest of `spread`, sqrt(spread^2 - epistemic^2): noise of the measurement and
        what the method leaves unexplained; None where either is unknown."""
        known = self.epistemic
        if known is None or self.spread is None:
            return None
        rest = np.maximum(self.spread.astype(np.float64) ** 2 - known**2, 0.0)
        return np.asarray(np.sqrt(rest))


@runtime_checkable
class Predictor(Protocol):
    """Learns from the measured rows of a screen and predicts unmeasured perturbations.

    A row is (perturbation, context, dose). Predictors of one context take a screen of one (slice it
    first) and answer for that one; the others learn from all contexts of the screen and are asked
    for one at a time. `fit` ignores NaN targets, and never looks at rows outside the given screen.
    """

    name: str

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Fit on all measured perturbations of `screen`."""
        ...

    def predict(self, names: Sequence[str], /, *, context: str | None = None) -> Prediction:
        """Predict responses of perturbations in one context.

        Unknown names get the declared fallback, never an omission. `context` None is the only one
        the screen held; a class that knows one context only may leave this argument out.

        Raises
        ------
        pertwise.errors.InputError
            For a context that a predictor of one context did not learn, or None where there are
            several.
        """
        ...


def predict_in(model: Predictor, names: Sequence[str], context: str | None) -> Prediction:
    """Ask a predictor in a context, also one of a user's own that does without the argument.

    Raises
    ------
    pertwise.errors.InputError
        If a context is asked for that the predictor does not take.
    """
    if context is None:
        return model.predict(names)
    if "context" not in inspect.signature(model.predict).parameters:
        raise InputError(
            f"{model.name!r} has no argument 'context' in predict, so it cannot be asked about "
            f"{context!r}; fit it on one context at a time"
        )
    return model.predict(names, context=context)


def only_context(method: str, learned: str, context: str | None) -> None:
    """Refuse another context than the one that a predictor of one context learned.

    Raises
    ------
    pertwise.errors.InputError
        Names both.
    """
    if context is not None and context != learned:
        raise InputError(
            f"{method!r} learned the context {learned!r} and cannot predict in {context!r}; fit it "
            "on that context, or use a predictor of several contexts such as 'additive-contexts'"
        )


def support_table(
    names: Sequence[str], n_support: Sequence[int] | NDArray[np.int64], fallback: Sequence[str]
) -> pd.DataFrame:
    """`Prediction.support` with its two required columns."""
    return pd.DataFrame(
        {"n_support": np.asarray(n_support, dtype=int), "fallback": list(fallback)},
        index=pd.Index(list(names)),
    )
