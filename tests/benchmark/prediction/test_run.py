"""The prediction benchmark: scores, resuming, failures, own classes."""

import json

import numpy as np
import pandas as pd
import pytest
from drug_example import drug_frame, drug_screen

from pertwise.benchmark import bench
from pertwise.benchmark.engine import run_task
from pertwise.benchmark.prediction import inputs as inputs_module
from pertwise.benchmark.prediction import run as run_module
from pertwise.benchmark.prediction.config import PredictionConfig
from pertwise.benchmark.prediction.run import Inputs, PredictionTask, make_splits
from pertwise.config import check_settings, read_settings
from pertwise.errors import InputError, UnknownNameError
from pertwise.evaluate import cosine, squared_error
from pertwise.screen.core import Screen, make_screen
from pertwise.screen.training import one_context
from pertwise.testing.predictors import check_predictor, example_screen

OWN = '''
import numpy as np
from pertwise.errors import InputError
from pertwise.models import Prediction, TrainingMeanPredictor

class Own:
    """Half the training mean; a user's predictor in one file."""
    name = "own"
    def __init__(self, factor=0.5):
        self.factor = factor
    def fit(self, screen, knowledge=None):
        self.base = TrainingMeanPredictor().fit(screen)
        self.known = len(screen)
        return self
    def predict(self, perturbations):
        p = self.base.predict(perturbations)
        fallback = ["unknown" if n.startswith("NOSUCH") else "" for n in p.perturbations]
        support = p.support.assign(n_support=self.known, fallback=fallback)
        return Prediction(p.perturbations, p.features, (p.mean * self.factor).astype(np.float32),
                          None, support)

class Refuses(Own):
    def fit(self, screen, knowledge=None):
        raise InputError("too few neighbours")

class Crashes(Own):
    def fit(self, screen, knowledge=None):
        raise ZeroDivisionError("a defect")

class Omits(Own):
    def predict(self, perturbations):
        return super().predict(list(perturbations)[:-1])
'''


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@pytest.fixture
def screen():
    return example_screen(20, 8)


def inputs(screen, source=None, data="1"):
    return Inputs(screen, source or screen, None, {"x": {"path": "x", "sha256": data}})


def check_config(data):
    return check_settings(data, PredictionConfig)


def load_config(path):
    return read_settings(path, PredictionConfig)


def run_prediction(config, out, inputs=None, **how):
    return run_task(PredictionTask(config, inputs), out, **how).folder


def config(*methods, **more):
    data = {"screen": "x", "methods": [m if isinstance(m, dict) else {"use": m} for m in methods]}
    data["metrics"] = {"tops": [3], "retrieval": ["l2"]}
    return check_config({**data, **more})


def timeless(folder):
    return pd.read_parquet(folder / "results.parquet").drop(columns="seconds")


def run_and_read(c, folder, screen):
    return pd.read_parquet(run_prediction(c, folder, inputs=inputs(screen)) / "results.parquet")


def test_the_table_holds_every_score_once(screen, tmp_path):
    c = config("control", "training mean", split={"folds": 4, "shuffles": 2})
    folder = run_prediction(c, tmp_path, inputs=inputs(screen))
    results = pd.read_parquet(folder / "results.parquet")
    keys = ["method", "seed", "fold", "perturbation", "metric"]
    assert not results.duplicated(keys).any()
    part = results[(results["metric"] == "cosine") & (results["method"] == "training mean")]
    assert len(part) == 2 * 20
    # by hand: one held-out perturbation
    split = make_splits(c, inputs(screen))[5]
    name = split.test[0]
    mean = np.nanmean(screen.of_perturbations(split.train).responses, axis=0)
    truth = screen.of_perturbations([name]).responses
    row = results[
        (results["method"] == "training mean")
        & (results["seed"] == split.seed)
        & (results["fold"] == split.fold)
        & (results["perturbation"] == name)
    ].set_index("metric")["value"]
    assert row["cosine"] == pytest.approx(cosine(truth, mean[None])[0], rel=1e-5)
    assert row["squared_error"] == pytest.approx(squared_error(truth, mean[None])[0], rel=1e-5)
    assert row["n_support"] == 15
    provenance = json.loads((folder / "run.json").read_text())
    assert provenance["inputs"]["x"]["sha256"] == "1"
    assert provenance["settings"]["split"]["folds"] == 4
    assert provenance["versions"]["pertwise"]
    assert provenance["simulated"] is True
    assert [s["seed"] for s in provenance["splits"]] == [0] * 4 + [1] * 4
    items = pd.read_parquet(folder / "items.parquet")
    assert set(items.index) == set(screen.perturbations)


