"""What goes over the wire, and what is paid once."""

import asyncio
import sqlite3
import threading
import time

import pytest

from pertwise.errors import ChatError, InputError, ReplayMissError
from pertwise.llm import ChatSettings, Ledger, Message, open_chat, run_sync
from pertwise.llm.failures import retry_after
from pertwise.testing.server import Answer, Fault, ScriptedServer

PROTOCOLS = ["openai", "anthropic"]
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def ask(chat, text="ping", **settings):
    return chat.request((Message(role="user", content=text),), **settings)


def complete(chat, *args, **settings):
    return run_sync(chat.complete(ask(chat, *args, **settings)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_body_on_the_wire(protocol, scripted_llm):
    chat = open_chat(scripted_llm.address(protocol, "m"), temperature=0, max_tokens=77)
    messages = (Message(role="system", content="S"), Message(role="user", content="U"))
    run_sync(chat.complete(chat.request(messages, json_schema=SCHEMA)))
    body = scripted_llm.asked[0].body
    assert body["model"] == "m"
    assert body["temperature"] == 0
    assert body["max_tokens"] == 77
    if protocol == "openai":
        assert body["messages"][0] == {"role": "system", "content": "S"}
        assert body["response_format"]["json_schema"]["strict"] is True
        optional = {"temperature", "max_tokens", "response_format", "stream", "stream_options"}
        assert set(body) == {"model", "messages", *optional}
    else:
        assert body["system"] == "S"
        assert body["messages"] == [{"role": "user", "content": "U"}]
        assert body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert scripted_llm.asked[0].schema == SCHEMA


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_temperature_and_no_schema_unless_asked(protocol, scripted_llm):
    chat = open_chat(scripted_llm.address(protocol))
    complete(chat)
    body = scripted_llm.asked[0].body
    assert set(body) - {"stream_options"} == {"model", "messages", "max_tokens", "stream"}
    plain = open_chat(scripted_llm.address(protocol), constrained=False)
    complete(plain, json_schema=SCHEMA)
    assert scripted_llm.asked[1].schema is None


@pytest.mark.parametrize(
    ("protocol", "settings", "expected"),
    [
        ("openai", {"reasoning": True}, {"chat_template_kwargs": {"enable_thinking": True}}),
        ("openai", {"reasoning": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("openai", {"reasoning": False, "reasoning_style": "effort"}, {"reasoning_effort": "none"}),
        (
            "openai",
            {"reasoning": True, "reasoning_style": "effort"},
            {"reasoning_effort": "medium"},
        ),
        ("anthropic", {"reasoning": False}, {"thinking": {"type": "disabled"}}),
        (
            "anthropic",
            {"reasoning": True, "reasoning_tokens": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 2100},
        ),
    ],
)
def test_reasoning_switch(protocol, settings, expected, scripted_llm):
    scripted_llm.script = lambda a: Answer("fine", reasoning="thought about it")
    chat = open_chat(scripted_llm.address(protocol), max_tokens=100, **settings)
    reply = complete(chat)
    body = scripted_llm.asked[0].body
    assert {k: body[k] for k in expected} == expected
    assert (reply.text, reply.reasoning) == ("fine", "thought about it")


def test_max_tokens_field_is_learned():
    def script(asked):
        if "max_tokens" in asked.body:
            return Fault(400, "Unsupported parameter: use 'max_completion_tokens' instead.")
        return "ok"

    with ScriptedServer(script) as server:
        chat = open_chat(server.openai())
        assert complete(chat, "a").text == "ok"
        assert complete(chat, "b").text == "ok"
        assert ["max_completion_tokens" in a.body for a in server.asked] == [False, True, True]
        assert chat.degraded == ()


def test_adaptive_thinking_is_learned():
    def script(asked):
        if asked.body["thinking"]["type"] == "enabled":
            return Fault(400, "thinking.type.enabled is not supported; use adaptive")
        return "ok"

    with ScriptedServer(script) as server:
        chat = open_chat(server.anthropic(), reasoning=True)
        assert complete(chat).text == "ok"
        assert server.asked[1].body["thinking"] == {"type": "adaptive"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rejected_schema_degrades_once_and_is_recorded(protocol, tmp_path):
    def script(asked):
        return Fault(400, "response_format is not supported") if asked.schema else "ok"

    with ScriptedServer(script) as server:
        chat = open_chat(server.address(protocol), ledger=tmp_path / "l.sqlite")
        for i in range(3):
            assert complete(chat, str(i), json_schema=SCHEMA).degraded == ("json_schema",)
        assert complete(chat, "no schema asked").degraded == ()
        assert [a.schema is not None for a in server.asked] == [True, False, False, False, False]
        assert chat.degraded == ("json_schema",)
        kept = [r["reply"]["degraded"] for r in Ledger(tmp_path / "l.sqlite").exchanges()]
        assert kept == [["json_schema"]] * 3 + [[]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_that_is_wrong_anyway_is_not_blamed_on_the_schema(protocol):
    def script(asked):
        kind = "with" if asked.schema else "without"
        return Fault(400, f"context too long ({kind} schema)") if "long" in asked.first else "ok"

    with ScriptedServer(script) as server:
        chat = open_chat(server.address(protocol))
        with pytest.raises(ChatError, match=r"rejected: .*with schema"):
            complete(chat, "long", json_schema=SCHEMA)
        assert chat.degraded == ()
        complete(chat, "short", json_schema=SCHEMA)
        assert server.asked[-1].schema == SCHEMA


@pytest.mark.parametrize("with_ledger", [True, False])
def test_the_same_request_under_way_twice_is_paid_once(tmp_path, with_ledger):
    with ScriptedServer(lambda a: Answer("ok", delay=0.05)) as server:
        chat = open_chat(server.openai(), ledger=tmp_path / "l.sqlite" if with_ledger else None)
        replies = run_sync(chat.complete_many([ask(chat)] * 6))
        assert [r.text for r in replies] == ["ok"] * 6
        assert server.count == 1
        assert sum(not r.from_ledger for r in replies) == 1


def test_paid_once_also_across_threads_and_loops(tmp_path):
    with ScriptedServer(lambda a: Answer("ok", delay=0.1)) as server:
        chat = open_chat(server.openai(), ledger=tmp_path / "l.sqlite")

        async def once():
            try:
                return await chat.complete(ask(chat))
            finally:
                await chat.close()

        threads = [threading.Thread(target=lambda: asyncio.run(once())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.count == 1


def test_a_cancelled_payer_hands_over():
    with ScriptedServer(lambda a: Answer("ok", delay=0.1)) as server:
        chat = open_chat(server.openai())

        async def scenario():
            payer = asyncio.ensure_future(chat.complete(ask(chat)))
            await asyncio.sleep(0.02)
            other = asyncio.ensure_future(chat.complete(ask(chat)))
            await asyncio.sleep(0.02)
            payer.cancel()
            reply = await other
            await chat.close()
            return reply

        assert asyncio.run(scenario()).text == "ok"


def test_a_failure_is_shared_by_all_who_wait():
    with ScriptedServer(lambda a: Fault(400, "no", delay=0.05)) as server:
        chat = open_chat(server.openai())

        async def scenario():
            calls = [chat.complete(ask(chat)) for _ in range(3)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            await chat.close()
            return results

        assert [type(e) for e in asyncio.run(scenario())] == [ChatError] * 3
        assert server.count == 1


def test_concurrency_is_bounded():
    with ScriptedServer(lambda a: Answer("ok", delay=0.02)) as server:
        chat = open_chat(server.openai(), concurrency=3)
        run_sync(chat.complete_many([ask(chat, str(i)) for i in range(12)]))
        assert server.most_at_once == 3


def test_replicates_are_paid_separately(tmp_path, scripted_llm):
    chat = open_chat(scripted_llm.openai(), ledger=tmp_path / "l.sqlite")
    for replicate in (0, 1, 1):
        complete(chat, replicate=replicate)
    assert scripted_llm.count == 2


def test_first_error_stops_what_was_not_sent_and_keeps_what_was_paid(tmp_path):
    def script(asked):
        return Fault(400, "no") if asked.last == "3" else Answer("ok", delay=0.02)

    with ScriptedServer(script) as server:
        chat = open_chat(server.openai(), ledger=tmp_path / "l.sqlite", concurrency=2)
        with pytest.raises(ChatError):
            run_sync(chat.complete_many([ask(chat, str(i)) for i in range(50)]))
        assert server.count < 10
        assert len(Ledger(tmp_path / "l.sqlite")) == server.paid


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_replay_never_calls_out(tmp_path, protocol, monkeypatch):
    path = tmp_path / "l.sqlite"
    with ScriptedServer() as server:
        address = server.address(protocol)
        paid = complete(open_chat(address, ledger=path))
    # The server is gone now.
    chat = open_chat(address, ledger=path, replay=True)
    assert complete(chat).text == paid.text
    with pytest.raises(ReplayMissError, match="holds no answer"):
        complete(chat, "something else")
    with pytest.raises(ReplayMissError):
        complete(chat, temperature=0.5)
    # Nor does it need a key.
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    open_chat("openai:m", ledger=path, replay=True)


def test_replay_repeats_a_recorded_failure(tmp_path):
    path = tmp_path / "l.sqlite"
    with ScriptedServer(lambda a: Fault(400, "no good")) as server:
        with pytest.raises(ChatError):
            complete(open_chat(server.openai(), ledger=path))
        address = server.openai()
    with pytest.raises(ChatError, match=r"no good.*recorded") as caught:
        complete(open_chat(address, ledger=path, replay=True))
    assert not isinstance(caught.value, ReplayMissError)


def test_settings_are_checked(scripted_llm):
    with pytest.raises(InputError, match="'temperature' = 9"):
        open_chat(scripted_llm.openai(), temperature=9)
    with pytest.raises(InputError, match="'nosuch'"):
        open_chat(scripted_llm.openai(), nosuch=1)
    with pytest.raises(InputError, match="replay needs a ledger"):
        open_chat(scripted_llm.openai(), replay=True)
    chat = open_chat(scripted_llm.openai(), ChatSettings(seed=3), max_tokens=5)
    assert (chat.settings.seed, chat.settings.max_tokens) == (3, 5)
    with pytest.raises(InputError, match="nosuch"):
        ask(chat, nosuch=1)


def test_retry_after_header():
    now = 1_000_000_000.0
    assert retry_after({}) is None
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert retry_after({"retry-after": "Sun, 09 Sep 2001 01:46:50 GMT"}, now) == 10
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "Sun, 09 Sep 2001 01:46:30 GMT"}, now) == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_retry_after_is_obeyed(protocol):
    times = []

    def script(asked):
        times.append(time.monotonic())
        return Fault(429, "slow down", {"retry-after": "0.3"}) if asked.number == 1 else "ok"

    with ScriptedServer(script) as server:
        chat = open_chat(server.address(protocol), backoff_s=0.001)
        assert complete(chat).attempts == 2
        assert times[1] - times[0] >= 0.3


def test_a_wait_that_is_too_long_is_not_taken():
    with ScriptedServer(lambda a: Fault(429, "x", {"retry-after": "3600"})) as server:
        with pytest.raises(ChatError, match="asks to wait 3600 s, more than the 300 s"):
            complete(open_chat(server.openai()))
        assert server.count == 1


def test_inside_a_running_loop(scripted_llm):
    chat = open_chat(scripted_llm.openai())

    async def notebook():
        return complete(chat).text

    assert asyncio.run(notebook()) == "pong"


def test_shutdown_closes_the_ledger_that_was_named_by_a_path_only(scripted_llm, tmp_path):
    mine = Ledger(tmp_path / "mine.sqlite")
    own = open_chat(scripted_llm.address("openai"), ledger=tmp_path / "own.sqlite")
    lent = open_chat(scripted_llm.address("openai"), ledger=mine)
    mine_open, own_open = mine._connect(), own.ledger._connect()
    own.shutdown()
    lent.shutdown()
    assert mine_open.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        own_open.execute("SELECT 1")
    assert own.ledger.summary().empty, "it opens again when it is used"
    own.shutdown()
    mine.close()
