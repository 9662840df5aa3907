"""Selectors in words: every selector, set operation, aggregation and fallback by name."""

import json

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from pertwise import parts
from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge import Graph
from pertwise.screen import simulate_screen
from pertwise.select import GraphSelector, Query, SetSelector
from pertwise.select.words import asks_a_model, selector_from


@pytest.fixture
def case(simulated):
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


def test_sets_of_two_selectors_by_name(case, answers):
    train, knowledge, held = case
    graph = set(picked("graph:string", train, knowledge, held[0]).items)
    said = set(picked(f"recorded:{answers}", train, knowledge, held[0]).items)
    both = f"graph:string or recorded:{answers}"
    assert set(picked(both, train, knowledge, held[0]).items) == graph | said
    without = f"graph:string or recorded:{answers} without graph:string"
    assert set(picked(without, train, knowledge, held[0]).items) == said - graph
    common = f"graph:string and recorded:{answers}"
    assert set(picked(common, train, knowledge, held[0]).items) == graph & said


def test_settings_reach_the_graph(case):
    train, knowledge, _ = case
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
def test_every_aggregation_is_reached_by_settings(case, how):
    train, knowledge, held = case
    model = parts.load(
        "predictor", "neighbours", selector="embedding:text", how=how, k=6, shrinkage=0.5
    )
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


def test_fallbacks_by_name_say_who_answered(case, answers):
    train, knowledge, held = case
    settings = {"selector": "graph:omnipath", "min_support": 4, "k": 6}
    model = parts.load("predictor", "neighbours", fallbacks=[f"recorded:{answers}"], **settings)
    p = model.fit(train, knowledge).predict([*held, "NOSUCHGENE1"])
    said = p.support["fallback"].tolist()
    assert "recorded" in said
    assert said[-1] == "training mean"
    also = parts.load("predictor", "graph neighbours", fallbacks=["embedding:text"], min_support=4)
    other = also.fit(train, knowledge).predict(held).support["fallback"]
    assert set(other) <= {"", "embedding (text)"}
    assert "embedding (text)" in set(other)


def test_what_cannot_be_asked_for():
    with pytest.raises(InputError, match="sees the answers"):
        parts.load("predictor", "neighbours", selector="graph:string and oracle")
    with pytest.raises(UnknownNameError, match="graph"):
        parts.load("predictor", "neighbours", selector="grph:string")
    with pytest.raises(UnknownNameError, match="max_candidates"):
        parts.load("predictor", "neighbours", max_candidate=5)
    with pytest.raises(InputError, match="needs a file"):
        parts.load("predictor", "neighbours", selector="recorded")
    assert asks_a_model("graph:string and langpert")
    assert not asks_a_model("graph:string or embedding:text")


def test_knowledge_is_asked_for_only_where_it_is_needed(case, answers):
    train, _, held = case
    alone = parts.load("predictor", "neighbours", selector=f"recorded:{answers}")
    assert np.isfinite(alone.fit(train).predict(held).mean).all()
    with pytest.raises(InputError, match="--knowledge"):
        parts.load("predictor", "neighbours").fit(train)


@pytest.mark.parametrize(
    "words",
    ["graph:string,go", "embedding:text", "kernel:string,go", "learned", "learned or graph:string"],
)
def test_many_questions_at_once_are_answered_like_one_by_one(case, words):
    train, knowledge, held = case
    measured = train.only_measured()
    selector = selector_from(words)(knowledge, measured)
    names = list(measured.perturbations)
    questions = [(Query(h), names) for h in held]
    questions += [(Query(n), [x for x in names[5:] if x != n]) for n in names[:4]]
    for (query, candidates), got in zip(questions, selector.select_many(questions, 6), strict=True):
        want = selector.select(query, candidates, 6)
        assert got.items == want.items
        assert [p.reason for p in got.picks] == [p.reason for p in want.picks]
    if not isinstance(selector, SetSelector):
        ranked = selector.ranked([*held, names[0]], names, 6)
        assert list(ranked[0]) == list(selector.select(Query(held[0]), names, 6).items)
        assert names[0] not in ranked[-1]


def test_kernels_in_words_are_cosines_of_feature_rows(case):
    train, knowledge, held = case
    names = list(train.only_measured().perturbations)
    selector = selector_from("kernel:string,go")(knowledge, train)
    rows = [knowledge.features(k, [*held, *names], True, weighted=True) for k in ("string", "go")]
    want = sum((r[: len(held)] @ r[len(held) :].T).toarray() for r in rows) / 2
    assert want.max() > 0.1
    np.testing.assert_allclose(selector.similarity(held, names), want, atol=1e-6)
    with pytest.raises(UnknownNameError, match="nonsense"):
        selector_from("kernel:nonsense")(knowledge, train).similarity(held, names)


def test_neighbours_of_doubles_share_a_part():
    """A measured double with a part in common beats an unrelated one; on a simulated screen."""
    simulation = simulate_screen(5, n_perturbations=40, n_features=30, n_combinations=60)
    names = [n for n in simulation.screen.perturbations if "+" in n]
    shared = {n: sum(bool({*n.split("+")} & {*m.split("+")}) for m in names) for n in names}
    asked = next(n for n in names if shared[n] > 4)

    class NoEdges:
        def resolve(self, genes):
            return type("R", (), {"approved": {g: g for g in genes}})

        def graph(self, name, exclude):
            every = simulation.screen.perturbations
            genes = tuple(sorted({g for n in every for g in n.split("+")}))
            return Graph(name, genes, csr_matrix((len(genes), len(genes)), dtype=np.float32))

    train = simulation.screen.hide([asked])
    model = parts.load("predictor", "graph neighbours", k=4).fit(train, NoEdges())
    found = model.predict([asked]).neighbours["neighbour"]
    assert len(found) == 4
    assert all({*asked.split("+")} & {*n.split("+")} for n in found)
