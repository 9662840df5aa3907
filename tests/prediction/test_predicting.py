"""Predicting with a statement: hidden genes, fallbacks, the cross-validation and the files."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from fake_knowledge import FakeKnowledge

from pertwise import parts
from pertwise.errors import InputError, UnknownNameError
from pertwise.evaluate.splits import split_folds
from pertwise.llm import open_chat
from pertwise.models.methods import Method
from pertwise.prediction.explaining import NAMED, POST_HOC, explain, mean_pairwise_cosine
from pertwise.prediction.predicting import open_method, predict
from pertwise.prediction.standing import cross_validate
from pertwise.prediction.writing import write_prediction
from pertwise.screen import make_screen
from pertwise.testing.predictors import example_screen
from pertwise.testing.server import Answer, ScriptedServer


@pytest.fixture(scope="module")
def screen():
    """Row i and i + 1 (i even), one complex in the fake knowledge, respond alike."""
    rng = np.random.default_rng(0)
    pairs = np.repeat(rng.normal(size=(16, 10)), 2, axis=0)
    x = pairs + 0.1 * rng.normal(size=pairs.shape)
    return make_screen(
        x, [f"G{i:03d}" for i in range(32)], [f"f{i}" for i in range(10)], meta={"simulated": True}
    )


@pytest.fixture(scope="module")
def found(screen):
    return predict(
        screen,
        ["G001", "NOSUCH", "G003+G040"],
        knowledge=FakeKnowledge(),
        method="graph neighbours",
        folds=4,
    )


def test_a_measured_gene_is_hidden_and_predicted_from_the_others(screen, found):
    assert found.n_train == 31
    assert any("G001 was measured" in n for n in found.notes)
    # Its only graph neighbour is G000: the prediction is that response, not its own.
    np.testing.assert_allclose(found.prediction.mean[0], screen.responses[0], rtol=1e-6)
    assert list(found.measured.obs["perturbation"]) == ["G001"]


def test_a_gene_measured_under_another_name_is_hidden_too(screen):
    one = predict(screen, ["OLD001"], knowledge=FakeKnowledge(), method="graph neighbours", folds=0)
    assert one.n_train == 31
    assert any("as G001" in n for n in one.notes)


def test_an_unknown_gene_gets_the_stated_training_mean(screen, found):
    expected = screen.hide(["G001"]).responses.mean(axis=0)
    np.testing.assert_allclose(found.prediction.mean[1], expected, rtol=1e-5)
    assert found.prediction.support["fallback"].iloc[1] == "training mean"
    assert any(n.startswith("NOSUCH is not a gene") for n in found.notes)
    assert found.record["fallbacks"] == 1


def test_combination_is_accepted_in_canonical_form(screen):
    one = predict(screen, ["G040+G003"], method="training mean", folds=0)
    assert one.prediction.perturbations == ("G003+G040",)


def test_standing_agrees_with_a_plain_loop(screen):
    standing = cross_validate(
        Method("graph neighbours", "graph neighbours"), screen, FakeKnowledge(), n_folds=4, seed=3
    )
    for split in split_folds(screen.perturbations, 4, 1, 3):
        model = parts.load("predictor", "graph neighbours")
        p = model.fit(screen.of_perturbations(split.train), FakeKnowledge()).predict(split.test)
        truth = screen.of_perturbations(split.test).responses
        mean = screen.of_perturbations(split.train).responses.mean(axis=0)
        rows = standing.per_perturbation.loc[list(split.test)]
        np.testing.assert_allclose(rows["mse"], ((truth - p.mean) ** 2).mean(axis=1), rtol=1e-5)
        np.testing.assert_allclose(
            rows["mse_baseline"], ((truth - mean) ** 2).mean(axis=1), rtol=1e-5
        )
        inside = np.abs(truth - p.mean) <= 1.6448536 * p.spread
        np.testing.assert_allclose(rows["coverage_90"], inside.mean(axis=1))
    assert standing.verdict == "better"
    assert "beats the training mean" in standing.sentence
    row = standing.summary.loc["mse"]
    assert row["difference"] == pytest.approx(row["method"] - row["baseline"])
    assert row["high"] < 0


def test_a_method_that_is_no_better_is_said_to_be_none(screen):
    bad = cross_validate(Method("control", "control"), screen, None, n_folds=4)
    assert bad.verdict in ("worse", "not distinguishable")
    assert "does NOT beat" in bad.sentence
    same = cross_validate(Method("training mean", "training-mean"), screen, None, n_folds=4)
    assert same.verdict == "baseline"
    assert same.summary.loc["mse", "difference"] == 0


def test_explanation_against_hand_calculation(screen, found):
    e = found.explanations[0]
    assert e.neighbours_from == NAMED
    assert list(e.neighbours["neighbour"]) == ["G000"]
    own = found.standing.per_perturbation.loc["G000"]
    assert e.neighbours["cv_difference"][0] == pytest.approx(own["mse"] - own["mse_baseline"])
    # G001 is hidden, so G000 was predicted by the training mean and cannot be worse than it.
    assert e.neighbours["to_prediction"][0] == pytest.approx(1.0)
    largest = np.argmax(np.abs(screen.responses[0]))
    assert e.top["feature"][0] == f"f{largest}"
    assert e.top["measured"][0] == pytest.approx(screen.responses[1, largest])
    np.testing.assert_allclose(e.heat[0], e.heat[1], rtol=1e-5)


def test_failures_are_the_neighbours_predicted_worse_than_the_mean(screen):
    found = predict(
        screen,
        ["G001"],
        knowledge=FakeKnowledge(),
        method="rewired graph neighbours",
        folds=4,
    )
    e = found.explanations[0]
    expected = e.neighbours.loc[e.neighbours["cv_difference"] > 0, "neighbour"]
    assert set(e.failures["neighbour"]) <= set(expected)
    assert len(e.failures) == min(3, len(expected))


def test_a_method_without_neighbours_gets_labelled_ones(screen):
    p = parts.load("predictor", "training mean").fit(screen).predict(["NEW"])
    e = explain("NEW", p, screen)
    assert e.neighbours_from == POST_HOC
    assert len(e.neighbours) == 10
    assert e.neighbours["to_prediction"].is_monotonic_decreasing


def test_mean_pairwise_cosine_by_hand():
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert mean_pairwise_cosine(rows) == pytest.approx((0 + 2 * np.sqrt(0.5)) / 3)
    weighted = mean_pairwise_cosine(rows, np.array([1.0, 0.0, 2.0]))
    assert weighted == pytest.approx(np.sqrt(0.5))
    assert np.isnan(mean_pairwise_cosine(rows[:1]))


def test_files_hold_the_prediction(found, tmp_path):
    paths = write_prediction(found, tmp_path)
    data = anndata.read_h5ad(paths["prediction.h5ad"])
    np.testing.assert_array_equal(data.X, np.vstack([found.prediction.mean, np.zeros(10)]))
    np.testing.assert_array_equal(data.layers["spread"][:3], found.prediction.spread)
    assert list(data.obs["measured"]) == [True, False, False, False]
    assert list(data.obs["fallback"])[1] == "training mean"
    table = pd.read_csv(paths["prediction.csv"])
    assert len(table) == 3 * 10
    row = table.iloc[13]
    assert (row["perturbation"], row["feature"]) == ("NOSUCH", "f3")
    assert row["mean"] == pytest.approx(found.prediction.mean[1, 3])
    assert row["high_90"] - row["low_90"] == pytest.approx(2 * 1.6448536 * row["spread"])
    record = json.loads(paths["prediction.json"].read_text())
    assert record["standing"]["n_folds"] == 4
    assert record["settings"]["hidden"] == ["G001"]
    assert record["simulated"] is True
    assert "reason" in pd.read_csv(paths["neighbours.csv"])
    assert not list(tmp_path.glob(".*"))


def test_wrong_requests_are_told(screen):
    with pytest.raises(UnknownNameError, match="multi-kernel"):
        open_method("multikernel")
    with pytest.raises(UnknownNameError, match="langpert"):
        open_method("langprt")
    with pytest.raises(InputError, match="--llm"):
        open_method("langpert")
    with pytest.raises(InputError, match="sees the answers"):
        open_method("oracle")
    with pytest.raises(InputError, match="does not take the settings"):
        open_method("graph neighbours", settings={"nonsense": 1})
    with pytest.raises(InputError, match="nothing to predict"):
        predict(screen, [" "], method="control")
    with pytest.raises(InputError, match="knowledge"):
        predict(screen, ["G050"])
    with pytest.raises(InputError, match="nothing is left"):
        predict(screen, list(screen.perturbations), method="training mean")
    with pytest.raises(InputError, match="fewer folds"):
        predict(screen, ["G050"], method="training mean", folds=50)


def test_langpert_resumes_and_skips_the_costly_check(tmp_path):
    """The scripted endpoint names what comes first in the alphabet; it is no language model."""
    with ScriptedServer() as server:
        chat = open_chat(server.openai(), ledger=tmp_path / "ledger.sqlite")
        found = predict(example_screen(), ["NEW1"], method="langpert", chat=chat)
        asked = server.count
        again = predict(example_screen(), ["NEW1"], method="langpert", chat=chat)
        assert server.count == asked
        chat.shutdown()
    np.testing.assert_array_equal(found.prediction.mean, again.prediction.mean)
    assert found.standing is None
    assert any("24 questions" in n for n in found.notes)
    assert set(found.explanations[0].neighbours["neighbour"]) <= {f"G{i:03d}" for i in range(24)}
    assert "NOT checked" in found.standing_sentence


def linked(data, knowledge):
    """The first perturbation with a neighbour in the graph."""
    model = parts.load("predictor", "graph neighbours").fit(data, knowledge)
    support = model.predict(data.perturbations).support
    return support.index[support["n_support"] > 0][0]


def test_what_a_chat_selector_did_is_told(simulated, tmp_path):
    """Impossible edits, a cut list and the ledger are in the record; not a language model."""
    data, knowledge = simulated
    gene = linked(data, knowledge)

    def answer(asked):
        edits = {"add": [{"name": "NOSUCH1", "reason": "x"}], "remove": []}
        return Answer(json.dumps(edits))

    with ScriptedServer(answer) as server:
        chat = open_chat(server.openai(), ledger=tmp_path / "ledger.sqlite")
        found = predict(
            data, [gene], knowledge=knowledge, method="graph+edit", chat=chat,
            settings={"max_candidates": 9, "k": 4},
        )  # fmt: skip
        chat.shutdown()
    assert [(n, r.kind, r.item) for n, r in found.repairs] == [(gene, "impossible_edit", "NOSUCH1")]
    assert any("9 of" in n and "preselected by embedding" in n for n in found.notes)
    record = json.loads(json.dumps(found.record, default=str))
    assert record["prediction"]["repairs"] == {"impossible_edit": 1}
    assert record["method"]["settings"] == {"seed": 0, "max_candidates": 9, "k": 4}
    said = record["prediction"]["answers"][0]["provenance"]
    assert said["n_shown"] == 9
    assert len(said["ledger_keys"]) == 1


def test_everything_removed_means_the_training_mean(simulated):
    data, knowledge = simulated
    held = linked(data, knowledge)

    def answer(asked):
        shown = asked.first.split("<neighbours>")[1].split("</neighbours>")[0]
        names = [line.split(" |")[0] for line in shown.strip().splitlines() if line.strip()]
        return Answer(
            json.dumps({"add": [], "remove": [{"name": n, "reason": "x"} for n in names]})
        )

    with ScriptedServer(answer) as server:
        chat = open_chat(server.openai())
        found = predict(
            data, [held], knowledge=knowledge, method="graph+edit", chat=chat,
            settings={"max_edits": 20},
        )  # fmt: skip
        chat.shutdown()
    mean = data.hide([held]).responses.astype(float).mean(axis=0)
    np.testing.assert_allclose(found.prediction.mean[0], mean, rtol=1e-4, atol=1e-6)
    assert found.prediction.support["fallback"].iloc[0] == "training mean"
    assert "empty_set" in found.record["prediction"]["repairs"]


def test_an_unusable_answer_leaves_the_graph_and_counts_as_fallback(simulated):
    data, knowledge = simulated
    with ScriptedServer(lambda asked: Answer("I cannot say.")) as server:
        chat = open_chat(server.openai())
        edit = parts.load("predictor", "graph+edit", llm=chat, k=5).fit(data, knowledge)
        p = edit.predict(data.perturbations[:20])
        chat.shutdown()
    plain = parts.load("predictor", "graph neighbours", k=5).fit(data, knowledge)
    q = plain.predict(data.perturbations[:20])
    np.testing.assert_allclose(p.mean, q.mean, rtol=1e-5)
    assert (p.support["fallback"] != "").all()
    answered = p.support["n_support"].to_numpy() > 0
    assert p.support["fallback"][answered].str.startswith("fallback of graph (string) + edit").all()


def test_combinations_that_contain_the_asked_gene_are_hidden_with_it():
    rng = np.random.default_rng(1)
    names = [f"G{i:03d}" for i in range(12)] + ["G001+G002", "G003+G004"]
    screen = make_screen(rng.normal(size=(14, 4)), names, ["f", "g", "h", "i"])
    found = predict(screen, ["G001"], knowledge=FakeKnowledge(), method="training-mean", folds=0)
    assert found.n_train == 12
    assert any("G001+G002 contains what is asked for" in n for n in found.notes)
    assert list(found.measured.perturbations) == ["G001"]
    # a combination that is asked leaves its genes where they are
    pair = predict(
        screen, ["G001+G002"], knowledge=FakeKnowledge(), method="training-mean", folds=0
    )
    assert pair.n_train == 13
    assert screen.hide(["G003"]).perturbations == tuple(
        n for n in names if n not in ("G003", "G003+G004")
    )
    folded = predict(screen, ["G001"], knowledge=FakeKnowledge(), method="training-mean", folds=3)
    assert folded.standing is not None
