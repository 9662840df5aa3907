"""Recall of a list that was cut before a model saw it."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.evaluate.prefilter import (
    NAMED,
    NEAREST,
    STRONG,
    check_prefilter,
    expected_recall,
    mean_recall,
    nearest,
    split_recall,
)
from pertwise.evaluate.splits import split_folds
from pertwise.llm import open_chat
from pertwise.prediction.predicting import predict
from pertwise.testing.server import ScriptedServer


def test_expected_recall_counts_the_random_fill():
    assert expected_recall(["A", "B"], ["A", "C"], 2, 10) == 0.5
    # 3 of the other 8 are drawn: C is shown with probability 3 / 8
    assert expected_recall(["A", "B"], ["A", "C"], 5, 10) == pytest.approx((1 + 3 / 8) / 2)
    assert expected_recall([], ["A"], 4, 4) == 1.0
    with pytest.raises(InputError, match="nothing"):
        expected_recall(["A"], [], 2, 10)


def test_a_random_list_reaches_its_expected_recall():
    rng = np.random.default_rng(0)
    names = [f"G{i}" for i in range(20)]
    chosen, wanted, size = names[:3], [names[1], names[8], names[9]], 9
    rest = names[3:]
    drawn = [
        len(set(wanted) & {*chosen, *rng.permutation(rest)[: size - 3]}) / 3 for _ in range(4000)
    ]
    assert np.mean(drawn) == pytest.approx(expected_recall(chosen, wanted, size, 20), abs=0.02)


def test_nearest_uses_what_both_have():
    x = np.array([[0.0, 5.0], [1.0, np.nan], [np.nan, np.nan], [3.0, 0.0]])
    assert nearest(x, np.array([1.0, 1.0]), 4).tolist() == [1, 3, 0, 2]


def test_recall_by_hand(simulated, tmp_path):
    data, knowledge = simulated
    names = sorted(data.perturbations)
    splits = split_folds(names, 4, 1, 0)
    answers = dict.fromkeys(names, ((names[0], names[1], names[2]), ""))
    file = tmp_path / "all.jsonl"
    file.write_text(
        "".join(json.dumps({"subject": n, "neighbours": answers[n][0]}) + "\n" for n in names)
    )

    def recall(words, sizes):
        parts = [
            split_recall(
                words, data.of_perturbations(s.train), data.of_perturbations(s.test), knowledge,
                sizes, answers,
            )
            for s in splits
        ]  # fmt: skip
        return mean_recall(pd.concat(parts))

    table = pd.concat([recall(w, [2, 45]) for w in (f"recorded:{file}", "graph:string")])
    assert set(table["target"]) == {NEAREST, STRONG, NAMED}
    at = table.set_index(["prefilter", "size", "target"])["recall"]
    # All names of the answer come first, so a list of 45 loses none of them; the graph's list
    # is filled at random and can.
    assert at[f"recorded:{file}", 45, NAMED] == 1.0
    assert at[f"recorded:{file}", 2, NAMED] < 1.0
    assert at["graph:string", 45, NEAREST] == 1.0  # the whole list
    assert at["graph:string", 2, NEAREST] < at["graph:string", 45, NEAREST]
    n = table.set_index(["prefilter", "size", "target"])["n"]
    assert n["graph:string", 2, NEAREST] == 60
    assert n["graph:string", 2, STRONG] == pytest.approx(30, abs=2)
    with pytest.raises(InputError, match="at least 1"):
        recall("graph:string", [0])


def test_check_on_the_side_and_the_note_of_predict(simulated):
    data, knowledge = simulated
    found = check_prefilter("embedding:text", 30, data, knowledge)
    assert found["n"] == 60
    assert found["chance"] == pytest.approx(30 / 59)
    assert found["chance"] < found["recall"] <= 1.0
    assert check_prefilter("graph:string", 59, data, knowledge)["recall"] == 1.0
    with ScriptedServer() as server:
        chat = open_chat(server.openai())
        words = "langpert or graph:string"
        for method, extra in (("langpert", {}), ("neighbours", {"selector": words})):
            told = predict(
                data, ["NEW1"], knowledge=knowledge, method=method, chat=chat,
                settings={"max_candidates": 30, "prefilter": "embedding:text", **extra},
            )  # fmt: skip
            share = f"{100 * found['recall']:.0f} % of the 5 nearest"
            assert any("30 of 60" in n and share in n for n in told.notes)
            assert told.record["prefilter"] == found
        chat.shutdown()


def test_command_prints_and_writes(simulated, tmp_path):
    data, knowledge = simulated
    data.save(tmp_path / "screen.h5ad")
    call = ["bench", "prefilter", "--screen", str(tmp_path / "screen.h5ad"), "--size", "10"]
    call += ["--knowledge", str(knowledge.path), "--out", str(tmp_path / "recall.csv")]
    done = CliRunner().invoke(app, [*call, "--by", "graph:string", "--by", "learned"])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "recall.csv")
    assert set(table["prefilter"]) == {"graph:string", "learned"}
    assert set(table["target"]) == {NEAREST, STRONG}
