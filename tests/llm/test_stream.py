"""Answers are streamed; silence ends a call, slowness does not; who cannot stream need not."""

import json
import time

import pytest

from pertwise import _progress
from pertwise.errors import ChatError
from pertwise.llm import Ledger, Message, open_chat, run_sync
from pertwise.llm import pace as pace_module
from pertwise.llm.failures import CallFailure
from pertwise.llm.stream import is_stream, whole_body
from pertwise.testing.server import Answer, Fault, ScriptedServer, first_alphabetical

PROTOCOLS = ["openai", "anthropic"]


def ask(chat, text="ping", **settings):
    return run_sync(chat.complete(chat.request((Message(role="user", content=text),), **settings)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_streamed_answer_is_the_unstreamed_one(protocol):
    answer = Answer("two words, µ and 漢", reasoning="first this", completion_tokens=9)
    found = []
    for streams in (True, False):
        with ScriptedServer(lambda a: answer) as server:
            server.streams = streams
            reply = ask(open_chat(server.address(protocol)))
            assert server.asked[0].body["stream"] is True
            found.append(reply.model_copy(update={"seconds": 0, "request_key": ""}))
    assert found[0] == found[1]
    assert found[0].text == answer.text
    assert found[0].reasoning == answer.reasoning
    assert (found[0].completion_tokens, found[0].finish_reason) == (9, "stop")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_slow_answer_is_waited_for_and_a_silent_server_is_not(protocol):
    with ScriptedServer(lambda a: Answer("a long answer, slowly " * 3)) as server:
        server.pause = 0.2
        started = time.monotonic()
        chat = open_chat(server.address(protocol), timeout_s=1.0, attempts=1)
        assert ask(chat).text.startswith("a long")
        assert time.monotonic() - started > 1.5, "longer than the silence that is borne"
        server.pause = 3.0
        with pytest.raises(ChatError, match="nothing came from the server for 1 s"):
            ask(chat, "another")
        # All of a call is bounded, too.
        server.pause = 0.2
        brief = open_chat(server.address(protocol), timeout_s=1.0, call_s=1.2, attempts=1)
        with pytest.raises(ChatError, match=r"no answer within 1\.2 s"):
            ask(brief, "a third")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_refuses_to_stream_is_asked_plainly_and_remembered(protocol):
    def script(asked):
        if asked.body.get("stream"):
            return Fault(422, "stream: extra inputs are not permitted")
        return Answer("pong")

    with ScriptedServer(script) as server:
        chat = open_chat(server.address(protocol))
        assert ask(chat).text == "pong"
        assert ask(chat, "again").text == "pong"
        assert [bool(a.body.get("stream")) for a in server.asked] == [True, False, False]


def test_only_the_options_of_a_stream_are_refused():
    def script(asked):
        if "stream_options" in asked.body:
            return Fault(400, "Unrecognized request argument supplied: stream_options")
        return Answer("pong", usage=False)

    with ScriptedServer(script) as server:
        reply = ask(open_chat(server.openai()))
    assert reply.degraded == ("usage_estimated",)
    assert [a.body.get("stream") for a in server.asked] == [True, True]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stream_that_breaks_off_is_no_answer_and_counts_as_paid(protocol, tmp_path):
    with ScriptedServer(lambda a: Answer("G1 " * 40)) as server:
        server.cut_after = 5
        chat = open_chat(
            server.address(protocol), ledger=tmp_path / "l.sqlite", attempts=2, backoff_s=0
        )
        with pytest.raises(ChatError):
            ask(chat)
        assert server.count == 2
    book = Ledger(tmp_path / "l.sqlite")
    assert len(book) == 0
    assert book.doubtful()[0] == 2


def test_an_error_in_a_stream_is_an_error():
    def event(value):
        return f"data: {json.dumps(value)}\n\n".encode()

    start = event({"choices": [{"index": 0, "delta": {"content": "half"}}]})
    error = {"error": {"message": "no credit left on this account", "code": 402}}
    assert json.loads(whole_body(start + event(error))) == error
    with ScriptedServer(
        lambda a: Fault(
            200, raw=start + event(error), headers={"content-type": "text/event-stream"}
        )
    ) as server:
        chat = open_chat(server.openai(), attempts=3, backoff_s=0)
        with pytest.raises(ChatError, match="no credit"):
            ask(chat)
        assert server.count == 1


@pytest.mark.parametrize("protocol", ["chunks", "native"])
def test_one_object_a_line_is_a_stream_too(protocol):
    pieces = ['{"picks": ', "[]}"]
    if protocol == "native":
        lines = [{"message": {"role": "assistant", "content": p}, "done": False} for p in pieces]
        end = {"message": {"content": ""}, "done": True, "done_reason": "length"}
        end |= {"prompt_eval_count": 7, "eval_count": 3}
    else:
        lines = [{"choices": [{"index": 0, "delta": {"content": p}}]} for p in pieces]
        end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
        end |= {"usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    body = "\n".join(json.dumps(line) for line in (*lines, end)).encode()
    assert is_stream("application/x-ndjson", body)
    assert not is_stream("application/json", body)
    made = json.loads(whole_body(body))
    assert made["choices"][0]["message"]["content"] == '{"picks": []}'
    assert made["choices"][0]["finish_reason"] == "length"
    assert made["usage"] == {"prompt_tokens": 7, "completion_tokens": 3}
    with pytest.raises(CallFailure, match="broke off"):
        whole_body("\n".join(json.dumps(line) for line in lines).encode())


@pytest.mark.parametrize(
    "words",
    [
        "System role not supported",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Developer instruction is not enabled for models/m",
    ],
)
def test_a_model_without_a_system_role_is_told_in_the_first_question(words):
    def script(asked):
        system = asked.body["messages"][0]["role"] == "system"
        return Fault(400, words) if system else Answer("fine")

    with ScriptedServer(script) as server:
        chat = open_chat(server.address("openai"))
        messages = (Message(role="system", content="Rules"), Message(role="user", content="Q"))
        for _ in range(2):
            reply = run_sync(chat.complete(chat.request(messages)))
            assert (reply.text, reply.degraded) == ("fine", ("system_role",))
            messages = (*messages, Message(role="user", content="R"))
        bodies = [a.body["messages"] for a in server.asked]
    assert bodies[1] == [{"role": "user", "content": "Rules\n\nQ"}]
    assert [len(b) for b in bodies] == [2, 1, 2], "remembered"


def test_a_run_starts_with_few_calls_and_grows_while_answers_come():
    counts = []

    def script(asked):
        counts.append(server.at_once)
        return Answer("ok", delay=0.15)

    with ScriptedServer(script) as server:
        chat = open_chat(server.openai(), concurrency=6)
        requests = [chat.request((Message(role="user", content=str(i)),)) for i in range(40)]
        run_sync(chat.complete_many(requests))
        assert counts[0] == 1
        assert max(counts[:2]) <= 2
        assert 3 <= server.most_at_once <= 6
        # On this machine at most two, unless told otherwise.
        server.most_at_once = 0
        chat = open_chat(server.openai())
        run_sync(chat.complete_many(requests))
        assert server.most_at_once <= 2


def test_what_is_waited_for_is_said_also_into_a_file_unless_quiet(monkeypatch, capsys):
    monkeypatch.setattr(pace_module, "TELL_AFTER_S", 0.2)
    monkeypatch.setitem(_progress._state, "quiet", False)
    with ScriptedServer(lambda a: Answer(first_alphabetical(a), delay=0.7)) as server:
        ask(open_chat(server.openai("slow")))
        said = capsys.readouterr().err
        assert f"waiting for slow@{server.url}/v1: 1 question under way" in said
        monkeypatch.setitem(_progress._state, "quiet", True)
        ask(open_chat(server.openai("slow")))
    assert capsys.readouterr().err == ""
