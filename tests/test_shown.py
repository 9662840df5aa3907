"""What a result prints as: one line that does not grow with the data, and a table in notebooks."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import pertwise as pw
from pertwise._shown import Shown, short
from pertwise.kernels.genes import GeneBlocks
from pertwise.knowledge.drugs.table import DrugCard, DrugTable
from pertwise.knowledge.types import Embedding, Graph, Resolution
from pertwise.select import Pick, Selection

N = 5_000
NAMES = tuple(f"GENE{i}" for i in range(N))


def large() -> list[object]:
    support = pd.DataFrame({"n_support": np.zeros(N, int), "fallback": [""] * N})
    mean = np.zeros((N, 3), np.float32)
    return [
        pw.Prediction(NAMES, ("a", "b", "c"), mean, mean, support, provenance={"x" * 900: 1}),
        Graph("string", NAMES, csr_matrix((N, N), dtype=np.float32)),
        Embedding("text", NAMES, mean),
        Resolution(dict.fromkeys(NAMES, "A"), NAMES),
        GeneBlocks(NAMES, ("go",), (csr_matrix((N, 9)),)),
        Selection(tuple(Pick(n, "because") for n in NAMES), "a test"),
    ]


@pytest.mark.parametrize("made", large(), ids=lambda m: type(m).__name__)
def test_large_results_print_in_one_short_line(made):
    text = repr(made)
    assert text.startswith(type(made).__name__)
    assert len(text) < 700
    assert "\n" not in text
    assert f"{N:,}" in text
    assert NAMES[10] not in text


def test_values_are_told_by_shape_start_and_size():
    assert short(np.zeros((2, 3_000), np.float32)) == "float32 (2 x 3,000)"
    assert short([1, 2, 3, 4]) == "(1, 2, 3, ... 4 in all)"
    assert short({"a": 1}) == "{a}"
    assert short({1, 2}) == "2 items"
    assert short("two\nlines") == "'two lines'"
    assert short(b"x") == "b'x'"


@dataclass(frozen=True, repr=False)
class Table(Shown):
    word: str
    hidden: None = None

    @property
    def table(self) -> pd.DataFrame:
        if self.word == "bad":
            raise ValueError("cannot be made")
        return pd.DataFrame({"gene": [self.word] * 100})


def test_a_notebook_sees_the_first_rows_and_no_markup_of_the_data():
    html = Table("<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in html
    assert html.count("&lt;script&gt;") == 9
    assert "hidden" not in html


def test_a_table_that_cannot_be_made_does_not_hide_the_rest():
    assert Table("bad")._repr_html_() == "<div><code>Table(word=&#x27;bad&#x27;)</code></div>"


def test_knowledge_says_where_it_is_and_what_it_holds(simulated):
    _, knowledge = simulated
    assert repr(knowledge) == f"<Knowledge: folder {knowledge.path}>"
    assert repr(pw.Knowledge()) == "<Knowledge: nothing>"
    cards = DrugTable.from_cards([DrugCard(name=n) for n in NAMES])
    assert repr(pw.Knowledge(drugs=cards)) == "<Knowledge: 5,000 drugs>"
    assert len(repr(cards)) < 700


def test_a_screen_says_that_it_is_simulated():
    made = pw.simulate(0, n_perturbations=40, n_features=20)
    assert "SIMULATED" in made.screen._repr_html_()
    assert len(repr(made)) < 700
