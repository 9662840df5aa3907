"""Predictions with other screens: settings told apart, overlap told, nothing silently ignored."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.cli.predict import other_files, parse_settings
from pertwise.errors import InputError
from pertwise.evaluate.splits import SETTINGS
from pertwise.prediction.predicting import predict
from pertwise.prediction.writing import write_prediction
from pertwise.report.prediction_page import render_prediction
from pertwise.screen import make_screen


@pytest.fixture(scope="module")
def lines(simulated):
    """Two lines that share what knowledge does not tell; the other one lacks ten perturbations."""
    screen, knowledge = simulated
    rng = np.random.default_rng(11)
    names = list(screen.perturbations)
    hidden = rng.normal(size=(len(names), 3))
    here = hidden @ rng.normal(size=(3, 12)) + 0.1 * rng.normal(size=(len(names), 12))
    there = hidden @ rng.normal(size=(3, 8)) + 0.1 * rng.normal(size=(len(names), 8))
    one = make_screen(here, names, [f"a{i}" for i in range(12)], context="K1")
    other = make_screen(there[10:], names[10:], [f"b{i}" for i in range(8)], context="K2")
    return one, other, knowledge


def test_settings_are_told_apart_and_scored_apart(tmp_path, lines):
    one, other, knowledge = lines
    names = one.perturbations
    asked = [names[0], names[1], names[20]]
    found = predict(
        one, asked, knowledge=knowledge, method="kernel-ridge", settings={"other": [other]}, folds=3
    )
    words = [SETTINGS["anywhere"], SETTINGS["anywhere"], SETTINGS["elsewhere"]]
    assert found.prediction.support["setting"].tolist() == words
    notes = " | ".join(found.notes)
    assert "other screen K2: measured 1 of the 3 asked perturbations and 49 of the 57" in notes
    assert f"{SETTINGS['elsewhere']}: {names[20]}" in notes
    assert "guide library" in notes
    first, second = found.standing, found.further[0]
    assert [first.setting, second.setting] == [SETTINGS["anywhere"], SETTINGS["elsewhere"]]
    assert (len(first.per_perturbation), len(second.per_perturbation)) == (57, 49)
    assert second.summary.loc["mse", "method"] < 0.5 * first.summary.loc["mse", "method"]
    # What is hidden cannot be better than the mean by much: knowledge says nothing here.
    assert first.summary.loc["mse", "method"] > 0.8 * first.summary.loc["mse", "baseline"]
    for one_of in (first, second):
        assert one_of.setting in found.standing_sentence
    table = pd.read_csv(write_prediction(found, tmp_path)["cross_validation.csv"])
    assert table["setting"].value_counts().to_dict() == {
        SETTINGS["anywhere"]: 57, SETTINGS["elsewhere"]: 49,
    }  # fmt: skip
    assert SETTINGS["elsewhere"] in render_prediction(found)
    assert found.record["other_screens"] == {"K2": {"asked": 1, "learned": 49}}


def test_a_screen_of_the_same_line_is_no_other_line(lines):
    one, other, knowledge = lines
    names = one.perturbations
    found = predict(
        one,
        [names[0], names[30]],
        knowledge=knowledge,
        method="kernel-ridge",
        settings={"other": {"K1 again": other}},
        folds=3,
    )
    assert any("is of K1 itself" in note for note in found.notes)
    assert [s.setting for s in (found.standing, *found.further)] == [SETTINGS["anywhere"]]


def test_other_screens_on_the_command_line(tmp_path, lines):
    one, other, knowledge = lines
    names = one.perturbations
    one.save(tmp_path / "one.h5ad")
    other.save(tmp_path / "b.h5ad")
    ask = [
        "predict", str(tmp_path / "one.h5ad"), "--genes", f"{names[0]},{names[20]}", "--knowledge",
        str(knowledge.path), "--folds", "0", "--method", "kernel-ridge",
    ]  # fmt: skip
    b = str(tmp_path / "b.h5ad")
    for given, label in (
        (["--other", f"mine={b}"], "mine"),
        (["--other", b], "K2"),
        (["--set", f"other=[{b}]"], "K2"),
    ):
        done = CliRunner().invoke(app, [*ask, *given, "--out", str(tmp_path / "out")])
        assert done.exit_code == 0, done.output
        told = " ".join(done.output.split())
        assert f"other screen {label}: measured 1 of the 2 asked" in told
    for given, said in (
        (["--other", b, "--set", f"other=[{b}]"], "not by both"),
        (["--other", str(tmp_path / "absent.h5ad")], "does not exist|no such file"),
        (["--set", 'other=[A, "B]'], "neither a list nor a table"),
        (["--method", "gp-text", "--other", b], "does not learn from other screens"),
    ):
        done = CliRunner().invoke(app, [*ask, *given, "--out", str(tmp_path / "no")])
        assert done.exit_code != 0
        told = " ".join(str(done.exception or done.output).split())
        assert any(s in told for s in said.split("|")), told


def test_names_of_other_screens():
    assert other_files(["a.csv", "b.csv"]) == ["a.csv", "b.csv"]
    assert other_files(["K=a.csv", "x/b.csv"]) == {"K": "a.csv", "b": "x/b.csv"}
    with pytest.raises(InputError, match="named twice"):
        other_files(["K=a.csv", "K=b.csv"])
    assert parse_settings(["other=[A.csv,B.csv]"]) == {"other": ["A.csv", "B.csv"]}
