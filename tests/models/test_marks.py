"""Marks help where they say something, and only there; every kernel model takes them."""

import numpy as np
import pytest
from drug_example import drug_screen, drug_table

from pertwise import parts
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge
from pertwise.knowledge.ratings import Ratings, write_ratings
from pertwise.screen.core import make_screen


@pytest.fixture(scope="module")
def marked():
    """A screen whose responses are what two programs say, seen through noise, and the marks."""
    rng = np.random.default_rng(3)
    marks = rng.integers(-6, 7, (60, 2)) / 2
    axes = rng.normal(size=(2, 20))
    responses = (marks @ axes + 0.3 * rng.normal(size=(60, 20))).astype(np.float32)
    names = [f"G{i:02d}" for i in range(60)]
    screen = make_screen(responses, names, [f"f{j}" for j in range(20)])
    strength = np.minimum(3, np.abs(marks).sum(axis=1, keepdims=True) / 2)
    ratings = Ratings.from_marks(
        names, ["up", "down", "strength"], np.hstack([marks, strength]), source="a person"
    )
    return screen, ratings


def shuffled(ratings, seed=0):
    order = np.random.default_rng(seed).permutation(len(ratings.names))
    return Ratings.from_marks(ratings.names, ratings.programs, ratings.marks[order])


def error(method, screen, knowledge=None, **settings):
    train, test = screen.perturbations[:40], screen.perturbations[40:]
    model = parts.load("predictor", method, **settings)
    found = model.fit(screen.of_perturbations(train), knowledge).predict(test)
    place = {n: i for i, n in enumerate(screen.perturbations)}
    truth = screen.responses[[place[n] for n in test]]
    return float(((found.mean - truth) ** 2).sum(axis=1).mean()), found


@pytest.mark.parametrize("method", ["marks", "multi-kernel", "radial", "forest"])
def test_marks_predict_what_they_say_and_dealt_to_wrong_genes_they_do_not(method, marked):
    screen, ratings = marked
    mean, _ = error("training-mean", screen)
    right, found = error(method, screen, Knowledge(ratings=[ratings]))
    wrong, _ = error(method, screen, Knowledge(ratings=[shuffled(ratings)]))
    assert right < 0.5 * mean
    assert wrong > 0.8 * mean
    if method != "forest":
        assert any("marks" in x for x in map(str, found.provenance.values())) or method == "radial"


def test_a_file_and_the_knowledge_are_the_same_and_false_is_none(marked, tmp_path):
    screen, ratings = marked
    path = tmp_path / "marks.csv"
    write_ratings(path, [ratings])
    _, of_file = error("marks", screen, ratings=str(path))
    _, of_knowledge = error("marks", screen, Knowledge(ratings=[ratings]))
    np.testing.assert_array_equal(of_file.mean, of_knowledge.mean)
    known = Knowledge(ratings=[ratings])
    _, off = error("multi-kernel", screen, known, ratings=False)
    _, without = error("multi-kernel", screen, Knowledge())
    np.testing.assert_array_equal(off.mean, without.mean)
    with pytest.raises(InputError, match="no marks"):
        error("marks", screen)
    with pytest.raises(InputError, match="no marks"):
        error("marks", screen, Knowledge())


def test_what_was_not_marked_gets_the_mean_and_says_so(marked):
    screen, ratings = marked
    model = parts.load("predictor", "marks").fit(screen, Knowledge(ratings=[ratings]))
    found = model.predict(["NOBODY", "G01"])
    assert found.support["fallback"].tolist() == ["training mean", ""]


@pytest.mark.parametrize("method", ["marks", "multi-kernel", "kernel-ridge"])
def test_marks_of_compounds_over_several_contexts(method):
    screen = drug_screen()
    rng = np.random.default_rng(0)
    ratings = Ratings.from_marks(
        list(screen.perturbations), ["up"], rng.integers(-6, 7, (len(screen.perturbations), 1)) / 2
    )
    model = parts.load("predictor", method).fit(
        screen, Knowledge(None, drug_table(), None, [ratings])
    )
    found = model.predict(list(screen.perturbations[:2]), screen.contexts[0])
    assert np.isfinite(found.mean).all()
    assert any("marks" in name for name in found.provenance["weights"])


def test_predict_takes_marks_and_refuses_them_where_they_mean_nothing(marked, tmp_path):
    import pertwise as pw

    screen, ratings = marked
    path = tmp_path / "marks.csv"
    write_ratings(path, [ratings])
    asked = list(screen.perturbations[40:])
    settings = {"method": "marks", "folds": 0}
    found = pw.predict(screen, asked, ratings=path, **settings)
    again = pw.predict(screen, asked, knowledge=Knowledge(ratings=[ratings]), **settings)
    np.testing.assert_allclose(found.prediction.mean, again.prediction.mean, atol=1e-6)
    assert "ratings" in found.record["inputs"]
    with pytest.raises(InputError, match=r"'training-mean' does not use marks.*multi-kernel"):
        pw.predict(screen, asked, ratings=path, method="training-mean", folds=0)


def test_no_command_ignores_marks(marked, tmp_path):
    from typer.testing import CliRunner

    from pertwise.cli.main import app

    screen, ratings = marked
    path, file = tmp_path / "marks.csv", tmp_path / "screen.h5ad"
    write_ratings(path, [ratings])
    screen.save(file)
    base = ["--ratings", str(path), "--out", str(tmp_path / "out")]
    for command, said in (
        (["predict", str(file), "--names", "G50", "--method", "training-mean"], "not use marks"),
        (["plan", "make", str(file), "--batch", "3"], "does not use marks"),
        (["ask", str(file), "--names", "X", "--llm", "m@http://127.0.0.1:9/v1"], "--ratings"),
    ):
        done = CliRunner().invoke(app, [*command, *base])
        assert done.exit_code != 0
        assert said in str(done.exception), done.output
    done = CliRunner().invoke(
        app, ["predict", str(file), "--names", "G50", "--method", "marks", "--folds", "0", *base]
    )
    assert done.exit_code == 0, done.output
