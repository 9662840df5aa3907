"""Graph, embedding, recorded and set selectors on a small knowledge folder."""

import gzip
import json

import numpy as np
import pytest
from fake_knowledge import FakeKnowledge
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge import Graph
from pertwise.knowledge.recorded import read_recorded, read_recording
from pertwise.select import GraphSelector, Query, RecordedSelector, SetSelector
from pertwise.select.graph import rewired
from pertwise.select.recorded import LinkedSelector
from pertwise.select.similarity import mean_over_parts, strongest

EDGES = {
    "one": [(0, 1, 0.9), (1, 2, 0.5), (0, 2, 0.4)],
    "two": [(0, 3, 0.8), (0, 1, 0.2)],
}


class TwoGraphs(FakeKnowledge):
    """A triangle G000-G001-G002 in "one"; G000-G003 and G000-G001 in "two"."""

    def graph(self, name, exclude_from_screen=False):
        a = np.zeros((len(self.genes_), len(self.genes_)), dtype=np.float32)
        for i, j, w in EDGES[name]:
            a[i, j] = a[j, i] = w
        if name == "two" and exclude_from_screen:
            a[0, 1] = a[1, 0] = 0
        return Graph(name, self.genes_, csr_matrix(a))


def test_graph_neighbours_by_hand():
    knowledge = TwoGraphs()
    genes = ["G001", "G002", "G003", "G004", "OLD000"]
    one = GraphSelector(knowledge, "one").select(Query("G000"), genes, 5)
    assert one.items == ("G001", "G002")
    assert one.picks[0].evidence == ("one G000-G001 0.900",)
    both = GraphSelector(knowledge, ["one", "two"], exclude_from_screen=False)
    scores = both.similarity(["G000"], genes)[0]
    np.testing.assert_allclose(scores, [0.55, 0.2, 0.4, 0, 0])
    assert both.select(Query("G000"), genes, 2).items == ("G001", "G003")
    honest = GraphSelector(knowledge, "two").select(Query("G000"), genes, 5)
    assert honest.items == ("G003",)
    nothing = GraphSelector(knowledge, "one").select(Query("G050"), genes, 5)
    assert nothing.items == ()
    assert nothing.repair_counts() == {"too_few": 1}


def test_combinations_average_over_their_parts():
    knowledge = TwoGraphs()
    selector = GraphSelector(knowledge, "one")
    got = selector.similarity(["G000+G001"], ["G002", "G001+G002"])
    # (0-2 + 1-2) / 2 and (0-1 + 0-2 + 1-1 + 1-2) / 4; the part both share counts 1
    np.testing.assert_allclose(got, [[0.45, (0.9 + 0.4 + 1 + 0.5) / 4]], rtol=1e-6)
    assert mean_over_parts(lambda a, b: np.ones((len(a), len(b))), ["A"], ["B"]).shape == (1, 1)


def test_ties_are_decided_by_name_and_order_does_not_matter():
    scores = np.array([1.0, 2.0, 2.0, 2.0, np.nan, 0.0])
    np.testing.assert_array_equal(strongest(scores, 2, np.array([0, 3, 2, 1, 4, 5])), [3, 2])
    np.testing.assert_array_equal(strongest(scores, 9), [1, 2, 3, 0])


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 30), st.integers(0, 1000))
def test_rewiring_keeps_degrees_and_weights(n, seed):
    rng = np.random.default_rng(seed)
    a = np.triu((rng.random((n, n)) < 0.3) * rng.random((n, n)), 1)
    a = csr_matrix(a + a.T)
    b = rewired(a, np.random.default_rng(seed))
    np.testing.assert_array_equal(b.getnnz(axis=1), a.getnnz(axis=1))
    np.testing.assert_allclose(np.sort(b.data), np.sort(a.data))
    assert abs(b - b.T).sum() == 0
    assert (b.diagonal() == 0).all()


def test_rewiring_moves_edges():
    rng = np.random.default_rng(0)
    a = np.triu(rng.random((60, 60)) < 0.1, 1).astype(float)
    a = csr_matrix(a + a.T)
    kept = a.multiply(rewired(a, rng)).sum() / a.sum()
    assert kept < 0.3  # a random graph of this density shares about a tenth


