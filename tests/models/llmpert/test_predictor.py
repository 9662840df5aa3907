"""The named predictor: conformance, fallbacks, masks, refusals."""

import numpy as np
import pytest
from fake_knowledge import FakeKnowledge

from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge.ratings import Ratings
from pertwise.models.llmpert.predictor import NO_FEATURES, LLMPertEnsemble
from pertwise.screen.core import make_screen
from pertwise.testing.predictors import CHECKS, example_screen

pytest.importorskip("torch")

QUICK = {"hidden": (16, 8), "epochs": 15, "members": 3}


def quick(embedding="text", **more):
    return LLMPertEnsemble(embedding, **{**QUICK, **more})


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check):
    CHECKS[check](quick, example_screen(), FakeKnowledge())


def test_uncertainty_is_the_mean_variance_of_the_members():
    screen = example_screen()
    model = quick().fit(screen, FakeKnowledge())
    names = ["G030", "G040", "G041"]
    p = model.predict(names)
    expected = p.members.var(axis=0, ddof=1)
    np.testing.assert_allclose(p.mean, p.members.mean(axis=0), atol=1e-6)
    u = model.uncertainty(names)
    assert list(u.index) == names
    np.testing.assert_allclose(u, expected.mean(axis=1), rtol=1e-4)
    subset = model.uncertainty(names, ["f3", "f0"])
    np.testing.assert_allclose(subset, expected[:, [0, 3]].mean(axis=1), rtol=1e-4)
    noise = p.spread**2 - expected
    np.testing.assert_allclose(noise, np.tile(noise[:1], (3, 1)), atol=1e-5)
    assert (noise > 0).all()


def test_members_can_be_left_out():
    model = quick(keep_members=False).fit(example_screen(), FakeKnowledge())
    assert model.predict(["G030"]).members is None


def test_learns_more_than_the_training_mean():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((160, 6))
    y = z @ rng.standard_normal((6, 20)) + 0.1 * rng.standard_normal((160, 20))
    names = [f"G{i:03d}" for i in range(160)]
    screen = make_screen(y, names, [f"f{i}" for i in range(20)])
    model = LLMPertEnsemble(dict(zip(names, z, strict=True)), hidden=(64, 32), epochs=150, seed=1)
    p = model.fit(screen.hide(names[120:])).predict(names[120:])
    error = np.mean((p.mean - y[120:]) ** 2)
    assert error < 0.5 * np.mean((y[:120].mean(axis=0) - y[120:]) ** 2)


def test_combination_is_the_mean_of_its_parts():
    vectors = dict(zip("ABCDE", np.eye(5), strict=True))
    vectors["half"] = (vectors["A"] + vectors["B"]) / 2
    y = np.random.default_rng(0).standard_normal((4, 6))
    model = quick(vectors).fit(make_screen(y, list("ABCD"), list("uvwxyz")))
    p = model.predict(["B+A", "half", "A+unheard"])
    assert p.perturbations == ("A+B", "half", "A+unheard")
    np.testing.assert_allclose(p.mean[0], p.mean[1], atol=1e-6)
    assert list(p.support["fallback"]) == ["", "", NO_FEATURES]
    assert model.uncertainty(["unheard"]).iloc[0] > 0


def test_rows_without_features_and_features_without_rows_are_counted():
    y = np.random.default_rng(0).standard_normal((5, 4))
    y[:, 2] = np.nan
    screen = make_screen(y, ["G001", "G002", "G003", "G004", "NOSUCH"], list("abcd"))
    p = quick().fit(screen, FakeKnowledge()).predict(["G005"])
    assert p.provenance["n_without_features"] == 1
    assert p.provenance["without_features"] == ["NOSUCH"]
    assert p.provenance["n_features_never_measured"] == 1
    assert p.mean[0, 2] == 0
    assert p.support["n_support"].iloc[0] == 4
    model = quick().fit(screen, FakeKnowledge())
    with pytest.raises(InputError, match="none of the 1 features"):
        model.uncertainty(["G005"], ["c"])
    with pytest.raises(UnknownNameError, match="unknown feature 'e'"):
        model.uncertainty(["G005"], ["e"])


def test_seed_changes_the_result():
    screen = example_screen()
    a, b = (quick(seed=s).fit(screen, FakeKnowledge()).predict(["G030"]).mean for s in (0, 1))
    assert not np.allclose(a, b)


