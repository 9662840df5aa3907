"""Where scores lie between known answers, by hand and on cells whose truth is known."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError
from pertwise.evaluate.auroc import de_auprc, de_auroc
from pertwise.evaluate.cell_halves import read_halves
from pertwise.evaluate.metric_calibration import (
    bound_discrimination,
    calibrate,
    calibrate_cells,
    dynamic_range_fraction,
    scaled_score,
)
from pertwise.evaluate.score import score_predictions


def test_dynamic_range_fraction_by_hand():
    high = dynamic_range_fraction([0.8, 0.1, 0.5], [0.2, 0.2, 1.2], perfect=1.0, better="high")
    np.testing.assert_allclose(high, [0.75, -0.125, np.nan], atol=1e-5)
    low = dynamic_range_fraction([1.0, 9.0, 1.0], [4.0, 4.0, np.nan], perfect=0.0, better="low")
    np.testing.assert_allclose(low, [0.75, -1.0, np.nan], atol=1e-5)


def test_bound_discrimination_counts_ties_as_lost():
    assert list(bound_discrimination([1, 2, 3], [2, 2, 2], better="high")) == [0, 0, 1]
    assert list(bound_discrimination([1, 2, 3], [2, 2, 2], better="low")) == [1, 0, 0]


def test_scaled_scores_by_hand():
    assert scaled_score(0.7, 0.5, 0.9) == pytest.approx(0.5)
    assert scaled_score(0.95, 0.5, 0.9) == pytest.approx(1.125)
    assert scaled_score(0.95, 0.5, 0.9, high=1.0) == 1.0
    # Errors: half of the baseline's on the way to 0; twice the baseline's is -(4 - 1) / 2.
    assert scaled_score(1.0, 2.0, 0.0) == pytest.approx(0.5)
    assert scaled_score(4.0, 2.0, 0.0) == pytest.approx(-1.0)
    assert scaled_score(4.0, 2.0, 0.0, tail="boxcox") == pytest.approx(-1.5)
    assert scaled_score(400.0, 2.0, 0.0, tail="boxcox") == -6.0
    assert scaled_score(float("nan"), 2.0, 0.0, tail="boxcox") == -6.0
    assert scaled_score(float("nan"), 0.5, 1.0, low=0.0) == 0.0
    with pytest.raises(InputError, match="no scale"):
        scaled_score(0.1, 0.5, 0.5)


def test_areas_of_differential_features_by_hand():
    score = np.array([[-4.0, 3.0, 2.0, 1.0]])
    true = np.array([[True, False, True, False]])
    # Found at ranks 1 and 3: precision 1 and 2/3.
    assert de_auprc(score, true)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert de_auroc(score, true)[0] == pytest.approx(0.75)
    # Equal scores enter together: precision is the share of the true ones, AUROC a half.
    flat = np.ones((1, 4))
    assert de_auprc(flat, true)[0] == pytest.approx(0.5)
    assert de_auroc(flat, true)[0] == pytest.approx(0.5)
    keep = np.array([[True, False, True, True]])
    assert de_auprc(score, true, keep)[0] == pytest.approx(1.0)
    assert np.isnan(de_auprc(score, np.ones((1, 4), bool))[0])
    assert np.isnan(de_auroc(score, np.zeros((1, 4), bool))[0])
    with pytest.raises(InputError, match="must agree"):
        de_auprc(score, true[:, :3])


def test_areas_stand_in_the_table_where_significance_is_known():
    rng = np.random.default_rng(0)
    t = rng.normal(size=(6, 12))
    p = t + rng.normal(size=t.shape)
    called = np.abs(t) > 1
    found = score_predictions(t, p, perturbations=list("ABCDEF"), significant=called).values
    np.testing.assert_allclose(found["de_auprc"], de_auprc(p, called))
    np.testing.assert_allclose(found["de_auroc"], de_auroc(p, called))
    assert "de_auprc" not in score_predictions(t, p, perturbations=list("ABCDEF")).values


def test_a_metric_that_tells_and_one_that_does_not():
    good = pd.DataFrame({"cosine": [0.9, 0.8], "mse": [1.0, 1.0], "slope": [0.9, 1.1]})
    bad = pd.DataFrame({"cosine": [0.0, 0.0], "mse": [1.0, 1.0], "slope": [0.0, 2.0]})
    table = calibrate(good, bad).set_index("metric")
    assert table.loc["cosine", "drf"] == pytest.approx(0.85, abs=1e-5)
    assert table.loc["mse", "drf"] == pytest.approx(0.0, abs=1e-5)
    assert table.loc["slope", "drf"] == pytest.approx(0.9, abs=1e-5)
    assert list(table["bds"]) == [1.0, 1.0, 0.0]
    assert table.index[-1] == "mse"


@pytest.fixture(scope="module")
def cells():
    """Five perturbations with responses of their own and one without any, 80 cells each."""
    rng = np.random.default_rng(1)
    effect = np.vstack([rng.normal(0, 0.8, (5, 30)), np.zeros((1, 30))])
    names = [*"ABCDE", "control"]
    labels = np.repeat(names, 80)
    rate = np.exp(rng.normal(2, 0.5, 30) + effect)
    counts = rng.poisson(np.repeat(rate, 80, axis=0)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": labels}, index=[f"c{i}" for i in range(len(labels))])
    return ad.AnnData(counts, obs, pd.DataFrame(index=[f"f{i}" for i in range(30)]))


def test_halves_are_of_all_cells_and_disjoint(cells):
    found = read_halves(cells, seed=3)
    x = np.log1p(cells.X / cells.X.sum(axis=1, keepdims=True) * 1e4)
    labels = cells.obs["perturbation"].to_numpy()
    base = x[labels == "control"].mean(axis=0)
    for i, name in enumerate(found.perturbations):
        whole = x[labels == name].mean(axis=0) - base
        np.testing.assert_allclose((found.first[i] + found.second[i]) / 2, whole, atol=1e-4)
    assert not np.allclose(found.first, found.second)
    again = read_halves(cells, seed=4)
    assert not np.allclose(found.first, again.first)


def test_on_strong_effects_metrics_tell_the_duplicate_from_the_mean(cells):
    table = calibrate_cells(cells).set_index("metric")
    for metric in ("cosine", "mse", "retrieval_heldout_l2", "pearson_reference"):
        assert table.loc[metric, "bds"] >= 0.8
        assert table.loc[metric, "drf"] > 0.6
    # Shuffled labels hold nothing to tell.
    blind = cells.copy()
    own = blind.obs["perturbation"].to_numpy() != "control"
    mixed = blind.obs["perturbation"].to_numpy().astype(object)
    mixed[own] = np.random.default_rng(0).permutation(mixed[own])
    blind.obs["perturbation"] = mixed
    assert calibrate_cells(blind).set_index("metric").loc["pearson_reference", "drf"] < 0.5


def test_distances_of_cells_tell_the_duplicate_from_cells_of_others(cells):
    table = calibrate_cells(cells).set_index("metric")
    for metric in ("energy_distance", "mmd"):
        row = table.loc[metric]
        assert row["better"] == "low"
        assert row["n"] == 5
        assert abs(row["positive"]) < 0.1 * row["negative"]
        assert row["drf"] > 0.8
        assert row["bds"] == 1.0
    calls = table.loc[["de_sig_jaccard", "de_direction_yield", "de_direction_reach"]]
    assert (calls["positive"] > calls["negative"]).all()
    assert table.loc["de_lfc_error", "positive"] < 0.6 < table.loc["de_lfc_error", "negative"]


def test_a_sample_of_cells_is_of_its_own_half(cells):
    found = read_halves(cells, seed=3, sample=1000)
    x = found.cells.toarray()
    base = np.log1p(cells.X / cells.X.sum(axis=1, keepdims=True) * 1e4)
    base = base[cells.obs["perturbation"].to_numpy() == "control"].mean(axis=0)
    for i in range(5):
        for half, mean in ((0, found.first), (1, found.second)):
            own = x[found.half_of == 2 * i + half]
            assert len(own) == 40
            np.testing.assert_allclose(own.mean(axis=0) - base, mean[i], atol=1e-4)
    few = read_halves(cells, seed=3, sample=7, sampled=2)
    assert sorted(np.bincount(few.half_of)[np.bincount(few.half_of) > 0]) == [7, 7, 7, 7]
    assert read_halves(cells).cells.shape[0] == 0


def test_too_few_perturbations_or_no_control_are_told(cells):
    with pytest.raises(InputError, match="three are needed"):
        calibrate_cells(cells, min_cells=100)
    with pytest.raises(InputError, match="no control"):
        calibrate_cells(cells[cells.obs["perturbation"] != "control"].copy())
