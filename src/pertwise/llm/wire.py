"""One request on the wire: the official SDKs behind one small interface, errors translated."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar

from pertwise.llm.address import Address, Redactor
from pertwise.llm.base import ChatReply, ChatRequest
from pertwise.llm.budget import prompt_tokens_expected
from pertwise.llm.settings import ChatSettings

T = TypeVar("T")

FailureKind = Literal[
    "rate_limit",
    "server",
    "timeout",
    "connection",
    "malformed_response",
    "auth",
    "not_found",
    "quota",
    "bad_request",
]
RETRYABLE: frozenset[str] = frozenset(
    {"rate_limit", "server", "timeout", "connection", "malformed_response"}
)
FATAL: frozenset[str] = frozenset({"auth", "not_found", "quota"})


class CallFailure(Exception):
    """A failed attempt; `message` is already free of secrets."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.status = kind, message, status
        self.retry_after = retry_after


@dataclass(frozen=True)
class Dialect:
    """What this endpoint was found to accept; starts optimistic, degrades when told no."""

    json_schema: bool = True
    max_tokens_field: str = "max_tokens"
    thinking: Literal["budget", "adaptive"] = "budget"
    degraded: tuple[str, ...] = ()

    def without(self, failure: CallFailure, request: ChatRequest) -> Dialect | None:
        """The dialect to try after a rejected request, or None when nothing is left to drop."""
        if failure.kind != "bad_request":
            return None
        text = failure.message.lower()
        if self.max_tokens_field == "max_tokens" and "max_completion_tokens" in text:
            return replace(self, max_tokens_field="max_completion_tokens")
        if request.reasoning and self.thinking == "budget" and "adaptive" in text:
            return replace(self, thinking="adaptive")
        # Servers word this rejection in many ways, so a plain request is the test: if it fails
        # too, the first error is the one reported and nothing is remembered.
        if self.json_schema and request.json_schema is not None:
            return replace(self, json_schema=False, degraded=(*self.degraded, "json_schema"))
        return None


class Backend(Protocol):
    """Sends one request once."""

    async def send(self, request: ChatRequest, dialect: Dialect) -> ChatReply:
        """Answer, or raise `CallFailure`."""
        ...

    async def close(self) -> None:
        """Close network connections."""
        ...


def first_dialect(address: Address) -> Dialect:
    """What to assume of an endpoint before the first call."""
    own = address.host == "api.openai.com" or address.azure
    return Dialect(max_tokens_field="max_completion_tokens" if own else "max_tokens")


def open_backend(address: Address, settings: ChatSettings, key: str, redact: Redactor) -> Backend:
    """The SDK client for an address (opened inside the event loop that will use it)."""
    if address.protocol == "anthropic":
        return AnthropicBackend(address, settings, key, redact)
    return OpenAIBackend(address, settings, key, redact)


class OpenAIBackend:
    """/chat/completions of OpenAI, Azure, vLLM, SGLang, Ollama, llama.cpp and the like."""

    def __init__(
        self, address: Address, settings: ChatSettings, key: str, redact: Redactor
    ) -> None:
        import openai

        self._sdk, self._settings, self._redact = openai, settings, redact
        self._effort = settings.reasoning_style == "effort" or (
            settings.reasoning_style == "auto"
            and (
                address.host == "api.openai.com"
                or address.azure
                or address.url.rstrip("/").endswith(":11434/v1")
            )
        )
        self._client = openai.AsyncOpenAI(
            api_key=key,
            base_url=address.url,
            max_retries=0,
            timeout=settings.timeout_s,
            default_query=dict(address.query) or None,
            default_headers={"api-key": key} if address.azure else None,
        )

    async def send(self, request: ChatRequest, dialect: Dialect) -> ChatReply:
        """One attempt."""
        body: dict[str, Any] = {}
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.max_tokens is not None:
            body[dialect.max_tokens_field] = request.max_tokens
        if request.seed is not None:
            body["seed"] = request.seed
        if request.reasoning is not None:
            if self._effort:
                body["reasoning_effort"] = "medium" if request.reasoning else "none"
            else:
                body["chat_template_kwargs"] = {"enable_thinking": request.reasoning}
        if request.json_schema is not None and dialect.json_schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": request.json_schema},
            }
        messages: Any = [m.model_dump() for m in request.messages]
        # Everything beyond the two required fields goes through extra_body: it reaches the wire
        # unchanged with every version of the SDK, also the fields only vLLM knows.
        answer = await _translated(
            self._sdk,
            self._client.chat.completions.create(
                model=request.model, messages=messages, extra_body=body
            ),
            self._settings.timeout_s,
            self._redact,
        )
        return _parsed(self._read, answer, request, dialect)

    def _read(self, answer: Any, request: ChatRequest, dialect: Dialect) -> ChatReply:
        choice = answer.choices[0]
        message = choice.message
        text, finish = message.content or "", str(choice.finish_reason or "")
        if getattr(message, "refusal", None):
            text, finish = message.refusal, "refusal"
        reasoning = getattr(message, "reasoning_content", None) or getattr(
            message, "reasoning", None
        )
        usage = answer.usage
        return _reply(
            request,
            dialect,
            text=self._redact.literal(text),
            reasoning=self._redact.literal(str(reasoning or "")),
            model=str(answer.model or ""),
            finish={"content_filter": "refusal"}.get(finish, finish),
            tokens=None if usage is None else (usage.prompt_tokens, usage.completion_tokens),
        )

    async def close(self) -> None:
        """Close network connections."""
        await self._client.close()


