"""Responses as servers really send them: read what is there, count what was billed."""

import json

import pytest

from pertwise.llm import Message, open_chat
from pertwise.llm.answers import PicksAnswer
from pertwise.llm.failures import CallFailure
from pertwise.llm.parse import parse_answer
from pertwise.llm.wire import Dialect, HttpBackend

ANSWER = '{"picks": [{"name": "PAX6", "reason": "eye"}]}'
BROKEN = "broken \ud800 text"


def backend(protocol="openai"):
    where = "m@http://127.0.0.1:9/v1" if protocol == "openai" else "anthropic:m@http://127.0.0.1:9"
    chat = open_chat(where)
    request = chat.request((Message(role="user", content="a question of some length " * 9),))
    return HttpBackend(chat.address, chat.settings, "key-of-test", chat._redact), request


def read(payload, protocol="openai", status=200, **headers):
    sender, request = backend(protocol)
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return sender.read(status, headers, data, request, Dialect())


def openai(content=ANSWER, usage=None, finish="stop", **message):
    used = {"usage": usage} if usage is not None else {}
    choice = {"finish_reason": finish, "message": {"content": content, **message}}
    return {"model": "m", "choices": [choice], **used}


TEXT = {"type": "text", "text": ANSWER}
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("payload", "reasoning", "note"),
    [
        (openai(), "", ""),
        (openai([TEXT]), "", ""),
        (openai([{"type": "output_text", "text": ANSWER}]), "", ""),
        (openai([THOUGHT, TEXT]), "hm", ""),
        (openai([{"type": "reasoning", "summary": ["h", "m"]}, ANSWER[:9], ANSWER[9:]]), "hm", ""),
        (openai([{"type": "image_url", "image_url": {"url": "x"}}, TEXT]), "", ""),
        (openai({"type": "text", "text": {"value": ANSWER}}), "", ""),
        (openai(json.loads(ANSWER)), "", ""),
        (openai(None, parsed=json.loads(ANSWER)), "", ""),
        (openai(None, reasoning_content=ANSWER), ANSWER, "answer_in_reasoning"),
        (openai("", reasoning=f"```json\n{ANSWER}\n```"), None, "answer_in_reasoning"),
        (openai(None, tool_calls=[{"function": {"arguments": ANSWER}}]), "", "answer_in_tool_call"),
        (
            openai("I call:", tool_calls=[{"function": {"arguments": json.loads(ANSWER)}}]),
            "",
            "answer_in_tool_call",
        ),
        (openai(None, function_call={"arguments": ANSWER}), "", "answer_in_tool_call"),
        ({"model": "m", "choices": [{"text": ANSWER}]}, "", ""),
        ({"model": "m", "message": {"content": ANSWER}, "done_reason": "stop"}, "", ""),
        ({"model": "m", "output": [{"type": "message", "content": [TEXT]}]}, "", ""),
        ({"model": "m", "content": [THOUGHT, TEXT], "stop_reason": "end_turn"}, "hm", ""),
        (
            {"content": [{"type": "tool_use", "input": json.loads(ANSWER)}]},
            "",
            "answer_in_tool_call",
        ),
    ],
)
def test_every_shape_of_answer_is_read(payload, reasoning, note):
    reply = read(payload)
    assert [p.name for p in parse_answer(reply.text, PicksAnswer, "stop").picks] == ["PAX6"]
    assert reasoning is None or reply.reasoning == reasoning
    assert note in ("", *reply.degraded)
    assert ("answer" in " ".join(reply.degraded)) == bool(note)


