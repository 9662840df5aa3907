import json

import pytest
from drug_example import drug_frame, drug_screen
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError

RUNNER = CliRunner()


@pytest.fixture
def folder(tmp_path):
    drug_screen().save(tmp_path / "screen.h5ad")
    drug_frame().to_parquet(tmp_path / "drugs.parquet")
    (tmp_path / "bench.toml").write_text(
        'n_folds = 3\nk = 3\nregimes = ["unseen drug"]\nmethods = ["cell mean", "chemistry kNN"]\n'
        '[data]\nname = "simulated"\nsignatures = "screen.h5ad"\ndrugs = ["drugs.parquet"]\n'
    )
    return tmp_path


def test_bench_drugs_writes_and_shows(folder):
    out = folder / "out"
    done = RUNNER.invoke(app, ["bench", "drugs", str(folder / "bench.toml"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "chemistry kNN" in done.output
    assert "Sodium salicylate" in done.output
    assert json.loads((out / "run.json").read_text())["config"]["k"] == 3


def test_bench_drugs_errors_are_told(folder):
    done = RUNNER.invoke(
        app, ["bench", "drugs", str(folder / "bench.toml"), "--method", "LGR"]
    )  # fmt: skip
    assert isinstance(done.exception, InputError)
    assert "unknown drug method 'LGR'" in str(done.exception)


def test_predict_drug_shows_and_writes(folder):
    out = folder / "genes.csv"
    done = RUNNER.invoke(
        app,
        ["predict-drug", "--drug", "erlotinib", "--context", "A549", "--config",
         str(folder / "bench.toml"), "--out", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "hidden for this prediction" in done.output
    assert "Gefitinib" in done.output
    assert len(out.read_text().splitlines()) == 61
