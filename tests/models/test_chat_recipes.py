"""Predictors that ask a chat model, against the scripted server (not a language model)."""

import numpy as np
import pytest

from pertwise import parts
from pertwise.errors import InputError
from pertwise.screen import make_screen
from pertwise.testing.server import Answer, ScriptedServer, first_alphabetical, listed


def screen(names):
    x = np.random.default_rng(0).normal(size=(len(names), 4))
    return make_screen(x, names, ["a", "b", "c", "d"], context="K562")


def test_langpert_asks_resumes_and_needs_no_knowledge(tmp_path):
    names = [f"G{i:02d}" for i in range(12)]
    ledger = tmp_path / "ledger.sqlite"
    with ScriptedServer() as server:
        settings = {"llm": server.openai("scripted"), "ledger": ledger}
        first = parts.load("predictor", "langpert", **settings).fit(screen(names)).predict(["NEW1"])
        asked = server.count if hasattr(server, "count") else len(server.asked)
        again = parts.load("predictor", "langpert", **settings).fit(screen(names)).predict(["NEW1"])
        after = server.count if hasattr(server, "count") else len(server.asked)
    assert asked > 0
    assert after == asked, "the second run must be answered from the ledger"
    np.testing.assert_array_equal(first.mean, again.mean)
    rows = [names.index(n) for n in first.neighbours["neighbour"]]
    want = screen(names).responses[rows].mean(axis=0)
    np.testing.assert_allclose(first.mean[0], want, rtol=1e-5)


def test_graph_edit_and_prefilter_run(simulated, tmp_path):
    data, knowledge = simulated
    held = list(data.perturbations[:2])
    with ScriptedServer() as server:
        for name, extra in (("graph+edit", {}), ("langpert", {"max_candidates": 15})):
            model = parts.load("predictor", name, llm=server.openai("scripted"), **extra)
            found = model.fit(data.hide(held), knowledge).predict(held)
            assert np.isfinite(found.mean).all()


@pytest.mark.parametrize(("max_candidates", "shown"), [(None, 2000), (400, 400)])
def test_two_thousand_candidates_fit_by_a_stated_strategy(simulated, max_candidates, shown):
    data, knowledge = simulated
    names = [*data.perturbations, *(f"GENE{i:04d}" for i in range(2000 - len(data)))]
    big = make_screen(np.random.default_rng(0).normal(size=(2000, 3)), names, ["a", "b", "c"])
    prompts = []

    def answer(asked):
        prompts.append(listed(asked.first))
        return Answer(first_alphabetical(asked))

    with ScriptedServer(answer) as server:
        settings = {"llm": server.openai(), "max_candidates": max_candidates}
        p = parts.load("predictor", "langpert", **settings).fit(big, knowledge).predict(["NEW1"])
    assert len(prompts[0]) == shown
    assert set(prompts[0]) <= set(names)
    said = p.provenance["answers"][0]["provenance"]
    assert (said["n_candidates"], said["n_shown"]) == (2000, shown)
    assert bool(said["cut"]) == (max_candidates is not None)
    assert p.support["n_support"].iloc[0] >= 5


def test_a_chat_model_must_be_named(simulated):
    data, knowledge = simulated
    with pytest.raises(InputError, match="--llm"):
        parts.load("predictor", "langpert").fit(data)
    with pytest.raises(InputError, match="knowledge"):
        parts.load("predictor", "graph+edit", llm="m@http://127.0.0.1:1/v1").fit(data)
    facts = knowledge.facts
    assert facts(data.perturbations[0])
    assert facts("NOSUCHGENE1") == ""
