"""What a refusal means and what is done about it, over the wire and with both protocols."""

import gzip
import json
import time
import zlib

import pytest

from pertwise.errors import ChatError
from pertwise.llm import FatalChatError, Message, open_chat, run_sync
from pertwise.testing.server import Answer, Fault, ScriptedServer

PROTOCOLS = ["openai", "anthropic"]
SCHEMA = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
FAST = {"attempts": 4, "backoff_s": 0.001, "backoff_max_s": 0.002}


def ask(chat, text="ping", **settings):
    return run_sync(chat.complete(chat.request((Message(role="user", content=text),), **settings)))


def raw(status, body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Fault(status, raw=data, headers={k.replace("_", "-"): v for k, v in headers.items()})


def asked(script, protocol="openai", settings=None, **call):
    """(reply or error, server) of one question."""
    with ScriptedServer(script) as server:
        chat = open_chat(server.address(protocol), **{**FAST, **(settings or {})})
        try:
            return ask(chat, **call), server
        except ChatError as error:
            return error, server
        finally:
            chat.shutdown()


FATAL = {
    "key, 400 as a list": (400, [{"error": {"code": 400, "message": "API key not valid."}}]),
    "key, 400": (400, {"error": {"type": "authentication_error", "message": "nope"}}),
    "key, 401 as a string": (401, {"error": "Unauthorized"}),
    "key, 403": (403, {"message": "Forbidden"}),
    "key, 404": (404, {"error": {"message": "Invalid API key for this route"}}),
    "key, 200": (200, {"error": {"message": "User unknown", "code": 401}}),
    "key, 200 as a string": (200, {"error": "invalid x-api-key"}),
    "key, 200 by type": (200, {"type": "error", "error": {"type": "authentication_error"}}),
    "key, 500 that wraps it": (500, {"error": {"code": 401, "message": "upstream"}}),
    "credit, 400": (400, {"error": {"message": "Your credit balance is too low"}}),
    "credit, 401": (401, {"error": {"message": "Insufficient balance"}}),
    "credit, 402": (402, {"detail": "pay"}),
    "credit, 403": (403, {"error": {"message": "You have exceeded your current quota"}}),
    "credit, 404": (404, {"error": {"message": "billing is not set up"}}),
    "credit, 200": (200, {"error": {"message": "no", "code": "insufficient_quota"}}),
    "credit, 200 by number": (200, {"error": {"message": "no", "code": 402}}),
    "credit, 429": (429, {"error": {"message": "no", "code": "insufficient_quota"}}),
    "model, 400": (400, {"error": {"message": "zzz is not a valid model ID"}}),
    "model, 401": (401, {"error": {"message": "The model zzz does not exist"}}),
    "model, 404": (
        404,
        {"type": "error", "error": {"type": "not_found_error", "message": "model: m"}},
    ),
    "model, 404 ollama": (404, {"error": 'model "m" not found, try pulling it first'}),
    "model, 403": (403, {"error": {"message": "Project has no access to model zzz"}}),
    "model, 200": (200, {"error": {"message": "The model `zzz` does not exist", "code": 404}}),
    "model, 200 vllm": (
        200,
        {"object": "error", "message": "The model zzz does not exist.", "code": 404},
    ),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", FATAL)
def test_key_credit_and_model_stop_at_once_with_the_reason(name, protocol):
    status, body = FATAL[name]
    error, server = asked(lambda a: raw(status, body), protocol, json_schema=SCHEMA)
    assert isinstance(error, FatalChatError), error
    assert server.count == 1
    text = json.dumps(body)
    if '"message": "' in text:
        assert text.split('"message": "')[1].split('"')[0] in str(error)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"error": {"message": "slow down", "code": 429}}),
        (200, {"error": {"message": "busy", "type": "overloaded_error"}, "type": "error"}),
        (200, {"error": "something broke"}),
        (200, {"choices": [{"finish_reason": "error", "message": {"content": ""}}]}),
        (200, {"choices": [{"error": {"code": 502, "message": "gone"}, "message": {}}]}),
        (429, {"error": {"message": "Quota exceeded per minute, please retry in 3 s"}}),
        (503, b"<html><title>Bad gateway</title></html>"),
        (529, {"error": {"message": "Overloaded"}}),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_may_get_better_is_tried_again(status, body, protocol):
    reply, server = asked(lambda a: raw(status, body) if a.number < 3 else "fine", protocol)
    assert reply.text == "fine"
    assert server.count == 3


