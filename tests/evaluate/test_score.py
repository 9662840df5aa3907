"""The score table: same numbers as the kernels, nothing silently dropped."""

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.evaluate import genes, metric_of, metrics
from pertwise.evaluate import score_predictions as score
from pertwise.evaluate.retrieval import retrieval


@pytest.fixture
def example():
    rng = np.random.default_rng(0)
    t = rng.normal(size=(12, 30))
    t[0, 3] = np.nan
    p = 0.5 * t + rng.normal(size=t.shape)
    p[0, 3] = 1.0
    return t, p, [f"g{i}" for i in range(12)], [f"g{i}" for i in range(30)]


def test_columns_equal_the_kernels(example, monkeypatch):
    import pertwise.evaluate.score as module

    t, p, names, features = example
    monkeypatch.setattr(module, "CHUNK", 5)  # several chunks
    reference = np.nanmean(t, axis=0)
    variance = np.random.default_rng(1).uniform(0.5, 2, size=t.shape)
    got = score(
        t, p, perturbations=names, features=features, reference=reference,
        sampling_variance=variance, candidates=t, tops=(5, 10, 99),
    ).values  # fmt: skip
    keep = genes.target_mask(names, features)
    np.testing.assert_allclose(got["mse"], metrics.mse(t, p, keep))
    np.testing.assert_allclose(
        got["pearson_reference"], metrics.pearson_reference(t, p, reference, keep)
    )
    top = genes.top_mask(genes.differential_score(t, variance), 5, keep)
    for name in ("mse", "mae", "pearson_delta", "cosine", "direction_accuracy", "squared_error"):
        np.testing.assert_allclose(
            got[f"{name}_top5"], getattr(metrics, name)(t, p, top), rtol=1e-9
        )
    np.testing.assert_allclose(
        got["pearson_reference_top5"], metrics.pearson_reference(t, p, reference, top), rtol=1e-9
    )
    np.testing.assert_allclose(got["retrieval_l2"], retrieval(p, t).score)
    assert not [c for c in got if c.endswith("top99")]


def test_target_in_or_out_is_an_option(example):
    t, p, names, features = example
    kwargs = {"perturbations": names, "features": features, "tops": ()}
    with_target = score(t, p, include_target=True, **kwargs).values
    np.testing.assert_allclose(with_target["mse"], metrics.mse(t, p))
    assert not np.allclose(with_target["mse"], score(t, p, **kwargs).values["mse"])


def test_constant_prediction_gets_the_stated_value_and_is_counted(example):
    t, _, names, _ = example
    got = score(t, np.zeros_like(t), perturbations=names, tops=(5,))
    for column in ("pearson_delta", "cosine", "slope", "cosine_top5"):
        assert (got.values[column] == 0).all()
        assert got.undefined[column].all()
    assert not got.undefined["mse"].any()
    assert (got.values["retrieval_heldout_cosine"] == 0).all()
    assert got.undefined["retrieval_heldout_cosine"].all()


def test_unmeasured_truth_scores_nobody(example):
    t, p, names, _ = example
    t = t.copy()
    t[4] = np.nan
    got = score(t, p, perturbations=names, tops=(5,), candidates=t)
    assert got.values.loc["g4"].isna().all()
    assert not got.undefined.loc["g4"].any()
    assert got.values.drop(index="g4").notna().all().all()


def test_tidy_has_one_row_per_perturbation_and_metric(example):
    t, p, names, _ = example
    scores = score(t, p, perturbations=names, tops=(5,))
    long = scores.tidy()
    assert len(long) == scores.values.size
    wide = long.pivot(index="perturbation", columns="metric", values="value")
    np.testing.assert_array_equal(wide.loc["g3", "mae"], scores.values.loc["g3", "mae"])


def test_significant_set(example):
    t, p, names, _ = example
    sig = np.abs(np.nan_to_num(t)) > 1
    got = score(t, p, perturbations=names, significant=sig, tops=()).values
    np.testing.assert_allclose(got["mse_significant"], metrics.mse(t, p, sig))
    assert {"de_overlap_significant", "direction_accuracy_significant"} <= set(got.columns)


def test_not_finite_prediction_is_refused_by_name(example):
    t, p, names, _ = example
    p = p.copy()
    p[7, 0] = np.nan
    with pytest.raises(InputError, match="'g7' is not finite"):
        score(t, p, perturbations=names)


def test_metric_names():
    assert metric_of("retrieval_reverse_l2").name == "retrieval_reverse"
    assert metric_of("mse_top20").better == "low"
    with pytest.raises(InputError, match="no metric"):
        metric_of("accuracy")
