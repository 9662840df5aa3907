"""The replay: what is shared, what is hidden, and that a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_toy_predictor import Toy

from pertwise import parts
from pertwise.benchmark.acquisition.config import AcquisitionConfig, Curve, Protocol, curves
from pertwise.benchmark.acquisition.loop_models import AroundMarks
from pertwise.benchmark.acquisition.replay import (
    Replay,
    hit_names,
    make_split,
    plan_rounds,
    selection_bias,
    stream,
    target_uncertainty,
)
from pertwise.benchmark.acquisition.run import AcquisitionTask, target_free
from pertwise.benchmark.acquisition.world import feature_weights, make_world
from pertwise.benchmark.engine import run_task
from pertwise.config import check_settings, read_settings
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge
from pertwise.knowledge.ratings import Ratings
from pertwise.models.base import Prediction
from pertwise.report.acquisition_page import write_markdown, write_page
from pertwise.screen import make_screen, read_screen

TESTS = Path(__file__).parents[2]


def parse(values):
    return check_settings(values, AcquisitionConfig)


def play(config, folder, **how):
    return run_task(AcquisitionTask(config), folder, **how)


@given(st.integers(4, 200), st.integers(0, 10_000))
def test_split_depends_on_names_and_seed_only(n, seed):
    names = tuple(f"G{i}" for i in range(n))
    a = make_split(names, 0.1, seed)
    b = make_split(tuple(reversed(names)), 0.1, seed)
    assert a == b
    assert set(a.heldout) | set(a.pool) == set(names)
    assert not set(a.heldout) & set(a.pool)
    assert len(a.heldout) == max(2, round(0.1 * n))


def test_rounds_adapt_to_a_small_pool_and_say_so():
    assert plan_rounds(270, Protocol(rounds=10), 20, 0) == (10, "")
    number, note = plan_rounds(100, Protocol(rounds=10), 20, 0)
    assert number == 4
    assert "4 rounds instead of 10" in note
    assert plan_rounds(101, Protocol(rounds=10), 20, 0)[0] == 5
    with pytest.raises(InputError, match="gives no round of 20"):
        plan_rounds(15, Protocol(), 20, 0)


def test_streams_are_independent_and_fixed():
    assert stream("a", 1).integers(1 << 30) == stream("a", 1).integers(1 << 30)
    assert stream("a", 1).integers(1 << 30) != stream("a", 2).integers(1 << 30)


def test_uncertainty_on_a_target_is_the_weighted_mean_variance(simulated):
    rng = np.random.default_rng(0)
    members = rng.normal(size=(4, 5, 6)).astype(np.float32)
    support = pd.DataFrame({"n_support": 1, "fallback": ""}, index=range(5))
    prediction = Prediction(
        tuple("abcde"), tuple("uvwxyz"), members.mean(0), None, support, None, members
    )

    class Target:
        columns = np.array([1, 3])
        weights = np.array([1.5, 0.5])
        global_weight = 0.25

    u, scaled = target_uncertainty(prediction, 3, Target)
    v = members[:, :3].astype(float).var(axis=0, ddof=1)
    by_hand = 0.75 * (1.5 * v[:, 1] + 0.5 * v[:, 3]) / 2 + 0.25 * v.mean(axis=1)
    np.testing.assert_allclose(u, by_hand, rtol=1e-5)
    np.testing.assert_allclose(scaled.astype(float).var(axis=0, ddof=1).mean(axis=1), u, rtol=1e-5)


def replay(settings, strategy, seed=0, **protocol):
    config = parse({**settings, "protocol": {**settings["protocol"], **protocol}})
    world = make_world(config)
    unit = Curve(
        target="whole response",
        predictor="toy",
        strategy=strategy,
        initial=protocol.get("initial", 0),
        batch=config.protocol.batch[0],
        seed=seed,
    )
    made = Replay(
        world, unit, config.protocol, parts.load("strategy", strategy), lambda s: Toy(seed=s)
    )
    return made, made.run()


def test_the_bias_of_the_acquired_by_hand():
    acquired = np.array([[1.0, 9.0, 3.0], [3.0, 9.0, np.nan]], dtype=np.float32)
    heldout = np.array([[0.0, 9.0, 0.0], [-2.0, 9.0, 4.0]], dtype=np.float32)

    class Target:
        columns = np.array([0, 2])

    found = selection_bias(acquired, heldout, Target)
    assert found["mean_acquired"] == pytest.approx(7 / 3)
    assert found["mean_heldout"] == pytest.approx(0.5)
    assert found["size_acquired"] == pytest.approx(19 / 3)
    assert found["size_heldout"] == pytest.approx(5.0)
    # Means 2 and 3 of the acquired, -1 and 2 of the held-out.
    assert found["shift"] == pytest.approx(np.sqrt((9 + 1) / 2))


def test_a_run_tells_phases_and_bias(settings, tmp_path):
    run = play(parse(settings), tmp_path / "run")
    phases = run.read("phases.csv")
    assert set(phases["phase"]) == {"whole", "first half", "second half"}
    bias = run.read("bias.csv")
    assert set(bias["strategy"]) == {"random", "typiclust", "uncertainty"}
    assert len(bias) == 3 * 3
    assert (bias["shift"] > 0).all()
    page = write_page([run], tmp_path / "page.html").read_text()
    assert "Early and late" in page
    assert "How biased the acquired are" in page
    assert "second half" in write_markdown([run], tmp_path / "t.md").read_text()


def test_hits_are_the_strongest_in_the_target_and_are_counted_as_they_are_found(settings, tmp_path):
    names = tuple(f"G{i:02d}" for i in range(40))
    responses = np.zeros((40, 3), dtype=np.float32)
    responses[5, 0], responses[7, 0], responses[9, 1] = -3.0, 2.0, 50.0
    responses[5, 2] = np.nan

    class Target:
        columns = np.array([0, 2])

    # 5 % of 40; what is strong elsewhere is none, and a gap is not a zero.
    assert hit_names(names, responses, Target) == {"G05", "G07"}
    assert hit_names(names, np.zeros((40, 3), np.float32), Target) == frozenset()
    run = play(parse(settings), tmp_path / "run")
    hits = run.read("hits.csv")
    assert (hits.groupby(["strategy", "target"])["hit_ratio"].diff().dropna() >= 0).all()
    assert hits["hit_ratio"].between(0, 1).all()
    assert hits["batch_rate"].between(0, 1).all()
    assert "Hits found" in write_page([run], tmp_path / "page.html").read_text()


def test_who_looks_at_no_model_costs_no_prediction(settings):
    """The picks and errors stay; only the held-out are predicted."""
    asked = []

    class Counting(Toy):
        def predict(self, perturbations):
            asked.append(len(perturbations))
            return super().predict(perturbations)

    made, records = replay(settings, "random", rounds=2)
    unit, protocol = made.unit, made.protocol
    strategy = parts.load("strategy", "random")
    again = Replay(made.world, unit, protocol, strategy, lambda s: Counting(seed=s)).run()
    assert asked == [len(made.split.heldout)] * 2
    assert [r["picks"] for r in again] == [r["picks"] for r in records]


# -- predictors behind the loop -------------------------------------------------------------------


def test_around_marks_the_slope_of_a_named_feature_is_learned():
    """y = 2 m + noise in the feature that the mark names, and nothing in the other."""
    rng = np.random.default_rng(0)
    names = [f"P{i:02d}" for i in range(60)]
    marks = rng.integers(-3, 4, size=(60, 1)).astype(float)
    y = np.stack([2 * marks[:, 0] / 3, np.zeros(60)], axis=1) + 0.01 * rng.normal(size=(60, 2))
    screen = make_screen(y[:40], names[:40], ["12-heat shock", "cold"], context="K562")
    known = Knowledge(ratings=(Ratings.from_marks(names, ["heat_shock"], marks),))
    model = AroundMarks(parts.load("predictor", "training-mean")).fit(screen, known)
    assert model.slopes.keys() == {"12-heat shock"}
    assert 1.4 < model.slopes["12-heat shock"] < 2.0
    found = model.predict(names[40:]).mean
    error = np.mean((found[:, 0] - y[40:, 0]) ** 2)
    assert error < 0.1 * y[40:, 0].var()
    without = parts.load("predictor", "training-mean").fit(screen, known).predict(names[40:]).mean
    np.testing.assert_allclose(found[:, 1], without[:, 1], atol=1e-6)
    # Nothing is named: the inner predictor is left alone.
    other = make_screen(y[:40], names[:40], ["a", "b"], context="K562")
    assert not AroundMarks(parts.load("predictor", "training-mean")).fit(other, known).slopes


def test_kernel_ridge_can_be_centred_on_the_mean_of_the_acquired(simulated):
    """Far from everything measured the one says the mean, the other the level it estimates."""
    screen, folder, _ = simulated
    known, whole = Knowledge.open(folder), read_screen(screen)
    names = sorted(whole.perturbations)
    some = whole.of_perturbations(names[:12])
    joint = parts.load("predictor", "kernel-ridge").fit(some, known).predict(names[12:])
    around = parts.load("predictor", "kernel-ridge", constant=False)
    around = around.fit(some, known).predict(names[12:])
    zero = parts.load("predictor", "kernel-ridge", constant=False, centre="zero")
    zero = zero.fit(some, known).predict(names[12:])
    assert np.abs(zero.mean).mean() < np.abs(around.mean).mean()
    with pytest.raises(InputError, match="constant = false"):
        parts.load("predictor", "kernel-ridge", centre="zero")
    with pytest.raises(InputError, match="unknown centre"):
        parts.load("predictor", "kernel-ridge", constant=False, centre="median")
    mean = some.responses.mean(axis=0)
    assert np.abs(around.mean - mean).mean() < np.abs(joint.mean - mean).mean()


def test_held_out_is_shared_and_never_acquired(settings):
    a, first = replay(settings, "random")
    b, second = replay(settings, "uncertainty")
    assert a.split == b.split
    for records in (first, second):
        acquired = [p for r in records for p in r["picks"]]
        assert len(acquired) == len(set(acquired)) == 24
        assert not set(acquired) & set(a.split.heldout)
        assert [r["n_acquired"] for r in records] == [8, 16, 24]
    assert [r["picks"] for r in first] != [r["picks"] for r in second]
    # Cold start: without a model the first batch of an uncertainty strategy is the random one or
    # stated as a fallback.
    assert second[0]["fallback"] or second[0]["picks"]


def test_initial_set_is_shared_between_strategies(settings):
    _, first = replay(settings, "random", initial=6)
    made, second = replay(settings, "uncertainty", initial=6)
    assert first[0]["n_acquired"] == second[0]["n_acquired"] == 14
    start = stream("initial", 0).permutation(len(made.split.pool))[:6]
    initial = {made.split.pool[i] for i in start}
    for records in (first, second):
        assert not initial & {p for r in records for p in r["picks"]}


def test_measures_equal_an_independent_calculation(settings):
    made, records = replay(settings, "random")
    world = made.world
    acquired = sorted(p for r in records for p in r["picks"])
    model = Toy(seed=int(stream("predictor", 0, 3).integers(2**31 - 1)))
    model.fit(world.screen.of_perturbations(acquired), world.knowledge)
    mean = model.predict(made.split.heldout).mean
    truth = world.screen.of_perturbations(made.split.heldout).responses
    found = records[-1]["measures"]["whole response"]
    assert found["mse"] == pytest.approx(float(((mean - truth) ** 2).mean()), rel=1e-4)
    pearson = [np.corrcoef(t, p)[0, 1] for t, p in zip(truth, mean, strict=True)]
    assert found["pearson_delta"] == pytest.approx(float(np.mean(pearson)), rel=1e-4)
    base = world.screen.of_perturbations(acquired).responses.mean(axis=0)
    assert found["mse_mean"] == pytest.approx(float(((base - truth) ** 2).mean()), rel=1e-4)


def test_feature_weights_are_scaled_and_checked():
    from pertwise.benchmark.acquisition.config import TargetSpec

    spec = TargetSpec(name="x", weights={"a*": 3.0})
    np.testing.assert_allclose(feature_weights(spec, ["a1", "b"]), [1.5, 0.5])
    with pytest.raises(InputError, match="matches none"):
        feature_weights(TargetSpec(name="x", weights={"zz": 1.0}), ["a1", "b"])


def test_target_free_strategies_are_replayed_once(settings):
    values = {
        **settings,
        "targets": [{"name": "one"}, {"name": "two", "features": ["*"]}],
    }
    config = parse(values)
    found = curves(config, target_free(config))
    per_strategy = pd.Series([u.strategy for u in found]).value_counts()
    assert per_strategy["random"] == per_strategy["typiclust"] == 2
    assert per_strategy["uncertainty"] == 4
    keys = {u.key for u in AcquisitionTask(config).units()}
    assert len(keys) == len(found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategies": []}, "at least one strategy"),
        ({"protocol": {"heldout": 1.5}}, "protocol.heldout"),
        ({"typo": 1}, "typo"),
        ({"targets": [{"name": "a"}, {"name": "a"}]}, "must differ"),
    ],
)
def test_bad_settings_name_their_place(settings, change, message):
    with pytest.raises(InputError, match=message):
        parse({**settings, **change})


def test_missing_config_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_settings(tmp_path / "none.toml", AcquisitionConfig)
    bad = tmp_path / "bad.toml"
    bad.write_text("strategies = [")
    with pytest.raises(InputError, match="not valid TOML"):
        read_settings(bad, AcquisitionConfig)


def tables_of(folder):
    return {
        name: (folder / name).read_bytes()
        for name in ("differences.csv", "labels_needed.csv", "overlap.csv")
    } | {"rounds": pd.read_parquet(folder / "rounds.parquet").to_csv()}


def test_run_refuses_other_settings_and_a_second_start(settings, tmp_path):
    config = parse({**settings, "protocol": {"seeds": 1, "batch": 8, "rounds": 1}})
    play(config, tmp_path / "run", resume=False)
    with pytest.raises(InputError, match="--resume"):
        play(config, tmp_path / "run", resume=False)
    other = parse({**settings, "name": "other"})
    with pytest.raises(InputError, match="other settings"):
        play(other, tmp_path / "run", resume=True)


def test_processes_give_the_serial_result(settings, tmp_path):
    config = parse(settings)
    serial = play(config, tmp_path / "serial")
    parallel = play(config, tmp_path / "parallel", executor="processes", workers=2)
    assert tables_of(serial.folder) == tables_of(parallel.folder)


@pytest.mark.filterwarnings("ignore")
def test_dask_cluster_gives_the_serial_result(settings, tmp_path):
    distributed = pytest.importorskip("distributed")
    config = parse(
        {
            **settings,
            "strategies": ["random", "uncertainty"],
            "protocol": {"seeds": 2, "batch": 8, "rounds": 2},
        }
    )
    serial = play(config, tmp_path / "serial")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        other = play(config, tmp_path / "dask", executor="dask", address=cluster.scheduler_address)
    assert tables_of(serial.folder) == tables_of(other.folder)


SCRIPT = """
import sys
from pertwise.benchmark.acquisition.config import AcquisitionConfig
from pertwise.benchmark.acquisition.run import AcquisitionTask
from pertwise.benchmark.engine import run_task
config = AcquisitionConfig.model_validate_json(open(sys.argv[1]).read())
run_task(AcquisitionTask(config), sys.argv[2])
"""


def test_killed_five_times_gives_the_unbroken_result(settings, tmp_path):
    """kill -9 after a random number of finished rounds, five times; then to the end."""
    config = parse(settings)
    whole = play(config, tmp_path / "whole")
    (tmp_path / "config.json").write_text(config.model_dump_json())
    folder = tmp_path / "broken"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "config.json"), str(folder)]
    rng = np.random.default_rng(11)
    kills = 0
    for _ in range(5):
        before = len(list(folder.glob("units/*/round_*.json")))
        goal = before + int(rng.integers(1, 4))
        process = subprocess.Popen(command, env=env)
        while process.poll() is None:
            if len(list(folder.glob("units/*/round_*.json"))) >= goal:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                break
            time.sleep(0.002)
    assert kills == 5
    assert not (folder / "rounds.parquet").exists()
    subprocess.run(command, env=env, check=True)
    assert tables_of(whole.folder) == tables_of(folder)
    assert json.loads((folder / "run.json").read_text())["settings"]["name"] == "acquisition"


def test_a_strategy_that_fails_is_replaced_by_random_and_told(settings, tmp_path, monkeypatch):
    """It stays in the score: random picks in the rounds that are left, said in a note."""
    from pertwise.acquire.strategies.typiclust import TypiClust

    real = TypiClust.choose

    def choose(self, state, n):
        if state.round == 2:
            raise InputError("nothing left to cluster")
        return real(self, state, n)

    monkeypatch.setattr(TypiClust, "choose", choose)
    config = parse({**settings, "strategies": ["random", "typiclust"]})
    run = play(config, tmp_path / "run")
    assert len(run.failed) == 2
    assert all("nothing left to cluster" in f["error"] for f in run.failed)
    assert all("random picks stand in" in n for n in run.notes if "nothing left" in n)
    picks = run.read("picks.parquet").query("strategy == 'typiclust'")
    assert (picks["fallback"] == (picks["round"] >= 2)).all()
    assert sorted(set(picks["round"])) == [1, 2, 3]
    again = play(config, tmp_path / "run")
    assert again.failed == run.failed
