"""Selector, then aggregate: by hand, with fallbacks, and what is refused."""

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.models.neighbours import NeighbourPredictor
from pertwise.screen import make_screen
from pertwise.select import OracleSelector, RecordedSelector


def screen():
    x = np.array([[1.0, 0.0], [3.0, 2.0], [5.0, 4.0], [-1.0, np.nan]])
    return make_screen(x, ["A", "B", "C", "D"], ["f", "g"])


def recorded(**answers):
    return RecordedSelector({k: (tuple(v), "said so") for k, v in answers.items()}, source="test")


def test_mean_of_named_neighbours_and_stated_fallback():
    model = NeighbourPredictor(recorded(X=["B", "D", "nobody"]), k=10).fit(screen())
    p = model.predict(["X", "Y"])
    np.testing.assert_allclose(p.mean[0], [1.0, 2.0])
    np.testing.assert_allclose(p.mean[1], [2.0, 2.0])  # the masked training mean
    assert p.support["fallback"].tolist() == ["", "training mean"]
    assert p.support["n_support"].tolist() == [2, 0]
    assert p.neighbours["neighbour"].tolist() == ["B", "D"]
    assert set(p.neighbours["reason"]) == {"said so"}


def test_fallback_chain_names_who_answered():
    first, second = recorded(X=["A"]), recorded(X=["B", "C"])
    second.name = "second"
    model = NeighbourPredictor(first, k=5, min_support=2, fallbacks=(second,)).fit(screen())
    p = model.predict(["X"])
    assert p.support["fallback"].iloc[0] == "second"
    np.testing.assert_allclose(p.mean[0], [4.0, 3.0])


def test_a_measured_perturbation_is_not_its_own_neighbour():
    truth = screen()
    oracle = OracleSelector(truth, ceiling_only=True, max_neighbours=1)
    model = NeighbourPredictor(oracle, k=1, ceiling=True).fit(truth)
    assert model.predict(["B"]).neighbours["neighbour"].tolist() != ["B"]


def test_the_oracle_is_refused_outside_evaluation():
    with pytest.raises(InputError, match="sees the answers"):
        OracleSelector(screen())
    oracle = OracleSelector(screen(), ceiling_only=True)
    with pytest.raises(InputError, match="cannot be used to predict"):
        NeighbourPredictor(oracle).fit(screen())


def test_cross_validated_shrinkage_needs_a_cheap_selector():
    class Asks:
        name = "asks"

        def select(self, query, candidates, n):
            raise AssertionError("must not be asked")

    with pytest.raises(InputError, match="every training"):
        NeighbourPredictor(Asks(), shrinkage="cv").fit(screen())


def test_useless_neighbours_are_shrunk_away_and_good_ones_are_not():
    rng = np.random.default_rng(0)
    groups = np.repeat(rng.normal(size=(10, 30)), 6, axis=0)
    y = groups + 0.3 * rng.normal(size=groups.shape)
    names = [f"G{i:02d}" for i in range(60)]
    data = make_screen(y, names, [f"f{i}" for i in range(30)])
    same = {n: [names[j] for j in range(i // 6 * 6, i // 6 * 6 + 6) if j != i]
            for i, n in enumerate(names)}  # fmt: skip
    other = {n: [names[(i + 7 * j) % 60] for j in range(1, 6)] for i, n in enumerate(names)}
    good = NeighbourPredictor(recorded(**same), k=5, shrinkage="cv").fit(data)
    bad = NeighbourPredictor(recorded(**other), k=5, shrinkage="cv").fit(data)
    assert good._strength == 0.0
    assert bad._strength == 16.0
