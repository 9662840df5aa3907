"""Cells behind a screen: reading, energy distances, split-half ceilings."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pertwise.benchmark.engine import run_task
from pertwise.benchmark.prediction.config import PredictionConfig
from pertwise.benchmark.prediction.run import PredictionTask
from pertwise.config import check_settings
from pertwise.errors import InputError, UnknownNameError
from pertwise.evaluate import cells as c
from pertwise.evaluate.distribution import energy_distance
from pertwise.evaluate.specs import CellsSpec
from pertwise.evaluate.units import truth_variance
from pertwise.screen.core import make_screen

NAMES = ["A", "B", "C", "D", "E"]
D, N = 6, 40


@pytest.fixture
def made(tmp_path):
    """(screen, spec): simulated cells, GEARS-like labels, one perturbation with 2 cells."""
    rng = np.random.default_rng(0)
    shifts = np.vstack([np.zeros(D), rng.normal(0, 2, size=(5, D))])
    counts = [N, N, N, N, N, 2]
    x = np.vstack([5 + s + rng.normal(size=(k, D)) for s, k in zip(shifts, counts, strict=True)])
    labels = np.repeat(["ctrl", *[f"{n}+ctrl" for n in NAMES]], counts)
    order = rng.permutation(len(x))
    features = [f"f{i}" for i in range(D)]
    data = ad.AnnData(
        x[order].astype(np.float32),
        obs=pd.DataFrame({"condition": labels[order]}, index=[str(i) for i in range(len(x))]),
        var=pd.DataFrame(index=[*features[::-1]]),
    )
    path = tmp_path / "cells.h5ad"
    data.write_h5ad(path)
    delta = np.vstack([x[labels == f"{n}+ctrl"].mean(0) for n in NAMES]) - x[:N].mean(0)
    # the file stores the features in the other order
    screen = make_screen(delta[:, ::-1], NAMES, features)
    spec = CellsSpec(file=str(path), perturbation_column="condition", control="ctrl", max_cells=30)
    return screen, spec


def test_cells_are_those_of_the_file(made):
    screen, spec = made
    bank = c.open_cell_bank(spec, screen, 0)
    assert bank.controls.shape == (30, D)
    assert bank.totals["A"] == N
    found = bank.cells("A")
    assert found.shape == (30, D)
    np.testing.assert_allclose(found.mean(0) - bank.controls.mean(0), screen.responses[0], atol=1.2)
    assert bank.cells("E") is None  # two cells
    again = c.open_cell_bank(spec, screen, 0)
    np.testing.assert_array_equal(bank.rows["B"], again.rows["B"])
    other = c.open_cell_bank(spec, screen, 1)
    assert not np.array_equal(bank.rows["B"], other.rows["B"])


def test_energy_distance_of_moved_controls(made):
    screen, spec = made
    bank = c.open_cell_bank(spec, screen, 0)
    got = c.energy_distances(bank, ["A", "E"], screen.responses[[0, 4]])
    want = energy_distance(bank.controls + screen.responses[0], bank.cells("A"))
    assert got[0] == pytest.approx(want)
    assert np.isnan(got[1])
    nothing = c.energy_distances(bank, ["A"], np.zeros((1, D), np.float32))
    assert got[0] < nothing[0] / 5


def test_cells_give_welch_t(made):
    """With all cells drawn, delta / sqrt(variance) is scipy's unequal-variance t statistic."""
    screen, spec = made
    bank = c.open_cell_bank(spec.model_copy(update={"max_cells": N}), screen, 0)
    variance = bank.sampling_variance(NAMES)
    for i, name in enumerate(NAMES[:4]):
        cells = bank.cells(name).astype(float)
        want = stats.ttest_ind(cells, bank.controls.astype(float), equal_var=False).statistic
        delta = cells.mean(0) - bank.controls.astype(float).mean(0)
        np.testing.assert_allclose(delta / np.sqrt(variance[i]), want, rtol=1e-6)
    assert np.isnan(variance[4]).all()  # two cells
    drawn = c.open_cell_bank(spec, screen, 0)
    assert drawn.n_controls == N
    assert drawn.sampling_variance(["A"])[0] == pytest.approx(
        drawn.cells("A").var(0, ddof=1) / N + drawn.controls.var(0, ddof=1) / N, rel=1e-4
    )


def test_differential_features_come_from_the_cells(made):
    screen, spec = made
    bank = c.open_cell_bank(spec, screen, 0)
    variance, n_cells = truth_variance(screen, bank)
    np.testing.assert_array_equal(n_cells[:4], N)
    assert np.isnan(n_cells[4])
    np.testing.assert_array_equal(variance[:4], bank.sampling_variance(NAMES)[:4])
    assert truth_variance(screen, None)[0] is None


def test_benchmark_with_cells(made, tmp_path):
    screen, spec = made
    path = tmp_path / "screen.h5ad"
    screen.save(path)
    config = check_settings(
        {
            "screen": str(path),
            "methods": [{"use": "control"}, {"use": "oracle"}],
            "split": {"folds": 5, "shuffles": 1},
            "cells": spec.model_dump(),
        },
        PredictionConfig,
    )
    run = run_task(PredictionTask(config), tmp_path / "out")
    results = run.table
    energy = results[results["metric"] == "energy_distance"]
    assert energy["value"].notna().sum() == 2 * 4
    significant = results[results["metric"] == "de_overlap_significant"]
    assert significant["value"].notna().sum() == 2 * 4  # E has too few cells to be tested
    items = pd.read_parquet(tmp_path / "out" / "items.parquet")
    assert (items["ceiling_from"] == "split halves of cells").all()
    assert items.loc["A", "replicate_cosine"] > 0.9
    assert np.isnan(items.loc["E", "replicate_cosine"])
    np.testing.assert_allclose(items["perfect_cosine"] ** 2, items["replicate_cosine"])


def test_mistakes_are_named(made, tmp_path):
    screen, spec = made

    def opened(**change):
        return c.open_cell_bank(spec.model_copy(update=change), screen, 0)

    with pytest.raises(UnknownNameError, match="did you mean 'condition'"):
        opened(perturbation_column="conditions")
    with pytest.raises(UnknownNameError, match="control label 'control'"):
        opened(control="control")
    with pytest.raises(InputError, match="lacks the screen's feature 'zz'"):
        c.open_cell_bank(spec, make_screen(np.ones((1, 1)), ["A"], ["zz"]), 0)
    reversed_screen = make_screen(-np.array(screen.responses), NAMES, list(screen.features))
    with pytest.raises(InputError, match="do not match the screen's"):
        c.open_cell_bank(spec, reversed_screen, 0)
    data = ad.read_h5ad(spec.file)
    data.X = np.random.default_rng(0).poisson(2, data.shape).astype(np.float32)
    data.write_h5ad(tmp_path / "counts.h5ad")
    with pytest.raises(InputError, match="holds counts"):
        opened(file=str(tmp_path / "counts.h5ad"))
    (tmp_path / "bad.h5ad").write_text("no")
    with pytest.raises(InputError, match="cannot be read as h5ad"):
        opened(file=str(tmp_path / "bad.h5ad"))
