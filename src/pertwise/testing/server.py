"""A scripted server that speaks the real chat protocols. It is NOT a language model.

It answers /v1/chat/completions (OpenAI) and /v1/messages (Anthropic) on the loopback interface
with whatever a Python function returns, including misbehaviour, and counts what it was asked.
For tests only.

    with ScriptedServer() as server:                    # answers by a dumb, stated rule
        chat = open_chat(server.openai("scripted"))     # "scripted@http://127.0.0.1:PORT/v1"

    python -m pertwise.testing.server --port 8765            # the same from a shell
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as the server saw it, whatever the protocol."""

    protocol: str
    body: dict[str, Any]
    headers: dict[str, Any]
    number: int

    @property
    def model(self) -> str:
        return self.body.get("model", "")

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body["messages"]

    @property
    def turn(self) -> int:
        """1 for a first question, 2 for the first re-ask ..."""
        return sum(m["role"] == "user" for m in self.messages)

    @property
    def first(self) -> str:
        """The first user message: the rendered prompt."""
        return next(m["content"] for m in self.messages if m["role"] == "user")

    @property
    def last(self) -> str:
        return self.messages[-1]["content"]

    @property
    def schema(self) -> dict[str, Any] | None:
        if self.protocol == "openai":
            return self.body.get("response_format", {}).get("json_schema", {}).get("schema")
        return self.body.get("output_config", {}).get("format", {}).get("schema")


@dataclass(frozen=True)
class Answer:
    """A normal answer. `finish`: stop, length or refusal."""

    text: str
    finish: str = "stop"
    reasoning: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    usage: bool = True
    delay: float = 0.0


@dataclass(frozen=True)
class Fault:
    """An HTTP error, a hang (delay), or a raw body."""

    status: int = 500
    message: str = "scripted fault"
    headers: dict[str, Any] = field(default_factory=dict[str, Any])
    delay: float = 0.0
    raw: bytes | None = None
    code: str = ""


Script = Callable[[Asked], "str | Answer | Fault"]


# -- what our prompts hold -------------------------------------------------------------------


def listed(prompt: str, tag: str = "candidates") -> list[str]:
    """Names in the <candidates> (or other) block of a prompt of ours."""
    found = re.search(rf"<{tag}>\n(.*?)</{tag}>", prompt, re.DOTALL)
    lines = found.group(1).splitlines() if found else []
    return [line.split(" | ")[0].strip() for line in lines if line.strip()]


def wanted(prompt: str) -> int:
    """How many picks a prompt of ours asks for (the upper number of a range)."""
    exact = re.search(r"Choose exactly (\d+)", prompt)
    between = re.search(r"Choose between (\d+) and (\d+)", prompt)
    return int(exact.group(1)) if exact else int(between.group(2)) if between else 1


def picks_json(names: list[str], reason: str = "scripted: {name} comes early") -> str:
    """An answer in the shape our prompts ask for."""
    return json.dumps({"picks": [{"name": n, "reason": reason.format(name=n)} for n in names]})


def marks_json(names: list[str], keys: list[str]) -> str:
    """Marks by a dumb rule, the same for a name and key in any batch: their letters, from -3 to 3
    in halves; the last key, the strength, from 0."""
    rows = []
    for name in names:
        row: dict[str, Any] = {"name": name}
        for key in keys:
            row[key] = (sum(map(ord, name + key)) % 13 - 6) / 2
        row[keys[-1]] = abs(row[keys[-1]])
        rows.append({**row, "reason": f"scripted: the letters of {name}"})
    return json.dumps({"marks": rows})


def first_alphabetical(asked: Asked) -> str:
    """Answer any prompt of ours by a dumb rule: what comes first in the alphabet."""
    prompt = asked.first
    if "<set_a>" in prompt:
        a, b = min(listed(prompt, "set_a")), min(listed(prompt, "set_b"))
        return json.dumps(
            {
                "reasons": ["scripted: the alphabet decides"],
                "strengths": {"A": [a], "B": [b]},
                "differentiators": [min(a, b)],
                "preference": "A" if a < b else "B" if b < a else "tie",
                "confidence": 0.5,
            }
        )
    if "<neighbours>" in prompt:
        names, near = sorted(listed(prompt)), sorted(listed(prompt, "neighbours"))
        why = "scripted: alphabet"
        return json.dumps(
            {
                "add": [{"name": n, "reason": why} for n in names[:1]],
                "remove": [{"name": n, "reason": why} for n in near[-1:] if len(near) > 1],
            }
        )
    text = re.search(r"<text>\n(.*?)\n</text>", prompt, re.DOTALL)
    if text:
        return json.dumps({"summary": " ".join(text.group(1).split()[:12])})
    if "<programs>" in prompt:
        return marks_json(listed(prompt), listed(prompt, "programs"))
    if "<candidates>" in prompt:
        return picks_json(sorted(listed(prompt))[: wanted(prompt)])
    return "pong"


