"""The two-stage llm strategy against the scripted server (which is no language model)."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pertwise.acquire.base import Target
from pertwise.acquire.strategies.knowledge import KnowledgePicker
from pertwise.acquire.strategies.llm import PAPER, LlmStrategy, narrow, objective
from pertwise.errors import InputError, ReplayMissError
from pertwise.knowledge.facts import FactTable
from pertwise.knowledge.ratings import STRENGTH, Ratings
from pertwise.llm import open_chat
from pertwise.llm.budget import prompt_tokens_expected
from pertwise.screen import make_screen
from pertwise.select.chat.acquire import Show
from pertwise.testing.knowledge import SmallKnowledge
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


@pytest.mark.parametrize(
    "settings",
    [{}, {"k": 5}, {"shortlist": "random", "k": 10}, {"shortlist": "all"}, {"prompt": PAPER}],
)
def test_conformance(server, settings):
    check_strategy(lambda: strategy(server, **settings))


def test_prompt_shows_the_most_uncertain_with_their_facts(server):
    state = example_state(n_pinned=1)
    strategy(server, k=9, prompt=PAPER).choose(state, 3)
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
    chosen = strategy(server, k=8, prompt=PAPER).choose(state, 3)
    prompt = server.asked[0].first
    assert "uncertainty rank" not in prompt.split("<candidates>")[1]
    assert set(listed(prompt)) == set(KnowledgePicker().choose(state, 8).items)
    assert chosen.provenance["shortlist_by"] == "cold start"


def measured_state(**more):
    """A state whose screen has two features: module 0 rises in the first, labels in the second."""
    state = example_state(n_candidates=40, n_measured=12, n_features=2)
    names = [*state.measured]
    y = np.zeros((len(names), 2), dtype=np.float32)
    y[:, 0] = np.linspace(-1.1, 1.1, len(names))
    y[:, 1] = [1, 1, -1] + [0] * (len(names) - 4) + [np.nan]
    features = ["3-unfolded protein response", names[0]]
    screen = make_screen(y, names, features, context="K562")
    target = Target(state.target.pathway, tuple(features))
    prediction = np.full((40, 2), 0.25, dtype=np.float32)
    return replace(state, screen=screen, target=target, prediction=prediction, **more)


def row_of(prompt, name):
    return next(line for line in prompt.splitlines() if line.startswith(f"{name} | "))


def test_the_prompt_tells_target_measurements_and_whom_a_candidate_speaks_for(server):
    facts = FactTable(pd.DataFrame({"tpm": [7.5], "guide": ["ok"]}, index=["G004"]))
    state = measured_state(rounds_left=4, facts=facts)
    strategy(server).choose(state, 3)
    prompt = server.asked[0].first
    assert "This is round 2; 4 more after it." in prompt
    # Marker genes of the shipped program that the name of the feature holds.
    assert "F1 = 3-unfolded protein response: chaperones and ERAD" in prompt
    assert "above 0: HSPA5" in prompt
    assert f"F2 = {state.measured[0]}" in prompt
    assert "So far: 2 of 11 measured up, 1 down; 1 not labelled" in prompt
    m = state.measured
    assert f"- F2: up {m[0]} +1, {m[1]} +1; down {m[2]} -1" in prompt
    assert f"- F1: up {m[-1]} +1.1, {m[-2]} +0.9" in prompt
    # G004 and G005 are one complex; everyone is listed, so no one is spoken for.
    assert "predicted F1 +0.25 F2 +0.25 ± " in row_of(prompt, "G004")
    assert "tpm 7.5, guide ok" in row_of(prompt, "G004")
    assert "member of the pathway (module 0)" in row_of(prompt, "G004")
    assert "unknown" not in row_of(prompt, "G039")

    strategy(server, k=6).choose(state, 3)
    short = server.asked[1].first
    assert len(listed(short)) == 6
    assert "6 of 40, representatives by expected error reduction" in short
    assert "| speaks for " in short


def test_nearest_measured_stand_with_their_responses(server):
    state = measured_state()
    # G040 is measured, G041 its complex partner too; move the last candidate beside it.
    rows = state.embedding.copy()
    rows[39] = rows[40]
    strategy(server).choose(replace(state, embedding=rows), 3)
    found = row_of(server.asked[0].first, "G039")
    assert "nearest measured: G040 1.00 (F1 -1.1 F2 +1)" in found


class Kept(SmallKnowledge):
    """Makes kernels of marks anew each time."""

    def keep(self, key, make):
        return make()


def test_expression_in_controls_and_marks_are_facts(server):
    state = measured_state()
    names = state.candidates[:2]
    ratings = Ratings.from_marks(
        names, ["unfolded protein response", STRENGTH], np.array([[-2.0, 1.0], [1.0, 3.0]]),
        context="K562",
    )  # fmt: skip
    features = (state.target.features[0], "G001")
    y = np.ones((len(state.measured), 2), dtype=np.float32)
    screen = make_screen(y, list(state.measured), list(features), context="K562",
                         control_mean=np.array([[0.1, 6.5]]))  # fmt: skip
    known = Kept()
    known.ratings = (ratings,)
    state = replace(state, screen=screen, knowledge=known, target=Target(None, features))
    strategy(server).choose(state, 3)
    prompt = server.asked[0].first
    assert "mark of unfolded protein response -2, mark of strength 1" in row_of(prompt, "G000")
    assert "expression in controls 6.5" in row_of(prompt, "G001")
    assert "expression" not in row_of(prompt, "G002")


def test_a_long_prompt_loses_details_then_the_end_of_its_list_and_says_so(server):
    state = measured_state()
    whole = strategy(server, k=30)
    size = prompt_tokens_expected(whole.first_request(state, 3))
    fits = strategy(server, k=30, max_tokens=size).choose(state, 3)
    assert not fits.repairs
    brief = strategy(server, k=30, max_tokens=size - 1).choose(state, 3)
    assert [r.kind for r in brief.repairs] == ["shortened"]
    assert "without GO terms" in brief.repairs[0].action
    tight = strategy(server, k=30, max_tokens=size // 2)
    few = tight.choose(state, 3)
    assert prompt_tokens_expected(tight.first_request(state, 3)) <= size // 2
    assert "the shortlist of 30 was cut to its first" in few.repairs[0].action
    assert 3 <= len(few.provenance["shortlist"]) < 30
    prompt = server.asked[-1].first
    assert f"({len(listed(prompt))} of 40," in prompt
    # What cannot be shortened is asked all the same, with as many as are wanted.
    assert len(strategy(server, max_tokens=1).choose(state, 3).provenance["shortlist"]) == 3
    names = strategy(server, shortlist="all", max_tokens=size // 2).choose(state, 3)
    assert len(names.provenance["shortlist"]) == 40
    assert "names only" in names.repairs[0].action


def test_the_prompt_of_the_paper_keeps_its_shortlist(server):
    state = measured_state()
    paper = strategy(server, prompt=PAPER, k=9).choose(state, 3)
    assert paper.provenance["shortlist_by"] == "uncertainty"
    top = state.uncertainty.sort_values(ascending=False).index[:9]
    assert set(paper.provenance["shortlist"]) == set(top)
    assert strategy(server).choose(state, 3).provenance["shortlist_by"] == "information"
    assert "| predicted" not in server.asked[0].first


def test_anonymised_names_stand_nowhere(server):
    state = measured_state()
    chosen = strategy(server, k=8, show=Show(anonymise=True, summary=False)).choose(state, 3)
    # The feature is called like a measured gene: it is part of the target, and stays.
    prompt = server.asked[0].first.replace(state.target.features[1], "")
    known = [*chosen.provenance["shortlist"], *state.measured]
    assert not [n for n in known if re.search(rf"\b{n}\b", prompt)]
    assert "| speaks for " in prompt


def test_anonymised_names_stand_in_no_fact_of_a_table(server):
    """A user's text about a candidate may name it, or a measured one."""
    state = measured_state()
    measured = state.measured[0]
    said = {n: f"paralogue of {measured}, unlike {n}" for n in state.candidates}
    facts = FactTable(pd.DataFrame({"note": said}))
    chosen = strategy(server, k=8, show=Show(anonymise=True, summary=False)).choose(
        measured_state(facts=facts), 3
    )
    prompt = server.asked[0].first
    assert "paralogue of M" in prompt
    for name in (measured, *chosen.provenance["shortlist"]):
        assert not re.search(rf"(?:paralogue of|unlike) {name}\b", prompt)