def test_recorded_answers_are_restricted_and_cited(tmp_path):
    whole = {
        "model": "some model",
        "folds": [{"answers": {"X": {"kNN": ["B", "C"], "reason": "r"}}}],
    }
    file = tmp_path / "answers.json.gz"
    file.write_bytes(gzip.compress(json.dumps(whole).encode()))
    selector = RecordedSelector.from_file(file)
    assert selector.source == "recorded answers: some model"
    picked = selector.select(Query("X"), ["A", "C"], 5)
    assert picked.items == ("C",)
    assert picked.repair_counts() == {"out_of_list": 1}
    assert selector.select(Query("unasked"), ["A"], 5).items == ()

    lines = tmp_path / "answers.jsonl"
    lines.write_text('{"cell": "K562", "drug": "X", "neighbours": ["A"]}\n')
    by_line = RecordedSelector.from_file(lines)
    assert by_line.select(Query("X", "K562"), ["A"], 1).items == ("A",)
    assert by_line.select(Query("X", "RPE1"), ["A"], 1).items == ()  # answered for one line only
    lines.write_text('{"drug": "X", "neighbours": ["A"]}\n{"drug": "X", "neighbours": ["B"]}\n')
    with pytest.raises(InputError, match="twice"):
        RecordedSelector.from_file(lines)
    lines.write_text("not json\n")
    with pytest.raises(InputError, match="line 1"):
        RecordedSelector.from_file(lines)


def test_recorded_reasons_stay_with_their_neighbours(tmp_path):
    lines = tmp_path / "answers.jsonl"
    row = {"subject": "X", "neighbours": ["A", "B", "C"], "reasons": ["one.", "", "three"]}
    none = {"subject": "Y", "neighbours": [], "repairs": {"refusal": 3}}
    same = {"subject": "Z", "neighbours": ["A", "B"], "reasons": ["both", "both"], "source": "m"}
    lines.write_text("".join(json.dumps(r) + "\n" for r in (row, none, same)))
    found = read_recording(lines)
    assert found.answers["X"] == (("A", "B", "C"), "one; three")
    assert found.answers["Z"][1] == "both"
    assert found.problems == {"Y": ("refusal 3",)}
    assert read_recorded(lines) == (found.answers, {"model": "m"})
    selector = RecordedSelector.from_file(lines)
    picked = selector.select(Query("X"), ["C", "B"], 5)
    assert [(p.item, p.reason) for p in picked.picks] == [("B", "named number 2"), ("C", "three")]
    # A subject that nobody answered is not one about which something is known.
    assert set(selector.answers) == {"X", "Z"}
    (repair,) = selector.select(Query("Y"), ["A"], 5).repairs
    assert "asked about before" in repair.action
    (repair,) = selector.select(Query("W"), ["A"], 5).repairs
    assert "no recorded answer" in repair.action
    lines.write_text('{"subject": "X", "neighbours": ["A", "B"], "reasons": ["one"]}\n')
    with pytest.raises(InputError, match=r"answers.jsonl: the answer for 'X' names 2 neighbours"):
        read_recording(lines)


def test_set_operations():
    one = RecordedSelector({"X": (("A", "B", "C"), "")}, source="one", name="one")
    two = RecordedSelector({"X": (("C", "B", "D"), "")}, source="two", name="two")
    pool = ["A", "B", "C", "D", "E"]

    def items(operation):
        return SetSelector(one, two, operation).select(Query("X"), pool, 5).items

    assert items("intersection") == ("C", "B")  # 1/3 + 1 before 1/2 + 1/2
    assert items("union") == ("C", "A", "B", "D")  # 4/3, then 1 and 1 by name, then 1/3
    assert items("difference") == ("A",)
    assert SetSelector(one, two).cheap
    with pytest.raises(UnknownNameError, match="union"):
        SetSelector(one, two, "unoin")


def test_linked_lists_by_hand():
    """A names B, C; C names D; E names A. Ranks weigh 1, 1/2."""
    answers = {"A": (("B", "C"), ""), "C": (("D",), ""), "E": (("A", "nobody"), "")}
    linked = LinkedSelector(answers, source="test")
    got = linked.similarity(["A", "E", "unheard of"], ["B", "C", "D", "E"])
    # A reaches D through C: 1/3 of its list (1/2 of 3/2), all of that of C; E reaches B and C
    # through A: 2/3 of its list, times 2/3 and 1/3.
    want = [[1.0, 0.5, 1 / 3, 1.0], [4 / 9, 2 / 9, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(got, want, atol=1e-12)
    selection = linked.select(Query("A"), ["B", "C", "D", "E"], 10)
    assert [p.item for p in selection.picks] == ["B", "E", "C", "D"]
    assert selection.picks[0].reason == "named number 1 for A"
    assert selection.picks[1].reason == "A named number 1 for it"
    assert selection.picks[3].reason == "named for a neighbour"
    nothing = linked.select(Query("unheard of"), ["B"], 3)
    assert not nothing.picks
    assert nothing.repairs[0].kind == "too_few"
