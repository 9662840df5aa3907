"""A response body of either protocol -> `ChatReply`: what is there is read, what was billed counts.

Servers vary: content as a string, a list of parts or an object; the answer in the reasoning or in
a tool call; usage missing, textual or absurd. None of that is worth paying for twice.
"""

from __future__ import annotations

import json
import math
from typing import Any

from pertwise._text import clean_text, one_line
from pertwise.llm.address import Redactor
from pertwise.llm.base import ChatReply, ChatRequest
from pertwise.llm.budget import prompt_tokens_expected

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_completion_tokens": "length",
    "model_context_window_exceeded": "length",
    "model_length": "length",
    "token_limit": "length",
    "limit": "length",
    "content_filter": "refusal",
    "safety": "refusal",
}
#: More tokens than any call of ours can use: a server that says so is wrong.
MAX_TOKENS_BELIEVED = 10_000_000


class _Found:
    """Pieces of one message, by what they are."""

    def __init__(self) -> None:
        self.pieces: dict[str, list[str]] = {
            "text": [],
            "reasoning": [],
            "tool": [],
            "refusal": [],
        }

    def __getitem__(self, kind: str) -> str:
        return "".join(self.pieces[kind])

    def add(self, value: Any, kind: str = "text", depth: int = 0) -> None:
        """Take up a string, a part, or a list of them."""
        if value is None or isinstance(value, bool) or depth > 8:
            return
        if isinstance(value, str | int | float):
            self.pieces[kind].append(str(value))
        elif isinstance(value, list):
            for part in value:
                self.add(part, kind, depth + 1)
        elif isinstance(value, dict):
            self._part(value, kind, depth + 1)

    def _part(self, part: dict[str, Any], kind: str, depth: int) -> None:
        said = str(part.get("type") or "").lower()
        if "thinking" in said or "reason" in said:
            names = ("thinking", "reasoning", "text", "summary", "content")
            self.add(next((part[n] for n in names if part.get(n)), None), "reasoning", depth)
        elif said == "refusal":
            self.add(part.get("refusal") or part.get("text"), "refusal", depth)
        elif said.startswith(("tool_use", "tool_call", "function")):
            self.arguments(part)
        elif not said and not {"text", "value", "content", "parts"} & set(part):
            # Not a part: the answer itself, already parsed by the server.
            self.pieces[kind].append(json.dumps(part))
        else:
            for name in ("text", "value", "content", "parts"):
                self.add(part.get(name), kind, depth)

    def arguments(self, call: Any) -> None:
        """Arguments of a tool call, as JSON text."""
        if not isinstance(call, dict):
            return
        if isinstance(call.get("function"), dict):
            call = call["function"]
        given = next((call[n] for n in ("arguments", "input", "parameters") if call.get(n)), None)
        if given is not None:
            self.pieces["tool"].append(given if isinstance(given, str) else json.dumps(given))


def read_reply(
    payload: dict[str, Any], request: ChatRequest, degraded: tuple[str, ...], redact: Redactor
) -> ChatReply:
    """The reply in a body that reports no error (text "" when it holds none)."""
    found = _Found()
    choice = _first(payload.get("choices"))
    if choice:
        message = choice.get("message") or choice.get("delta") or choice.get("text")
        finish = choice.get("finish_reason") or choice.get("stop_reason")
    else:
        message = payload["message"] if isinstance(payload.get("message"), dict) else payload
        finish = payload.get("stop_reason") or payload.get("done_reason")
    _message(message, found)
    if not choice and not found["text"]:
        found.add(payload.get("output"))
    text, finish = found["text"], str(finish or "").lower()
    finish = _FINISH.get(finish, finish)
    if found["refusal"] and not text.strip():
        text, finish = found["refusal"], "refusal"
    if finish not in ("length", "refusal"):
        text, why = _elsewhere(found, text)
        degraded += why
    text, reasoning = _clean(text, redact), _clean(found["reasoning"], redact)
    tokens, estimated = _usage(payload.get("usage"), request, text + reasoning)
    return ChatReply(
        text=text,
        reasoning=reasoning,
        model=redact(one_line(str(payload.get("model") or "")))[:200],
        finish_reason=redact(one_line(finish))[:100],
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        degraded=(*degraded, *estimated),
    )


def is_reply(payload: Any) -> bool:
    """Whether a body could be a chat completion at all."""
    return isinstance(payload, dict) and (
        bool({"choices", "content", "output", "usage"} & set(payload))
        or isinstance(payload.get("message"), dict)
    )


def error_in_choice(payload: Any) -> Any:
    """The error body inside a choice (routers end a failed generation so), or None."""
    choice = _first(payload.get("choices")) if isinstance(payload, dict) else {}
    if choice.get("error"):
        return {"error": choice["error"]}
    if str(choice.get("finish_reason")).lower() == "error":
        return {"error": {"message": "the generation ended with an error", "code": 500}}
    return None


def _first(choices: Any) -> dict[str, Any]:
    if isinstance(choices, list):
        found = [c for c in choices if isinstance(c, dict)]
        return next((c for c in found if c.get("index") == 0), found[0] if found else {})
    return {}


def _message(message: Any, found: _Found) -> None:
    if not isinstance(message, dict):
        found.add(message)
        return
    content = message.get("content")
    found.add(message.get("parsed") if content in (None, "", []) else content)
    names = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
    found.add(next((message[n] for n in names if message.get(n)), None), "reasoning")
    found.add(message.get("refusal"), "refusal")
    calls = message.get("tool_calls")
    for call in [*(calls if isinstance(calls, list) else []), message.get("function_call")]:
        found.arguments(call)


def _elsewhere(found: _Found, text: str) -> tuple[str, tuple[str, ...]]:
    """(text, note): the answer where a server hid it. That is exactly one JSON object and nothing
    else, in the only tool call or, when there is no text at all, in the reasoning."""
    if "{" not in text and len(found.pieces["tool"]) == 1 and _is_object(found["tool"]):
        return found["tool"], ("answer_in_tool_call",)
    if not text.strip() and _is_object(found["reasoning"]):
        return found["reasoning"], ("answer_in_reasoning",)
    return text, ()


def _is_object(text: str) -> bool:
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        return isinstance(json.loads(bare, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _clean(text: str, redact: Redactor) -> str:
    return redact.literal(clean_text(text))


def _usage(usage: Any, request: ChatRequest, said: str) -> tuple[tuple[int, int], tuple[str, ...]]:
    """((prompt, completion) tokens, note): what cannot be believed is estimated, never 0."""
    given = usage if isinstance(usage, dict) else {}
    prompt = _count(given.get("prompt_tokens", given.get("input_tokens")))
    completion = _count(given.get("completion_tokens", given.get("output_tokens")))
    if prompt is not None:
        cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
        prompt += sum(_count(given.get(name)) or 0 for name in cached)
    known = bool(prompt) and completion is not None and (completion > 0 or not said)
    # A server that says less than it can have used may say anything: budgets then count the most.
    stated = any(isinstance(value, int | float) for value in given.values())
    note = () if known else ("usage_estimated", *(("usage_not_believed",) if stated else ()))
    return (
        prompt or prompt_tokens_expected(request),
        completion or (len(said.encode()) // 3 + 1 if said or completion is None else 0),
    ), note


def _count(value: Any) -> int | None:
    """A number of tokens, or None when it is none that can be believed."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or not 0 <= number <= MAX_TOKENS_BELIEVED:
        return None
    return math.ceil(number)
