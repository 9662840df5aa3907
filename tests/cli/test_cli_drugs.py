import json

import pytest
from drug_example import drug_frame, drug_screen
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.testing.server import ScriptedServer

RUNNER = CliRunner()


@pytest.fixture
def folder(tmp_path):
    drug_screen().save(tmp_path / "screen.h5ad")
    drug_frame().to_parquet(tmp_path / "drugs.parquet")
    (tmp_path / "bench.toml").write_text(
        'n_folds = 3\nk = 3\nregimes = ["compound"]\nmethods = ["context mean", "chemistry kNN"]\n'
        '[data]\nname = "simulated"\nsignatures = "screen.h5ad"\ndrugs = ["drugs.parquet"]\n'
    )
    return tmp_path


def test_bench_drugs_writes_and_shows(folder):
    out = folder / "out"
    done = RUNNER.invoke(app, ["bench", "drugs", str(folder / "bench.toml"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "chemistry kNN" in done.output
    assert "Sodium salicylate" in done.output
    assert json.loads((out / "run.json").read_text())["settings"]["k"] == 3


def test_bench_drugs_errors_are_told(folder):
    done = RUNNER.invoke(
        app, ["bench", "drugs", str(folder / "bench.toml"), "--method", "LGR"]
    )  # fmt: skip
    assert isinstance(done.exception, InputError)
    assert "'LGR' needs the setting answers=FILE" in str(done.exception)


def test_ask_writes_resumes_and_feeds_the_bench(folder):
    """The scripted endpoint names what comes first in the alphabet; it is not a language model."""
    out = folder / "lists.jsonl"
    base = ["ask", str(folder / "screen.h5ad"), "--drugs", str(folder / "drugs.parquet")]
    base += ["--out", str(out), "--k", "3", "--context", "A549"]
    with ScriptedServer() as server:
        ask = [*base, "--llm", server.openai()]
        dry = RUNNER.invoke(app, [*ask, "--dry-run"])
        assert dry.exit_code == 0, dry.output
        assert "questions: 12" in dry.output
        assert server.count == 0
        assert not list(folder.glob("*.sqlite"))
        done = RUNNER.invoke(app, ask)
        assert done.exit_code == 0, done.output
        assert server.count == 12
        again = RUNNER.invoke(app, ask)
        assert again.exit_code == 0
        assert server.count == 12, "the ledger answers the second time"
    rows = {r["drug"]: r for r in map(json.loads, out.read_text().splitlines())}
    assert rows["Caffeine"]["cell"] == "A549"
    assert rows["Caffeine"]["neighbours"] == ["Aspirin", "Belinostat", "Erlotinib (hydrochloride)"]
    assert "Sodium salicylate" not in rows["Salicylic acid"]["neighbours"]
    config = folder / "chat.toml"
    config.write_text(
        (folder / "bench.toml").read_text().replace("chemistry kNN", "fused")
        + 'lists = "lists.jsonl"\n'
    )
    done = RUNNER.invoke(app, ["bench", "drugs", str(config), "--out", str(folder / "chat")])
    assert done.exit_code == 0, done.output
    assert "fused" in done.output
