"""The prediction page: complete, honest, self-contained, safe against untrusted text."""

import dataclasses
import re

import pytest
from fake_knowledge import FakeKnowledge
from report.test_plan_page import Reader

from pertwise.prediction.predicting import predict
from pertwise.report.prediction_page import render_prediction, write_page
from pertwise.testing.predictors import example_screen

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def found():
    return predict(
        example_screen(),
        ["G001", "G060", EVIL],
        knowledge=FakeKnowledge(),
        method="graph neighbours",
        folds=3,
    )


def test_page_shows_statement_neighbours_and_banner(found):
    page = Reader(render_prediction(found))
    text = " ".join(page.text)
    assert "Simulated data." in text
    assert found.standing.sentence.split(":")[0] in text
    for e in found.explanations[:2]:
        assert e.perturbation in text
        for name in e.neighbours["neighbour"]:
            assert name in text
    assert "G001 was measured in this screen" in text
    assert "2 of 3 predictions are fallbacks" in text


def test_page_asks_no_server_and_escapes_names(found):
    text = render_prediction(found)
    assert EVIL not in text
    assert not re.findall(r'(?:src|href)="https?:', text)
    assert text.count("<script>") == 1


def test_page_without_check_says_so(found):
    text = render_prediction(dataclasses.replace(found, standing=None))
    assert "NOT checked" in text


def test_method_without_neighbours_or_spread_has_a_page(tmp_path):
    found = predict(example_screen(), ["G060"], method="control", folds=3)
    text = write_page(found, tmp_path).read_text()
    assert "names no neighbours" in text
    assert "does NOT beat the training mean" in text.replace("&#39;", "'")
    Reader(text)
