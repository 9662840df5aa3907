"""Summary tables against hand calculation on made-up results."""

import numpy as np
import pandas as pd
import pytest

from pertwise.benchmark.prediction import tables
from pertwise.errors import InputError
from pertwise.report.prediction_figures import _look


def results(values, metric="cosine", n_train=10, split="folds"):
    """values[method][seed] = {perturbation: value}."""
    rows = [
        {
            "method": method, "split": split, "seed": seed, "fold": 0, "n_train": n_train,
            "perturbation": p, "stratum": "", "metric": metric, "value": v,
            "undefined": v == 0, "fallback": p == "B", "error": "",
        }
        for method, seeds in values.items()
        for seed, items in enumerate(seeds)
        for p, v in items.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


EXAMPLE = {
    "m": [{"A": 0.2, "B": 0.4}, {"A": 0.6, "B": 0.0}],
    "k": [{"A": 0.1, "B": 0.1}, {"A": 0.1, "B": np.nan}],
}


def test_summary_by_hand():
    s = tables.summary(results(EXAMPLE), np.random.default_rng(0)).set_index("method")
    assert s.loc["m", "mean"] == pytest.approx(0.3)  # seed means 0.3 and 0.3
    assert s.loc["m", "se_seeds"] == pytest.approx(0)
    assert s.loc["m", "undefined"] == 0.25
    assert s.loc["m", "coverage"] == 0.5
    assert s.loc["k", "unscored"] == 0.25
    assert s.loc["k", "n"] == 2
    assert (s["n_train"] == 10).all()


def test_per_perturbation_averages_seeds():
    wide = tables.per_perturbation(results(EXAMPLE), "cosine")
    assert wide.loc["A", "m"] == pytest.approx(0.4)
    assert wide.loc["B", "k"] == pytest.approx(0.1)
    with pytest.raises(InputError, match="no result has the metric 'mse'"):
        tables.per_perturbation(results(EXAMPLE), "mse")


def test_comparisons_leave_the_oracle_out_and_correct_over_all_rows():
    rng = np.random.default_rng(0)
    base = {f"g{i}": v for i, v in enumerate(rng.normal(size=30))}
    data = {
        "a": [base],
        "b": [{k: v + 0.3 + 0.1 * rng.normal() for k, v in base.items()}],
        "oracle": [dict.fromkeys(base, 1.0)],
    }
    both = pd.concat([results(data, "cosine"), results(data, "mse")])
    out = tables.comparisons(both, ["cosine", "mse"], rng)
    assert len(out) == 2
    assert set(out["method_a"]) | set(out["method_b"]) == {"a", "b"}
    np.testing.assert_allclose(out["p_holm"], np.minimum(1, 2 * out["p"]))


def test_strata_and_support():
    items = pd.DataFrame({"effect": [1.0, 5.0]}, index=["A", "B"])
    out = tables.by_stratum(results(EXAMPLE), items, "effect", "cosine", 2)
    assert list(out["n"]) == [1, 1]
    assert out.loc[0, "m"] == pytest.approx(0.4)
    unknown = items * np.nan
    assert tables.by_stratum(results(EXAMPLE), unknown, "effect", "cosine", 2).empty
    support = results({"m": [{"A": 4.0, "B": 7.0}]}, "n_support")
    value = results({"m": [{"A": 0.5, "B": 0.1}]})
    got = tables.by_support(pd.concat([support, value]), "cosine").set_index("support")["mean"]
    assert got["3-4"] == 0.5
    assert got["< 1"] == 0.1  # B is a fallback: it rests on nothing


def test_support_names():
    support = results({"m": [{"A": 1.0, "C": 2.0, "D": 10.0}]}, "n_support")
    value = results({"m": [{"A": 0.5, "C": 0.1, "D": 0.2}]})
    got = tables.by_support(pd.concat([support, value]), "cosine", edges=(1, 2, 3))
    assert list(got["support"]) == ["1", "2", ">= 3"]


def test_calibration_table():
    rng = np.random.default_rng(0)
    spread = rng.uniform(1, 2, 40)
    rows = []
    for metric, values in (
        ("spread", spread), ("error", spread * 3), ("coverage_90", np.full(40, 0.9)),
        ("coverage_50", np.full(40, 0.4)), ("coverage_80", np.full(40, 0.8)),
        ("coverage_95", np.full(40, 0.95)),
    ):  # fmt: skip
        rows.append(results({"m": [{f"g{i}": v for i, v in enumerate(values)}]}, metric))
    out = tables.calibration_table(pd.concat(rows)).iloc[0]
    assert out["coverage_50"] == pytest.approx(0.4)
    assert out["spearman_spread_error"] == pytest.approx(1)


def test_learning_curves_and_areas():
    parts = [
        results({"m": [{"A": v}]}, n_train=n, split="growing")
        for n, v in ((10, 0.0), (20, 0.2), (40, 0.4))
    ]
    curves = tables.learning_curves(pd.concat(parts), ["cosine"])
    assert list(curves["n_train"]) == [10, 20, 40]
    area = tables.curve_areas(curves).iloc[0]["area"]
    assert area == pytest.approx((10 * 0.1 + 20 * 0.3) / 30)


def test_main_table_text():
    s = tables.summary(results(EXAMPLE), np.random.default_rng(0))
    out = tables.main_table(s, ["cosine", "absent"]).set_index("method")
    assert out.loc["m", "cosine"] == "0.300 ± 0.000"
    assert out.loc["m", "absent"] == ""
    assert out.loc["m", "coverage"] == "0.500"


def test_no_two_methods_of_a_figure_look_the_same():
    looks = [(x["color"], x["marker"]) for x in map(_look, range(30))]
    assert len(set(looks)) == 30
