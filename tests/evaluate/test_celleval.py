"""Our metrics against cell-eval on the same arrays: equal, or differing exactly as documented.

cell-eval (Arc Institute) is an independent implementation; docs/metrics.md explains every
difference asserted here.
"""

import numpy as np
import pytest
from scipy import stats

from pertwise.evaluate import genes, metrics, retrieval
from pertwise.evaluate.auroc import grouped_auroc
from pertwise.evaluate.distribution import energy_distance

pytest.importorskip("cell_eval", reason="the cross-check needs: pip install 'pertwise[test]'")
pl = pytest.importorskip("polars")

N, D = 12, 40


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    control = rng.uniform(1, 3, D)
    truth = rng.normal(size=(N, D))
    return control, truth, 0.6 * truth + rng.normal(size=(N, D))


@pytest.fixture(scope="module")
def names():
    # some perturbations are also genes, as in a real screen
    return [f"G{i:02d}" for i in range(N)], [f"G{i + 6:02d}" for i in range(D)]


@pytest.fixture(scope="module")
def pair(arrays, names):
    import anndata as ad
    import pandas as pd
    from cell_eval._types import PerturbationAnndataPair

    control, truth, prediction = arrays
    perturbations, features = names
    obs = pd.DataFrame({"pert": [*perturbations, "ctrl"]}, index=[f"c{i}" for i in range(N + 1)])
    var = pd.DataFrame(index=features)

    def data(delta):
        return ad.AnnData(np.vstack([control + delta, control]), obs=obs.copy(), var=var.copy())

    return PerturbationAnndataPair(
        real=data(truth), pred=data(prediction), pert_col="pert", control_pert="ctrl"
    )


def in_order(found, names):
    return np.array([found[n] for n in names[0]])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("pearson_delta", "pearson_delta"), ("mse_delta", "mse"), ("mae_delta", "mae"),
     ("mse", "mse"), ("mae", "mae")],
)  # fmt: skip
def test_pairwise_metrics_are_equal(pair, arrays, names, theirs, ours):
    from cell_eval.metrics import _anndata

    want = in_order(getattr(_anndata, theirs)(pair), names)
    got = getattr(metrics, ours)(arrays[1], arrays[2])
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("kind", ["l2", "cosine"])
def test_retrieval_differs_only_by_the_stated_normalisation(pair, arrays, names, kind):
    from cell_eval.metrics._anndata import discrimination_score

    want = in_order(discrimination_score(pair, metric=kind, exclude_target_gene=False), names)
    score = retrieval(arrays[2], arrays[1], kind=kind).score
    rank = (1 - score) * (N - 1)
    np.testing.assert_allclose(1 - rank / N, want)


def test_retrieval_ties_are_the_documented_difference(pair, names):
    """One prediction for all: cell-eval breaks the ties by position, we give chance."""
    import dataclasses

    from cell_eval.metrics._anndata import discrimination_score

    flat = pair.real.copy()
    flat.X[:-1] = flat.X[-1]  # every perturbation measured alike: all candidates tie
    tied = dataclasses.replace(pair, real=flat)
    theirs = in_order(discrimination_score(tied, metric="l2", exclude_target_gene=False), names)
    assert len(set(theirs)) == N  # a different score for each of N equal candidates
    ours = retrieval(np.ones((N, D)), np.zeros((N, D)))
    np.testing.assert_array_equal(ours.score, 0.5)


def test_target_exclusion_is_per_query(pair, arrays, names):
    from cell_eval.metrics._anndata import discrimination_score

    want = in_order(discrimination_score(pair, metric="l2", exclude_target_gene=True), names)
    _, truth, prediction = arrays
    keep = genes.target_mask(*names)
    ranks = []
    for i in range(N):
        score = retrieval(prediction[i : i + 1, keep[i]], truth[:, keep[i]], [i]).score[0]
        ranks.append((1 - score) * (N - 1))
    np.testing.assert_allclose(1 - np.array(ranks) / N, want)


@pytest.fixture(scope="module")
def calls(arrays, names):
    """Differential calls of both sides, in both representations."""
    from cell_eval._types import initialize_de_comparison

    rng = np.random.default_rng(1)
    tables, significance = [], []
    for score in arrays[1:]:
        p = 2 * stats.norm.sf(np.abs(score) * 2.5) * rng.uniform(0.5, 1, score.shape)
        fdr = genes.benjamini_hochberg(p)
        significance.append(fdr)
        rows = [
            (names[0][i], names[1][j], float(score[i, j]), float(p[i, j]), float(fdr[i, j]))
            for i in range(N)
            for j in range(D)
        ]
        columns = ["target", "feature", "log2_fold_change", "p_value", "fdr"]
        tables.append(pl.DataFrame(rows, schema=columns, orient="row"))
    return initialize_de_comparison(*tables), significance


