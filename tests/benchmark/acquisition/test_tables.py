"""Areas, paired differences and labels needed against hand calculation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pertwise.benchmark.acquisition import tables as T
from pertwise.benchmark.acquisition.config import Curve
from pertwise.errors import InputError


def rounds_of(curves, metric="mse", target="t", predictor="k"):
    rows = []
    for strategy, by_seed in curves.items():
        for seed, values in enumerate(by_seed):
            for number, value in enumerate(values, 1):
                rows.append(
                    (target, predictor, strategy, 0, 20, seed, number, 20 * number, metric, value)
                )
    columns = [*T.CURVE, "seed", "round", "n_acquired", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_area_is_the_mean_height_over_the_range():
    areas = T.curve_areas(rounds_of({"random": [[3.0, 2.0, 2.0]]}))
    # (3 + 2) / 2 * 20 + 2 * 20 = 90 over a range of 40.
    assert areas.loc[0, "area"] == pytest.approx(90 / 40)
    assert (areas.loc[0, "n_first"], areas.loc[0, "n_last"]) == (20, 60)


def test_halves_of_the_area_by_hand():
    areas = T.curve_areas(rounds_of({"random": [[4.0, 2.0, 2.0, 0.0]]}))
    # Range 20 to 80, middle 50, where the curve is 2: (4 + 2) / 2 over 20 and 2 over 10.
    assert areas.loc[0, "area_first"] == pytest.approx((3 * 20 + 2 * 10) / 30)
    assert areas.loc[0, "area_second"] == pytest.approx((2 * 10 + 1 * 20) / 30)
    row = areas.loc[0]
    assert row["area"] == pytest.approx((row["area_first"] + row["area_second"]) / 2)
    short = T.curve_areas(rounds_of({"random": [[4.0, 2.0]]}))
    assert np.isnan(short.loc[0, "area_first"])


def test_an_early_gain_and_a_late_loss_are_told_apart():
    curves = {
        "random": [[4.0, 3.0, 2.0, 1.0], [4.1, 3.0, 2.0, 1.1]],
        "early": [[3.0, 2.0, 2.0, 2.0], [3.0, 2.0, 2.0, 2.0]],
    }
    found = T.phase_differences(T.curve_areas(rounds_of(curves)))
    gain = found.set_index("phase")["gain_percent"]
    assert gain["first half"] > 20
    assert gain["second half"] < -10
    assert list(gain.index) == ["whole", "first half", "second half"]


def test_hit_ratios_are_means_over_seeds():
    def of(seed, found, batch):
        curve = Curve(target="t", predictor="k", strategy="s", initial=0, batch=20, seed=seed)
        hits = {"t": {"n_hits": 4, "found": found, "in_batch": batch}}
        return T.hit_table(
            curve, [{"round": 2, "n_acquired": 20, "picks": ["a"] * 10, "hits": hits}]
        )

    (row,) = T.mean_hits([of(0, 1, 1), of(1, 3, 0)]).to_dict("records")
    assert (row["hit_ratio"], row["batch_rate"]) == (0.5, 0.05)
    assert row["hit_ratio_se"] == pytest.approx(0.25)
    assert T.mean_hits([]).empty


def test_the_mean_bias_is_over_seeds():
    def of(seed, shift):
        curve = Curve(target="t", predictor="k", strategy="s", initial=0, batch=20, seed=seed)
        bias = dict.fromkeys(T.BIAS, 0.0) | {"shift": shift}
        return T.bias_table(curve, [{"round": 1, "n_acquired": 20, "bias": {"t": bias}}])

    (row,) = T.mean_bias([of(0, 0.2), of(1, 0.6)]).to_dict("records")
    assert row["shift"] == pytest.approx(0.4)
    assert (row["round"], row["strategy"]) == (1, "s")
    assert T.mean_bias([]).empty


def test_published_area_convention():
    """A constant mean Pearson delta of 0.42 over 20..200 is an area of 75.6 = 0.42 * 180."""
    areas = T.curve_areas(rounds_of({"random": [[0.42] * 10]}, metric="pearson_delta"))
    assert areas.loc[0, "area"] * 180 == pytest.approx(75.6)


def test_paired_difference_by_hand():
    a = [[2.0, 1.0], [2.2, 1.2], [1.9, 1.1]]
    b = [[1.8, 0.9], [2.1, 1.0], [1.8, 0.9]]
    areas = T.curve_areas(rounds_of({"random": a, "knowledge": b}))
    (row,) = T.paired_differences(areas).to_dict("records")
    d = np.array([np.mean(y) - np.mean(x) for x, y in zip(a, b, strict=True)])
    assert row["difference"] == pytest.approx(d.mean())
    assert row["se"] == pytest.approx(d.std(ddof=1) / np.sqrt(3))
    assert row["p_t"] == pytest.approx(
        stats.ttest_rel([np.mean(y) for y in b], [np.mean(x) for x in a]).pvalue
    )
    assert row["high"] - row["low"] == pytest.approx(2 * stats.t.ppf(0.975, 2) * row["se"])
    assert row["gain_percent"] > 0
    assert row["verdict"] == ("better" if row["p_t"] < 0.05 else "no difference")


def test_direction_of_better_depends_on_the_metric():
    up = {"random": [[0.1, 0.2], [0.1, 0.21]], "knowledge": [[0.4, 0.5], [0.4, 0.511]]}
    rise = T.paired_differences(T.curve_areas(rounds_of(up, metric="pearson_delta")))
    error = T.paired_differences(T.curve_areas(rounds_of(up, metric="mse")))
    assert rise.loc[0, "verdict"] == "better"
    assert error.loc[0, "verdict"] == "worse"
    assert rise.loc[0, "gain_percent"] > 0 > error.loc[0, "gain_percent"]


def test_holm_over_strategies_makes_a_weak_difference_none():
    rng = np.random.default_rng(0)
    base = rng.normal(2, 0.1, size=(6, 1)) + np.zeros((6, 3))
    curves = {"random": base.tolist()}
    shift = np.array([0.02, 0.05, 0.01, 0.04, -0.005, 0.03])[:, None]
    for i in range(20):
        curves[f"s{i}"] = (base - shift).tolist()
    one = T.paired_differences(T.curve_areas(rounds_of({k: curves[k] for k in ("random", "s0")})))
    many = T.paired_differences(T.curve_areas(rounds_of(curves)))
    assert one.loc[0, "verdict"] == "better"
    assert set(many["verdict"]) == {"no difference"}


def test_identical_curves_are_no_difference():
    same = [[2.0, 1.0], [2.2, 1.2]]
    row = T.paired_differences(T.curve_areas(rounds_of({"random": same, "x": same}))).iloc[0]
    assert (row["difference"], row["p_t"], row["verdict"]) == (0.0, 1.0, "no difference")


def test_no_reference_is_an_error():
    with pytest.raises(InputError, match="no strategy 'random'"):
        T.paired_differences(T.curve_areas(rounds_of({"x": [[1.0, 2.0]]})))


def test_labels_needed_interpolates():
    table = T.labels_needed(
        rounds_of({"random": [[4.0, 3.0, 2.0]], "fast": [[3.0, 1.0, 1.0]], "slow": [[4.0, 3.5, 3]]})
    ).set_index("strategy")
    assert table.loc["random", "needed"] == 60
    assert table.loc["fast", "needed"] == pytest.approx(30)  # 3 -> 1 over 20..40, level 2
    assert table.loc["fast", "ratio"] == pytest.approx(0.5)
    assert np.isnan(table.loc["slow", "ratio"])


def test_overlap_by_hand():
    rows = []
    for strategy, seed, items in [
        ("a", 0, "xyz"),
        ("a", 1, "xyw"),
        ("b", 0, "xqr"),
        ("b", 1, "wyx"),
    ]:
        rows += [
            {
                "target": "t",
                "predictor": "k",
                "strategy": strategy,
                "initial": 0,
                "batch": 3,
                "seed": seed,
                "perturbation": p,
            }
            for p in items
        ]
    table = T.overlap(pd.DataFrame(rows)).set_index(["first", "second"])
    assert table.loc[("a", "a"), "jaccard"] == pytest.approx(2 / 4)
    assert table.loc[("a", "b"), "jaccard"] == pytest.approx((1 / 5 + 1) / 2)


def test_undefined_measures_stay_visible():
    curve = Curve(target="t", predictor="k", strategy="random", initial=0, batch=2, seed=0)
    record = {"round": 1, "n_acquired": 2, "measures": {"t": {"mse": 1.0, "pearson_delta": None}}}
    table = T.round_table(curve, [record]).set_index("metric")
    assert np.isnan(table.loc["pearson_delta", "value"])
    assert table.loc["mse", "value"] == 1.0


def test_paper_table_marks_only_tested_differences():
    curves = {
        "random": [[2.0, 2.0], [2.1, 2.1], [1.9, 1.9]],
        "good": [[1.0, 1.0], [1.11, 1.1], [0.9, 0.9]],
        "same": [[2.1, 2.0], [2.0, 2.0], [1.9, 2.0]],
    }
    areas = T.curve_areas(rounds_of(curves))
    table = T.paper_table(areas, T.paired_differences(areas), "mse", "k")
    assert next(iter(table.index)) == "random"
    assert table.loc["good", "t"].endswith("*")
    assert not table.loc["same", "t"].endswith(("*", "†"))
    assert table.loc["random", "t"].startswith("2 ±")