def test_the_reason_of_a_failed_call_is_the_servers_own_text():
    error, _ = asked(
        lambda a: raw(422, {"detail": [{"loc": ["body", "messages"], "msg": "too long"}]})
    )
    assert "too long" in str(error)
    page = b"<!doctype html><html><head><title>Squid</title></head>" + b"x" * 9000
    error, server = asked(lambda a: raw(404, page, content_type="text/html"), json_schema=SCHEMA)
    assert isinstance(error, FatalChatError)
    assert "web page (HTML) titled 'Squid'" in str(error)
    assert server.count == 1
    assert len(str(error)) < 1000


DISLIKES = [
    # (protocol, part of the body, chat settings, refusal, note)
    (
        "openai",
        "response_format",
        {},
        "No endpoints found that can handle the requested parameters.",
        "json_schema",
    ),
    ("openai", "response_format", {}, "Structured outputs are off", "json_schema"),
    (
        "anthropic",
        "output_config",
        {},
        "output_config: Extra inputs are not permitted",
        "json_schema",
    ),
    (
        "openai",
        "temperature",
        {"temperature": 0},
        "'temperature' does not support 0",
        "temperature",
    ),
    (
        "anthropic",
        "temperature",
        {"temperature": 0},
        "temperature: deprecated for this model",
        "temperature",
    ),
    ("openai", "seed", {"seed": 3}, "Unrecognized request argument supplied: seed", "seed"),
    (
        "openai",
        "chat_template_kwargs",
        {"reasoning": False},
        "enable_thinking is unknown",
        "chat_template_kwargs",
    ),
    (
        "openai",
        "reasoning_effort",
        {"reasoning": False, "reasoning_style": "effort"},
        "Unsupported value: reasoning_effort does not support none",
        "reasoning_effort",
    ),
    ("anthropic", "thinking", {"reasoning": False}, "thinking is not allowed here", "thinking"),
]


@pytest.mark.parametrize("status", [400, 404, 422, 500])
@pytest.mark.parametrize(("protocol", "part", "settings", "text", "note"), DISLIKES)
def test_one_field_that_is_disliked_is_left_out_and_remembered(
    protocol, part, settings, text, note, status
):
    if status == 500 and "parameters" in text:
        pytest.skip("a server error that names nothing is tried again first; see below")
    everything = {"temperature": 0.5, "seed": 1, "reasoning": False, **settings}

    def script(asked):
        return raw(status, {"error": {"message": text}}) if part in asked.body else "ok"

    with ScriptedServer(script) as server:
        chat = open_chat(server.address(protocol), **everything, **FAST)
        for i in range(3):
            assert ask(chat, str(i), json_schema=SCHEMA).degraded == (note,)
        chat.shutdown()
        assert [part in a.body for a in server.asked] == [True, False, False, False]
        kept = set(server.asked[0].body) - {part}
        assert all(set(a.body) == kept for a in server.asked[1:]), "more was left out"