# -- the server ------------------------------------------------------------------------------


class ScriptedServer:
    """Scripted endpoint on 127.0.0.1. Thread-safe counters:

    asked: every request; answered: those that got a normal answer (would be paid for).
    """

    def __init__(self, script: Script = first_alphabetical, port: int = 0, key: str = "") -> None:
        self.script, self.key = script, key
        #: Answer as a stream when asked to; seconds before each event; events before a cut.
        self.streams, self.pause = True, 0.0
        self.cut_after: int | None = None
        self.asked: list[Asked] = []
        self.answered: list[Asked] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        # A client killed in mid-request is part of the tests, not worth a traceback.
        self._http.handle_error = lambda request, client_address: None
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def openai(self, model: str = "scripted") -> str:
        """Address for `open_chat`, OpenAI protocol."""
        return f"{model}@{self.url}/v1"

    def anthropic(self, model: str = "scripted") -> str:
        """Address for `open_chat`, Anthropic protocol."""
        return f"anthropic:{model}@{self.url}"

    def address(self, protocol: str, model: str = "scripted") -> str:
        return self.openai(model) if protocol == "openai" else self.anthropic(model)

    @property
    def count(self) -> int:
        return len(self.asked)

    @property
    def paid(self) -> int:
        return len(self.answered)

    def start(self) -> ScriptedServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> ScriptedServer:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _respond(
        self, protocol: str, body: dict[str, Any], headers: dict[str, Any]
    ) -> Fault | Answer:
        with self._lock:
            asked = Asked(protocol, body, headers, len(self.asked) + 1)
            self.asked.append(asked)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            sent = headers.get("x-api-key") or headers.get("authorization", "")[7:]
            if self.key and sent != self.key:
                return Fault(401, f"Incorrect API key provided: {sent}", code="invalid_api_key")
            result = self.script(asked)
            answer = Answer(result) if isinstance(result, str) else result
            if answer.delay:
                time.sleep(answer.delay)
            if isinstance(answer, Answer):
                with self._lock:
                    self.answered.append(asked)
            return answer
        finally:
            with self._lock:
                self.at_once -= 1


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body in one packet: two small ones wait 40 ms for an acknowledgement.
        wbufsize = -1

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length) or b"{}")
            headers = {k.lower(): v for k, v in self.headers.items()}
            path = self.path.split("?")[0]
            if path.endswith("/chat/completions"):
                protocol, problem = "openai", check_openai(body)
            elif path.endswith("/v1/messages"):
                protocol, problem = "anthropic", check_anthropic(body, headers)
            else:
                self._send(404, {"error": {"message": f"no such path {path}"}}, {})
                return
            if problem:
                self._send(400, error_body(protocol, 400, problem, ""), {})
                return
            answer = server._respond(protocol, body, headers)
            if isinstance(answer, Fault):
                if answer.raw is not None:
                    self._raw(answer.status, answer.raw, answer.headers)
                    return
                payload = error_body(protocol, answer.status, answer.message, answer.code)
                self._send(answer.status, payload, answer.headers)
            elif body.get("stream") and server.streams:
                self._stream(stream_events(protocol, answer_body(protocol, body, answer)))
            else:
                self._send(200, answer_body(protocol, body, answer), {})

        def _stream(self, events: list[bytes]) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for event in [*events[: server.cut_after], b""]:
                if server.pause:
                    self.wfile.flush()
                    time.sleep(server.pause)
                if event or not server.cut_after:
                    self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            self.close_connection = bool(server.cut_after)

        def _send(self, status: int, payload: dict[str, Any], headers: dict[str, Any]) -> None:
            self._raw(
                status,
                json.dumps(payload).encode(),
                {"content-type": "application/json", **headers},
            )

        def _raw(self, status: int, data: bytes, headers: dict[str, Any]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


def check_openai(body: dict[str, Any]) -> str:
    """What a real OpenAI-protocol server would reject."""
    if not body.get("model") or not body.get("messages"):
        return "model and messages are required"
    if any(m["role"] not in {"system", "user", "assistant"} for m in body["messages"]):
        return "unknown role"
    return ""


def check_anthropic(body: dict[str, Any], headers: dict[str, Any]) -> str:
    """What the real Messages API would reject."""
    if "anthropic-version" not in headers:
        return "anthropic-version: header is required"
    if not body.get("model") or not body.get("messages") or not body.get("max_tokens"):
        return "model, messages and max_tokens are required"
    roles = [m["role"] for m in body["messages"]]
    if set(roles) - {"user", "assistant"}:
        return "messages: role must be user or assistant; use the top-level system parameter"
    if any(not m["content"] for m in body["messages"]):
        return "messages: text content blocks must be non-empty"
    thinking = body.get("thinking", {})
    if thinking.get("type") == "enabled" and not (
        1024 <= thinking.get("budget_tokens", 0) < body["max_tokens"]
    ):
        return "thinking.budget_tokens must be >= 1024 and less than max_tokens"
    return ""


def answer_body(protocol: str, body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """A response in the shape of the protocol."""
    asked = sum(len(str(m["content"])) for m in body["messages"]) // 4 + 1
    n_in = answer.prompt_tokens if answer.prompt_tokens is not None else asked
    n_out = answer.completion_tokens
    n_out = n_out if n_out is not None else len(answer.text + answer.reasoning) // 4 + 1
    if protocol == "openai":
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.finish == "refusal":
            message = {"role": "assistant", "content": None, "refusal": answer.text}
        finish = "stop" if answer.finish == "refusal" else answer.finish
        payload: dict[str, Any] = {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        }
        if answer.usage:
            payload["usage"] = {
                "prompt_tokens": n_in,
                "completion_tokens": n_out,
                "total_tokens": n_in + n_out,
            }
        return payload
    content = [{"type": "text", "text": answer.text}] if answer.text else []
    if answer.reasoning:
        content.insert(0, {"type": "thinking", "thinking": answer.reasoning, "signature": "s"})
    finish = {"stop": "end_turn", "length": "max_tokens"}.get(answer.finish, answer.finish)
    return {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": finish,
        "stop_sequence": None,
        "usage": {"input_tokens": n_in, "output_tokens": n_out},
    }


def stream_events(protocol: str, body: dict[str, Any]) -> list[bytes]:
    """The same response as events, the text in small pieces."""

    def event(value: dict[str, Any]) -> bytes:
        name = f"event: {value['type']}\n" if protocol == "anthropic" else ""
        return f"{name}data: {json.dumps(value)}\n\n".encode()

    def pieces(text: str) -> list[str]:
        size = max(7, len(text) // 300)
        return [text[i : i + size] for i in range(0, len(text), size)]

    if protocol == "openai":
        top = {"id": body["id"], "object": "chat.completion.chunk", "model": body["model"]}
        choice = body["choices"][0]
        out = [b": ping\n\n"]
        for name, text in choice["message"].items():
            for piece in pieces(text) if name != "role" and text else []:
                out.append(event({**top, "choices": [{"index": 0, "delta": {name: piece}}]}))
        end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
        out.append(event({**top, "choices": [end], "usage": None}))
        if "usage" in body:
            out.append(event({**top, "choices": [], "usage": body["usage"]}))
        return [*out, b"data: [DONE]\n\n"]
    start = {
        **body,
        "content": [],
        "stop_reason": None,
        "usage": {**body["usage"], "output_tokens": 1},
    }
    out = [event({"type": "message_start", "message": start}), event({"type": "ping"})]
    for i, block in enumerate(body["content"]):
        kind = block["type"]
        empty = {**block, kind: ""}
        out.append(event({"type": "content_block_start", "index": i, "content_block": empty}))
        for piece in pieces(block[kind]):
            delta = {"type": f"{kind}_delta", kind: piece}
            out.append(event({"type": "content_block_delta", "index": i, "delta": delta}))
        out.append(event({"type": "content_block_stop", "index": i}))
    usage = {"output_tokens": body["usage"]["output_tokens"]}
    end = {"stop_reason": body["stop_reason"], "stop_sequence": None}
    out.append(event({"type": "message_delta", "delta": end, "usage": usage}))
    return [*out, event({"type": "message_stop"})]


def error_body(protocol: str, status: int, message: str, code: str) -> dict[str, Any]:
    """An error in the shape of the protocol."""
    if protocol == "openai":
        return {"error": {"message": message, "type": "scripted", "param": None, "code": code}}
    kind = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
    return {
        "type": "error",
        "error": {"type": kind.get(status, "api_error"), "message": message},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Scripted chat server (not a language model).")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--port-file", help="write the port here once listening (with --port 0)")
    options = parser.parse_args()

    def script(asked: Asked) -> Answer:
        return Answer(first_alphabetical(asked), delay=options.delay)

    with ScriptedServer(script, port=options.port) as server:
        if options.port_file:
            with open(options.port_file, "w", encoding="utf-8") as out:
                out.write(str(server.port))
        sys.stdout.write(
            f"SCRIPTED server, not a language model: {server.openai()} and {server.anthropic()}\n"
        )
        sys.stdout.flush()
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