def test_interrupted_run_resumes_and_gives_the_same(screen, tmp_path, monkeypatch):
    c = config("control", "training mean", split={"folds": 3, "shuffles": 1})
    whole = run_prediction(c, tmp_path / "a", inputs=inputs(screen))
    real, done = PredictionTask.play, []

    def dies_after_two(task, unit, place):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(unit.key)
        return real(task, unit, place)

    monkeypatch.setattr(PredictionTask, "play", dies_after_two)
    with pytest.raises(KeyboardInterrupt):
        run_prediction(c, tmp_path / "b", inputs=inputs(screen))
    assert not json.loads((tmp_path / "b" / "run.json").read_text())["finished"]
    second = []

    def counts(task, unit, place):
        second.append(unit.key)
        return real(task, unit, place)

    monkeypatch.setattr(PredictionTask, "play", counts)
    resumed = run_prediction(c, tmp_path / "b", inputs=inputs(screen))
    assert len(second) == 4
    assert not set(second) & set(done)
    a, b = (
        pd.read_parquet(f / "results.parquet").drop(columns="seconds") for f in (whole, resumed)
    )
    pd.testing.assert_frame_equal(a, b)
    second.clear()
    run_prediction(c, tmp_path / "b", inputs=inputs(screen))
    assert second == []


def test_what_decides_a_result_decides_its_file(screen, tmp_path, own):
    def units(c, data="1"):
        folder = run_prediction(c, tmp_path / "u", inputs=inputs(screen, data=data))
        return {p.name for p in (folder / "units").glob("*.json")}

    spec = {"folds": 2, "shuffles": 1}
    method = {"use": f"{own}:Own"}
    first = units(config(method, split=spec))
    assert units(config(method, split=spec)) == first
    second = units(config({**method, "settings": {"factor": 0.1}}, split=spec))
    assert len(second) == 2 * len(first)
    own.write_text(OWN + "\n# another version\n")
    assert len(units(config(method, split=spec))) == 3 * len(first)
    assert len(units(config(method, split=spec), data="2")) == 4 * len(first)


def test_own_class_in_one_file_conforms_and_appears(screen, tmp_path, own):
    from pertwise.models.methods import make_method

    method = make_method(f"{own}:Own")
    check_predictor(method.build)
    c = config("training mean", {"use": f"{own}:Own", "label": "mine"}, split={"shuffles": 1})
    results = pd.read_parquet(
        run_prediction(c, tmp_path, inputs=inputs(screen)) / "results.parquet"
    )
    assert set(results["method"]) == {"training mean", "mine"}


def test_a_method_that_gives_up_stays_in_the_score(screen, tmp_path, own):
    c = config("training mean", {"use": f"{own}:Refuses"}, split={"shuffles": 1})
    results = pd.read_parquet(
        run_prediction(c, tmp_path, inputs=inputs(screen)) / "results.parquet"
    )
    failed = results[results["method"] == "Refuses"]
    assert failed["fallback"].all()
    assert failed["error"].str.contains("too few neighbours").all()
    # the declared fallback is the training mean, with the same scores
    keys = ["seed", "fold", "perturbation", "metric"]
    a = failed.set_index(keys)["value"]
    b = results[results["method"] == "training mean"].set_index(keys)["value"]
    pd.testing.assert_series_equal(a, b)


