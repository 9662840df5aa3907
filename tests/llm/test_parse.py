"""Reading answers: the last complete JSON of the right shape, never a draft in the reasoning."""

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
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
        GOOD.replace("[", '[ // best first: the "master"\n').replace("]", ", /* end */ ]"),
        GOOD.replace("{", "{ // {not} this\n", 1).replace('"r"', '"see http://x.y/*z"'),
        f"{GOOD}\n\nLess likely:\n{DRAFT}",
        f"{GOOD}\nNot similar: {DRAFT}",
        f"{DRAFT}\n\nFinal:\n{GOOD}",
        f"{DRAFT}\nWait, no. {GOOD}",
        f"{GOOD}\n{GOOD}",
        '{"picks": [{"name": "MYC", "similar": true}, {"name": "X", "similar": false}, "MAX"]}',
        '{"picks": [{"name": "X", "decision": "Reject"}, {"name": "MYC", "keep": "yes"}, "MAX"]}',
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


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
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


BAD = '["LDHA", "PKM", "ENO1"]'
BAD_PICKS = '{"picks": ["LDHA", "PKM", "ENO1"]}'
HALF = GOOD[:40]

#: Answers in which the only readable list is one that the model rejects, or a draft.
NOT_AN_ANSWER = {
    "rejected under another key": f'{{"excluded": {BAD}}}',
    "rejected, nested": f'{{"notes": {{"rejected": {BAD_PICKS}}}}}',
    "rejected beside a broken list": f'{{"rejected": {BAD}, "picks": [{{"name": "M" "x": 1}}]}}',
    "rejected after a broken list": f'{{"picks": [{{"reason": "a "b" c"}}], "excluded": {BAD}}}',
    "rejected after an odd quote": f'{{"picks": [{{"reason": "5" x"}}], "excluded": {BAD}}}',
    "rejected before a cut list": f'{{"considered": {BAD}, "picks": [{{"name": "MYC", "rea',
    "rejected object before a cut list": f'{{"considered": {BAD_PICKS}, "other": ',
    "wrapped as rejected": f'{{"answer": {{"rejected": {BAD}}}}}',
    "marked as rejected": f'{{"rejected": true, "picks": {BAD}}}',
    "introduced as rejected": f"I rejected {BAD_PICKS} and name MYC and MAX.",
    "heading says rejected": f"### Rejected\n```json\n{BAD_PICKS}\n```\n### Chosen\nMYC, MAX",
    "list in prose": f"Unlike {BAD}, the closest are:\n1. MYC\n2. MAX",
    "list in prose, kindly": f"The genes are {BAD}.",
    "two lists": f"{BAD}\n{BAD}",
    "two different lists of picks": f'{{"selected": {BAD}, "neighbours": ["MYC"]}}',
    "the key twice": f'{{"picks": {BAD}, "picks": ["MYC"]}}',
    "draft, then broken": f"First idea: {BAD_PICKS}\nBetter: {HALF}",
    "draft, then broken, unnamed": f'{BAD_PICKS}\n{{"picks": [{{"name": MYC}}]}}',
    "draft, then another shape": f'{BAD_PICKS} {{"picks": 7}}',
    "draft taken back": f"{BAD_PICKS}\nWait, those are all enzymes.",
    "two answers, neither called final": f"{BAD_PICKS}\n{GOOD}",
    "two answers, neutral words": f"Group 1:\n{GOOD}\nGroup 2:\n{BAD_PICKS}",
    "only unlikely ones": f"Unlikely to be similar:\n{BAD_PICKS}",
    "draft in words": f"Maybe {BAD_PICKS}? No, MYC and MAX.",
    "[THINK] never closed": f"[THINK]perhaps {BAD_PICKS}",
    "<think> after it": f"{BAD_PICKS}<think>no, wrong",
    "Kimi's marks": f"◁think▷ {BAD_PICKS}",
    "channel without final": f"<|channel|>analysis<|message|>{BAD_PICKS}",
    "channel after final": f"<|channel|>final<|message|>{BAD_PICKS}<|end|><|channel|>analysis no",
    "bare channel": f"analysisWe might say {BAD_PICKS}",
    "bare channel, cut final": f"analysisPerhaps {BAD_PICKS}assistantfinal{HALF}",
    "bare channel with a blank": f"analysis We might say {BAD_PICKS}",
    "DeepSeek's marks": f"<｜begin▁of▁thinking｜>{BAD_PICKS}",
    "chat marks": f"<|im_start|>think\n{BAD_PICKS}",
    "escaped marks": f"&lt;think&gt;{BAD_PICKS}",
    "no marks, Granite": f"Here is my thought process:\nWe could say\n{BAD_PICKS}\nbut then",
    "no marks, Apriel": f"Here are my reasoning steps:\n{BAD_PICKS}\nNow each in turn",
    "no marks, Qwen": f"Thinking Process:\n1. Start\n{BAD_PICKS}\n2. Check each",
    "no marks, the user": f"Okay, so the user wants genes. {BAD_PICKS} Now I need to check",
    "no marks, step by step": f"Let me think step by step. {BAD_PICKS} Next, verify",
    "thinking block": f"<thinking>{BAD_PICKS}</thinking>",
    "closing mark only": f"{BAD_PICKS}</think>I choose MYC and MAX",
}