@pytest.mark.parametrize(
    "payload",
    [
        openai(None, reasoning_content=f"Perhaps {ANSWER}, but no"),
        openai(None, finish="length", reasoning_content=ANSWER),
        openai(None, tool_calls=[{"function": {"arguments": ANSWER}}] * 2),
        openai(True),
        openai([]),
        openai([[[[[[[[[[[[ANSWER]]]]]]]]]]]]),
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}},
        {"choices": None, "usage": None},
        {"choices": [None, 3], "model": None},
        {"content": [], "stop_reason": "max_tokens"},
    ],
)
def test_no_answer_is_an_empty_reply_that_is_still_billed(payload):
    reply = read(payload)
    assert reply.text == ""
    assert reply.prompt_tokens > 0


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "12",
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": -5, "completion_tokens": -1},
        {"prompt_tokens": 1e30, "completion_tokens": 10**25},
        {"prompt_tokens": True, "completion_tokens": False},
        {"prompt_tokens": "many", "completion_tokens": "nan"},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": {"a": 1}, "completion_tokens": [2]},
    ],
)
@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_unbelievable_usage_is_estimated(usage, protocol):
    if isinstance(usage, dict) and protocol == "anthropic":
        usage = {
            k.replace("prompt", "input").replace("completion", "output"): v
            for k, v in usage.items()
        }
    body = openai() if protocol == "openai" else {"content": [TEXT], "stop_reason": "end_turn"}
    reply = read({**body, "usage": usage}, protocol)
    assert reply.text == ANSWER
    assert 20 < reply.prompt_tokens < 200
    assert 10 < reply.completion_tokens < 100
    assert "usage_estimated" in reply.degraded


def test_textual_and_broken_numbers_of_tokens_count():
    reply = read(openai(usage={"prompt_tokens": "41", "completion_tokens": 6.2}))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.degraded) == (41, 7, ())
    cached = {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 10}
    reply = read({"content": [TEXT], "usage": cached}, "anthropic")
    assert (reply.prompt_tokens, reply.completion_tokens) == (13, 4)


def test_one_sided_usage_estimates_only_the_other_side():
    reply = read(openai(usage={"prompt_tokens": 41}))
    assert reply.prompt_tokens == 41
    assert reply.completion_tokens > 10
    assert "usage_estimated" in reply.degraded


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("end_turn", "stop"),
        ("content_filter", "refusal"),
        (None, ""),
        (7, "7"),
    ],
)
def test_finish_reasons_in_one_vocabulary(said, finish):
    assert read(openai(finish=said)).finish_reason == finish


def test_text_is_clean_at_the_door():
    hostile = "A\ud83d\ude00B\ud800C\x00D\x1b[31mE\x1b]0;title\x07F\u202eG\u200bH\x9b1mI\rJ\u2028K"
    reply = read(openai(hostile, reasoning=hostile))
    assert reply.text == reply.reasoning == "A\U0001f600B\ufffdCDEFGHI\nJ\nK"
    model = read({**openai(), "model": "m\x1b[2J\n\ud800" + "x" * 9999})
    assert model.model.startswith("m \ufffdx")
    assert len(model.model) <= 200


def test_clean_inside_json_too():
    text = '{"picks": [{"name": "PAX6\\u001b[31m", "reason": "a\\ud800b\\u0000c\\u202ed"}]}'
    pick = parse_answer(read(openai(text)).text, PicksAnswer).picks[0]
    assert (pick.name, pick.reason) == ("PAX6", "a\ufffdbcd")


def test_a_key_is_removed_wherever_the_server_repeats_it():
    body = openai(
        f"{ANSWER} key-of-test \\u006bey-of-test k\u200bey-of-test",
        reasoning="key-of-test",
        finish="key-of-test",
    )
    sender, request = backend()
    from pertwise.llm.address import Redactor

    sender._redact = Redactor(["key-of-test"])
    data = json.dumps({**body, "model": "key-of-test"}).encode()
    reply = sender.read(200, {}, data, request, Dialect())
    assert "key-of-test" not in reply.model_dump_json().encode().decode("unicode_escape")
    assert reply.model == reply.finish_reason == reply.reasoning == "[redacted]"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the body is empty"),
        (b"upstream said no", "not JSON; it starts with 'upstream said no'"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"choices":' * 30_000, "nested too deeply"),
        (b"3", "not a chat completion"),
        (b'{"hello": "world"}', "not a chat completion"),
        (
            b"<!DOCTYPE html><title>Proxy\x1b[1m login</title>",
            "web page (HTML) titled 'Proxy login'",
        ),
        (b"\xff\xfe\x00", "not JSON"),
    ],
)
def test_what_is_no_completion_is_named(data, words):
    with pytest.raises(CallFailure) as caught:
        read(data)
    assert words in caught.value.message
    assert caught.value.kind == "malformed_response"


def test_a_number_of_five_thousand_digits_does_not_lose_a_paid_answer():
    data = json.dumps(openai()).encode().replace(b'"stop"', b'"stop", "x": ' + b"7" * 5000)
    assert read(data).text == ANSWER
