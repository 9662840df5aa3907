import json

import numpy as np
import pandas as pd
import pytest
from drug_example import LINES, cell_table, drug_frame, drug_screen

from pertwise.benchmark.engine import run_task
from pertwise.benchmark.prediction.clusters import summarise
from pertwise.benchmark.prediction.regimes import RegimesConfig, RegimesTask
from pertwise.config import check_settings, read_settings
from pertwise.errors import InputError
from pertwise.evaluate.plates import centre_within, plate_confounding
from pertwise.evaluate.row_scores import allowed_metrics, score_rows, top_variable
from pertwise.evaluate.score import score_predictions
from pertwise.evaluate.statistics import cluster_interval
from pertwise.kernels.known import merged_lists
from pertwise.models.external import ExternalPredictor, read_external
from pertwise.report.drug_bench import regimes
from pertwise.report.page import Page
from pertwise.screen.core import Screen, make_obs

SCREEN = drug_screen()


@pytest.fixture
def folder(tmp_path):
    """A bench folder: screen, drug table, cell facts, recorded lists (all simulated or public)."""
    SCREEN.save(tmp_path / "screen.h5ad")
    drug_frame().to_parquet(tmp_path / "drugs.parquet")
    names = list(SCREEN.perturbations)
    answers = {
        n: {"mechanism": "test note", "neighbours": [m for m in names if m != n][:5]} for n in names
    }
    (tmp_path / "lists.json").write_text(json.dumps({"model": "a test", "answers": answers}))
    lines = [
        {"cell_name": c.name, "Organ": c.organ, "Cell_ID_Cellosaur": c.ids[0],
         "Driver_Gene_Symbol": c.drivers[0][0]}
        for c in cell_table().lines.values()
    ]  # fmt: skip
    pd.DataFrame(lines).to_csv(tmp_path / "cells.csv", index=False)
    return tmp_path


def config(**changes):
    data = {
        "name": "test", "signatures": "screen.h5ad", "drugs": ["drugs.parquet"],
        "cells": "cells.csv", "lists": "lists.json", **changes.pop("data", {}),
    }  # fmt: skip
    return {"data": data, "n_folds": 3, "k": 3, **changes}


def load(given, folder):
    place = lambda name: str(folder / name)  # noqa: E731
    return RegimesTask(check_settings(given, RegimesConfig, place=place))


def run_bench(task, out=None):
    return run_task(task, out).table


def read_config(path):
    return read_settings(path, RegimesConfig)


# -- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mse", "mae", "slope", "r2", "squared_error"])
def test_magnitude_metrics_are_refused_by_name_for_ranks(name):
    with pytest.raises(InputError, match=f"metric '{name}' compares magnitudes"):
        allowed_metrics(SCREEN, [name])


def test_magnitudes_allow_all_metrics():
    plain = drug_screen(ranked=False)
    assert {"mse", "mae", "slope", "r2"} <= set(allowed_metrics(plain))
    assert not {"mse", "mae", "slope", "r2"} & set(allowed_metrics(SCREEN))
    with pytest.raises(InputError, match="unknown metric"):
        allowed_metrics(plain, ["accuracy"])


def test_scores_by_hand():
    truth = np.array([[1.0, 2.0, 3.0, np.nan]])
    guess = np.array([[1.0, 2.0, 4.0, 9.0]])
    reference = np.array([[1.0, 1.0, 1.0, 1.0]])
    out = score_rows(truth, guess, reference, ["pearson_reference", "mse", "direction_accuracy"])
    assert out["mse"][0] == pytest.approx(1 / 3)
    assert out["direction_accuracy"][0] == 1.0
    expected = np.corrcoef([0, 1, 2], [0, 1, 3])[0, 1]
    assert out["pearson_reference"][0] == pytest.approx(expected)
    same = score_rows(truth, reference, reference, ["pearson_reference"])
    assert same["pearson_reference"][0] == 0.0
    top = score_rows(
        truth, guess, reference, ["mse"], {"_top2": np.array([True, True, False, False])}
    )
    assert top["mse_top2"][0] == 0.0


