"""Selectors in words: every selector, set operation, aggregation and fallback by name."""

import json

import numpy as np
import pytest

from pertwise.errors import InputError, UnknownNameError
from pertwise.predict import make_predictor
from pertwise.predict.selector_words import asks_a_model, selector_from
from pertwise.select import GraphSelector, Query, SetSelector


@pytest.fixture
def parts(simulated):
    data, knowledge = simulated
    held = list(data.perturbations[:6])
    return data.hide(held), knowledge, held


@pytest.fixture
def answers(simulated, tmp_path):
    names = simulated[0].perturbations
    file = tmp_path / "answers.jsonl"
    with open(file, "w") as out:
        for i, subject in enumerate(names):
            near = [names[(i + k) % len(names)] for k in range(6, 12)]
            out.write(json.dumps({"subject": subject, "neighbours": near}) + "\n")
    return file


def picked(words, train, knowledge, subject, **settings):
    made = selector_from(words, **settings)(knowledge, train.only_measured())
    names = list(train.only_measured().perturbations)
    return made.select(Query(subject), names, 20)


def test_sets_of_two_selectors_by_name(parts, answers):
    train, knowledge, held = parts
    graph = set(picked("graph:string", train, knowledge, held[0]).items)
    said = set(picked(f"recorded:{answers}", train, knowledge, held[0]).items)
    both = f"graph:string or recorded:{answers}"
    assert set(picked(both, train, knowledge, held[0]).items) == graph | said
    without = f"graph:string or recorded:{answers} without graph:string"
    assert set(picked(without, train, knowledge, held[0]).items) == said - graph
    common = f"graph:string and recorded:{answers}"
    assert set(picked(common, train, knowledge, held[0]).items) == graph & said


def test_settings_reach_the_graph(parts):
    train, knowledge, _ = parts
    made = selector_from("graph:string,go", rewire_seed=3, weighted=False, max_neighbours=7)
    selector = made(knowledge, train)
    assert isinstance(selector, GraphSelector)
    settings = selector.settings()
    assert settings["graphs"] == ["string", "go"]
    assert (settings["rewire_seed"], settings["weighted"]) == (3, False)
    assert settings["max_neighbours"] == 7
    with_learned = selector_from("learned and embedding:text+go")(knowledge, train)
    assert isinstance(with_learned, SetSelector)
    assert with_learned.cheap


@pytest.mark.parametrize("how", ["mean", "similarity", "rank", "median", "trimmed"])
def test_every_aggregation_is_reached_by_settings(parts, how):
    train, knowledge, held = parts
    model = make_predictor("neighbours", selector="embedding:text", how=how, k=6, shrinkage=0.5)
    p = model.fit(train, knowledge).predict(held)
    assert p.provenance["aggregation"] == how
    at = p.support["n_support"].tolist().index(6)
    chosen = p.neighbours[p.neighbours["perturbation"] == held[at]]
    names = list(train.perturbations)
    rows = train.responses[[names.index(n) for n in chosen["neighbour"]]].astype(float)
    weights = chosen["weight"].to_numpy()
    support = 1 / (weights**2).sum()
    plain = {
        "median": lambda: np.median(rows, axis=0),
        "trimmed": lambda: np.sort(rows, axis=0)[1:-1].mean(axis=0),
    }.get(how, lambda: weights @ rows)()
    centre = train.only_measured().responses.astype(float).mean(axis=0)
    want = (support * plain + 0.5 * centre) / (support + 0.5)
    np.testing.assert_allclose(p.mean[at], want, rtol=1e-4, atol=1e-5)


def test_fallbacks_by_name_say_who_answered(parts, answers):
    train, knowledge, held = parts
    settings = {"selector": "graph:omnipath", "min_support": 4, "k": 6}
    model = make_predictor("neighbours", fallbacks=[f"recorded:{answers}"], **settings)
    p = model.fit(train, knowledge).predict([*held, "NOSUCHGENE1"])
    said = p.support["fallback"].tolist()
    assert "recorded" in said
    assert said[-1] == "training mean"
    also = make_predictor("graph neighbours", fallbacks=["embedding:text"], min_support=4)
    other = also.fit(train, knowledge).predict(held).support["fallback"]
    assert set(other) <= {"", "embedding (text)"}
    assert "embedding (text)" in set(other)


def test_what_cannot_be_asked_for():
    with pytest.raises(InputError, match="sees the answers"):
        make_predictor("neighbours", selector="graph:string and oracle")
    with pytest.raises(UnknownNameError, match="graph"):
        make_predictor("neighbours", selector="grph:string")
    with pytest.raises(UnknownNameError, match="max_candidates"):
        make_predictor("neighbours", max_candidate=5)
    with pytest.raises(InputError, match="needs a file"):
        make_predictor("neighbours", selector="recorded")
    assert asks_a_model("graph:string and langpert")
    assert not asks_a_model("graph:string or embedding:text")


def test_knowledge_is_asked_for_only_where_it_is_needed(parts, answers):
    train, _, held = parts
    alone = make_predictor("neighbours", selector=f"recorded:{answers}")
    assert np.isfinite(alone.fit(train).predict(held).mean).all()
    with pytest.raises(InputError, match="--knowledge"):
        make_predictor("neighbours").fit(train)