def test_refusals():
    screen = example_screen()
    with pytest.raises(InputError, match="knowledge folder"):
        quick().fit(screen)
    with pytest.raises(InputError, match="has not been fitted"):
        quick().predict(["G001"])
    with pytest.raises(UnknownNameError, match=r"unknown hyper-parameter.*'epoch'.*'epochs'"):
        LLMPertEnsemble(epoch=3)
    two = make_screen(np.ones((2, 2)), ["A", "A"], ["f", "g"], context=["K562", "RPE1"])
    with pytest.raises(InputError, match="several measured rows"):
        quick({"A": [1.0, 2.0]}).fit(two)
    with pytest.raises(InputError, match="'A' has 2, 'B' has 1"):
        quick({"A": [1, 2], "B": [1]})
    with pytest.raises(InputError, match="none of the 24 measured"):
        quick({"A": [1, 2]}).fit(screen)
    with pytest.raises(InputError, match="every response is NaN"):
        quick({"A": [1, 2]}).fit(make_screen([[np.nan]], ["A"], ["f"]))
    one = quick({"A": [1, 2], "B": [2, 1]}, members=1)
    one.fit(make_screen([[1.0], [2.0]], ["A", "B"], ["f"]))
    with pytest.raises(InputError, match="at least 2 members"):
        one.uncertainty(["A"])


def test_marks_are_inputs_and_dealt_to_wrong_genes_say_nothing():
    rng = np.random.default_rng(4)
    names = [f"G{i:03d}" for i in range(160)]
    marks = rng.integers(-6, 7, (160, 3)) / 2
    screen = make_screen(
        marks @ rng.standard_normal((3, 20)) + 0.1 * rng.standard_normal((160, 20)),
        names,
        [f"f{i}" for i in range(20)],
    )
    noise = dict(zip(names[:-1], rng.standard_normal((159, 6)), strict=True))
    train, test = screen.hide(names[120:]), names[120:]

    def error(table):
        ratings = Ratings.from_marks(names, ["a", "b", "c"], table)
        model = LLMPertEnsemble(noise, ratings=[ratings], hidden=(64, 32), epochs=150, seed=1)
        p = model.fit(train).predict(test)
        return np.mean((p.mean - screen.responses[120:]) ** 2), p

    right, p = error(marks)
    wrong, _ = error(rng.permutation(marks))
    none = np.mean((screen.responses[:120].mean(axis=0) - screen.responses[120:]) ** 2)
    assert right < 0.4 * none < 0.6 * wrong
    assert p.provenance["inputs_of_marks"] == 3
    # The last one has marks only: it is predicted by them, without a fallback.
    assert not p.support["fallback"].iloc[-1]
    assert np.mean((p.mean[-1] - screen.responses[-1]) ** 2) < none


def test_gaps_in_the_inputs_are_the_mean_training_input():
    names = [f"G{i:03d}" for i in range(30)]
    rng = np.random.default_rng(5)
    vectors = dict(zip(names, rng.standard_normal((30, 4)), strict=True))
    screen = make_screen(rng.standard_normal((30, 5)), names, [f"f{i}" for i in range(5)])
    table = rng.integers(-3, 4, (20, 2)).astype(float)
    ratings = Ratings.from_marks(names[:20], ["a", "b"], table)
    model = quick(vectors, ratings=[ratings]).fit(screen)
    x, known = model._inputs([*names, "G000+G001", "NOSUCH", "G000+G029"])
    assert known.tolist() == [True] * 31 + [False, True]
    assert np.isfinite(x).all()
    np.testing.assert_allclose(x[20:30, 4:], np.tile(x[:20, 4:].mean(axis=0), (10, 1)), atol=1e-6)
    np.testing.assert_allclose(x[30], (x[0] + x[1]) / 2, atol=1e-6)
    # Brought to the variance of the other inputs (over the rows that have marks).
    total = x[:30, :4].var(axis=0).sum()
    assert x[:20, 4:].var(axis=0).sum() == pytest.approx(total, rel=1e-5)


def test_marks_of_other_genes_change_nothing_and_warn_of_nothing(recwarn):
    names = [f"G{i:03d}" for i in range(30)]
    rng = np.random.default_rng(6)
    vectors = dict(zip(names, rng.standard_normal((30, 4)), strict=True))
    screen = make_screen(rng.standard_normal((30, 5)), names, [f"f{i}" for i in range(5)])
    ratings = Ratings.from_marks(["ELSE1", "ELSE2"], ["a", "b"], np.ones((2, 2)))
    p = quick(vectors, ratings=[ratings]).fit(screen).predict(names[:3])
    assert np.isfinite(p.mean).all()
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]
