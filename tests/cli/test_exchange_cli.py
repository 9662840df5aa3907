"""`bench external`, `bench calibrate`, three settings and other tools' splits, as typed."""

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import pertwise as pw
from pertwise.cli.main import app
from pertwise.screen.simulate_cells import simulate_cells

RUNNER = CliRunner()


def told(*arguments):
    done = RUNNER.invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    simulation = pw.simulate(
        1, n_perturbations=32, n_features=30, n_pathways=4, contexts=("LineA", "LineB", "LineC")
    )
    screen = simulation.screen
    screen.save(folder / "several.h5ad")
    one = screen.in_context("LineA")
    one.save(folder / "one.h5ad")
    names = sorted(one.perturbations)
    asked = one.of_perturbations(names[:10])
    table = pd.DataFrame(np.asarray(asked.responses), columns=list(asked.features))
    table.insert(0, "gene", [f"{n}+ctrl" for n in asked.obs["perturbation"]])
    table.to_csv(folder / "truth.csv", index=False)
    table.iloc[:8].to_parquet(folder / "fewer.parquet")
    return folder, names


def test_other_tools_meet_in_one_table(world):
    folder, names = world
    learned = pw.read_screen(folder / "one.h5ad").hide(names[:10])
    pw.predict(learned, names[:10], method="training-mean", folds=0).write(
        folder / "ours", column="condition"
    )
    out = folder / "external"
    said = told(
        "bench", "external", folder / "truth.csv", folder / "ours" / "prediction.h5ad",
        folder / "fewer.parquet", "--screen", folder / "one.h5ad", "--out", out,
    )  # fmt: skip
    assert "SIMULATED" in said
    results = pd.read_parquet(out / "results.parquet")
    # What all of them predict, learned from the rest.
    assert set(results["perturbation"]) == set(names[:8])
    assert set(results["n_train"]) == {24}
    assert set(results["method"]) == {"context mean", "truth.csv", "prediction.h5ad",
                                      "fewer.parquet"}  # fmt: skip
    wide = results.pivot_table(
        index="perturbation", columns=["method", "metric"], values="value", observed=True
    )
    np.testing.assert_allclose(wide["truth.csv", "cosine"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(wide["truth.csv", "squared_error"], 0.0, atol=1e-9)
    assert (out / "comparisons.csv").is_file()
    assert (out / "report.html").is_file()


def test_three_settings_on_one_page(world):
    folder, _ = world
    out = folder / "three"
    told(
        "bench", "prediction", "--screen", folder / "several.h5ad", "--method", "context-mean",
        "--method", "additive-contexts", "--regime", "three-settings", "--folds", 3, "--shuffles",
        1, "--out", out,
    )  # fmt: skip
    summary = pd.read_csv(out / "summary.csv")
    settings = {
        "perturbation unseen anywhere", "unseen line", "unseen line, perturbation unseen anywhere",
    }  # fmt: skip
    assert set(summary["setting"]) == settings
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(s in page for s in settings)


def test_splits_of_pie_from_the_command_line(world):
    folder, names = world
    for setting, held in (("unseen_ctx", names[10:]), ("unseen_ctx_pert", names[:10])):
        place = folder / "pie" / setting
        place.mkdir(parents=True)
        train = {f"sim.{c}": names[10:] for c in ("lineb", "linec")}
        (place / "train.json").write_text(json.dumps(train))
        (place / "test.json").write_text(json.dumps({"sim.linea": held}))
    out = folder / "pie_out"
    told(
        "bench", "prediction", "--screen", folder / "several.h5ad", "--method", "context-mean",
        "--folds-from", folder / "pie" / "unseen_ctx", "--folds-from",
        folder / "pie" / "unseen_ctx_pert" / "test.json", "--out", out,
    )  # fmt: skip
    results = pd.read_parquet(out / "results.parquet")
    seen = results.groupby("setting", observed=True)["perturbation"].agg(set)
    assert seen["unseen line"] == set(names[10:])
    assert seen["unseen line, perturbation unseen anywhere"] == set(names[:10])
    assert set(results["n_train"]) == {2 * len(names[10:])}


def test_calibration_as_a_table(world, tmp_path):
    simulation = pw.simulate(0, n_perturbations=32, n_features=30, n_pathways=2, mean_cells=80)
    simulate_cells(simulation, 0, max_cells=40).write_h5ad(tmp_path / "cells.h5ad")
    said = told(
        "bench", "calibrate", tmp_path / "cells.h5ad", "--min-cells", 20, "--out",
        tmp_path / "table.csv",
    )  # fmt: skip
    assert "technical duplicate" in said
    table = pd.read_csv(tmp_path / "table.csv").set_index("metric")
    assert table["bds"].between(0, 1).all()
    assert table["drf"].between(-1, 1).all()
    assert table.loc["retrieval_heldout_l2", "bds"] > 0.5
    refused = RUNNER.invoke(
        app, ["bench", "calibrate", str(tmp_path / "cells.h5ad"), "--values", "means"]
    )
    assert "--values: not used here" in str(refused.exception)


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (["--folds-from", "pie", "--folds", "3"], "--folds"),
        (["--folds-from", "pie", "--regime", "both"], "--regime"),
        (["--folds-from", "pie", "--train-size", "9"], "--train-size"),
        (["--regime", "both", "--train-size", "9"], "--train-size"),
    ],
)
def test_two_ways_to_say_who_is_held_out_are_refused(world, given, refused):
    folder, _ = world
    call = ["bench", "prediction", "--screen", str(folder / "several.h5ad")]
    done = RUNNER.invoke(app, [*call, "--method", "context-mean", *given])
    assert done.exit_code != 0
    assert f"{refused}: not used here" in str(done.exception)
