"""Whatever a server sends: a reply or a named failure, never another exception."""
# ruff: noqa: PT017 (either outcome is right, which `raises` cannot say)

import json
import os

from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from pertwise.llm import Message, open_chat
from pertwise.llm.answers import EditAnswer, JudgeAnswer, PicksAnswer, SummaryAnswer
from pertwise.llm.base import ChatReply
from pertwise.llm.failures import FATAL, RETRYABLE, CallFailure
from pertwise.llm.parse import AnswerError, parse_answer
from pertwise.llm.wire import Dialect, HttpBackend
from pertwise.select.closed_list import ClosedList

KEY = "canary-0123456789"
TEXT = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    [
        '{"picks": ["A"]}',
        '{"picks": [{"name": "A", "reason": "\\ud800"}]}',
        "<think>",
        "</think>",
        "[THINK]",
        "<|channel|>final<|message|>",
        "```json",
        '{"add": [], "remove": ["A"]}',
        '{"preference": "A", "confidence": 1}',
        '{"summary": "x"}',
        "\\u0063anary-0123456789",
        KEY,
        "\x1b[31m",
    ]
)
NAMES = st.sampled_from(
    [
        "choices",
        "message",
        "content",
        "role",
        "text",
        "type",
        "thinking",
        "reasoning",
        "reasoning_content",
        "refusal",
        "error",
        "code",
        "param",
        "detail",
        "msg",
        "loc",
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "input_tokens",
        "output_tokens",
        "finish_reason",
        "stop_reason",
        "tool_calls",
        "function",
        "arguments",
        "function_call",
        "output",
        "delta",
        "model",
        "picks",
        "name",
        "reason",
        "add",
        "remove",
        "preference",
        "strengths",
        "summary",
        "errors",
        "status",
        "object",
        "parsed",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES | TEXT, inner, max_size=6),
    max_leaves=25,
)
#: Bodies near the real ones, with anything in any place.
NEAR = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries({"message": JSON, "finish_reason": JSON}), max_size=2
        )
    },
    optional={"usage": JSON, "error": JSON, "model": JSON},
) | st.fixed_dictionaries({"content": JSON, "stop_reason": JSON}, optional={"usage": JSON})
BODIES = (JSON | NEAR).map(lambda v: json.dumps(v).encode()) | st.binary(max_size=200)
STATUS = st.sampled_from([200, 200, 200, 204, 302, 400, 401, 402, 403, 404, 422, 429, 500, 503])
HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "retry-after", "retry-after-ms", "location"]), TEXT
)


def _backends():
    os.environ["PERTWISE_API_KEY_127_0_0_1"] = KEY
    try:
        for where in ("m@http://127.0.0.1:9/v1", "anthropic:m@http://127.0.0.1:9"):
            chat = open_chat(where, temperature=0, seed=1, reasoning=False)
            request = chat.request((Message(role="user", content="q"),), json_schema={})
            yield HttpBackend(chat.address, chat.settings, KEY, chat._redact), request
    finally:
        del os.environ["PERTWISE_API_KEY_127_0_0_1"]


BACKENDS = list(_backends())


@fuzz
@given(STATUS, HEADERS, BODIES, st.integers(0, 1))
def test_a_response_is_a_reply_or_a_named_failure(status, headers, data, which):
    backend, request = BACKENDS[which]
    try:
        reply = backend.read(status, headers, data, request, Dialect())
    except CallFailure as failure:
        assert failure.kind in RETRYABLE | FATAL | {"bad_request"}
        assert len(failure.message) < 1500
        assert KEY not in failure.message
        assert "\x1b" not in failure.message
        dialect = Dialect()
        for _ in range(8):
            simpler = dialect.without(failure, request)
            if simpler is None:
                break
            assert simpler != dialect
            dialect = simpler
        else:
            raise AssertionError("never done with dropping fields") from failure
        return
    assert 200 <= status < 300
    assert reply.prompt_tokens > 0
    assert reply.completion_tokens >= 0
    stored = reply.model_dump_json()
    assert ChatReply.model_validate_json(stored) == reply
    assert KEY not in stored


@fuzz
@given(
    st.lists(TEXT | JSON.map(lambda v: json.dumps(v)), max_size=6).map("".join),
    st.sampled_from([PicksAnswer, EditAnswer, JudgeAnswer, SummaryAnswer]),
    st.sampled_from(["stop", "length", "", "refusal", "tool_calls"]),
)
def test_a_text_is_an_answer_or_a_named_problem(text, model, finish):
    try:
        answer = parse_answer(text, model, finish)
    except AnswerError as error:
        assert error.kind in {"empty", "refusal", "truncated", "unparsable"}
        assert 0 < len(error.problem) < 600
        return
    assert finish != "refusal"
    assert "\x1b" not in answer.model_dump_json().encode().decode("unicode_escape")
    if isinstance(answer, PicksAnswer):
        listed = ClosedList(["A", "B", "C<d>", "E | F"], None, "B")
        checked = listed.check([p.name for p in answer.picks], n_min=1, n_max=3)
        assert set(checked.items) <= {"A", "C<d>", "E | F"}
        assert len(checked.problem) < 4000


@fuzz
@given(st.binary(max_size=300))
def test_bytes_are_read_or_named(data):
    backend, request = BACKENDS[0]
    try:
        reply = backend.read(200, {}, data, request, Dialect())
    except CallFailure as failure:
        assert failure.message
    else:
        assert reply.text == ""
