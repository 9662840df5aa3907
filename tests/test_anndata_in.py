"""An AnnData goes wherever a screen or the path of one does, and gives the same."""

import numpy as np
import pytest

import pertwise as pw


@pytest.fixture(scope="module")
def given(simulated):
    screen, knowledge = simulated
    return screen, screen.to_anndata(), knowledge


def test_predict(given):
    screen, data, _ = given
    names = screen.perturbations[:2]
    one, two = (pw.predict(s, names, method="training-mean", folds=0) for s in (screen, data))
    np.testing.assert_array_equal(one.prediction.mean, two.prediction.mean)
    assert two.simulated


def test_plan(given):
    screen, _, knowledge = given
    left = list(screen.perturbations[40:])
    hidden = screen.hide(left)
    settings = {"candidates": left, "batch": 3, "strategy": "typiclust", "seed": 0}
    one, two = (pw.plan(s, knowledge, **settings) for s in (hidden, hidden.to_anndata()))
    assert one.genes == two.genes
    assert two.inputs["screen"]["note"] == "an AnnData object given in the call"


def test_design_and_join(given):
    screen, data, _ = given
    assert repr(pw.design(data)) == repr(pw.design(screen))
    rows = pw.join({"first": data, "second": data}, duplicates="average")
    assert set(rows.perturbations) == set(screen.perturbations)


def test_questions(given, scripted_llm):
    screen, data, knowledge = given
    chat = pw.chat(scripted_llm.openai("scripted"))
    try:
        names = screen.perturbations[:2]
        asked = [pw.ask(s, names, llm=chat, knowledge=knowledge) for s in (screen, data)]
        rated = pw.rate(data, names=names, llm=chat)
    finally:
        chat.shutdown()
    assert repr(asked[0]) == repr(asked[1])
    assert set(rated.table["perturbation"]) == set(names)
