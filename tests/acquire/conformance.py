"""What every acquisition strategy must do. Run your own with `check_strategy(factory)`."""

import numpy as np
import pandas as pd
from fake_knowledge import FakeKnowledge

from pertwise.acquire import AcquisitionState, Strategy, Target
from pertwise.acquire.state import gene_features, neighbour_weights


def make_state(
    n_candidates=60,
    n_measured=20,
    *,
    cold=False,
    seed=0,
    pathway=True,
    n_pinned=0,
    n_features=6,
    shuffle=None,
):
    """A state over the fake knowledge: candidates G000 ..., measured the genes after them."""
    knowledge = FakeKnowledge()
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


def check_selection(selection, state, n):
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


def check_strategy(factory, cold_start=True):
    """Run one strategy through everything; `factory()` makes a fresh instance."""
    assert isinstance(factory(), Strategy)
    states = [
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
            state = make_state(**kwargs)
            check_selection(factory().choose(state, n), state, n)
    # The same seed gives the same answer, on a fresh instance as on a used one.
    used = factory()
    first = used.choose(make_state(), 10)
    again = used.choose(make_state(), 10)
    assert first.items == again.items == factory().choose(make_state(), 10).items
    pd.testing.assert_series_equal(first.utilities, again.utilities)
    # It must not write into what it was given.
    state = make_state()
    before = (state.uncertainty.copy(), state.embedding.copy(), state.member_predictions.copy())
    factory().choose(state, 10)
    pd.testing.assert_series_equal(state.uncertainty, before[0])
    np.testing.assert_array_equal(state.embedding, before[1])
    np.testing.assert_array_equal(state.member_predictions, before[2])
