"""A streamed answer -> the body that the server would have sent unstreamed.

Server-sent events of either protocol, or one JSON object a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pertwise.llm.failures import CallFailure, as_json

_TEXTS = ("content", "reasoning_content", "reasoning", "thinking", "refusal", "text")


def is_stream(content_type: str, data: bytes) -> bool:
    """Whether a body is a stream of events, by its declared type or its first bytes."""
    start = data[:16].lstrip(b"\xef\xbb\xbf\r\n ")
    said = any(t in content_type for t in ("text/event-stream", "ndjson", "jsonl", "json-seq"))
    return said or start.startswith((b"data:", b"event:", b": "))


def whole_body(data: bytes) -> bytes:
    """The JSON body behind a stream that has ended; an error event is the whole body.

    Raises
    ------
    CallFailure
        The stream ended before the answer did.
    """
    made = _Message()
    for event in _events(data):
        if event.get("error") and not event.get("choices"):
            return json.dumps(event).encode()
        made.take(event)
    if not (made.finished or data.rstrip().endswith(b"[DONE]")):
        raise CallFailure("connection", "the stream broke off in the middle of the answer")
    return json.dumps(made.body()).encode()


def _events(data: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of a stream, in order; what is none (marks, pings) is passed over."""
    lines: list[bytes] = []
    for line in [*data.splitlines(), b""]:
        if line.startswith(b"{") and not lines:
            # A line of its own without the frame of an event, as Ollama sends.
            yield from _objects(line)
        elif line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif not line and lines:
            yield from _objects(b"\n".join(lines))
            lines.clear()


def _objects(data: bytes) -> Iterator[dict[str, Any]]:
    try:
        event = as_json(data)
    except ValueError:
        return
    if isinstance(event, dict):
        yield event


class _Message:
    """An answer put together from its pieces."""

    def __init__(self) -> None:
        self._top: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._pieces: dict[str, list[str]] = {}
        self._other: dict[str, list[Any]] = {}
        self._calls: dict[Any, list[str]] = {}
        self.finished: Any = None
        self._error: Any = None

    def take(self, event: dict[str, Any]) -> None:
        """Add one event of either protocol."""
        if isinstance(event.get("message"), dict) and event.get("type") == "message_start":
            event = event["message"]
        for name in ("model", "error"):
            self._top[name] = event.get(name) or self._top.get(name)
        if isinstance(event.get("usage"), dict):
            # Later reports count from the start; what they leave out stands.
            self._usage |= {k: v for k, v in event["usage"].items() if v is not None}
        if isinstance(event.get("choices"), list):
            choice = next((c for c in event["choices"] if isinstance(c, dict)), {})
            if choice.get("index") in (None, 0):
                self._choice(choice)
            return
        if isinstance(event.get("message"), dict):
            self._add(event["message"])
            self.finished = (event.get("done") and (event.get("done_reason") or "stop")) or None
            for name, own in (("prompt", "prompt_eval_count"), ("completion", "eval_count")):
                if own in event:
                    self._usage[f"{name}_tokens"] = event[own]
            return
        if event.get("type") == "message_stop":
            self.finished = self.finished or "stop"
        part = event.get("content_block") or event.get("delta")
        if isinstance(part, dict):
            if isinstance(part.get("partial_json"), str):
                self._calls.setdefault(event.get("index"), []).append(part["partial_json"])
            self._add(part)
            self.finished = part.get("stop_reason") or self.finished

    def _choice(self, choice: dict[str, Any]) -> None:
        self._error = choice.get("error") or self._error
        self.finished = choice.get("finish_reason") or choice.get("stop_reason") or self.finished
        piece = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        if isinstance(piece, dict):
            self._add(piece)
            calls = piece.get("tool_calls")
            for call in [*(calls if isinstance(calls, list) else []), piece.get("function_call")]:
                if isinstance(call, dict):
                    given = call.get("function", call)
                    said = given.get("arguments") if isinstance(given, dict) else None
                    if isinstance(said, str):
                        self._calls.setdefault(call.get("index", 0), []).append(said)

    def _add(self, piece: dict[str, Any]) -> None:
        for name in _TEXTS:
            value = piece.get(name)
            if isinstance(value, str):
                self._pieces.setdefault(name, []).append(value)
            elif value is not None:
                self._other.setdefault(name, []).extend(
                    value if isinstance(value, list) else [value]
                )

    def body(self) -> dict[str, Any]:
        """A body in the shape of /chat/completions."""
        message: dict[str, Any] = {k: "".join(v) for k, v in self._pieces.items()}
        for name, parts in self._other.items():
            message[name] = [*parts, *([message[name]] if message.get(name) else [])]
        message.setdefault("content", message.pop("text", ""))
        message["tool_calls"] = [
            {"function": {"arguments": "".join(said)}} for said in self._calls.values()
        ]
        choice = {"index": 0, "message": message, "finish_reason": self.finished}
        if self._error:
            choice["error"] = self._error
        return {**self._top, "choices": [choice], "usage": self._usage or None}