#: Answers of a model that misbehaves, and how many of 6 picks are still its own.
MISBEHAVIOUR = {
    "duplicates": (lambda names: json.dumps({"picks": [
        {"name": n, "reason": f"why {n} {i}"} for i, n in enumerate(names[:4] + names[:4])
    ]}), 4),
    "cut in the middle": (lambda names: picks_json(names[:6])[:200], None),
    "swapped columns": (lambda names: json.dumps({"picks": [
        {"name": f"because it tells {i}", "reason": n} for i, n in enumerate(names[:6])
    ]}), 0),
    "numbers for names": (lambda names: json.dumps({"picks": [
        {"name": i, "reason": f"why {i}"} for i in range(6)
    ]}), 0),
    "the whole row as name": (lambda names: json.dumps({"picks": [
        {"name": f"{n} | speaks for 3", "reason": f"why {n}"} for n in names[:6]
    ]}), None),
    "prose": (lambda names: f"I would take {names[0]} and {names[1]}.", None),
    "spoken for, not listed": (lambda names: picks_json(["G900", "G901"]), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_a_misbehaving_model_never_breaks_a_batch(name):
    script, own = MISBEHAVIOUR[name]
    state = measured_state()
    with ScriptedServer(lambda asked: script(sorted(listed(asked.first)))) as bad:
        chosen = strategy(bad, k=12).choose(state, 6)
        assert len(bad.asked) >= 1
    check_selection(chosen, state, 6)
    filled = sum(p.extra.get("chosen_by") == "strategy, fallback" for p in chosen.picks)
    assert chosen.fallback == bool(filled)
    if own is not None:
        assert filled == 6 - own
    assert filled == 0 or any(r.kind == "fallback" for r in chosen.repairs)


def test_a_killed_question_is_answered_from_the_ledger_alone(tmp_path):
    state = measured_state()
    ledger = tmp_path / "ledger.sqlite"
    with ScriptedServer(good) as server:
        address = server.openai()
        first = LlmStrategy(open_chat(address, ledger=ledger)).choose(state, 4)
        again = LlmStrategy(open_chat(address, ledger=ledger)).choose(measured_state(), 4)
        assert len(server.asked) == 1
    assert again.items == first.items
    # The server is gone.
    replayed = LlmStrategy(open_chat(address, ledger=ledger, replay=True))
    assert replayed.choose(measured_state(), 4).items == first.items
    with pytest.raises(ReplayMissError):
        replayed.choose(measured_state(rounds_left=1), 4)


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


def test_settings_are_checked(server):
    with pytest.raises(InputError, match="per_group = 0"):
        strategy(server, per_group=0)
    with pytest.raises(InputError, match="unknown shortlist 'informative'"):
        strategy(server, shortlist="informative")
