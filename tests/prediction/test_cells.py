"""Predicted cells: the mean moves as predicted, counts stay counts, draws are reproducible."""

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import pertwise as pw
from pertwise.errors import InputError
from pertwise.evaluate.distribution import energy_distance, mmd
from pertwise.models.base import Prediction, support_table
from pertwise.prediction.cell_models import CellModel
from pertwise.prediction.cells import read_controls, to_cells

GENES = [f"g{i}" for i in range(30)]
N = 600


@pytest.fixture(scope="module")
def data():
    """Negative binomial control cells (gamma shape 3) of various sizes, and cells of one A."""
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.full(30, 2.0))
    size = rng.lognormal(np.log(600), 0.3, (N, 1))
    counts = rng.poisson(size * share * rng.gamma(3.0, 1 / 3.0, (N, 30))).astype(np.float32)
    obs = pd.DataFrame(
        {"gene": ["non-targeting"] * (N - 10) + ["A"] * 10, "cell_line": "K562"},
        index=[f"c{i}" for i in range(N)],
    )
    return ad.AnnData(counts, obs, pd.DataFrame(index=GENES))


@pytest.fixture(scope="module")
def controls(data):
    return read_controls(data)


def predicted(delta, spread=None, names=("A", "B+C"), features=GENES):
    mean = np.tile(np.asarray(delta, dtype=np.float32), (len(names), 1))
    wide = None if spread is None else np.full_like(mean, spread)
    return Prediction(
        names,
        tuple(features),
        mean,
        wide,
        support_table(names, [1] * len(names), [""] * len(names)),
    )


def test_only_controls_are_taken(data, controls):
    assert len(controls.names) == N - 10
    assert controls.label == "non-targeting"
    np.testing.assert_array_equal(controls.counts, data.X[: N - 10])
    total = data.X[: N - 10].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(controls.values, np.log1p(data.X[: N - 10] / total * 1e4), rtol=1e-5)


@pytest.mark.parametrize("model", ["shift", "scale", "counts"])
def test_the_mean_of_the_cells_moves_as_predicted(controls, model):
    rng = np.random.default_rng(1)
    fold = np.exp(rng.normal(0, 0.4, 30))
    # A response that cells can have: shares that still sum to one.
    share = controls.counts.sum(axis=0) / controls.counts.sum()
    fold /= (fold * share).sum()
    moved = share * fold
    big = (
        rng.gamma(3.0, 1 / 3.0, (20_000, 30)) * moved * rng.lognormal(np.log(600), 0.3, (20_000, 1))
    )
    y = rng.poisson(big)
    after = np.log1p(y / y.sum(axis=1, keepdims=True) * 1e4).mean(axis=0)
    base = (
        rng.gamma(3.0, 1 / 3.0, (20_000, 30)) * share * rng.lognormal(np.log(600), 0.3, (20_000, 1))
    )
    y0 = rng.poisson(base)
    before = np.log1p(y0 / y0.sum(axis=1, keepdims=True) * 1e4).mean(axis=0)
    made = to_cells(predicted(after - before), controls, 3000, model=model, with_controls=False)
    got = np.asarray(made[:3000].X.mean(axis=0)).ravel() - controls.values.mean(axis=0)
    np.testing.assert_allclose(got, after - before, atol=0.2)
    if model == "counts":
        # The shape is right as well: variance over cells of the counts is that of the truth.
        counts = made[:3000].layers["counts"].toarray()
        assert np.array_equal(counts, np.rint(counts))
        assert counts.min() >= 0
        ratio = counts.var(axis=0) / y.var(axis=0)
        assert np.median(ratio) == pytest.approx(1.0, abs=0.15)


def test_no_change_gives_the_resampled_controls_back(controls):
    for model in ("shift", "scale", "counts"):
        made = to_cells(predicted(np.zeros(30)), controls, 50, model=model, with_controls=False)
        at = {n: i for i, n in enumerate(controls.names)}
        rows = [at[n] for n in made.obs["source_cell"]]
        np.testing.assert_allclose(made.X.toarray(), controls.values[rows], rtol=1e-4, atol=1e-5)


def test_a_silenced_gene_has_no_counts_left(controls):
    delta = np.zeros(30)
    delta[3] = -20.0
    made = to_cells(predicted(delta), controls, 200, with_controls=False)
    assert made.layers["counts"].toarray()[:, 3].mean() < 0.02 * controls.counts[:, 3].mean()


def test_spread_widens_the_cells_and_not_their_mean(controls):
    one = to_cells(predicted(np.zeros(30), 0.5), controls, 2000, model="shift", with_controls=False)
    two = to_cells(
        predicted(np.zeros(30), 0.5), controls, 2000, model="shift", spread=1, with_controls=False
    )
    high = controls.values.mean(axis=0) > 4
    assert high.any()
    narrow, wide = one.X.toarray()[:, high], two.X.toarray()[:, high]
    extra = np.sqrt(wide.var(axis=0) - narrow.var(axis=0))
    assert np.median(extra) == pytest.approx(0.5, rel=0.15)
    np.testing.assert_allclose(wide.mean(axis=0), narrow.mean(axis=0), atol=0.12)


