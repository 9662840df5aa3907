"""`pertwise bench` end to end on small made-up data."""

import json

import pandas as pd
import pytest
from benchmark.test_perturbqa import table
from typer.testing import CliRunner

from pertwise._io import sha256_file
from pertwise.cli.main import app
from pertwise.errors import BudgetError, InputError
from pertwise.knowledge import build_knowledge
from pertwise.screen import simulate_screen
from pertwise.testing.predictors import example_screen
from pertwise.testing.server import Answer, ScriptedServer, first_alphabetical

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
from pertwise.models import TrainingMeanPredictor

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
    page = (out / "report.html").read_text()
    for line in report.splitlines():
        if line.startswith("## "):
            assert f"<h2>{line[3:]}</h2>" in page
    assert page.count("<svg") == report.count("](figures/")
    assert "Simulated data." in page
    summary = pd.read_csv(out / "summary.csv")
    assert set(summary["method"]) == {"training mean", "Mine", "oracle"}
    record = json.loads((out / "run.json").read_text())
    assert [v["sha256"] for v in record["inputs"].values()] == [sha256_file(screen)]
    assert record["finished"]


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


def test_prediction_needs_a_screen_and_methods(screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    result = runner.invoke(app, ["bench", "prediction"])
    assert isinstance(result.exception, InputError)
    assert "at least one --method" in str(result.exception)
    unknown = ["bench", "prediction", "--screen", str(screen), "--method", "trainingmean"]
    result = runner.invoke(app, unknown)
    assert "did you mean 'training-mean'" in str(result.exception)
    assert set(tmp_path.iterdir()) == before, "a refused benchmark leaves no folder"


def test_a_method_that_cannot_work_is_told_on_the_terminal(screen, tmp_path):
    call = ["bench", "prediction", "--screen", str(screen), "--method", "training mean"]
    call += ["--method", "graph neighbours", "--shuffles", "1", "--out", str(tmp_path / "out")]
    result = runner.invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "graph neighbours could not do every split" in result.output
    assert "--knowledge" in result.output


def test_chat_methods_in_a_benchmark(simulated, tmp_path):
    """Repairs and cut lists are in the report, a rerun asks nothing; not a language model."""
    data, knowledge = simulated
    data.save(tmp_path / "screen.h5ad")
    config = tmp_path / "bench.toml"

    def write(address):
        chat = f'llm = "{address}", ledger = "{tmp_path / "ledger.sqlite"}"'
        both = 'selector = "langpert and graph:string", fallbacks = ["embedding:text"]'
        config.write_text(
            f"""
screen = "screen.h5ad"
knowledge = "{knowledge.path}"
reference = "training mean"
methods = [
  "training mean",
  {{use = "langpert", settings = {{{chat}, max_candidates = 20}}}},
  {{use = "graph+edit", settings = {{{chat}}}}},
  {{use = "neighbours", label = "both", settings = {{{chat}, {both}}}}},
]
[split]
folds = 3
shuffles = 1
[metrics]
tops = []
"""
        )

    def answer(asked):
        usual = first_alphabetical(asked)
        if "<neighbours>" in asked.first:
            return Answer('{"add": [{"name": "NOSUCH1", "reason": "x"}], "remove": []}')
        return usual

    out = tmp_path / "out"
    with ScriptedServer(answer) as server:
        write(server.openai())
        result = runner.invoke(app, ["bench", "prediction", str(config), "--out", str(out)])
        assert result.exit_code == 0, result.output
        asked = server.count
        assert asked > 0
        for unit in (out / "units").iterdir():
            unit.unlink()
        again = runner.invoke(app, ["bench", "prediction", str(config), "--out", str(out)])
        assert again.exit_code == 0, again.output
        assert server.count == asked, "the ledger answers a rerun"
    repairs = pd.read_csv(out / "tables" / "repairs.csv").set_index("method")
    assert repairs.loc["graph+edit", "impossible_edit"] == 60
    assert repairs.loc["graph+edit", "asked"] == 60
    cut = pd.read_csv(out / "tables" / "cut_lists.csv")
    assert set(cut["method"]) == {"langpert"}
    assert cut["cut"].str.startswith("20 of 40").all()
    results = pd.read_parquet(out / "results.parquet")
    assert not (results["error"] != "").any()


def test_an_exhausted_budget_stops_a_benchmark_and_a_rerun_goes_on(simulated, tmp_path):
    data, _ = simulated
    data.save(tmp_path / "screen.h5ad")
    out = tmp_path / "out"
    config = tmp_path / "bench.toml"

    def run(address, budget):
        kept = f'ledger = "{tmp_path / "ledger.sqlite"}", '
        kept += f"chat_settings = {{budget_tokens = {budget}, max_tokens = 200}}"
        config.write_text(
            f"""
screen = "screen.h5ad"
[[methods]]
use = "langpert"
settings = {{llm = "{address}", {kept}}}
[split]
folds = 2
shuffles = 1
[metrics]
tops = []
"""
        )
        return runner.invoke(app, ["bench", "prediction", str(config), "--out", str(out)])

    with ScriptedServer() as server:
        stopped = run(server.openai(), 6_000)
        assert isinstance(stopped.exception, BudgetError)
        assert not list((out / "units").glob("*.parquet")), "a fallback must not be stored"
        first = server.count
        assert 0 < first < 60
        done = run(server.openai(), 2_000_000)
        assert done.exit_code == 0, done.output
        assert server.count == 60, "only what was missing is asked"
    results = pd.read_parquet(out / "results.parquet")
    assert not results["fallback"].any()


def test_doubles_from_the_command_by_parts_seen(tmp_path):
    """Strata by parts seen; what was seen helps: sums of measured parts beat the training mean."""
    simulation = simulate_screen(3, n_perturbations=40, n_features=40, n_combinations=50)
    simulation.screen.save(tmp_path / "s.h5ad")
    build_knowledge(simulation.write_sources(tmp_path / "sources"), tmp_path / "kb")
    (tmp_path / "b.toml").write_text(
        'screen = "s.h5ad"\nknowledge = "kb"\n'
        'methods = ["training mean", "additive", "graph neighbours"]\n'
        '[split]\nkind = "doubles"\nshuffles = 2\n'
    )
    out = tmp_path / "out"
    done = runner.invoke(app, ["bench", "prediction", str(tmp_path / "b.toml"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "SIMULATED" in done.output
    table = pd.read_csv(out / "summary.csv").set_index(["stratum", "method", "metric"])
    strata = {"0 of 2 seen", "1 of 2 seen", "2 of 2 seen"}
    assert {s for s, *_ in table.index} == {*strata, "single, unseen"}
    seen = table.loc["2 of 2 seen"]["mean"]
    assert seen["additive", "squared_error"] < 0.7 * seen["training mean", "squared_error"]
    assert seen["graph neighbours", "cosine"] > seen["training mean", "cosine"]
    for stratum in strata:
        assert stratum in (out / "report.md").read_text()


def test_options_beside_a_file_that_says_it_all_are_refused(tmp_path):
    (tmp_path / "b.toml").write_text('screen = "s.h5ad"\nmethods = ["training mean"]\n')
    call = ["bench", "prediction", str(tmp_path / "b.toml"), "--folds", "3", "--context", "A"]
    done = runner.invoke(app, call)
    assert "--context, --folds: not used here, since b.toml says it" in str(done.exception)
    call = ["bench", "acquisition", str(tmp_path / "b.toml"), "--out", str(tmp_path / "run")]
    done = runner.invoke(app, [*call, "--context", "A", "--batch", "3"])
    assert "--context, --batch: not used here" in str(done.exception)
    assert not (tmp_path / "run").exists()


def test_a_replay_in_one_of_several_lines(tmp_path):
    simulated = simulate_screen(
        2, n_perturbations=24, n_features=24, n_pathways=3, contexts=("A", "B")
    )
    simulated.screen.save(tmp_path / "s.h5ad")
    call = ["bench", "acquisition", str(tmp_path / "s.h5ad"), "--out", str(tmp_path / "run")]
    call += ["--strategy", "random", "--predictor", "training-mean", "--seeds", "1"]
    call += ["--batch", "4", "--rounds", "2", "--workers", "1"]
    done = runner.invoke(app, call)
    assert "2 contexts ('A', 'B'): choose one with --context" in str(done.exception)
    done = runner.invoke(app, [*call, "--context", "B", "--executor", "serial"])
    assert done.exit_code == 0, done.output or done.exception
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["context"] == "B"