@pytest.mark.parametrize(
    "body",
    [
        {
            "detail": [
                {"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 1}
            ]
        },
        {"error": {"message": "Unsupported parameter.", "param": "seed"}},
        {"message": "seed is not a recognised parameter (temperature is)"},
    ],
)
def test_the_field_at_fault_is_found_in_every_kind_of_body(body):
    reply, server = asked(
        lambda a: raw(422, body) if "seed" in a.body else "ok",
        settings={"seed": 1, "temperature": 0},
        json_schema=SCHEMA,
    )
    assert reply.degraded == ("seed",)
    assert server.count == 2


def test_several_fields_named_together_go_together():
    def script(asked):
        wrong = {"temperature", "seed"} & set(asked.body)
        return raw(400, {"error": "unknown parameters: temperature, seed"}) if wrong else "ok"

    reply, server = asked(script, settings={"seed": 1, "temperature": 0}, json_schema=SCHEMA)
    assert set(reply.degraded) == {"seed", "temperature"}
    assert server.count == 2
    assert server.asked[1].schema == SCHEMA


@pytest.mark.parametrize("refused", ["max_tokens", "max_completion_tokens"])
def test_the_other_name_of_the_token_limit(refused, monkeypatch):
    from pertwise.llm import client
    from pertwise.llm.wire import Dialect

    monkeypatch.setattr(client, "first_dialect", lambda *_: Dialect(max_tokens_field=refused))

    def script(asked):
        return raw(422, {"detail": f"unknown field {refused}"}) if refused in asked.body else "ok"

    reply, server = asked(script)
    assert (reply.text, reply.degraded, server.count) == ("ok", (), 2)


def test_a_server_error_that_comes_only_with_the_schema():
    """Retried as it is first: once may be an accident."""
    reply, server = asked(lambda a: Fault(500) if a.schema else "ok", json_schema=SCHEMA)
    assert reply.degraded == ("json_schema",)
    assert [a.schema is not None for a in server.asked] == [True, True, False]
    reply, server = asked(lambda a: Fault(500) if a.number == 1 else "ok", json_schema=SCHEMA)
    assert reply.degraded == ()


def test_a_model_named_like_a_field_is_not_mistaken_for_it():
    body = {"error": {"message": "model temperature-seed-1 does not exist"}}
    with ScriptedServer(lambda a: raw(400, body)) as server:
        chat = open_chat(server.openai("temperature-seed-1"), temperature=0, seed=1, **FAST)
        with pytest.raises(FatalChatError, match="does not exist"):
            ask(chat)
        assert server.count == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_redirects_are_not_followed(status, protocol):
    with ScriptedServer() as elsewhere:
        target = f"{elsewhere.url}/v1/chat/completions?key=hidden-99"
        error, server = asked(lambda a: raw(status, b"", location=target), protocol)
        assert isinstance(error, FatalChatError)
        assert "not followed" in str(error)
        assert "hidden-99" not in str(error)
        assert (server.count, elsewhere.count) == (1, 0)


@pytest.mark.parametrize("where", ["http://[x", "http://h:port/", "::", ""])
def test_a_redirect_to_nowhere_is_a_redirect(where):
    error, server = asked(lambda a: raw(307, b"", location=where))
    assert isinstance(error, FatalChatError)
    assert "not followed" in str(error)
    assert server.count == 1


BOMB = zlib.compress(b" " * 64 * 2**20)


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (gzip.compress(b" " * 64 * 2**20), "gzip", "more than 16 MiB"),
        (BOMB, "deflate", "more than 16 MiB"),
        (b" " * 17 * 2**20, "", "more than 16 MiB"),
        (b"no gzip", "gzip", "damaged"),
        (b"{}", "br", "not asked for"),
        (b"{}", "gzip, gzip", "not asked for"),
    ],
)
@pytest.mark.parametrize("status", [200, 500])
def test_bodies_are_bounded(body, encoding, words, status):
    start = time.monotonic()
    error, _ = asked(
        lambda a: raw(status, body, content_encoding=encoding), settings={"attempts": 1}
    )
    assert words in str(error)
    assert time.monotonic() - start < 10


def test_gzip_that_is_honest_is_read():
    body = {"choices": [{"message": {"content": "zipped"}}]}
    reply, _ = asked(
        lambda a: raw(200, gzip.compress(json.dumps(body).encode()), content_encoding="gzip")
    )
    assert reply.text == "zipped"


def test_a_paid_answer_beside_an_error_note_is_read_once():
    body = {
        "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}],
        "error": "a note",
    }
    reply, server = asked(lambda a: raw(200, body))
    assert (reply.text, server.count) == ("yes", 1)


def test_an_unusable_proxy_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:proxy-pass-7@h:1")
    monkeypatch.setenv("ALL_PROXY", "ftp://user:proxy-pass-7@h:1")
    from pertwise.errors import InputError

    chat = open_chat("m@http://127.0.0.1:9/v1", **FAST)
    with pytest.raises((InputError, ChatError)) as caught:
        ask(chat)
    assert "proxy-pass-7" not in str(caught.value)
    assert caught.value.__context__ is None or "proxy-pass-7" not in str(caught.value.__context__)


def test_answers_that_are_no_error_keep_their_words():
    reply, _ = asked(lambda a: Answer("error: the API key of the gene is unauthorized"))
    assert reply.text.startswith("error: the API key")