def test_one_meaning_of_a_score_that_is_not_defined():
    """The truth leaves it open: NaN for every method. Only the prediction does: no information."""
    rng = np.random.default_rng(0)
    truth = np.vstack([rng.normal(size=6), np.full(6, np.nan), np.full(6, 2.0), np.zeros(6)])
    guess, flat = rng.normal(size=(4, 6)), np.full((4, 6), 0.5)
    names = ["pearson_delta", "pearson_reference", "cosine", "r2"]
    reference = np.tile(rng.normal(size=6), (4, 1))
    good = score_rows(truth, guess, reference, names)
    bad = score_rows(truth, flat, reference, names)
    assert good["pearson_delta"].isna().tolist() == [False, True, True, True]
    assert bad["pearson_delta"].isna().tolist() == [False, True, True, True]
    assert bad["pearson_delta"][0] == 0.0
    assert good["cosine"].isna().tolist() == [False, True, False, True]
    genes = score_predictions(
        truth, flat, perturbations=list("abcd"), reference=reference, retrieval_distances=()
    )
    for name in names:
        np.testing.assert_array_equal(genes.values[name].to_numpy(), bad[name].to_numpy())


def test_magnitudes_are_left_out_of_the_scores_of_ranks():
    t = np.random.default_rng(0).normal(size=(3, 30))
    columns = score_predictions(
        t, t, perturbations=list("abc"), tops=(5,), ranked=True
    ).values.columns
    assert not [c for c in columns if c.startswith(("mse", "mae", "r2", "slope", "squared"))]
    assert {"pearson_delta", "cosine_top5"} <= set(columns)


def test_top_variable_uses_training_rows_and_ignores_nan():
    y = np.array([[0.0, 5.0, 1.0], [0.0, -5.0, np.nan], [0.0, 0.0, 1.5]], dtype=np.float32)
    screen = Screen(
        y, make_obs(["a", "b", "c"]), ("f", "g", "h"), np.full((1, 3), np.nan, np.float32)
    )
    assert top_variable(screen, 1).tolist() == [False, True, False]
    assert top_variable(screen, 2).tolist() == [False, True, True]
    with pytest.raises(InputError, match="top 9"):
        top_variable(screen, 9)


def test_cluster_interval_is_wider_when_signatures_repeat_a_compound():
    rng = np.random.default_rng(0)
    effect = np.repeat(rng.normal(size=10), 20)
    clusters = [f"c{i // 20}" for i in range(200)]
    whole = cluster_interval(effect, clusters, np.random.default_rng(1))
    alone = cluster_interval(effect, [str(i) for i in range(200)], np.random.default_rng(1))
    assert whole.n == 10
    assert whole.mean == pytest.approx(effect.mean()) == pytest.approx(alone.mean)
    assert whole.high - whole.low > 2 * (alone.high - alone.low)
    weighted = cluster_interval([1.0, 3.0, np.nan], ["a", "b", "c"], rng, weights=[3.0, 1.0, 9.0])
    assert weighted.mean == pytest.approx(1.5)
    assert np.isnan(cluster_interval([np.nan], ["a"], rng).mean)


def plated(shift=2.0):
    """Two plates a line; every drug of a plate carries the plate's own profile. Simulated."""
    rng = np.random.default_rng(0)
    names = [f"d{i}" for i in range(8)]
    rows, obs_lines, plates = [], [], []
    for line in ("X", "Y"):
        profile = {p: shift * rng.normal(size=30) for p in ("p1", "p2")}
        for i, _ in enumerate(names):
            plate = "p1" if i < 4 else "p2"
            rows.append(rng.normal(size=30) + profile[plate])
            obs_lines.append(line)
            plates.append(plate)
    obs = make_obs(names * 2, context=obs_lines)
    obs["plates"] = plates
    return Screen(
        np.array(rows, np.float32), obs, tuple(f"f{i}" for i in range(30)),
        np.full((2, 30), np.nan, np.float32),
    )  # fmt: skip


