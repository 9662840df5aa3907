"""Reading answers: the last complete JSON of the right shape, never a draft in the reasoning."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertwise.llm.answers import EditAnswer, JudgeAnswer, PicksAnswer
from pertwise.llm.parse import AnswerError, json_values, parse_answer
from pertwise.llm.reasoning import visible_text


def names(text, **kw):
    return [p.name for p in parse_answer(text, PicksAnswer, **kw).picks]


GOOD = '{"picks": [{"name": "MYC", "reason": "r"}, {"name": "MAX", "reason": "s"}]}'
DRAFT = '{"picks": [{"name": "DRAFT", "reason": "r"}]}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"Sure! Here it is:\n```json\n{GOOD}\n```\nHope that helps {{really}}.",
        f"<think>maybe {DRAFT}</think>{GOOD}",
        f"maybe {DRAFT}</think>{GOOD}",
        f"<think>a</think><think>{DRAFT}</think> {GOOD}",
        f"First draft: {DRAFT} On reflection: {GOOD}",
        f'{GOOD} (see {{"note": 1}})',
        f'{{"answer": {GOOD}}}',
        f'{{"draft": {DRAFT}, "final": {GOOD}}}',
        GOOD.replace("]}", ",]}").replace("}]", "},]"),
        GOOD.replace('"', "'"),
        GOOD.replace('"r"', '"line\nbreak"'),
        '["MYC", "MAX"]',
        '{"genes": ["MYC", "MAX"]}',
        '{"selected_genes": {"MYC": "why", "MAX": "because"}}',
        '[{"gene": "MYC", "rationale": "x"}, {"symbol": "MAX"}]',
        f"[1] and [see] {{x}} then {GOOD}",
    ],
)
def test_readable(text):
    assert names(text) == ["MYC", "MAX"]


@pytest.mark.parametrize(
    ("text", "finish", "kind"),
    [
        ("", "stop", "empty"),
        ("   \n", "stop", "empty"),
        (f"<think>{GOOD}", "stop", "empty"),
        (f"<think>{GOOD}</think>", "stop", "empty"),
        ("", "length", "truncated"),
        (GOOD[:30], "length", "truncated"),
        (GOOD[:30], "stop", "unparsable"),
        ("MYC and MAX", "stop", "unparsable"),
        ('{"picks": 3}', "stop", "unparsable"),
        ("I'm sorry, but I can't help with that.", "stop", "refusal"),
        ("I cannot assist with gene editing.", "stop", "refusal"),
        (GOOD, "refusal", "refusal"),
    ],
)
def test_unusable(text, finish, kind):
    with pytest.raises(AnswerError) as caught:
        parse_answer(text, PicksAnswer, finish)
    assert caught.value.kind == kind
    assert caught.value.problem


def test_an_apology_with_an_answer_is_an_answer():
    assert names(f"I'm sorry for the confusion, I cannot rank more. {GOOD}") == ["MYC", "MAX"]


def test_reasons_survive():
    answer = parse_answer('{"picks": {"MYC": {"reason": "a"}, "MAX": "b"}}', PicksAnswer)
    assert [(p.name, p.reason) for p in answer.picks] == [("MYC", "a"), ("MAX", "b")]


def test_commas_and_brackets_inside_strings_are_kept():
    text = '{"picks": [{"name": "A", "reason": "x,] and {y,} \\" z"},]}'
    assert parse_answer(text, PicksAnswer).picks[0].reason == 'x,] and {y,} " z'


def test_edit_and_judge_shapes():
    edit = parse_answer('{"additions": null, "removals": ["A"]}', EditAnswer)
    assert (edit.add, edit.remove[0].name) == ([], "A")
    judge = parse_answer(
        '{"preference": "Set B", "confidence": "80%", "reasons": "one", "strengths": {"A": "x"}}',
        JudgeAnswer,
    )
    assert (judge.preference, judge.confidence, judge.reasons) == ("B", 0.8, ["one"])
    assert judge.strengths == {"A": ["x"]}
    for bad in ('{"preference": "C", "confidence": 1}', '{"preference": "A", "confidence": 7}'):
        with pytest.raises(AnswerError):
            parse_answer(bad, JudgeAnswer)


json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.text(max_size=5), json_text), min_size=1, max_size=4))
def test_every_object_between_prose_is_found(objects):
    text = "prose ".join(json.dumps(o) + "\n" for o in objects)
    assert json_values(text) == objects


@given(st.text(max_size=300))
def test_any_text_parses_or_says_why(text):
    kind = ""
    try:
        parse_answer(text, PicksAnswer)
    except AnswerError as error:
        kind = error.kind
    assert kind in {"", "empty", "refusal", "unparsable"}


@given(st.text(alphabet='{["]},:a1 ', max_size=400))
def test_bracket_soup_ends(text):
    json_values(text)


def test_many_open_brackets_are_not_quadratic_for_ever():
    assert json_values("[{" * 100_000) == []


def test_visible_text_keeps_what_is_no_reasoning():
    assert visible_text("a < b and <thinker> c") == "a < b and <thinker> c"
