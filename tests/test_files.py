"""JSON lines: every line is an object or named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertwise._files import json_lines
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
