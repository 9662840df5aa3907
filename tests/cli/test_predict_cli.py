"""`pertwise predict` end to end on small made-up data."""

import json

import numpy as np
import pandas as pd
import pytest
from drug_example import drug_frame, drug_screen
from typer.testing import CliRunner

from pertwise._io import sha256_file
from pertwise.cli.main import app
from pertwise.cli.predict import parse_settings
from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge import build_knowledge
from pertwise.screen import simulate_screen
from pertwise.testing.predictors import example_screen

RUNNER = CliRunner()

OWN = """
from pertwise.models import TrainingMeanPredictor

class Mine(TrainingMeanPredictor):
    name = "mine"
"""


@pytest.fixture
def screen(tmp_path):
    path = tmp_path / "screen.h5ad"
    example_screen().save(path)
    return path


def test_predict_writes_and_prints_the_statement(tmp_path):
    simulation = simulate_screen(3, n_perturbations=40, n_features=20, n_pathways=4)
    simulation.write_sources(tmp_path / "sources")
    folder = build_knowledge(tmp_path / "sources", tmp_path / "knowledge", label="simulated")
    simulation.screen.save(tmp_path / "screen.h5ad")
    gene, other = simulation.screen.perturbations[:2]
    out = tmp_path / "out"
    done = RUNNER.invoke(
        app,
        ["predict", str(tmp_path / "screen.h5ad"), "--genes", f"{gene},NOSUCH,{gene}+{other}",
         "--knowledge", str(folder), "--explain", gene, "--folds", "2", "--out", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "SIMULATED" in done.output
    assert "2-fold cross-validation over 39 measured perturbations" in done.output
    assert "NOSUCH: the method had nothing to go by" in done.output
    record = json.loads((out / "prediction.json").read_text())
    assert record["method"]["name"] == "multi-kernel"
    assert record["inputs"]["screen"]["sha256"] == sha256_file(tmp_path / "screen.h5ad")
    assert set(record["settings"]["names"]) >= {gene, "NOSUCH"}
    names = {p.name for p in out.iterdir()} - {".lock"}
    assert names == {
        "prediction.h5ad", "prediction.csv", "prediction.json", "prediction.html",
        "neighbours.csv", "cross_validation.csv",
    }  # fmt: skip


def test_own_class_file_of_genes_and_no_folds(screen, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(OWN)
    (tmp_path / "genes.txt").write_text("NEW1\nNEW2\n")
    out = tmp_path / "out"
    done = RUNNER.invoke(
        app,
        ["predict", str(screen), "--genes", f"@{tmp_path / 'genes.txt'}", "--folds", "0",
         "--method", f"{own}:Mine", "--out", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "NOT checked" in done.output
    record = json.loads((out / "prediction.json").read_text())
    assert record["settings"]["names"] == ["NEW1", "NEW2"]
    assert record["method"]["code_sha256"] == sha256_file(own)
    assert record["standing"] is None


def test_settings_reach_the_method(screen, tmp_path):
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"subject": "NEW1", "neighbours": ["G001", "G002", "G003", "G004"]}\n')
    out = tmp_path / "out"
    call = ["predict", str(screen), "--genes", "NEW1", "--folds", "0", "--out", str(out)]
    call += ["--method", "neighbours", "--set", f"selector=recorded:{answers}"]
    done = RUNNER.invoke(app, [*call, "--set", "k=3", "--set", "how=rank"])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out / "neighbours.csv")
    assert table["neighbour"].tolist() == ["G001", "G002", "G003"]
    assert table["weight"].tolist() == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    record = json.loads((out / "prediction.json").read_text())
    assert record["method"]["settings"]["how"] == "rank"
    done = RUNNER.invoke(app, [*call, "--set", "k"])
    assert "NAME=VALUE" in str(done.exception)
    done = RUNNER.invoke(app, [*call, "--set", "k=3", "--set", "k=4"])
    assert "given twice" in str(done.exception)
    assert parse_settings(["graphs=['string', 'go']", "shrinkage=cv", "dim=32"]) == {
        "graphs": ["string", "go"], "shrinkage": "cv", "dim": 32,
    }  # fmt: skip


def test_unknown_method_is_suggested(screen, tmp_path):
    done = RUNNER.invoke(
        app,
        ["predict", str(screen), "--genes", "A", "--method", "trainingmean", "--out",
         str(tmp_path / "out")],
    )  # fmt: skip
    assert isinstance(done.exception, UnknownNameError)
    assert "training-mean" in str(done.exception)


def test_a_drug_by_files_and_by_the_config_of_a_benchmark(tmp_path):
    drug_screen().save(tmp_path / "screen.h5ad")
    drug_frame().to_parquet(tmp_path / "drugs.parquet")
    (tmp_path / "bench.toml").write_text(
        '[data]\nname = "simulated"\nsignatures = "screen.h5ad"\ndrugs = ["drugs.parquet"]\n'
    )
    asked = ["--drug", "erlotinib", "--context", "A549", "--folds", "3"]
    config = str(tmp_path / "bench.toml")
    table = str(tmp_path / "drugs.parquet")
    calls = (
        ["predict", config, *asked, "--out", str(tmp_path / "a")],
        ["predict", str(tmp_path / "screen.h5ad"), *asked, "--drugs", table, "--out",
         str(tmp_path / "b")],
    )  # fmt: skip
    for call in calls:
        done = RUNNER.invoke(app, call)
        assert done.exit_code == 0, done.output
        assert "beats the context mean" in done.output
    a, b = ((tmp_path / n / "prediction.csv").read_text() for n in "ab")
    assert a == b
    assert (tmp_path / "a" / "cross_validation.csv").is_file()
    wrong = ["predict", config, *asked, "--drugs", table, "--out", str(tmp_path / "c")]
    assert "--drugs: not used here" in str(RUNNER.invoke(app, wrong).exception)
    done = RUNNER.invoke(app, ["predict", config, "--drug", "erlotinib", "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert "--context" in str(done.exception)


def test_cells_and_the_layout_of_other_tools(tmp_path):
    import anndata as ad

    from pertwise.screen import PseudobulkSettings, simulate_screen
    from pertwise.screen.pseudobulk import pseudobulk
    from pertwise.screen.simulate_cells import simulate_cells

    simulation = simulate_screen(0, n_perturbations=32, n_features=30, n_pathways=2)
    cells = simulate_cells(simulation, 0, max_cells=20)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    pseudobulk(cells, PseudobulkSettings(n_hvg=None)).save(tmp_path / "screen.h5ad")
    out = tmp_path / "out"
    told = [
        "predict", str(tmp_path / "screen.h5ad"), "--genes", "NEW1,NEW2", "--method",
        "training-mean", "--folds", "0", "--out", str(out), "--column", "target_gene",
    ]  # fmt: skip
    result = RUNNER.invoke(
        app,
        [*told, "--write-values", "means", "--cells", str(tmp_path / "cells.h5ad"), "--n-cells",
         "25", "--cells-as", "counts", "--control-label", "NTC"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    made = ad.read_h5ad(out / "cells.h5ad")
    counts = made.obs["target_gene"].value_counts()
    assert (counts["NEW1"], counts["NEW2"]) == (25, 25)
    assert counts["NTC"] == (cells.obs["perturbation"] == "control").sum()
    assert np.array_equal(made.X.data, np.rint(made.X.data))
    means = ad.read_h5ad(out / "prediction.h5ad")
    assert list(means.obs["target_gene"]) == ["NEW1", "NEW2", "NTC"]
    unused = RUNNER.invoke(app, [*told, "--n-cells", "5"])
    assert "--n-cells: not used here" in str(unused.exception)
    wrong = RUNNER.invoke(app, [*told, "--write-values", "z"])
    assert "not one of deltas, means" in str(wrong.exception)
