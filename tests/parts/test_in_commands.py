"""Parts of one's own, each in one file, named in every command that takes their kind."""

import json

import numpy as np
import pandas as pd
import pytest
from parts.test_parts import OWN
from typer.testing import CliRunner

from pertwise import parts
from pertwise.benchmark import bench
from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.kernels.genes import gene_blocks
from pertwise.knowledge import build_knowledge
from pertwise.models.methods import make_method, placed_settings, setting_files
from pertwise.screen import simulate_screen
from pertwise.select import Query
from pertwise.select.words import asks_a_model, own_files, placed_words, selector_from


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    simulation = simulate_screen(4, n_perturbations=30, n_features=20, n_pathways=3)
    simulation.screen.save(folder / "screen.h5ad")
    build_knowledge(simulation.write_sources(folder / "sources"), folder / "knowledge")
    (folder / "mine.py").write_text(OWN)
    return folder, sorted(simulation.screen.perturbations)


def run(*words):
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exception is None, (result.output, result.exception)
    return result.output


def test_predict(world, tmp_path):
    folder, names = world
    run(
        "predict", folder / "screen.h5ad", "--genes", names[0], "--knowledge",
        folder / "knowledge", "--method", f"{folder / 'mine.py'}:Half", "--folds", 3,
        "--out", tmp_path,
    )  # fmt: skip
    record = json.loads((tmp_path / "prediction.json").read_text())
    assert record["method"]["name"] == "Half"


def test_predict_asks_for_the_knowledge_that_a_class_says_it_needs(world, tmp_path):
    folder, names = world
    given = ["predict", folder / "screen.h5ad", "--genes", names[0], "--out", tmp_path]
    for method in (f"{folder / 'mine.py'}:Half", "graph-neighbours"):
        wrong = CliRunner().invoke(app, [*map(str, given), "--method", method])
        assert isinstance(wrong.exception, InputError)
        assert "needs a knowledge folder: give --knowledge DIR" in str(wrong.exception)


def test_predict_with_a_kernel_and_a_selector_of_ones_own(world, tmp_path):
    folder, names = world
    common = ["predict", folder / "screen.h5ad", "--genes", names[0], "--knowledge",
              folder / "knowledge", "--folds", 0]  # fmt: skip
    mine = folder / "mine.py"
    kernels = f'kernels=["string", "{mine}:Digit"]'
    run(*common, "--set", kernels, "--out", tmp_path / "kernel")
    record = json.loads((tmp_path / "kernel" / "prediction.json").read_text())
    assert str(mine) in record["method"]["files_sha256"]
    for i, words in enumerate(
        (f"{mine}:Twin", f"graph:string or {mine}:Twin", f"kernel:string,{mine}:Digit")
    ):
        run(*common, "--method", "neighbours", "--set", f"selector={words}", "--out",
            tmp_path / str(i))  # fmt: skip
        found = pd.read_csv(tmp_path / str(i) / "neighbours.csv")
        assert len(found)
    only = pd.read_csv(tmp_path / "0" / "neighbours.csv")
    assert set(only["reason"]) == {"same last digit"}


def test_plan_and_acquisition(world, tmp_path):
    folder, _ = world
    # beside the TOML, so a relative name must do
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "bench.toml").write_text(
        f"screen = '{folder / 'screen.h5ad'}'\nknowledge = '{folder / 'knowledge'}'\n"
        "strategies = ['random', 'mine.py:Last']\npredictors = ['training-mean', 'mine.py:Half']\n"
        "[protocol]\nseeds = 1\nbatch = 4\nrounds = 1\n"
    )
    run("bench", "acquisition", tmp_path / "bench.toml", "--out", tmp_path / "run",
        "--executor", "serial")  # fmt: skip
    rounds = pd.read_parquet(tmp_path / "run" / "rounds.parquet")
    assert set(rounds["strategy"]) == {"random", "Last"}
    assert set(rounds["predictor"]) == {"training mean", "Half"}


BENCH = """
screen = '{folder}/screen.h5ad'
knowledge = '{folder}/knowledge'
reference = "training-mean"
methods = ["training-mean", "mine.py:Half", "graph-neighbours:string,go",
    {{ use = "kernel-ridge", settings = {{ kernels = ["go", "mine.py:Digit"] }} }},
    {{ use = "neighbours", settings = {{ selector = "mine.py:Twin" }} }}]
[split]
kind = "mine.py:Odd"
settings = {{ start = 1 }}
[metrics]
more = ["mine.py:Worst"]
"""


def test_a_benchmark_of_parts_of_ones_own(world, tmp_path):
    folder, names = world
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "bench.toml").write_text(BENCH.format(folder=folder))
    run("bench", "prediction", tmp_path / "bench.toml", "--out", tmp_path / "out")
    found = pd.read_parquet(tmp_path / "out" / "results.parquet")
    labels = ["training mean", "Half", "graph neighbours (string,go)", "kernel ridge", "neighbours"]
    assert sorted(found["method"].unique()) == sorted(labels)
    assert set(found["perturbation"]) == set(names[1::2])
    assert set(found["split"]) == {"odd"}
    worst = found[found["metric"] == "Worst"]
    assert len(worst) == len(labels) * len(names[1::2])
    mae = found[found["metric"] == "mae"].set_index(["method", "perturbation"])["value"]
    assert (worst.set_index(["method", "perturbation"])["value"] >= mae).all()
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Worst: Largest error of any feature (lower is better)" in report
    assert "Worst" in pd.read_csv(tmp_path / "out" / "summary.csv").to_string()