@pytest.mark.parametrize("finish", ["stop", "length", ""])
@pytest.mark.parametrize("name", NOT_AN_ANSWER)
def test_what_the_model_rejects_or_drafts_is_never_its_answer(name, finish):
    with pytest.raises(AnswerError) as caught:
        parse_answer(NOT_AN_ANSWER[name], PicksAnswer, finish)
    assert caught.value.kind in ("unparsable", "empty", "truncated")
    assert len(caught.value.problem) < 500


@pytest.mark.parametrize(
    "text",
    [
        f"Considered {BAD_PICKS} but no. Final answer: {GOOD}",
        f"Rejected: {BAD}\n\nAnswer:\n{GOOD}",
        f"[THINK]{BAD_PICKS}[/THINK]{GOOD}",
        f"[THINK]{BAD_PICKS}[/think]\n```json\n{GOOD}\n```",
        f"◁think▷{BAD_PICKS}◁/think▷{GOOD}",
        f"<|START_THINKING|>{BAD_PICKS}<|END_THINKING|><|START_RESPONSE|>{GOOD}<|END_RESPONSE|>",
        f"<|channel>thought\n{BAD_PICKS}<channel|>{GOOD}",
        f"<seed:think>{BAD_PICKS}</seed:think>{GOOD}",
        f"<|channel|>analysis<|message|>{BAD_PICKS}<|end|><|start|>assistant<|channel|>final"
        f"<|message|>{GOOD}<|return|>",
        f"<|channel|>commentary<|message|>{BAD}<|channel|>final <|constrain|>json<|message|>{GOOD}",
        f"<|channel|>final{GOOD}",
        f"analysisWe might say {BAD_PICKS}.assistantfinal{GOOD}",
        f"<|im_start|>think\n{BAD_PICKS}<|im_end|>\n<|im_start|>answer\n{GOOD}",
        f"&lt;think&gt;{BAD_PICKS}&lt;/think&gt;{GOOD}",
        f"Here is my thought process:\n{BAD_PICKS}\nHere is my response:\n{GOOD}",
        f"Here are my reasoning steps:\n{BAD}\n[BEGIN FINAL RESPONSE]{GOOD}[END FINAL RESPONSE]",
        f"Okay, the user wants two genes. So:\n```json\n{GOOD}\n```",
        f"Sure, here it is: {GOOD} These respond alike.",
        f"<think>one<think>two</think>{BAD_PICKS}</think>{GOOD}",
        f'{{"rejected": {BAD}, "picks": ["MYC", "MAX"]}}',
        f'{{"rejected": {BAD_PICKS}, "final": {GOOD}}}',
        f'{{"genes": {BAD}, "selected": ["MYC", "MAX"]}}',
        '{"picks": [{"name": "PKM", "selected": false}, "MYC", "MAX"]}',
        f"{{broken: yes}} {GOOD}",
        '```json\n["MYC", "MAX"]\n```',
    ],
)
@pytest.mark.parametrize("finish", ["stop", ""])
def test_the_real_answer_beside_a_rejected_one(text, finish):
    assert names(text, finish_reason=finish) == ["MYC", "MAX"]


def test_cut_off_after_the_answer_is_cut_off():
    assert names(GOOD + "\n```", finish_reason="length") == ["MYC", "MAX"]
    for tail in ("\nNo: ", '\n{"picks"', "<think>hm", "\n["):
        with pytest.raises(AnswerError) as caught:
            parse_answer(GOOD + tail, PicksAnswer, "length")
        assert caught.value.kind == "truncated"
    with pytest.raises(AnswerError):
        parse_answer('["MYC", "MAX"]', PicksAnswer, "length")


def test_a_list_without_its_key_is_marked():
    assert parse_answer('["MYC"]', PicksAnswer).bare
    assert not parse_answer('{"picks": ["MYC"], "bare": true}', PicksAnswer).bare


HOSTILE = {
    "think tags": "<think>" * 50_000,
    "escaped tags": "&lt;think&gt;" * 40_000,
    "half escaped tags": "&lt;think " * 40_000,
    "thinking aloud": "okay so well " * 30_000,
    "half think tags": "<think" * 50_000,
    "think pairs": "<think></think>" * 25_000,
    "closing tags": "</think>" * 50_000,
    "channels": "<|channel|>" * 30_000,
    "brackets": "[" * 300_000,
    "json-like brackets": '{"a":[' * 60_000,
    "prose brackets": "[x" * 190_000,
    "brackets and an open quote": "[x" * 2_000 + '"' + "y" * 390_000,
    "balanced prose brackets": "[x" * 100_000 + "]" * 100_000,
    "backslashes": '{"' + "\\" * 390_000,
    "quotes": '{"' * 190_000,
    "commas": "[" + "," * 390_000 + "]",
    "spaces": "{" + " " * 390_000,
    "backticks": "`" * 390_000,
    "labels": "rejected " * 40_000 + GOOD,
    "nested lists": "[" * 190_000 + "]" * 190_000,
    "nested objects": '{"a":' * 60_000 + "1" + "}" * 60_000,
    "far too long": GOOD * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_long(name):
    start = time.monotonic()
    with pytest.raises(AnswerError):
        parse_answer(HOSTILE[name], PicksAnswer)
    # Seconds on a busy machine; what is quadratic takes minutes.
    assert time.monotonic() - start < 15