class AnthropicBackend:
    """/v1/messages of Anthropic."""

    def __init__(
        self, address: Address, settings: ChatSettings, key: str, redact: Redactor
    ) -> None:
        import anthropic

        self._sdk, self._settings, self._redact = anthropic, settings, redact
        self._client = anthropic.AsyncAnthropic(
            api_key=key,
            base_url=address.url,
            max_retries=0,
            timeout=settings.timeout_s,
            default_query=dict(address.query) or None,
        )

    async def send(self, request: ChatRequest, dialect: Dialect) -> ChatReply:
        """One attempt."""
        body: dict[str, Any] = {}
        system = "\n\n".join(m.content for m in request.messages if m.role == "system")
        if system:
            body["system"] = system
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.reasoning is False:
            body["thinking"] = {"type": "disabled"}
        elif request.reasoning and dialect.thinking == "adaptive":
            body["thinking"] = {"type": "adaptive"}
        elif request.reasoning:
            body["thinking"] = {"type": "enabled", "budget_tokens": request.reasoning_tokens}
        if request.json_schema is not None and dialect.json_schema:
            body["output_config"] = {
                "format": {"type": "json_schema", "schema": request.json_schema}
            }
        messages: Any = [m.model_dump() for m in request.messages if m.role != "system"]
        answer = await _translated(
            self._sdk,
            self._client.messages.create(
                model=request.model,
                messages=messages,
                max_tokens=request.max_tokens or self._settings.max_tokens,
                extra_body=body,
            ),
            self._settings.timeout_s,
            self._redact,
        )
        return _parsed(self._read, answer, request, dialect)

    def _read(self, answer: Any, request: ChatRequest, dialect: Dialect) -> ChatReply:
        text = "".join(b.text for b in answer.content if b.type == "text")
        reasoning = "".join(b.thinking for b in answer.content if b.type == "thinking")
        finish = str(answer.stop_reason or "")
        usage = answer.usage
        tokens = None
        if usage is not None:
            cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
            tokens = (usage.input_tokens + cached, usage.output_tokens)
        return _reply(
            request,
            dialect,
            text=self._redact.literal(text),
            reasoning=self._redact.literal(reasoning),
            model=str(answer.model or ""),
            finish={
                "end_turn": "stop",
                "stop_sequence": "stop",
                "max_tokens": "length",
                "model_context_window_exceeded": "length",
            }.get(finish, finish),
            tokens=tokens,
        )

    async def close(self) -> None:
        """Close network connections."""
        await self._client.close()


def _reply(
    request: ChatRequest,
    dialect: Dialect,
    *,
    text: str,
    reasoning: str,
    model: str,
    finish: str,
    tokens: tuple[int, int] | None,
) -> ChatReply:
    degraded = dialect.degraded if request.json_schema is not None else ()
    if tokens is None:
        # Some local servers report no usage; a budget still has to count something.
        tokens = (prompt_tokens_expected(request), len((text + reasoning).encode()) // 3 + 1)
        degraded = (*degraded, "usage_estimated")
    return ChatReply(
        text=text,
        reasoning=reasoning,
        model=model,
        finish_reason=finish,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        degraded=degraded,
    )


def _parsed(read: Any, answer: Any, request: ChatRequest, dialect: Dialect) -> ChatReply:
    failure: CallFailure
    try:
        reply: ChatReply = read(answer, request, dialect)
        return reply
    except (AttributeError, TypeError, IndexError, KeyError, ValueError) as error:
        failure = CallFailure(
            "malformed_response",
            f"the server's response is not a chat completion ({type(error).__name__})",
        )
    raise failure


async def _translated(sdk: ModuleType, call: Awaitable[T], timeout_s: float, redact: Redactor) -> T:
    """Await an SDK call; its errors come out as `CallFailure`.

    The failure is raised outside the `except` blocks so that the SDK's exception, whose body may
    echo a key, is not attached to it as context.
    """
    failure: CallFailure
    try:
        # The SDK's timeout bounds each read; a server that dribbles bytes needs this one.
        async with asyncio.timeout(timeout_s):
            return await call
    except (TimeoutError, sdk.APITimeoutError):
        failure = CallFailure("timeout", f"no answer within {timeout_s:g} s")
    except sdk.APIConnectionError as error:
        cause = type(error.__cause__).__name__ if error.__cause__ else "connection error"
        failure = CallFailure("connection", f"the endpoint cannot be reached ({cause})")
    except sdk.APIStatusError as error:
        failure = _status_failure(error, redact)
    except sdk.APIError as error:
        failure = CallFailure("malformed_response", redact(str(error))[:500])
    except (ValueError, TypeError, AttributeError) as error:
        failure = CallFailure(
            "malformed_response",
            f"the server's response cannot be read ({type(error).__name__})",
        )
    raise failure


def _status_failure(error: Any, redact: Redactor) -> CallFailure:
    status = int(error.status_code)
    body = redact(str(error))[:500]
    kind: FailureKind
    if status in (401, 403):
        kind, text = "auth", "the key was refused"
    elif status == 402 or (status == 429 and "insufficient_quota" in body):
        kind, text = "quota", "the account has no credit left"
    elif status == 404:
        kind, text = "not_found", "no such model or path"
    elif status == 429:
        kind, text = "rate_limit", "too many requests"
    elif status in (408, 409, 425) or status >= 500:
        kind, text = "server", "server error"
    else:
        kind, text = "bad_request", "the request was rejected"
    return CallFailure(
        kind,
        f"HTTP {status}, {text}: {body}",
        status,
        retry_after(getattr(error.response, "headers", {})),
    )


def retry_after(headers: Any, now: float | None = None) -> float | None:
    """Seconds a server asks to wait: ``retry-after-ms``, or ``Retry-After`` as seconds or date."""
    try:
        if headers.get("retry-after-ms"):
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except ValueError:
        pass
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError):
        return None
    return max(0.0, when - (time.time() if now is None else now))
