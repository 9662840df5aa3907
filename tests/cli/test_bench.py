"""`pertwise bench` end to end on small made-up data."""

import pandas as pd
import pytest
from evaluate.test_perturbqa import table
from predict.conformance import example_screen
from typer.testing import CliRunner

from pertwise._io import sha256_file
from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.report.prediction_bench import read_provenance

runner = CliRunner()


@pytest.fixture
def labels(tmp_path):
    table().to_csv(tmp_path / "k562-de.csv.gz", index=False)
    return tmp_path


def test_perturbqa_prints_a_table_and_writes_csv(labels, tmp_path):
    out = tmp_path / "out"
    result = runner.invoke(
        app,
        ["bench", "perturbqa", str(labels), "--method", "training mean", "--out", str(out)],
    )
    assert result.exit_code == 0, result.output
    assert "gene frequency" in result.output
    summary = pd.read_csv(out / "summary.csv")
    assert list(summary["method"]) == ["gene frequency", "training mean"]
    assert set(pd.read_csv(out / "per_gene.csv")["method"]) == {"gene frequency", "training mean"}


def test_vote_without_knowledge_says_what_is_missing(labels):
    result = runner.invoke(app, ["bench", "perturbqa", str(labels), "--vote", "go"])
    assert "--vote needs --knowledge" in str(result.exception)


OWN = """
from pertwise.predict import TrainingMeanPredictor

class Mine(TrainingMeanPredictor):
    name = "mine"
"""


@pytest.fixture
def screen(tmp_path):
    path = tmp_path / "screen.h5ad"
    example_screen(20, 6).save(path)
    return path


def test_prediction_from_options(screen, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(OWN)
    out = tmp_path / "out"
    arguments = ["bench", "prediction", "--screen", str(screen), "--method", "training mean"]
    arguments += ["--method", f"{own}:Mine", "--method", "oracle", "--shuffles", "1"]
    result = runner.invoke(app, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    for word in ("training mean", "Mine", "oracle", "SIMULATED"):
        assert word in result.output
    report = (out / "report.md").read_text()
    for word in ("Simulated data", "Are the differences real?", "By support", "never a method"):
        assert word in report
    for line in report.splitlines():
        if line.startswith("!["):
            assert (out / line.split("(")[1].rstrip(")")).is_file()
    summary = pd.read_csv(out / "summary.csv")
    assert set(summary["method"]) == {"training mean", "Mine", "oracle"}
    provenance = read_provenance(out)
    assert list(provenance["inputs_sha256"].values()) == [sha256_file(screen)]


def test_prediction_from_a_file_with_growing_sets(screen, tmp_path):
    config = tmp_path / "bench.toml"
    config.write_text(
        f"""
screen = "{screen.name}"
methods = ["control", "training mean"]
reference = "training mean"
[split]
kind = "growing"
train_sizes = [4, 8, 16]
shuffles = 2
"""
    )
    out = tmp_path / "out"
    result = runner.invoke(app, ["bench", "prediction", str(config), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert (out / "figures" / "learning_curves.svg").is_file()
    curves = pd.read_csv(out / "tables" / "learning_curves.csv")
    assert sorted(set(curves["n_train"])) == [4, 8, 16]


def test_prediction_needs_a_screen_and_methods(screen):
    result = runner.invoke(app, ["bench", "prediction"])
    assert isinstance(result.exception, InputError)
    assert "at least one --method" in str(result.exception)
    unknown = ["bench", "prediction", "--screen", str(screen), "--method", "trainingmean"]
    result = runner.invoke(app, unknown)
    assert "did you mean 'training mean'" in str(result.exception)