def test_defects_are_raised_with_method_and_split(screen, tmp_path, own):
    with pytest.raises(InputError, match=r"'Crashes' failed on folds seed 0 fold 0 .*a defect"):
        run_prediction(config({"use": f"{own}:Crashes"}), tmp_path, inputs=inputs(screen))
    with pytest.raises(InputError, match="was asked for 4 perturbations and answered 3"):
        run_prediction(config({"use": f"{own}:Omits"}), tmp_path, inputs=inputs(screen))


def test_oracle_is_the_bound_and_shows_its_neighbours(screen, tmp_path):
    c = config("training mean", "oracle", split={"shuffles": 1})
    folder = run_prediction(c, tmp_path, inputs=inputs(screen))
    mean = pd.read_parquet(folder / "results.parquet").query("metric == 'squared_error'")
    by_method = mean.groupby("method", observed=True)["value"].mean()
    assert by_method["oracle"] < by_method["training mean"] / 2
    neighbours = pd.read_parquet(folder / "neighbours.parquet")
    assert set(neighbours["method"]) == {"oracle"}
    assert neighbours.groupby(["seed", "perturbation"]).size().eq(5).all()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"main": ["squared_error"]}, "'squared_error' compares magnitudes"),
        ({"main": ["cosine", "mse_top20"]}, "'mse_top20' compares magnitudes"),
        ({"more": ["slope"]}, "'slope' compares magnitudes"),
        ({"main": ["cosin"]}, "no metric is called 'cosin'"),
    ],
)
def test_what_ranks_cannot_tell_is_refused_by_name(metrics, message, tmp_path):
    ranked = drug_screen().in_context("A549")
    ask = config("context-mean", metrics=metrics, split={"folds": 2, "shuffles": 1})
    with pytest.raises(InputError, match=message):
        run_prediction(ask, tmp_path / "a", inputs=inputs(ranked))
    assert not (tmp_path / "a").exists()
    usual = config("context-mean", split={"folds": 2, "shuffles": 1})
    found = pd.read_parquet(
        run_prediction(usual, tmp_path / "b", inputs=inputs(ranked)) / "results.parquet"
    )
    assert not [m for m in found["metric"].unique() if m.startswith(("squared", "mse", "mae"))]


def test_growing_and_given(screen, tmp_path):
    c = config("training mean", split={"kind": "growing", "train_sizes": [2, 8, 99], "shuffles": 2})
    results = pd.read_parquet(
        run_prediction(c, tmp_path, inputs=inputs(screen)) / "results.parquet"
    )
    assert sorted(set(results["n_train"])) == [2, 8, 16]
    with pytest.raises(InputError, match="needs folds_from"):
        config("control", split={"kind": "given"})


def test_transfer_trains_in_the_other_screen(screen, tmp_path):
    source = screen.take(np.arange(5, 20))
    c = config("training mean", split={"kind": "transfer", "source": "y"}, keep_predictions=True)
    folder = run_prediction(c, tmp_path, inputs=inputs(screen, source))
    results = pd.read_parquet(folder / "results.parquet")
    assert set(results["stratum"]) == {"measured in source", "new"}
    means = pd.read_parquet(folder / "means.parquet")
    want = np.nanmean(source.responses, axis=0)
    np.testing.assert_allclose(means[list(screen.features)].iloc[0], want, rtol=1e-5)


def test_components_of_two_files_are_not_mixed():
    a = make_screen(np.ones((2, 2)), ["A", "B"], ["PC1", "PC2"])
    spec = config("control", split={"kind": "transfer", "source": "y"}).split
    with pytest.raises(InputError, match="need not be the same axes"):
        inputs_module._shared_features(a, a, spec)
    b = make_screen(np.ones((2, 2)), ["A", "B"], ["KLF1", "MYC"])
    with pytest.raises(InputError, match="common features"):
        inputs_module._shared_features(a, b, spec)


def test_processes_give_the_same_as_one(screen, tmp_path):
    path = tmp_path / "screen.h5ad"
    screen.save(path)
    c = config("control", "training mean", split={"shuffles": 1, "folds": 2}, screen=str(path))
    a = run_prediction(c, tmp_path / "one")
    b = run_prediction(c, tmp_path / "two", executor="processes", workers=2)
    pd.testing.assert_frame_equal(timeless(a), timeless(b))