def test_changed_code_never_reuses_an_old_result(world, tmp_path):
    folder, _ = world
    mine = tmp_path / "mine.py"
    mine.write_text(OWN)
    (tmp_path / "bench.toml").write_text(BENCH.format(folder=folder))
    bench(tmp_path / "bench.toml", tmp_path / "out")
    before = set((tmp_path / "out" / "units").iterdir())
    bench(tmp_path / "bench.toml", tmp_path / "out")
    assert set((tmp_path / "out" / "units").iterdir()) == before
    mine.write_text(OWN.replace("gene[-1]", "gene[-2]"))
    bench(tmp_path / "bench.toml", tmp_path / "out")
    assert not before & (set((tmp_path / "out" / "units").iterdir()) - before)
    assert len(set((tmp_path / "out" / "units").iterdir()) - before) >= 5


def test_a_metric_of_ones_own_gets_its_stated_value_where_the_prediction_is_to_blame(tmp_path):
    from pertwise.evaluate import score_predictions

    file = tmp_path / "m.py"
    file.write_text(
        "import numpy as np\nclass Ratio:\n    undefined = -1\n"
        "    def __call__(self, truth, prediction):\n"
        "        size = prediction.sum(1)\n"
        "        size[size == 0] = np.nan\n"
        "        return truth.sum(1) / size\n"
    )
    truth = np.array([[1.0, 3.0], [1.0, 1.0], [np.nan, np.nan]])
    prediction = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    scores = score_predictions(
        truth, prediction, perturbations=["A", "B", "C"], more=[f"{file}:Ratio"]
    )
    np.testing.assert_equal(scores.values["Ratio"].to_numpy(), [2.0, -1.0, np.nan])
    assert scores.undefined["Ratio"].tolist() == [False, True, False]
    file.write_text("class Flat:\n    def __call__(self, truth, prediction): return truth\n")
    with pytest.raises(InputError, match=r"array of shape \(3, 2\) for 3 perturbations"):
        score_predictions(truth, prediction, perturbations=["A", "B", "C"], more=[f"{file}:Flat"])


def test_words_resolve_through_the_registry(world, simulated):
    folder, _ = world
    mine = folder / "mine.py"
    screen, knowledge = simulated
    names = sorted(screen.perturbations)
    twin = selector_from(f"{mine}:Twin", max_neighbours=2)(None, screen)
    picked = twin.select(Query(names[5]), names, 9).items
    assert 0 < len(picked) <= 2
    assert all(p[-1] == names[5][-1] for p in picked)
    words = f"graph:go and {mine}:Twin or kernel:go,{mine}:Digit"
    assert not asks_a_model(words)
    assert own_files(words) == [str(mine), str(mine)]
    assert placed_words("a.py:X or kernel:go,b.py:Y", lambda p: f"/at/{p}") == (
        "/at/a.py:X or kernel:go,/at/b.py:Y"
    )
    assert selector_from(f"{mine}:Twin")(None, screen) is not twin
    with pytest.raises(InputError, match="no selector"):
        selector_from(f"{mine}:Half")
    with pytest.raises(InputError, match="is a function, not a class"):
        selector_from("graph:go or subprocess:run")
    rows = gene_blocks(knowledge, names, ["go", f"{mine}:Digit"])
    assert rows.kinds == ("go", f"{mine}:Digit")
    same = np.array([[a[-1] == b[-1] for b in names] for a in names])
    assert ((rows.gram()[1] > 0.5) == same).all()


def test_kernels_of_the_folder_by_name(simulated):
    screen, knowledge = simulated
    names = sorted(screen.perturbations)[:8]
    for name in ("features:go", "emb:text", "diffusion:string", "symbol"):
        kernel = parts.load("kernel", name, knowledge=knowledge)
        want = gene_blocks(knowledge, names, [name.removeprefix("features:")]).blocks[0]
        assert (kernel.rows(kernel.kinds[0], names) != want).nnz == 0


def test_files_of_code_in_settings_are_found_and_placed(world):
    folder, _ = world
    mine = str(folder / "mine.py")
    settings = {"kernels": ["go", f"{mine}:Digit"]}
    assert setting_files("multi-kernel", settings) == [mine]
    assert list(make_method("multi-kernel", **settings).files) == [mine]
    assert placed_settings("multi-kernel", {"kernels": ["go", "k.py:K"]}, "/at/{}".format) == {
        "kernels": ["go", "/at/k.py:K"]
    }
    # A class that says what it reads is believed; it is placed and summed like a built-in one.
    own = f"{mine}:Half"
    assert placed_settings(own, {"table": "t.csv"}, "/at/{}".format) == {"table": "/at/t.csv"}