@pytest.mark.parametrize("k", [None, 3, 50])
@pytest.mark.parametrize(("metric", "side"), [("overlap", "truth"), ("precision", "prediction")])
def test_de_overlap_is_equal(calls, arrays, names, k, metric, side):
    comparison, (fdr_truth, fdr_prediction) = calls
    want = in_order(comparison.compute_overlap(k=k, metric=metric, fdr_threshold=0.05), names)
    got = genes.de_overlap(
        arrays[1],
        arrays[2],
        k,
        truth_significant=fdr_truth < 0.05,
        prediction_significant=fdr_prediction < 0.05,
        divide_by=side,
    )
    # no significant gene: not defined here, 0 there
    np.testing.assert_allclose(np.nan_to_num(got), want, rtol=1e-6)


def test_no_significant_gene_is_undefined_here_and_zero_there(arrays, names):
    from cell_eval._types import initialize_de_comparison

    rows = [(p, f, 1.0, 1.0, 1.0) for p in names[0] for f in names[1]]
    columns = ["target", "feature", "log2_fold_change", "p_value", "fdr"]
    table = pl.DataFrame(rows, schema=columns, orient="row")
    comparison = initialize_de_comparison(table, table)
    assert set(comparison.compute_overlap(k=5, fdr_threshold=0.05).values()) == {0.0}
    none = np.zeros((N, D), dtype=bool)
    assert np.isnan(genes.de_overlap(arrays[1], arrays[2], 5, truth_significant=none)).all()


def test_direction_and_recall_are_equal_on_significant_genes(calls, arrays, names):
    from cell_eval.metrics._de import DEDirectionMatch, DESigGenesRecall

    comparison, (fdr_truth, fdr_prediction) = calls
    significant = fdr_truth < 0.05
    want = DEDirectionMatch()(comparison)
    got = metrics.direction_accuracy(arrays[1], arrays[2], significant)
    recall = DESigGenesRecall()(comparison)
    mine = genes.significant_recall(significant, fdr_prediction < 0.05)
    assert len(want) > N / 2
    for i, name in enumerate(names[0]):
        if name in want:
            assert got[i] == pytest.approx(want[name])
            assert mine[i] == pytest.approx(recall[name])
        else:
            assert np.isnan(got[i])


def test_roc_auc_is_equal(calls, names):
    from cell_eval.metrics._de import compute_roc_auc

    comparison, (fdr_truth, fdr_prediction) = calls
    want = in_order(compute_roc_auc(comparison), names)
    # cell-eval stores adjusted p values as float32: the same rounding, hence the same ties
    score = -np.log10(np.clip(fdr_prediction.astype(np.float32), 1e-10, 1))
    got = grouped_auroc(
        score.ravel(),
        (fdr_truth.astype(np.float32) < 0.05).ravel().astype(int),
        np.repeat(np.arange(N), D),
        N,
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_energy_distance_is_equal():
    import anndata as ad
    import pandas as pd
    from cell_eval._types import PerturbationAnndataPair
    from cell_eval.metrics._anndata import edistance

    rng = np.random.default_rng(3)
    labels = np.repeat(["A", "B", "C", "D", "ctrl"], 15)
    obs = pd.DataFrame({"pert": labels}, index=[str(i) for i in range(75)])
    sides = []
    for shift in (np.arange(5), np.array([0.2, 1.5, 1.0, 4.0, 0])):
        x = rng.normal(size=(75, 6)) + np.repeat(shift, 15)[:, None] * (np.arange(6) == 2)
        sides.append(ad.AnnData(x, obs=obs.copy()))
    found = PerturbationAnndataPair(*sides, pert_col="pert", control_pert="ctrl")
    ours = [
        [energy_distance(x.X[labels == p], x.X[labels == "ctrl"]) for p in "ABCD"] for x in sides
    ]
    assert stats.pearsonr(*ours).statistic == pytest.approx(edistance(found))


def test_its_evaluator_takes_predicted_cells(tmp_path):
    """The whole of cell-eval on cells that we wrote, controls included."""
    from cell_eval import MetricsEvaluator

    import pertwise as pw
    from pertwise.screen.simulate_cells import simulate_cells

    simulation = pw.simulate(0, n_perturbations=32, n_features=40, n_pathways=4, mean_cells=200)
    real = simulate_cells(simulation, 0, max_cells=25)
    screen = pw.pseudobulk(real, pw.PseudobulkSettings(n_hvg=None))
    asked = sorted(screen.perturbations)[:4]
    found = pw.predict(screen, asked, method="training-mean", folds=0)
    truth = real[real.obs["perturbation"].isin([*asked, "control"]).to_numpy()].copy()
    truth.X = np.log1p(truth.X.toarray() / np.asarray(truth.X.sum(axis=1)) * 1e4)
    evaluator = MetricsEvaluator(
        adata_pred=found.to_cells(real, 25, 0),
        adata_real=truth,
        control_pert="control",
        pert_col="perturbation",
        num_threads=1,
        outdir=str(tmp_path),
    )
    results, _ = evaluator.compute(profile="minimal", write_csv=False)
    assert set(results["perturbation"]) == set(asked)
    assert np.isfinite(results["pearson_delta"].to_numpy()).all()