def test_plate_effect_is_measured_and_centring_removes_it():
    screen = plated()
    found = plate_confounding(screen, "plates")
    assert found["within"] - found["between"] > 0.8
    assert found["share"] > 0.5 > found["share_by_chance"]
    centred, left_out = centre_within(screen, "plates")
    assert left_out == 0
    after = plate_confounding(centred, "plates")
    assert after["share"] < 1e-6
    assert centred.meta["centred_within"] == ["context", "plates"]
    block = centred.responses[(centred.obs["plates"] == "p1") & (centred.obs["context"] == "X")]
    np.testing.assert_allclose(block.mean(axis=0), 0, atol=1e-6)
    none = plate_confounding(plated(0.0), "plates")
    assert abs(none["share"] - none["share_by_chance"]) < 0.1
    with pytest.raises(InputError, match="no column"):
        plate_confounding(screen, "batch")
    with pytest.raises(InputError, match="has 9 rows"):
        centre_within(screen, "plates", least=9)
    with pytest.raises(InputError, match="nothing can be confounded"):
        plate_confounding(screen.take((screen.obs["plates"] == "p1").to_numpy()), "plates")


# -- the bench ------------------------------------------------------------------------------------


def test_every_method_in_every_regime_answers_every_row(folder):
    bench = load(config(regimes=["compound", "context", "scaffold"]), folder)
    assert {"fused", "LGR", "hybrid", "multi-kernel", "PCA + ridge"} <= {
        m.label for m in bench.methods
    }
    table = run_bench(bench)
    counts = table.groupby(["regime", "method"]).size()
    assert set(counts) == {len(SCREEN)}
    metrics = ["pearson_reference", "pearson_delta", "cosine", "direction_accuracy"]
    assert table[metrics].notna().all().all()
    assert (table.loc[table["method"] == "context mean", "pearson_reference"] == 0).all()
    summary = summarise(table, n_resamples=200)
    own = summary[(summary["regime"] == "compound") & (summary["metric"] == "pearson_delta")]
    own = own.set_index("method")
    assert own.loc["multi-kernel", "difference"] > 0, "responses follow the mechanism"
    assert own.loc["context mean", "difference"] == 0
    assert own.loc["perturbation mean", "coverage"] == 0, "an unseen drug has no mean of its own"
    assert own["n_clusters"].eq(11).all(), "two names are one compound"
    lines = summary[summary["regime"] == "context"]
    assert lines["n_clusters"].eq(len(LINES)).all()
    page = Page("")
    regimes(page, summary, ["pearson_delta"])
    text = page.markdown()
    assert "| multi-kernel | " in text
    assert "48 signatures, 11 compounds" in text


def test_a_second_run_reads_the_parts_and_settings_change_them(folder):
    first = load(config(regimes=["compound"], methods=["context mean", "LGR"]), folder)
    out = folder / "out"
    table = run_bench(first, out)
    parts = sorted((out / "units").glob("*.json"))
    assert len(parts) == 6
    stamps = [p.stat().st_mtime_ns for p in parts]
    parts[0].unlink()
    again = run_bench(first, out)
    pd.testing.assert_frame_equal(table, again)
    assert [p.stat().st_mtime_ns for p in sorted((out / "units").glob("*.json"))][1:] == stamps[1:]
    other = load(config(regimes=["compound"], methods=["LGR"], k=2), folder)
    run_bench(other, out)
    assert len(list((out / "units").glob("*.json"))) == 9
    run_task(first, out).page(out / "report.html")
    run = json.loads((out / "run.json").read_text())
    assert run["notes_on_data"]["duplicates"] == [["Salicylic acid", "Sodium salicylate"]]
    assert run["notes_on_data"]["lists_source"] == "recorded answers: a test"
    assert set(run["inputs"]) == {"signatures", "drugs 1", "cells", "lists"}
    assert {"scores.parquet", "summary.csv", "report.md"} <= {p.name for p in out.iterdir()}