def test_one_context_is_asked_for():
    x = np.ones((2, 2), dtype=np.float32)
    two = make_screen(x, ["A", "A"], ["f", "g"], context=["K562", "RPE1"])
    with pytest.raises(InputError, match="choose one"):
        one_context(two, None, "x.h5ad")
    assert len(one_context(two, "RPE1", "x.h5ad")) == 1
    with pytest.raises(UnknownNameError, match="did you mean 'K562'"):
        one_context(two, "K56", "x.h5ad")
    obs = two.obs.assign(context="", dose=[1.0, 2.0])
    doses = Screen(x.copy(), obs, ("f", "g"), np.zeros((1, 2), np.float32))
    with pytest.raises(InputError, match="several rows"):
        one_context(doses, None, "x.h5ad")


def test_config_mistakes_name_the_field(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('screen = "s.h5ad"\nmethods = ["control", {use = "own.py:X", label = "x"}]\n')
    c = load_config(path)
    assert c.screen == str(tmp_path / "s.h5ad")
    assert c.methods[0].use == "control"
    assert c.methods[1].use == str(tmp_path / "own.py:X")
    for text, message in (
        ("methods = []", "screen: Field required"),
        ('screen = "s"\nmethods = ["a"]\nnosuch = 1', "nosuch: Extra inputs"),
        ('screen = "s"\nmethods = ["a", "a"]', "occurs twice"),
        ('screen = "s"\nmethods = ["a"]\nreference = "b"', "'b' is not among"),
        ('screen = "s"\nmethods = ["a"]\n[split]\nfolds = 1', "split.folds"),
        ('screen = "s"\nmethods = ["a"]\n[metrics]\nonly = ["cosine"]', "of `bench drugs`"),
        ("x = ", "not valid TOML"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            load_config(path)
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path / "absent.toml")


def test_paths_in_the_settings_of_methods_are_relative_to_the_file(screen, tmp_path, monkeypatch):
    screen.save(tmp_path / "other.h5ad")
    (tmp_path / "a.jsonl").write_text('{"subject": "G001", "neighbours": ["G005"]}\n')
    path = tmp_path / "c.toml"
    path.write_text(
        'screen = "other.h5ad"\n'
        'methods = [{use = "langpert (recorded)", settings = {answers = "a.jsonl"}},\n'
        '{use = "cross-line transfer", settings = {other = "other.h5ad"}},\n'
        '{use = "neighbours", settings = {selector = "recorded:a.jsonl"}}]\n'
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    c = load_config(path)
    assert c.methods[0].settings == {"answers": str(tmp_path / "a.jsonl")}
    assert c.methods[1].settings == {"other": str(tmp_path / "other.h5ad")}
    assert c.methods[2].settings == {"selector": f"recorded:{tmp_path / 'a.jsonl'}"}
    assert [len(m.files) for m in run_module.make_methods(c.methods)] == [1, 1, 1]


@pytest.mark.parametrize(
    "method",
    [
        {"use": "langpert (recorded)", "settings": {"answers": "FILE"}},
        {"use": "neighbours", "settings": {"selector": "recorded:FILE"}},
        {"use": "OWN:recorded", "settings": {"path": "FILE"}},
    ],
)
def test_a_changed_file_of_answers_never_reuses_an_old_result(screen, tmp_path, method):
    own, file = tmp_path / "own.py", tmp_path / "a.jsonl"
    own.write_text(RECORDED)
    text = json.dumps(method).replace("FILE", str(file)).replace("OWN", str(own))
    c = config(json.loads(text), "control", split={"folds": 2, "shuffles": 1})

    def answer(neighbours):
        rows = [{"subject": p, "neighbours": neighbours} for p in screen.perturbations]
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))
        run_prediction(c, tmp_path / "out", inputs=inputs(screen))
        return len(list((tmp_path / "out" / "units").glob("*.json"))), timeless(tmp_path / "out")

    def scores(table, name):
        part = table[table["method"] == name]
        return part["value"].to_numpy()

    name = c.methods[0].name
    n_units, first = answer(["G001", "G002"])
    assert answer(["G001", "G002"])[0] == n_units, "the same answers are reused"
    n_again, again = answer(["G003", "G004"])
    assert n_again == n_units + 2  # two folds of the one method; control is reused
    assert not np.array_equal(scores(first, name), scores(again, name))
    np.testing.assert_array_equal(scores(first, "control"), scores(again, "control"))
    said = json.loads((tmp_path / "out" / "run.json").read_text())["methods"]
    assert list(said[0]["files_sha256"]) == [str(file)]
    assert said[1]["files_sha256"] == {}


RECORDED = """
from pertwise.models.neighbours import NeighbourPredictor
from pertwise.parts import part
from pertwise.select.recorded import RecordedSelector

@part()
def recorded(path):
    return NeighbourPredictor(RecordedSelector.from_file(path), k=20)
"""


@pytest.mark.shared
@pytest.mark.parametrize(
    ("line", "mean", "recorded"),
    [("k562", (14.10, 0.347, 0.500), (9.31, 0.493, 0.734)),
     ("rpe1", (39.40, 0.552, 0.500), (31.19, 0.591, 0.715))],
)  # fmt: skip
def test_published_reference_points_on_real_data(shared_data, tmp_path, line, mean, recorded):
    """Folds of recorded answers: squared error, cosine, retrieval (which divides by n, not n-1)."""
    own = tmp_path / "own.py"
    own.write_text(RECORDED)
    answers = str(shared_data / "llm" / f"langpert_{line}.json.gz")
    c = check_config(
        {
            "screen": str(shared_data / "screens" / f"replogle_{line}_pcs50.h5ad"),
            "methods": [
                {"use": "training mean"},
                {"use": f"{own}:recorded", "settings": {"path": answers}},
            ],
            "split": {"kind": "given", "folds_from": answers},
            "metrics": {"tops": [], "retrieval": ["l2"]},
        }
    )
    results = pd.read_parquet(run_prediction(c, tmp_path / "out") / "results.parquet")
    table = results.groupby(["method", "metric"], observed=True)["value"].mean().unstack()
    for method, want in (("training mean", mean), ("recorded", recorded)):
        row = table.loc[method]
        n = 300
        by_n = 1 - (1 - row["retrieval_l2"]) * (n - 1) / n
        assert row["squared_error"] == pytest.approx(want[0], abs=0.006)
        assert row["cosine"] == pytest.approx(want[1], abs=0.0006)
        assert by_n == pytest.approx(want[2], abs=0.0006)


def test_a_drug_screen_by_compound_in_the_same_table(tmp_path):
    """Rows of several lines: every row is scored in its line, salts of a compound stay together."""
    whole = drug_screen(ranked=False)
    whole.save(tmp_path / "screen.h5ad")
    drug_frame().to_parquet(tmp_path / "drugs.parquet")
    (tmp_path / "bench.toml").write_text(
        'screen = "screen.h5ad"\ndrugs = ["drugs.parquet"]\n'
        'methods = ["context-mean", "multi-kernel", "oracle"]\nreference = "context-mean"\n'
        '[split]\nkind = "compound"\nfolds = 3\nshuffles = 1\n[metrics]\ntops = []\n'
    )
    run = bench(tmp_path / "bench.toml", tmp_path / "out")
    table = run.table[run.table["metric"] == "cosine"]
    counts = table.groupby("method", observed=True).size()
    assert set(counts) == {len(whole)}
    assert set(table["context"]) == set(whole.contexts)
    salts = table[table["perturbation"].isin(["Salicylic acid", "Sodium salicylate"])]
    assert salts.groupby("method", observed=True)["fold"].nunique().eq(1).all()
    means = run.summary.set_index(["method", "metric"])["mean"]
    assert means["multi-kernel", "cosine"] > means["context mean", "cosine"]
    page = run.page(tmp_path / "out" / "report.html").read_text()
    assert f"{len(whole)} measured rows" in page
    assert f"{len(whole.contexts)} contexts" in page
    assert set(run.record["inputs"]) == {"screen", "drugs 1"}
