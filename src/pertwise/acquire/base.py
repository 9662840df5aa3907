"""What every acquisition strategy sees and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._shown import Shown
from pertwise.errors import InputError
from pertwise.select.base import Selection

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from pertwise.knowledge import Knowledge, Pathway, Relation
    from pertwise.knowledge.facts import FactTable
    from pertwise.screen import Screen


@dataclass(frozen=True)
class Target:
    """What the panel should teach us about.

    Attributes
    ----------
    pathway
        Biological target used for annotation (relations, modules); None = whole response.
    features
        Names of the screen features whose response counts; None = all.
    """

    pathway: Pathway | None = None
    features: tuple[str, ...] | None = None


@dataclass(frozen=True, repr=False)
class AcquisitionState(Shown):
    """Everything a strategy may look at when choosing the next batch.

    Attributes
    ----------
    candidates
        The closed list: sorted, unique, none of them measured.
    measured
        Names measured so far (sorted); empty at a cold start.
    screen
        The measured responses, one context; None at a cold start.
    uncertainty
        u(p) for every candidate, indexed by candidate; None at a cold start.
        u(p) = mean over the target's features of the ensemble variance.
    member_predictions
        (n_members, n_candidates, n_target_features) predictions behind `uncertainty`, or None.
    embedding
        (n_candidates + n_measured, k) features of candidates then measured, rows unit length;
        None when there is no knowledge.
    round
        1-based number of the round being chosen.
    pinned
        Part of `measured`: not measured yet, but already on the panel by a person's decision.
        Strategies treat them as acquired, so that the rest of the panel complements them.
    relations
        How candidates and measured stand to the target pathway, keyed by their names here; None =
        ask `knowledge`. Giving it saves the look-up in every round of a replay.
    neighbours
        (n_candidates + n_measured, same) weights in [0, 1] of a functional gene graph, rows as in
        `embedding`; None = ask `knowledge`.
    noise_variance
        Sampling variance of one measured feature mean, averaged over the target's features; None
        when the screen does not know it.
    prediction
        (n_candidates, n_target_features) what the current model predicts; None when it was not
        asked or there are too many features to show.
    rounds_left
        Rounds after this one; None = not known.
    facts
        A user's facts about perturbations, or None.
    """

    candidates: tuple[str, ...]
    measured: tuple[str, ...]
    rng: np.random.Generator
    target: Target = field(default_factory=Target)
    screen: Screen | None = None
    knowledge: Knowledge | None = None
    uncertainty: pd.Series | None = None
    member_predictions: NDArray[np.float32] | None = None
    embedding: NDArray[np.float32] | None = None
    round: int = 1
    context: str = ""
    context_text: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    relations: Mapping[str, Relation] | None = None
    neighbours: csr_matrix | None = None
    noise_variance: float | None = None
    prediction: NDArray[np.float32] | None = None
    rounds_left: int | None = None
    facts: FactTable | None = None

    def __post_init__(self) -> None:
        if not self.candidates:
            raise InputError("there is no candidate left to choose from")
        if len(set(self.candidates)) != len(self.candidates):
            raise InputError("candidates must not repeat")
        both = set(self.candidates) & set(self.measured)
        if both:
            raise InputError(f"already measured, so not a candidate: {sorted(both)[:5]}")
        if self.uncertainty is not None and list(self.uncertainty.index) != list(self.candidates):
            raise InputError("uncertainty must be indexed by the candidates, in their order")
        if not set(self.pinned) <= set(self.measured):
            raise InputError("pinned must be part of measured")
        if self.embedding is not None and len(self.embedding) != len(self.candidates) + len(
            self.measured
        ):
            raise InputError("embedding needs one row per candidate, then one per measured item")


@runtime_checkable
class Strategy(Protocol):
    """Chooses the next batch.

    The returned `Selection` has exactly min(n, n_candidates) picks and `utilities` for every
    candidate. `tests/acquire/conformance.py` checks this for each strategy.

    A class may say what it looks at with an attribute ``needs``: "nothing" (no model is fitted),
    "uncertainty" (only u(p)), or "members" (the predictions of every member; assumed when the
    attribute is absent).
    """

    name: str

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Pick `n` candidates to measure next."""
        ...
