"""Benchmarks with methods that learn from other screens: two settings, never mixed."""

import numpy as np
import pytest

from pertwise.benchmark.engine import run_task
from pertwise.benchmark.prediction.config import PredictionConfig
from pertwise.benchmark.prediction.run import PredictionTask
from pertwise.errors import InputError
from pertwise.evaluate.splits import SETTINGS
from pertwise.report.prediction_bench import shown_table, write_page
from pertwise.screen import make_screen


@pytest.fixture(scope="module")
def files(simulated, tmp_path_factory):
    """Files of two lines that share what knowledge does not tell, the other one shorter by ten."""
    screen, knowledge = simulated
    folder = tmp_path_factory.mktemp("lines")
    rng = np.random.default_rng(3)
    names = list(screen.perturbations)
    hidden = rng.normal(size=(len(names), 3))
    here = hidden @ rng.normal(size=(3, 9)) + 0.1 * rng.normal(size=(len(names), 9))
    there = hidden @ rng.normal(size=(3, 7))
    make_screen(here, names, list("abcdefghi"), context="K1").save(folder / "here.h5ad")
    make_screen(there[10:], names[10:], list("tuvwxyz"), context="K2").save(folder / "there.h5ad")
    return folder, knowledge


def config(files, label="K2", **split):
    folder, knowledge = files
    other = {label: str(folder / "there.h5ad")}
    methods = [
        "training-mean",
        "kernel-ridge",
        {"use": "kernel-ridge", "label": "with", "settings": {"other": other}},
    ]
    return PredictionConfig(
        screen=str(folder / "here.h5ad"),
        knowledge=str(knowledge.path),
        methods=methods,
        split={"folds": 3, "shuffles": 1, **split},
    )


def test_every_table_names_its_setting_and_mixes_none(files, tmp_path):
    run = run_task(PredictionTask(config(files)), tmp_path / "run")
    table = run.summary.set_index(["setting", "method", "metric"]).sort_index()
    here, there = SETTINGS["anywhere"], SETTINGS["elsewhere"]
    assert set(run.summary["setting"]) == {here, there}
    assert set(table.loc[here, "n"]) == {60}
    assert set(table.loc[there, "n"]) == {50}
    error = table.xs("mse", level="metric")["mean"]
    assert error[there, "with"] < 0.5 * error[there, "kernel ridge"]
    assert error[here, "with"] > 0.9 * error[here, "kernel ridge"]
    assert set(run.read("comparisons.csv")["setting"]) == {here, there}
    assert set(shown_table(run)["setting"]) == {here, there}
    text = write_page(run, tmp_path / "report.html").with_suffix(".md").read_text()
    assert "Other screens" in text
    assert "guide library" in text
    assert "50 of 60" in text
    assert f"### {there}" in text
    assert f"is of “{here}”" in text


def test_one_setting_alone(files):
    splits = PredictionTask(config(files, setting="elsewhere")).splits
    assert all(s.elsewhere for s in splits)
    assert sum(len(s.test) for s in splits) == 50
    assert not any(s.elsewhere for s in PredictionTask(config(files, setting="anywhere")).splits)


def test_what_cannot_be_asked_is_told(files):
    with pytest.raises(InputError, match="is of the line that is asked about"):
        _ = PredictionTask(config(files, label="K1 programs")).splits
    assert PredictionTask(config(files, label="K1 programs", setting="anywhere")).splits
    plain = config(files, setting="elsewhere").model_copy(update={"methods": ()})
    with pytest.raises(InputError, match="no method has other screens"):
        _ = PredictionTask(plain).splits
