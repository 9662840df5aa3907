"""What every acquisition strategy must do. Run your own with `check_strategy(factory)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from pertwise.acquire import AcquisitionState, Strategy, Target
from pertwise.acquire.state import gene_features, neighbour_weights
from pertwise.select.base import Selection
from pertwise.testing.knowledge import SmallKnowledge


def example_state(
    n_candidates: int = 60,
    n_measured: int = 20,
    *,
    cold: bool = False,
    seed: int = 0,
    pathway: bool = True,
    n_pinned: int = 0,
    n_features: int = 6,
) -> AcquisitionState:
    """A state over `SmallKnowledge`: candidates G000 ..., measured the genes after them."""
    knowledge = SmallKnowledge()
    genes = list(knowledge.genes_)
    candidates = tuple(genes[:n_candidates])
    measured = () if cold else tuple(genes[n_candidates : n_candidates + n_measured])
    pinned = tuple(genes[100 : 100 + n_pinned])
    names = [*candidates, *measured, *pinned]
    members, u = None, None
    if not cold:
        rng = np.random.default_rng(seed + 1)
        scale = rng.uniform(0.2, 2.0, size=(1, n_candidates, 1))
        members = (rng.normal(size=(5, n_candidates, n_features)) * scale).astype(np.float32)
        u = pd.Series(
            members.astype(float).var(axis=0, ddof=1).mean(axis=1), index=list(candidates)
        )
    return AcquisitionState(
        candidates=candidates,
        measured=(*measured, *pinned),
        rng=np.random.default_rng(seed),
        target=Target(knowledge.pathway("hallmark_heme_metabolism") if pathway else None),
        knowledge=knowledge,
        uncertainty=u,
        member_predictions=members,
        embedding=gene_features(knowledge, names)[0],
        neighbours=neighbour_weights(knowledge, names),
        pinned=pinned,
        round=1 if cold else 2,
        context="K562",
    )


def check_selection(selection: Selection, state: AcquisitionState, n: int) -> None:
    """The rules a single answer must obey."""
    items = selection.items
    assert len(items) == min(n, len(state.candidates))
    assert len(set(items)) == len(items), "a pick is repeated"
    assert set(items) <= set(state.candidates), "a pick is not on the list"
    assert not set(items) & set(state.measured)
    assert all(p.reason.strip() for p in selection.picks), "a pick has no reason"
    assert selection.source
    utilities = selection.utilities
    assert utilities is not None, "no utilities"
    assert list(utilities.index) == list(state.candidates), "utilities of all, in their order"
    assert np.isfinite(utilities.to_numpy(dtype=float)).all()
    rest = utilities.drop(list(items))
    if len(rest):
        assert utilities[list(items)].min() >= rest.max() - 1e-9, "a pick is worth less than a rest"
    if selection.fallback:
        assert selection.repairs, "a fallback must be stated as a repair"


def check_strategy(factory: Callable[[], Strategy], cold_start: bool = True) -> None:
    """Run one strategy through everything; `factory()` makes a fresh instance."""
    assert isinstance(factory(), Strategy)
    states: list[dict[str, Any]] = [
        {},
        {"pathway": False},
        {"n_pinned": 3},
        {"n_candidates": 1},
        {"n_candidates": 5, "n_measured": 1},
    ]
    if cold_start:
        states += [{"cold": True}, {"cold": True, "pathway": False}, {"cold": True, "n_pinned": 2}]
    for kwargs in states:
        for n in (1, 7, 500):
            state = example_state(**kwargs)
            check_selection(factory().choose(state, n), state, n)
    # The same seed gives the same answer, on a fresh instance as on a used one.
    used = factory()
    first = used.choose(example_state(), 10)
    again = used.choose(example_state(), 10)
    assert first.items == again.items == factory().choose(example_state(), 10).items
    pd.testing.assert_series_equal(first.utilities, again.utilities)
    # It must not write into what it was given.
    state = example_state()
    assert state.uncertainty is not None
    assert state.embedding is not None
    assert state.member_predictions is not None
    before = (state.uncertainty.copy(), state.embedding.copy(), state.member_predictions.copy())
    factory().choose(state, 10)
    pd.testing.assert_series_equal(state.uncertainty, before[0])
    np.testing.assert_array_equal(state.embedding, before[1])
    np.testing.assert_array_equal(state.member_predictions, before[2])
