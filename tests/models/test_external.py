"""Predictions as other tools write them: cells, GEARS labels, controls, means, long tables."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError
from pertwise.models.external import ExternalPredictor, read_external
from pertwise.screen import make_screen

FEATURES = ["f", "g", "h"]
CONTROL = np.array([1.0, 2.0, 0.5])
DELTA = np.array([[0.5, -0.25, 0.0], [-0.5, 0.75, 0.25]])
SCREEN = make_screen(
    np.vstack([DELTA, [[0.1, 0.1, 0.1]]]), ["A", "B+C", "D"], FEATURES, context="K562",
    control_mean=CONTROL[None],
)  # fmt: skip


def expected(found):
    return np.array([found.values[found.row(n, "K562")] for n in ("A", "B+C")])


def write(path, column, labels, values):
    obs = pd.DataFrame({column: labels}, index=[f"r{i}" for i in range(len(labels))])
    ad.AnnData(np.asarray(values, np.float32), obs, pd.DataFrame(index=FEATURES)).write_h5ad(path)
    return path


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        ("condition", ["A+ctrl", "C+B", "ctrl"]),
        ("target_gene", ["A", "B+C", "non-targeting"]),
        ("perturbation", ["A", "B+C", "control"]),
        ("gene", ["A", "B+C", "NTC"]),
    ],
)
def test_means_with_their_control_row_become_deltas(tmp_path, column, labels):
    values = np.vstack([CONTROL + DELTA, CONTROL])
    file = write(tmp_path / "p.h5ad", column, labels, values)
    np.testing.assert_allclose(expected(read_external(file, SCREEN)), DELTA, atol=1e-6)
    frame = pd.DataFrame(values, columns=FEATURES)
    frame.insert(0, column, labels)
    frame.to_csv(tmp_path / "p.csv", index=False)
    found = read_external(tmp_path / "p.csv", SCREEN)
    np.testing.assert_allclose(expected(found), DELTA, atol=1e-6)
    assert len(found.rows) == 2


def test_cells_are_averaged_and_compared_with_their_controls(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(["A", "B+C", "non-targeting"], 30)
    noise = rng.normal(0, 0.1, (90, 3))
    values = np.vstack([CONTROL + DELTA, CONTROL]).repeat(30, axis=0) + noise
    found = read_external(write(tmp_path / "c.h5ad", "target_gene", labels, values), SCREEN)
    mean = [values[labels == n].mean(axis=0) for n in ("A", "B+C", "non-targeting")]
    np.testing.assert_allclose(expected(found), np.array(mean[:2]) - mean[2], atol=1e-5)


def test_what_is_predicted_is_x_even_beside_a_layer_of_counts(tmp_path):
    rng = np.random.default_rng(2)
    labels = np.repeat(["A", "B+C", "control"], 30)
    values = np.vstack([CONTROL + DELTA, CONTROL]).repeat(30, axis=0) + rng.normal(0, 0.01, (90, 3))
    file = write(tmp_path / "c.h5ad", "perturbation", labels, values)
    data = ad.read_h5ad(file)
    data.layers["counts"] = rng.poisson(5, (90, 3)).astype(np.float32)
    data.write_h5ad(file)
    np.testing.assert_allclose(expected(read_external(file, SCREEN)), DELTA, atol=0.02)


def test_raw_counts_of_cells_are_normalised_first(tmp_path):
    rng = np.random.default_rng(1)
    labels = np.repeat(["A", "ctrl"], 40)
    counts = rng.poisson([[20, 30, 50]] * 40 + [[30, 30, 40]] * 40)
    file = write(tmp_path / "c.h5ad", "condition", [f"{x}+ctrl" if x == "A" else x for x in labels],
                 counts)  # fmt: skip
    x = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    want = x[labels == "A"].mean(axis=0) - x[labels == "ctrl"].mean(axis=0)
    found = read_external(file, SCREEN)
    np.testing.assert_allclose(found.values[found.row("A", "K562")], want, rtol=1e-4)


def test_means_without_a_control_take_that_of_the_screen_when_told(tmp_path):
    file = write(tmp_path / "p.h5ad", "gene", ["A", "B+C"], CONTROL + DELTA)
    found = read_external(file, SCREEN, values="means")
    np.testing.assert_allclose(expected(found), DELTA, atol=1e-6)
    deltas = write(tmp_path / "d.h5ad", "gene", ["A", "B+C"], DELTA)
    np.testing.assert_allclose(expected(read_external(deltas, SCREEN)), DELTA, atol=1e-6)
    unknown = make_screen(DELTA, ["A", "B+C"], FEATURES, context="K562")
    with pytest.raises(InputError, match="add a row of the control"):
        read_external(file, unknown, values="means")
    with pytest.raises(InputError, match="is not one of"):
        ExternalPredictor(file, values="counts")


def test_a_long_table_of_means(tmp_path):
    frame = pd.DataFrame(
        {
            "perturbation": np.repeat(["A", "B+C"], 3),
            "feature": FEATURES * 2,
            "mean": DELTA.ravel(),
            "spread": 1.0,
        }
    )
    frame.to_csv(tmp_path / "long.csv", index=False)
    np.testing.assert_allclose(expected(read_external(tmp_path / "long.csv", SCREEN)), DELTA)


def test_cells_without_controls_are_refused(tmp_path):
    file = write(tmp_path / "c.h5ad", "gene", ["A", "A", "B+C"], np.ones((3, 3)))
    with pytest.raises(InputError, match="cells of the control"):
        read_external(file, SCREEN)
