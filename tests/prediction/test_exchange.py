"""prediction.h5ad: names by choice, read back by pertwise in all three ways it reads."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import pertwise as pw
from pertwise.errors import InputError
from pertwise.models.external import read_external
from pertwise.screen import make_screen

NAMES = ("X1", "A+B", "G3")


@pytest.fixture(scope="module")
def screen():
    rng = np.random.default_rng(0)
    return make_screen(
        rng.normal(size=(12, 6)), [f"G{i}" for i in range(12)], [f"f{i}" for i in range(6)],
        context="K562", control_mean=rng.uniform(1, 2, (1, 6)),
        meta={"control": ["NTC"], "unit": "log1p", "simulated": True},
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(screen):
    return pw.predict(screen, list(NAMES), method="training-mean", folds=0)


LAYOUTS = [
    ({}, "perturbation", "NTC"),
    ({"control": "vehicle"}, "perturbation", "vehicle"),
    ({"column": "condition"}, "condition", "ctrl"),
    ({"column": "target_gene", "values": "means"}, "target_gene", "non-targeting"),
    ({"column": "gene", "values": "means"}, "gene", "NTC"),
]


@pytest.mark.parametrize(("layout", "column", "control"), LAYOUTS)
def test_every_layout_reads_back_as_the_same_prediction(
    screen, found, tmp_path, layout, column, control
):
    file = found.write(tmp_path, **layout)["prediction.h5ad"]
    data = ad.read_h5ad(file)
    assert data.obs.columns[0] == column
    assert data.obs[column].iloc[-1] == control
    assert list(data.obs["is_control"]) == [False, False, False, True]
    assert list(data.var_names) == list(screen.features)
    base = screen.control_mean[0] if layout.get("values") == "means" else np.zeros(6)
    np.testing.assert_allclose(data.X, np.vstack([found.prediction.mean + base, base]), rtol=1e-6)
    # A prediction again, with its spread and support.
    again = pw.read_prediction(file)
    assert again.perturbations == NAMES
    np.testing.assert_allclose(again.mean, found.prediction.mean, atol=1e-6)
    np.testing.assert_array_equal(again.spread, found.prediction.spread)
    pd.testing.assert_series_equal(
        again.support["n_support"], found.prediction.support["n_support"], check_names=False
    )
    # A screen to score or compare.
    as_screen = pw.read_screen(file)
    assert as_screen.perturbations == NAMES
    assert as_screen.contexts == ("K562",)
    assert as_screen.simulated
    np.testing.assert_allclose(as_screen.responses, found.prediction.mean, atol=1e-6)
    # Predictions of "another tool".
    external = read_external(file, screen)
    rows = [external.row(n, "K562") for n in NAMES]
    np.testing.assert_allclose(external.values[rows], found.prediction.mean, atol=1e-6)


def test_gears_labels_carry_the_control(found):
    assert list(found.to_anndata(column="condition").obs["condition"]) == [
        "X1+ctrl", "A+B", "G3+ctrl", "ctrl",
    ]  # fmt: skip


def test_where_it_comes_from_is_in_uns(found):
    uns = found.to_anndata().uns
    assert (uns["values"], uns["unit"], uns["cell_line"]) == ("deltas", "log1p", "K562")
    assert uns["simulated"] is True
    record = json.loads(uns["pertwise_prediction"])
    assert record["settings"]["names"] == list(NAMES)
    assert "versions" in record


def test_ensembles_write_what_they_know_of_their_own_doubt(found):
    from dataclasses import replace

    members = np.stack([found.prediction.mean, found.prediction.mean + 2.0])
    two = replace(found, prediction=replace(found.prediction, members=members))
    np.testing.assert_allclose(two.to_anndata().layers["epistemic"][:-1], np.sqrt(2), rtol=1e-5)


def test_what_cannot_be_written_or_read_is_told(screen, found, tmp_path):
    with pytest.raises(InputError, match="is taken"):
        found.to_anndata(control="X1")
    with pytest.raises(InputError, match="is taken"):
        found.to_anndata(column="fallback")
    deltas = make_screen(screen.responses, screen.perturbations, screen.features)
    bare = pw.predict(deltas, ["X1"], method="training-mean", folds=0)
    with pytest.raises(InputError, match="only deltas"):
        bare.to_anndata(values="means")
    screen.save(tmp_path / "screen.h5ad")
    with pytest.raises(InputError, match="bench external"):
        pw.read_prediction(tmp_path / "screen.h5ad")


@pytest.mark.parametrize("damage", ["no control", "no JSON", "a list", "no label"])
def test_an_edited_prediction_is_refused_in_words(found, tmp_path, damage):
    data = found.to_anndata(values="means")
    if damage == "no control":
        data = data[~data.obs["is_control"].to_numpy()].copy()
    elif damage == "no label":
        data.obs = data.obs[["is_control"]]
    else:
        data.uns["pertwise_prediction"] = "{" if damage == "no JSON" else "[1]"
    data.write_h5ad(tmp_path / "edited.h5ad")
    with pytest.raises(InputError, match=r"edited\.h5ad"):
        pw.read_prediction(tmp_path / "edited.h5ad")