def test_duplicates_can_be_left_out(folder):
    bench = load(config(drop_duplicates=True), folder)
    assert "Salicylic acid" not in bench.opened.screen.perturbations
    assert len(bench.opened.screen.perturbations) == 10


def test_config_errors_name_the_entry(folder):
    path = folder / "c.toml"
    path.write_text('[data]\nname = "x"\nsignatures = "s"\ndrugs = []\nfoo = 1\n')
    with pytest.raises(InputError, match=r"c.toml: data.foo"):
        read_config(path)
    path.write_text("regimes = [")
    with pytest.raises(InputError, match="not valid TOML"):
        read_config(path)
    with pytest.raises(InputError, match="no such file"):
        read_config(folder / "none.toml")
    with pytest.raises(InputError, match="unknown predictor 'fuse'; did you mean"):
        load(config(methods=["fuse"]), folder).units()
    with pytest.raises(InputError, match="metric 'mse' compares magnitudes"):
        load(config(metrics=["mse"]), folder).units()


def test_methods_are_chosen_by_what_they_need(folder):
    task = load(config(data={"lists": None}), folder)
    assert "LGR" not in {m.label for m in task.methods}
    with pytest.raises(InputError, match="'fused' needs lists of a chat model, or marks,"):
        task.method("fused")
    frame = drug_frame().drop(columns="smiles")
    frame.to_parquet(folder / "drugs.parquet")
    task = load(config(methods=["chemistry kNN"]), folder)
    with pytest.raises(InputError, match="'chemistry kNN' needs chemistry, which"):
        task.units()
    assert "multi-kernel" in {m.label for m in load(config(), folder).methods}


def test_a_drug_whose_structure_is_unreadable_stays_in_the_score(folder):
    frame = drug_frame()
    frame.loc[frame["drug"] == "Caffeine", "smiles"] = "C1CC"
    frame = frame[frame["drug"] != "Ethanol"]
    frame.to_parquet(folder / "drugs.parquet")
    settings = config(regimes=["compound"], methods=["chemistry kNN", "PCA + ridge"])
    bench = load(settings, folder)
    assert "not SMILES syntax" in bench.opened.notes["no_structure"]["Caffeine"]
    assert bench.opened.notes["not_in_drug_tables"] == ["Ethanol"]
    table = run_bench(bench)
    assert table.groupby("method").size().eq(len(SCREEN)).all()
    odd = table[table["drug"].isin(["Caffeine", "Ethanol"])]
    assert odd["fallback"].str.contains("context mean").all()
    assert not table[~table["drug"].isin(["Caffeine", "Ethanol"])]["fallback"].any()


def test_predictions_of_another_tool(folder):
    """The truth itself as "predictions" scores 1; rows it lacks fall back, stated."""
    rows = SCREEN.take(np.arange(len(SCREEN) - 5))
    frame = pd.DataFrame(np.nan_to_num(rows.responses), columns=list(SCREEN.features))
    frame.insert(0, "drug", list(rows.obs["perturbation"]))
    frame.insert(1, "cell_line", list(rows.obs["context"]))
    frame.to_parquet(folder / "other.parquet")
    settings = config(
        regimes=["compound"], methods=["context mean"],
        external=[{"name": "perfect", "file": "other.parquet", "regime": "compound"}],
    )  # fmt: skip
    table = run_bench(load(settings, folder))
    own = table[table["method"] == "perfect"]
    assert (own["fallback"] != "").sum() == 5
    assert own.loc[own["fallback"] == "", "pearson_delta"].min() > 0.99
    assert own.loc[own["fallback"] != "", "pearson_reference"].eq(0).all()
    rows.to_anndata().write_h5ad(folder / "other.h5ad")
    external = read_external(folder / "other.h5ad", SCREEN, rank=True)
    assert external.n_features == SCREEN.n_features
    frame.rename(columns={"drug": "x"}).to_parquet(folder / "bad.parquet")
    with pytest.raises(InputError, match="needs a column of perturbations"):
        read_external(folder / "bad.parquet", SCREEN)
    pd.concat([frame, frame[:1]]).to_parquet(folder / "twice.parquet")
    with pytest.raises(InputError, match="predicted twice"):
        read_external(folder / "twice.parquet", SCREEN)
    frame[["drug", "cell_line"]].assign(z=1.0).to_parquet(folder / "none.parquet")
    with pytest.raises(InputError, match="none of its 1 features"):
        read_external(folder / "none.parquet", SCREEN)