def test_what_the_file_says(controls):
    made = to_cells(predicted(np.full(2, 0.5), features=["g0", "g5"]), controls, 20, seed=3,
                    column="target_gene", context="K562")  # fmt: skip
    obs = made.obs
    assert obs["target_gene"].value_counts().to_dict() == {"non-targeting": N - 10, "A": 20,
                                                           "B+C": 20}  # fmt: skip
    assert obs["is_control"].sum() == N - 10
    assert list(made.var.index[made.var["predicted"]]) == ["g0", "g5"]
    assert made.uns["scale"] == "log1p"
    said = json.loads(made.uns["pertwise_cells"])
    assert (said["model"], said["n"], said["seed"]) == ("counts", 20, 3)
    assert "negative binomial" in said["stated"]
    raw = to_cells(predicted(np.zeros(30)), controls, 5, values="counts", with_controls=False)
    assert raw.uns["scale"] == "counts"
    assert np.array_equal(raw.X.data, np.rint(raw.X.data))


def test_cells_of_a_perturbation_depend_on_its_name_and_the_seed_alone(controls):
    delta = np.linspace(-0.5, 0.5, 30)
    both = to_cells(predicted(delta), controls, 10, seed=5, with_controls=False)
    alone = to_cells(predicted(delta, names=("B+C",)), controls, 10, seed=5, with_controls=False)
    np.testing.assert_array_equal(both[10:].X.toarray(), alone.X.toarray())
    other = to_cells(predicted(delta, names=("B+C",)), controls, 10, seed=6, with_controls=False)
    assert not np.array_equal(other.X.toarray(), alone.X.toarray())


def test_what_cannot_be_made_is_told(data, controls):
    logged = ad.AnnData(np.log1p(data.X / data.X.sum(1, keepdims=True) * 1e4), data.obs, data.var)
    smooth = read_controls(logged)
    assert smooth.counts is None
    assert json.loads(to_cells(predicted(np.zeros(30)), smooth, 2).uns["pertwise_cells"])[
        "model"
    ] == "scale"  # fmt: skip
    with pytest.raises(InputError, match="raw counts"):
        to_cells(predicted(np.zeros(30)), smooth, 2, model="counts")
    with pytest.raises(InputError, match="count model"):
        to_cells(predicted(np.zeros(30)), controls, 2, model="shift", values="counts")
    with pytest.raises(InputError, match="none of the predicted"):
        to_cells(predicted(np.zeros(1), features=["zz"]), controls, 2)
    with pytest.raises(InputError, match="not one of"):
        CellModel("magic", controls.values)
    with pytest.raises(InputError, match="at least 1"):
        to_cells(predicted(np.zeros(30)), controls, 0)
    with pytest.raises(InputError, match="no control cell"):
        read_controls(data[N - 10 :].copy())


def test_a_run_of_predict_makes_cells_of_the_context(data, controls):
    screen = pw.read_screen(data, pseudobulk=pw.PseudobulkSettings(n_hvg=None))
    found = pw.predict(screen, ["NEW"], method="control", folds=0)
    made = found.to_cells(data, 15, seed=1)
    assert set(made.obs["context"]) == {"K562"}
    assert (made.obs["gene" if "gene" in made.obs else "perturbation"] == "NEW").sum() == 15


def test_members_split_the_spread_in_two():
    rng = np.random.default_rng(0)
    members = rng.normal(size=(5, 2, 30)).astype(np.float32)
    known = members.std(axis=0, ddof=1)
    base = predicted(np.zeros(30))
    whole = Prediction(
        base.perturbations, base.features, base.mean, np.sqrt(known**2 + 0.25).astype(np.float32),
        base.support, members=members,
    )  # fmt: skip
    np.testing.assert_allclose(whole.epistemic, known, rtol=1e-5)
    np.testing.assert_allclose(whole.aleatoric, 0.5, rtol=1e-4)
    assert base.epistemic is None
    assert base.aleatoric is None


def test_mmd_by_hand_and_near_zero_for_one_distribution():
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    k = lambda d: np.exp(-(d**2) / 2)  # noqa: E731
    want = k(1) + k(2) - 2 * (k(0) + k(2) + k(1) + k(1)) / 4
    assert mmd(x, y, bandwidth=1.0) == pytest.approx(want)
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 300, 5)) + np.array([0, 0, 1])[:, None, None]
    assert abs(mmd(a, b)) < 0.01 < mmd(a, c)
    assert abs(energy_distance(a, b, unbiased=True)) < 0.05 < energy_distance(a, c)
    assert mmd(np.zeros((3, 2)), np.zeros((3, 2))) == 0.0
    with pytest.raises(InputError, match="at least 2"):
        mmd(a[:1], b)
