"""The two-stage llm strategy against the scripted server (which is no language model)."""

import json

import numpy as np
import pytest

from pertwise.acquire.strategies.knowledge import KnowledgePicker
from pertwise.acquire.strategies.llm import LlmStrategy, narrow, objective
from pertwise.errors import InputError
from pertwise.llm import open_chat
from pertwise.testing.server import Fault, ScriptedServer, listed, picks_json, wanted
from pertwise.testing.strategies import check_selection, check_strategy, example_state


def good(asked):
    """As many as asked for, each with its own reason."""
    names = sorted(listed(asked.first))[: wanted(asked.first)]
    return picks_json(names, reason="scripted reason for {name}")


@pytest.fixture
def server():
    with ScriptedServer(good) as running:
        yield running


def strategy(server, protocol="openai", **settings):
    return LlmStrategy(open_chat(server.address(protocol), backoff_s=0, attempts=2), **settings)


@pytest.mark.parametrize("settings", [{}, {"k": 5}, {"shortlist": "random", "k": 10}])
def test_conformance(server, settings):
    check_strategy(lambda: strategy(server, **settings))


def test_prompt_shows_the_most_uncertain_with_their_facts(server):
    state = example_state(n_pinned=1)
    strategy(server, k=9).choose(state, 3)
    prompt = server.asked[0].first
    top = state.uncertainty.sort_values(ascending=False).index[:9]
    assert set(listed(prompt)) == set(top)
    assert "uncertainty rank 1," in prompt
    assert "HALLMARK_HEME_METABOLISM" in prompt
    assert "module 0" in prompt
    assert "Summary of " in prompt
    assert f"{state.pinned[0]} (already on this panel)" in prompt
    assert objective(state, 3) in prompt


def test_cold_start_shows_no_uncertainty_and_cuts_a_long_list_by_knowledge(server):
    state = example_state(cold=True)
    chosen = strategy(server, k=8).choose(state, 3)
    prompt = server.asked[0].first
    assert "uncertainty rank" not in prompt.split("<candidates>")[1]
    assert set(listed(prompt)) == set(KnowledgePicker().choose(state, 8).items)
    assert chosen.provenance["shortlist_by"] == "cold start"


def test_whatever_the_model_does_the_batch_is_full_and_the_fallback_is_marked():
    misbehaviour = {
        "prose": lambda a: "I would rather talk about the weather.",
        "short": lambda a: picks_json(sorted(listed(a.first))[:1]),
        "outside": lambda a: picks_json(["TP53", "MYC", "BRCA1"]),
        "down": lambda a: Fault(500),
        "empty": lambda a: json.dumps({"picks": []}),
    }
    state = example_state()
    for name, script in misbehaviour.items():
        with ScriptedServer(script) as bad:
            chosen = strategy(bad).choose(state, 6)
        check_selection(chosen, state, 6)
        assert chosen.fallback, name
        assert any(r.kind == "fallback" for r in chosen.repairs), name
        marked = [p.extra.get("chosen_by") for p in chosen.picks]
        assert marked.count("strategy, fallback") == (5 if name == "short" else 6), name


def test_fallback_complements_what_the_model_picked():
    # The model takes one gene of a complex; the filling must not take its partner.
    state = example_state(n_candidates=40, cold=True)
    free = KnowledgePicker().choose(state, 1).items[0]
    with ScriptedServer(lambda a: picks_json([free])) as bad:
        chosen = strategy(bad).choose(state, 5)
    assert chosen.items[0] == free
    assert f"G{int(free[1:]) ^ 1:03d}" not in chosen.items


def test_narrow_keeps_rows_with_their_names():
    state = example_state(n_candidates=10, n_measured=4)
    small = narrow(state, ["G007", "G002", "G004"], ["G009"])
    assert small.candidates == ("G002", "G004", "G007")
    assert small.measured == (*state.measured, "G009")
    assert small.pinned == ("G009",)
    names = (*state.candidates, *state.measured)
    rows = [names.index(n) for n in (*small.candidates, *small.measured)]
    np.testing.assert_array_equal(small.embedding, state.embedding[rows])
    np.testing.assert_array_equal(
        small.neighbours.toarray(), state.neighbours[rows][:, rows].toarray()
    )
    assert list(small.uncertainty) == list(state.uncertainty[list(small.candidates)])
    np.testing.assert_array_equal(small.member_predictions, state.member_predictions[:, [2, 4, 7]])


def test_shortlist_must_hold_someone(server):
    with pytest.raises(InputError, match="k >= 1, got 0"):
        strategy(server, k=0)
