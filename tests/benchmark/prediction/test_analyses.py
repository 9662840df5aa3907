"""Neighbour sets and the analyses of the papers, by hand on small examples."""

import numpy as np
import pandas as pd
import pytest
from benchmark.prediction.test_tables import results
from scipy.sparse import csr_matrix

from pertwise.benchmark.prediction import analyses
from pertwise.benchmark.prediction import neighbour_sets as sets
from pertwise.evaluate.specs import MetricSpec
from pertwise.evaluate.splits import Split
from pertwise.knowledge import Graph
from pertwise.screen.core import make_screen


def named(*rows):
    """rows: (perturbation, neighbour[, weight])."""
    full = [(0, 0, r[0], r[1], r[2] if len(r) > 2 else 1.0) for r in rows]
    return pd.DataFrame(full, columns=[*sets.PAIR, "weight"])


A = named(("x", "p"), ("x", "q"), ("y", "p"))
B = named(("x", "q"), ("x", "r"), ("x", "s"), ("z", "p"))


def test_overlap_by_hand():
    got = sets.overlap(A, B)  # only x is answered by both: {p, q} and {q, r, s}
    assert got["n"] == 1
    assert got["share_of_first"] == 0.5
    assert got["share_of_second"] == pytest.approx(1 / 3)
    assert got["jaccard"] == 0.25
    matrix = sets.overlap_matrix({"a": A, "b": B})
    assert matrix.loc["b", "a"] == 0.25
    assert matrix.loc["a", "a"] == 1


def test_parts_are_disjoint_and_complete():
    parts = sets.combine(A, B)
    pairs = {k: set(zip(v["perturbation"], v["neighbour"], strict=True)) for k, v in parts.items()}
    assert pairs["both"] == {("x", "q")}
    assert pairs["first only"] == {("x", "p"), ("y", "p")}
    assert pairs["second only"] == {("x", "r"), ("x", "s"), ("z", "p")}


def test_votes_by_hand():
    by_vote = sets.votes([A, B]).set_index(["perturbation", "neighbour"])["weight"]
    assert by_vote["x", "q"] == 2
    assert by_vote["x", "p"] == 1
    first = named(("x", "p", 0.9), ("x", "q", 0.5))
    second = named(("x", "q", 7.0))
    by_rank = sets.votes([first, second], by_rank=True).set_index("neighbour")["weight"]
    assert by_rank["p"] == 1
    assert by_rank["q"] == pytest.approx(0.5 + 1)


def test_weighted_means_mask_and_fall_back():
    x = np.array([[1.0, np.nan], [3.0, 5.0]])
    mean, empty = sets.weighted_means(x, [[1, 1], [1, 0], [0, 0]], [9.0, 8.0])
    np.testing.assert_allclose(mean, [[2, 5], [1, 8], [9, 8]])
    np.testing.assert_array_equal(empty, [False, False, True])


SCREEN = make_screen(
    [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.5], [0.0, 2.0]],
    ["p", "q", "r", "x", "y"],
    ["f", "g"],
)
SPLIT = Split("folds", 0, 0, ("p", "q", "r"), ("x", "y"))


def test_scores_of_a_table_by_hand():
    table = named(("x", "p"), ("x", "r"))
    out = sets.score_tables({"m": table}, [SPLIT], SCREEN, SCREEN, MetricSpec())
    error = out[out["metric"] == "squared_error"].set_index("perturbation")
    assert error.loc["x", "value"] == pytest.approx(0, abs=1e-6)  # mean of p and r is (1, 0.5)
    centre = np.array([2 / 3, 2 / 3])
    assert error.loc["y", "value"] == pytest.approx(((centre - [0, 2]) ** 2).sum())
    assert list(error["fallback"]) == [False, True]


