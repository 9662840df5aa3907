"""Readers and writers of plain files: JSON lines, workbooks."""

import io
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertwise._files import json_lines, read_json
from pertwise._tables import workbook_bytes
from pertwise.errors import InputError


def test_blank_lines_count_and_are_left_out():
    found = list(json_lines(['{"a": 1}', "", "  ", '{"b": 2}'], "file"))
    assert found == [(1, {"a": 1}), (4, {"b": 2})]


@pytest.mark.parametrize(
    ("line", "why"),
    [("{", "is not JSON"), ("[1]", "is no JSON object"), ("[" * 100_000, "is not JSON")],
)
def test_a_line_that_is_none_is_named(line, why):
    with pytest.raises(InputError, match=f"x.jsonl line 2 {why}"):
        list(json_lines(["{}", line], "x.jsonl"))
    if why == "is not JSON":
        with pytest.raises(InputError, match=r"; get it again$"):
            list(json_lines([line], "x.jsonl", "get it again"))


@given(st.lists(st.dictionaries(st.text(), st.integers())))
def test_what_was_written_is_read(rows):
    lines = [json.dumps(row) for row in rows]
    assert [row for _, row in json_lines(lines, "file")] == rows


def test_half_a_surrogate_pair_is_no_text(tmp_path):
    line = '{"a": ["x\\ud800", "\\uD83D\\ude00"], "\\udc00": NaN}'
    (tmp_path / "x.json").write_text(line)
    whole = read_json(tmp_path / "x.json")
    assert whole["a"] == ["x\ufffd", "\U0001f600"]
    assert list(whole) == ["a", "\ufffd"]
    assert next(json_lines([line], "x.jsonl"))[1]["a"] == whole["a"]


def test_a_workbook_holds_what_a_workbook_can_hold_and_runs_nothing():
    openpyxl = pytest.importorskip("openpyxl")
    text = ["=1+1", "a\x01b\x0b", "x" * 40_000, "plain"]
    table = pd.DataFrame({"id": text, "n": [1.5, 2.0, 3.0, 4.0]})
    made = workbook_bytes({"guides": table, "empty": pd.DataFrame()})
    assert made == workbook_bytes({"guides": table, "empty": pd.DataFrame()})
    book = openpyxl.load_workbook(io.BytesIO(made))
    assert book.sheetnames == ["guides"]
    cells = [row[0].value for row in book["guides"].iter_rows(min_row=2)]
    assert cells[0] == "'=1+1"
    assert cells[1].startswith("ab")
    assert len(cells[2]) == 32_000
    assert cells[3] == "plain"