def test_predictions_of_another_tool_for_genes(tmp_path):
    """One context: the file needs no column of contexts; any benchmark takes it by name."""
    from pertwise import parts
    from pertwise.screen import make_screen

    screen = make_screen(np.eye(3), ["A", "B", "C"], ["f", "g", "h"])
    frame = pd.DataFrame({"gene": ["B"], "g": [2.0], "f": [1.0]})
    frame.to_csv(tmp_path / "theirs.csv", index=False)
    model = parts.load("predictor", f"external:{tmp_path / 'theirs.csv'}").fit(screen.hide(["B"]))
    assert isinstance(model, ExternalPredictor)
    found = model.predict(["B", "D"])
    np.testing.assert_allclose(found.mean, [[1.0, 2.0, 0.5], [0.5, 0.0, 0.5]])
    assert found.support["fallback"].tolist() == ["", "not in theirs.csv: context mean"]
    with pytest.raises(InputError, match="no such file"):
        parts.load("predictor", "external:none.csv")


@pytest.mark.shared
def test_fused_beats_cell_mean_and_lgr_on_real_signatures(shared_data):
    """One fifth of the compounds of Open Problems 2023; the lists are one model's real answers."""
    settings = {
        "data": {
            "name": "neurips2023",
            "signatures": "drugs/neurips2023_ranks_uint16.npz",
            "obs": "drugs/neurips2023_obs.parquet",
            "drugs": ["drugs/neurips2023_obs.parquet"],
            "lists": "llm/lgr_neurips2023.json.gz",
        }
    }
    bench = load(settings, shared_data)
    train, test = bench.splits_of("compound", 0)[0].of(bench.opened.screen)
    means = {}
    for name in ("context mean", "LGR", "fused"):
        model = bench.method(name).build().fit(train, bench.opened.knowledge)
        rows = []
        for line in test.contexts:
            own = test.in_context(line)
            centre = bench.method("context mean").build().fit(train, bench.opened.knowledge)
            drugs = list(own.obs["perturbation"])
            rows.append(
                score_rows(
                    own.responses,
                    model.predict(drugs, line).mean,
                    centre.predict(drugs, line).mean,
                    ["pearson_reference", "pearson_delta", "direction_accuracy"],
                )
            )
        means[name] = pd.concat(rows).mean()
    assert (means["fused"] > means["context mean"]).all()
    assert (means["fused"] > means["LGR"]).all()


def test_lists_given_per_line_are_merged_by_reciprocal_rank():
    lists = {
        "A549\tq": (("a", "b"), ""),
        "MCF7\tq": (("c", "b"), ""),
        "r": (("a",), ""),
    }
    merged = merged_lists(lists)
    assert merged == {"q": ("a", "b", "c"), "r": ("a",)}


def test_weighting_by_effect_size():
    table = pd.DataFrame(
        {"data": "x", "regime": "compound", "seed": 0, "fold": 0, "method": "context mean",
         "drug": ["a", "b"], "context": "X", "compound": ["a", "b"], "effect": [3.0, 1.0],
         "n_support": 1, "fallback": "", "pearson_delta": [1.0, 0.0]}
    )  # fmt: skip
    assert summarise(table, n_resamples=50)["mean"].tolist() == [0.5]
    assert summarise(table, weight="effect", n_resamples=50)["mean"].tolist() == [0.75]