def test_set_predictions_and_vote_ensembles():
    tables = {"m": named(("x", "p"), ("y", "q")), "k": named(("x", "r"), ("y", "q"))}
    graphs = {"g": named(("x", "p"), ("y", "r"))}
    out = analyses.set_predictions(tables, graphs, [SPLIT], SCREEN, SCREEN, MetricSpec())
    by_part = out.set_index(["method", "graph", "part"])
    assert by_part.loc[("m", "g", "both"), "answered"] == 0.5  # y has nothing in common
    assert by_part.loc[("m", "", "all named"), "answered"] == 1
    both = by_part.loc[("m", "g", "both"), "squared_error"]
    x_error, y_error = 0.25, ((np.array([2, 2]) / 3 - [0, 2]) ** 2).sum()
    assert both == pytest.approx((x_error + y_error) / 2)
    votes = analyses.vote_ensembles(tables, [SPLIT], SCREEN, SCREEN, MetricSpec())
    row = votes[(votes["models"] == "m + k") & (votes["weighting"] == "votes")].iloc[0]
    # x: mean of p and r is exact; y: q twice is (0, 1), error 1
    assert row["squared_error"] == pytest.approx(0.5)
    assert analyses.vote_ensembles({"m": A}, [SPLIT], SCREEN, SCREEN, MetricSpec()).empty


class Names:
    """Only what graph_table needs of a knowledge folder."""

    def resolve(self, names):
        from pertwise.knowledge import Resolution

        return Resolution({n: {"old": "P"}.get(n, n.upper()) for n in names if n != "nowhere"})


def test_graph_table_takes_the_strongest_measured_neighbours():
    w = np.zeros((4, 4), dtype=np.float32)
    w[0, 1], w[0, 2], w[0, 3] = 0.5, 0.9, 0.5
    graph = Graph("g", ("X", "P", "Q", "R"), csr_matrix(w), directed=True)
    split = Split("folds", 1, 2, ("old", "q", "r"), ("nowhere", "x"))
    out = sets.graph_table(graph, Names(), [split], most=2)
    assert list(out["neighbour"]) == ["q", "old"]  # 0.9, then the tie 0.5 by name
    assert set(out["perturbation"]) == {"x"}
    assert (out["seed"] == 1).all()
    assert (out["fold"] == 2).all()


def test_overlap_with_chance():
    out = analyses.graph_overlaps({"m": A}, {"g": B}, n_train=30).iloc[0]
    assert out["chance"] == pytest.approx(3 / 30)


def test_gap_to_ceiling_by_hand():
    data = results({"m": [{"A": 0.2, "B": 0.6}]})
    items = pd.DataFrame(
        {"replicate_cosine": [0.25, 0.64], "perfect_cosine": [0.5, 0.8]}, index=["A", "B"]
    )
    out = analyses.gap_to_ceiling(data, items, "cosine", 2)
    np.testing.assert_allclose(out["m / perfect"], [0.4, 0.75])
    assert analyses.gap_to_ceiling(data, items * np.nan, "cosine").empty


def test_plane_is_divided_by_the_training_mean():
    values = {"training mean": (2.0, 0.3), "a": (1.0, 0.5), "b": (3.0, 0.1), "c": (1.5, 0.2),
              "d": (2.5, 0.4), "oracle": (0.5, 0.9)}  # fmt: skip
    both = pd.concat(
        results({m: [{"A": v[i]}] for m, v in values.items()}, metric)
        for i, metric in enumerate(("squared_error", "cosine"))
    )
    out = analyses.error_correlation_plane(both).set_index("method")["against_training_mean"]
    assert out.to_dict() == {
        "training mean": "", "a": "better in both", "b": "worse in both", "c": "only error",
        "d": "only correlation", "oracle": "bound",
    }  # fmt: skip
    without = both[both["method"] != "training mean"]
    assert analyses.error_correlation_plane(without).empty


def test_by_measured_neighbours():
    data = results({"m": [{"x": 0.5, "y": 0.1, "w": 0.3}]})
    graph = named(("x", "p"), ("x", "q"), ("y", "p"))
    out = analyses.by_measured_neighbours(data, graph, "cosine", edges=(1, 2)).set_index(
        "measured_neighbours"
    )["mean"]
    assert out.to_dict() == {"0": 0.3, "1": 0.1, ">= 2": 0.5}
