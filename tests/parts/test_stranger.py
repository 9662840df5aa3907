"""A stranger's parts: each in one file, each passing its shipped check, each named in every command
that takes its kind, for genes and for drugs."""

import json

import pandas as pd
import pytest
from drug_example import drug_frame, drug_screen
from parts.test_parts import OWN
from typer.testing import CliRunner

from pertwise import parts
from pertwise.cli.main import app
from pertwise.knowledge import build_knowledge
from pertwise.screen import simulate_screen
from pertwise.select import Query
from pertwise.testing import (
    check_kernel,
    check_metric,
    check_predictor,
    check_selector,
    check_strategy,
)
from pertwise.testing.server import ScriptedServer

FILES = {"predictor": "Half", "strategy": "Last", "selector": "Twin", "kernel": "Digit",
         "metric": "Worst"}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A gene screen and a drug screen with what is known, and one file a part (all simulated)."""
    folder = tmp_path_factory.mktemp("stranger")
    simulation = simulate_screen(4, n_perturbations=30, n_features=20, n_pathways=3)
    simulation.screen.save(folder / "genes.h5ad")
    build_knowledge(simulation.write_sources(folder / "sources"), folder / "knowledge")
    drug_screen().save(folder / "drugs.h5ad")
    drug_screen().hide(["Caffeine", "Ethanol", "Aspirin"]).save(folder / "fewer.h5ad")
    drug_frame().to_parquet(folder / "drugs.parquet")
    for kind in FILES:
        (folder / f"{kind}.py").write_text(OWN)
    return folder, sorted(simulation.screen.perturbations)


def use(folder, kind):
    return f"{folder / kind}.py:{FILES[kind]}"


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exception is None, (done.output, done.exception)
    return done.output


def test_each_passes_its_check(world):
    folder, names = world

    def made(kind, **settings):
        return parts.load(kind, use(folder, kind), **settings)

    check_predictor(lambda: made("predictor"), unknown_fallback=False)
    check_strategy(lambda: made("strategy"))
    check_kernel(made("kernel"), names[:8])
    check_metric(made("metric"), better="low")
    check_selector(lambda: made("selector", screen=drug_screen()), names[:9], Query(names[9]))


SCREENS = ("genes", "drugs")


def common(folder, screen, names):
    if screen == "genes":
        return [names[0], "--knowledge", folder / "knowledge"]
    return ["Aspirin", "--drugs", folder / "drugs.parquet", "--context", "A549"]


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("kind", ["predictor", "selector", "kernel"])
def test_predict(screen, kind, world, tmp_path):
    folder, names = world
    name, *known = common(folder, screen, names)
    own = use(folder, kind)
    method = {
        "predictor": ["--method", own],
        "selector": ["--method", "neighbours", "--set", f"selector={own}"],
        "kernel": ["--method", "kernel-ridge", "--set", f'kernels=["{own}"]'],
    }[kind]
    if (screen, kind) == ("drugs", "predictor"):
        known = ["--knowledge", folder / "knowledge", *known]
    run("predict", folder / f"{screen}.h5ad", "--names", name, *known, *method, "--folds", 2,
        "--out", tmp_path)  # fmt: skip
    record = json.loads((tmp_path / "prediction.json").read_text())
    files = record["method"]["files_sha256"], record["method"]["code_sha256"]
    assert own.rpartition(":")[0] in files[0] or files[1]


@pytest.mark.parametrize("screen", SCREENS)
def test_plan(screen, world, tmp_path):
    folder, names = world
    _, *known = common(folder, screen, names)
    file = folder / {"genes": "genes.h5ad", "drugs": "fewer.h5ad"}[screen]
    run("plan", "make", file, *known, "--strategy", use(folder, "strategy"),
        "--batch", 2, "--out", tmp_path / "plan",
        *(["--candidates", _file(tmp_path)] if screen == "drugs" else []))  # fmt: skip
    text = (tmp_path / "plan" / "plan.json").read_text()
    assert "Last" in text or "last" in text


def _file(folder):
    path = folder / "candidates.txt"
    path.write_text("\n".join(drug_frame()["drug"]))
    return path


def test_ask_takes_a_selector_to_cut_the_list(world, tmp_path):
    folder, names = world
    out = tmp_path / "lists.jsonl"
    with ScriptedServer() as server:
        run("ask", folder / "genes.h5ad", "--names", names[0], "--knowledge", folder / "knowledge",
            "--max-candidates", 5, "--prefilter", use(folder, "selector"), "--llm",
            server.openai(), "--k", 2, "--out", out)  # fmt: skip
    assert out.is_file()


def test_bench_prediction(world, tmp_path):
    folder, _ = world
    methods = _methods(folder)
    (tmp_path / "bench.toml").write_text(
        f"screen = '{folder / 'genes.h5ad'}'\nknowledge = '{folder / 'knowledge'}'\n"
        f"methods = {methods}\n[split]\nfolds = 2\nshuffles = 1\n"
        f"[metrics]\nmore = ['{use(folder, 'metric')}']\n"
    )
    run("bench", "prediction", tmp_path / "bench.toml", "--out", tmp_path / "out")
    found = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(found["method"]) == {"Half", "neighbours", "kernel ridge"}
    assert "Worst" in set(found["metric"])
    assert (found["error"] == "").all()


def test_bench_drugs(world, tmp_path):
    folder, _ = world
    (tmp_path / "bench.toml").write_text(
        f"regimes = ['compound']\nn_folds = 2\nmethods = {_methods(folder)}\n"
        f"metrics = ['cosine', '{use(folder, 'metric')}']\n"
        f"[data]\nname = 'x'\nsignatures = '{folder / 'drugs.h5ad'}'\n"
        f"drugs = ['{folder / 'drugs.parquet'}']\n"
    )
    run("bench", "drugs", tmp_path / "bench.toml", "--out", tmp_path / "out")
    found = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert set(found["method"]) == {"Half", "neighbours", "kernel ridge"}
    assert found["Worst"].notna().all()
    assert not found["fallback"].str.contains("method failed").any()
    assert "Worst" in (tmp_path / "out" / "report.md").read_text()


def _methods(folder):
    ridge = '{ use = "kernel-ridge", settings = { kernels = ["' + use(folder, "kernel") + '"] } }'
    near = '{ use = "neighbours", settings = { selector = "' + use(folder, "selector") + '" } }'
    return f"['{use(folder, 'predictor')}', {near}, {ridge}]"


def test_bench_acquisition(world, tmp_path):
    folder, _ = world
    (tmp_path / "bench.toml").write_text(
        f"screen = '{folder / 'genes.h5ad'}'\nknowledge = '{folder / 'knowledge'}'\n"
        f"strategies = ['random', '{use(folder, 'strategy')}']\n"
        f"predictors = ['{use(folder, 'predictor')}']\n"
        "[protocol]\nseeds = 1\nbatch = 4\nrounds = 1\n"
    )
    run("bench", "acquisition", tmp_path / "bench.toml", "--out", tmp_path / "run", "--executor",
        "serial")  # fmt: skip
    rounds = pd.read_parquet(tmp_path / "run" / "rounds.parquet")
    assert set(rounds["strategy"]) == {"random", "Last"}
    assert set(rounds["predictor"]) == {"Half"}
