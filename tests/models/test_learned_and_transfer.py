"""Learned similarity, another cell line, combinations of perturbations."""

import numpy as np
import pytest

from pertwise import parts
from pertwise.errors import InputError
from pertwise.kernels.transfer import OtherScreen
from pertwise.models.combinations import AdditivePredictor
from pertwise.models.learned import LearnedNeighbourPredictor
from pertwise.models.linear import BilinearPredictor, bilinear
from pertwise.models.recipes import multi_kernel, transfer
from pertwise.screen import make_screen
from pertwise.select.learned import pair_weights


def test_pair_weights_find_the_kernel_behind_the_responses():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 40, 5))
    gram = x @ x.transpose(0, 2, 1)
    response = 0.5 * gram[0] + 0.1 * gram[2] - 0.2
    weights, offset = pair_weights(gram, response)
    np.testing.assert_allclose(weights, [0.5, 0, 0.1], atol=1e-8)
    assert offset == pytest.approx(-0.2)


def test_learned_neighbours_say_why(simulated):
    screen, knowledge = simulated
    names = screen.perturbations
    model = LearnedNeighbourPredictor(k=4).fit(screen.hide(names[:5]), knowledge)
    found = model.predict(names[:5])
    assert found.neighbours is not None
    assert found.neighbours.groupby("perturbation").size().max() <= 4
    assert found.neighbours["reason"].str.contains(r"\(x 0\.").all()
    assert set(model.selector.settings()["weights"]) <= set(model.kernels)


def test_another_line_helps_where_it_was_measured(simulated):
    screen, knowledge = simulated
    rng = np.random.default_rng(1)
    names = list(screen.perturbations)
    # The other line shares the hidden groups, but none of the features.
    groups = rng.integers(0, 4, len(names))
    here = rng.normal(size=(4, 20))[groups] + 0.3 * rng.normal(size=(len(names), 20))
    there = rng.normal(size=(4, 9))[groups] + 0.3 * rng.normal(size=(len(names), 9))
    one = make_screen(here, names, [f"a{i}" for i in range(20)])
    other = make_screen(there, names, [f"b{i}" for i in range(9)], context="there")
    held = names[:12]
    truth = one.of_perturbations(held).responses
    with_other = transfer(other).fit(one.hide(held), knowledge).predict(held)
    alone = multi_kernel().fit(one.hide(held), knowledge).predict(held)
    assert ((with_other.mean - truth) ** 2).mean() < 0.5 * ((alone.mean - truth) ** 2).mean()
    assert with_other.provenance["sources"] == ["responses in there"]
    blank = OtherScreen(other).rows("there: measured", ["unseen"])
    assert blank.nnz == 0
    with pytest.raises(InputError, match="at least 3"):
        OtherScreen(other.take([0, 1]))


def test_additive_combinations_by_hand():
    x = np.array([[1.0, 0.0], [2.0, 2.0], [6.0, 4.0]])
    screen = make_screen(x, ["A", "B", "A+B"], ["f", "g"])
    model = AdditivePredictor().fit(screen)
    # slope of (6, 4) on (3, 2) is 2, shrunk to 1 by one pseudo-combination: (26 + 13) / (13 + 13)
    assert model.factor == pytest.approx(1.5)
    p = model.predict(["B+A", "A+C", "C"])
    np.testing.assert_allclose(p.mean[0], [4.5, 3.0])
    mean = x[:2].mean(axis=0)
    np.testing.assert_allclose(p.mean[1], 1.5 * (x[0] + mean))
    np.testing.assert_allclose(p.mean[2], mean)
    assert p.support["n_support"].tolist()[:2] == [2, 1]
    assert p.support["fallback"].tolist() == ["", "C: training mean", "training mean"]
    assert p.support["predicted_parts"].tolist() == ["", "C", "C"]
    with pytest.raises(InputError, match="single perturbations"):
        AdditivePredictor().fit(make_screen(x[:1], ["A+B"], ["f", "g"]))


def test_parts_that_a_predictor_knows_are_no_fallback(simulated):
    data, knowledge = simulated
    names = data.perturbations
    model = parts.load("predictor", "additive", single="embedding neighbours", k=3)
    p = model.fit(data.hide(names[:2]), knowledge).predict([f"{names[0]}+{names[5]}", "NOSUCH1"])
    assert p.support["predicted_parts"].tolist() == [names[0], "NOSUCH1"]
    assert p.support["fallback"].tolist() == ["", "training mean"]
    one = parts.load("predictor", "embedding neighbours", k=3)
    one.fit(data.hide(names[:2]), knowledge)
    want = one.predict([names[0]]).mean[0] + data.responses[names.index(names[5])]
    np.testing.assert_allclose(p.mean[0], want, rtol=1e-4, atol=1e-6)


def test_bilinear_closed_form_minimises_its_penalised_error():
    rng = np.random.default_rng(2)
    a, b, y = rng.normal(size=(30, 4)), rng.normal(size=(8, 3)), rng.normal(size=(30, 8))
    k = bilinear(y, a, b, 0.1)
    left = np.linalg.inv(a.T @ a + 0.1 * np.eye(4))
    right = np.linalg.inv(b.T @ b + 0.1 * np.eye(3))
    np.testing.assert_allclose(k, left @ a.T @ y @ b @ right, atol=1e-10)
    exact = bilinear(a @ np.ones((4, 3)) @ b.T, a, b, 1e-12)
    np.testing.assert_allclose(exact, np.ones((4, 3)), atol=1e-6)
    assert BilinearPredictor().penalty == 0.1
