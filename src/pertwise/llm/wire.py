"""One request on the wire: HTTP with bounds, both protocols, refusals turned into `CallFailure`.

Plain HTTP instead of the providers' own packages: those read error bodies without a bound, follow
redirects with the key, take further keys and addresses from the environment, and cannot read what
other servers of the same protocol send.
"""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pertwise import __version__
from pertwise._text import one_line
from pertwise.errors import InputError
from pertwise.llm.address import Address, Redactor
from pertwise.llm.base import ChatReply, ChatRequest
from pertwise.llm.failures import (
    REDIRECTS_TO,
    CallFailure,
    as_json,
    disliked,
    problem_in,
    refused,
    web_page,
)
from pertwise.llm.replies import error_in_choice, is_reply, read_reply
from pertwise.llm.settings import ChatSettings
from pertwise.llm.stream import is_stream, whole_body

#: Most bytes of a response body, as sent and unpacked; the longest real answer has about 1 MB.
MAX_BODY = 16 * 1024 * 1024
#: The same answer in events, each of which repeats its frame around a few letters.
MAX_STREAM = 4 * MAX_BODY


#: What a dialect lacks when its models know no such role: the words then lead the first question.
SYSTEM = "system_role"


def _has_system(request: ChatRequest) -> bool:
    return request.protocol == "openai" and {m.role for m in request.messages} > {"system"}


@dataclass(frozen=True)
class Dialect:
    """What this endpoint was found to accept; starts optimistic, degrades when told no.

    `degraded` names what is no longer sent: json_schema, temperature, seed, the role of the system
    message, and the field that switches reasoning.
    """

    max_tokens_field: str = "max_tokens"
    reasoning_field: str = "chat_template_kwargs"
    thinking: str = "budget"
    degraded: tuple[str, ...] = ()
    renamed: bool = False
    #: Ask for the answer as it is written, and for the count of tokens at its end.
    stream: bool = True
    stream_usage: bool = True

    def sent(self, request: ChatRequest) -> tuple[str, ...]:
        """The optional fields that a request is sent with."""
        return tuple(f for f in self._wanted(request) if f not in self.degraded)

    def lacking(self, request: ChatRequest) -> tuple[str, ...]:
        """What a request asks for and is not sent."""
        return tuple(f for f in self.degraded if f in self._wanted(request))

    def _wanted(self, request: ChatRequest) -> tuple[str, ...]:
        wanted = {
            "json_schema": request.json_schema is not None,
            "temperature": request.temperature is not None,
            "seed": request.seed is not None and request.protocol == "openai",
            self.reasoning_field: request.reasoning is not None,
            # Never dropped on suspicion: only what names it shows that it is not taken.
            SYSTEM: SYSTEM in self.degraded and _has_system(request),
        }
        return tuple(name for name, asked in wanted.items() if asked)

    def without(self, failure: CallFailure, request: ChatRequest) -> Dialect | None:
        """The dialect to try after a refused request, or None when nothing is left to drop.

        What the server names is dropped, and only that. When it names nothing that was sent, the
        plain request is the test: without the schema, then without all that is optional. If that
        fails too, the first error is the one reported and nothing is remembered. A server error
        (HTTP 500) that names nothing is first of all a server error.
        """
        if self.stream and failure.blames_stream:
            # "stream_options" is refused by some that stream well.
            options = self.stream_usage and "stream_options" in failure.said
            return replace(self, stream_usage=False) if options else replace(self, stream=False)
        known = failure.kind in ("bad_request", "not_found") or failure.status == 500
        if not known or failure.status not in (400, 404, 422, 500):
            return None
        if failure.blames_system and SYSTEM not in self.degraded and _has_system(request):
            return replace(self, degraded=(*self.degraded, SYSTEM))
        named, sent = disliked(failure), self.sent(request)
        if "max_tokens" in named and request.protocol == "openai":
            other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
            new = other[self.max_tokens_field]
            if not self.renamed and (new in failure.said or named == ("max_tokens",)):
                return replace(self, max_tokens_field=new, renamed=True)
        if "thinking" in named and self.thinking == "budget" and "adaptive" in failure.said:
            return replace(self, thinking="adaptive")
        drop = tuple(name for name in named if name in sent)
        if not drop and failure.certain:
            return None
        if not drop and failure.status != 500:
            drop = ("json_schema",) if "json_schema" in sent else sent
        return replace(self, degraded=(*self.degraded, *drop)) if drop else None


class Backend(Protocol):
    """Sends one request once."""

    async def send(self, request: ChatRequest, dialect: Dialect) -> ChatReply:
        """Answer, or raise `CallFailure`."""
        ...

    async def close(self) -> None:
        """Close network connections."""
        ...


def first_dialect(address: Address, settings: ChatSettings) -> Dialect:
    """What to assume of an endpoint before the first call."""
    if address.protocol == "anthropic":
        return Dialect(reasoning_field="thinking")
    own = address.host == "api.openai.com" or address.azure
    effort = settings.reasoning_style == "effort" or (
        settings.reasoning_style == "auto"
        and (own or address.url.rstrip("/").endswith(":11434/v1"))
    )
    return Dialect(
        max_tokens_field="max_completion_tokens" if own else "max_tokens",
        reasoning_field="reasoning_effort" if effort else "chat_template_kwargs",
    )


def open_backend(address: Address, settings: ChatSettings, key: str, redact: Redactor) -> Backend:
    """The client for an address (opened inside the event loop that will use it)."""
    return HttpBackend(address, settings, key, redact)


class HttpBackend:
    """/chat/completions of OpenAI, Azure, vLLM, SGLang, Ollama, llama.cpp and the like, or
    /v1/messages of Anthropic."""

    def __init__(
        self, address: Address, settings: ChatSettings, key: str, redact: Redactor
    ) -> None:
        import httpx

        # At their lower levels these print whole addresses and headers, the key among them.
        for name in ("httpx", "httpcore"):
            if logging.getLogger(name).level < logging.WARNING:
                logging.getLogger(name).setLevel(logging.WARNING)
        self._http, self._settings, self._redact = httpx, settings, redact
        self._anthropic = address.protocol == "anthropic"
        self._url = address.url + ("/v1/messages" if self._anthropic else "/chat/completions")
        self._query = dict(address.query)
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "user-agent": f"pertwise/{__version__}",
        }
        if self._anthropic:
            headers |= {"x-api-key": key, "anthropic-version": "2023-06-01"}
        else:
            headers["authorization"] = f"Bearer {key}"
        if address.azure:
            headers["api-key"] = key
        unusable = ""
        try:
            self._client = httpx.AsyncClient(
                headers=headers,
                timeout=settings.timeout_s,
                follow_redirects=False,
                event_hooks={"response": [_set_location_aside]},
            )
        except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
            unusable = type(error).__name__
        if unusable:
            # Raised here, because the cause may show a proxy's password.
            raise InputError(
                f"no connection to {address} can be set up ({unusable}): check the proxy and "
                "certificate variables of the environment (HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE)"
            )

    async def close(self) -> None:
        """Close network connections."""
        await self._client.aclose()

    async def send(self, request: ChatRequest, dialect: Dialect) -> ChatReply:
        """One attempt."""
        make = anthropic_body if self._anthropic else openai_body
        body = make(request, dialect, self._settings.max_tokens)
        if dialect.stream:
            body["stream"] = True
            if dialect.stream_usage and not self._anthropic:
                body["stream_options"] = {"include_usage": True}
        status, headers, data = await self._exchange(body)
        return self.read(status, headers, data, request, dialect)

    async def _exchange(self, body: dict[str, Any]) -> tuple[int, Mapping[str, str], bytes]:
        """(status, headers, body) of one request; no exception of the HTTP library, which may
        show a key, is attached to what is raised."""
        failure: CallFailure
        limit = self._settings.timeout_s
        try:
            # The library's timeout bounds each read; a server that dribbles bytes needs this one.
            async with (
                asyncio.timeout(limit) as bound,
                self._client.stream(
                    "POST", self._url, params=self._query or None, content=json.dumps(body)
                ) as response,
            ):
                said = str(response.headers.get("content-type", "")).lower()
                most = MAX_BODY
                if is_stream(said, b""):
                    # It shows what it does: silence is bounded from now on, and all of it amply.
                    limit = self._settings.call_s
                    bound.reschedule(asyncio.get_running_loop().time() + limit)
                    most = MAX_STREAM
                data = await read_bounded(response, most)
                if response.status_code == 200 and is_stream(said, data):
                    data = whole_body(data)
                return response.status_code, response.headers, data
        except TimeoutError:
            failure = CallFailure("timeout", f"no answer within {limit:g} s")
        except self._http.TimeoutException:
            silent = self._settings.timeout_s
            failure = CallFailure("timeout", f"nothing came from the server for {silent:g} s")
        except CallFailure:
            raise
        except (self._http.HTTPError, self._http.StreamError, OSError) as error:
            kind = type(error.__cause__ or error).__name__
            failure = CallFailure("connection", f"the endpoint cannot be reached ({kind})")
        except (self._http.InvalidURL, ValueError, TypeError, RuntimeError) as error:
            failure = CallFailure("malformed_response", f"cannot be read ({type(error).__name__})")
        raise failure

    def read(
        self,
        status: int,
        headers: Mapping[str, str],
        data: bytes,
        request: ChatRequest,
        dialect: Dialect,
    ) -> ChatReply:
        """The reply in a complete response.

        Raises
        ------
        CallFailure
            When it is an error, with whatever status, or no chat completion.
        """
        payload: Any = None
        problem = "the body is empty"
        try:
            payload = as_json(data)
            problem = "it is not a chat completion"
        except ValueError as error:
            if data.strip():
                # Redacted before it is cut, or half a key would be left.
                start = self._redact(one_line(data[:4000].decode("utf-8", "replace")))[:80]
                why = "nested too deeply" if "nested" in str(error) else "not JSON"
                problem = f"the body is {why}; it starts with {start!r}"
        in_choice = error_in_choice(payload)
        if not 200 <= status < 300:
            raise refused(status, headers, data, payload, self._redact, request.model)
        reply: ChatReply | None = None
        if is_reply(payload):
            try:
                reply = read_reply(payload, request, dialect.lacking(request), self._redact)
            except (ValueError, TypeError, RecursionError) as error:
                problem = f"it is not a chat completion ({type(error).__name__})"
        # An error beside an answer that was paid for is only a note.
        answered = reply is not None and bool(reply.text) and bool(payload.get("choices"))
        if in_choice or (not answered and problem_in(payload)):
            reported = in_choice or payload
            raise refused(status, headers, data, reported, self._redact, request.model)
        if reply is not None:
            return reply
        page = web_page(data, str(headers.get("content-type", "")).lower(), self._redact)
        raise CallFailure(
            "malformed_response", page or f"the server's response cannot be used: {problem}"
        )


async def _set_location_aside(response: Any) -> None:
    # The library reads it also where it does not follow, and fails on one that is no address.
    where = response.headers.pop("location", None)
    if where is not None:
        response.headers[REDIRECTS_TO] = where


def openai_body(request: ChatRequest, dialect: Dialect, max_tokens: int) -> dict[str, Any]:
    """Body of a /chat/completions request, without what the endpoint refused before."""
    sent = dialect.sent(request)
    messages = [m.model_dump() for m in request.messages]
    if SYSTEM in dialect.degraded:
        led = [m["content"] for m in messages if m["role"] == "system"]
        messages = [m for m in messages if m["role"] != "system"]
        messages[0]["content"] = "\n\n".join([*led, messages[0]["content"]])
    body: dict[str, Any] = {"model": request.model, "messages": messages}
    for name in ("temperature", "seed"):
        if name in sent:
            body[name] = getattr(request, name)
    if request.max_tokens is not None:
        body[dialect.max_tokens_field] = request.max_tokens
    if "reasoning_effort" in sent:
        body["reasoning_effort"] = "medium" if request.reasoning else "none"
    if "chat_template_kwargs" in sent:
        body["chat_template_kwargs"] = {"enable_thinking": request.reasoning}
    if "json_schema" in sent:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": request.json_schema},
        }
    return body


def anthropic_body(request: ChatRequest, dialect: Dialect, max_tokens: int) -> dict[str, Any]:
    """Body of a /v1/messages request, without what the endpoint refused before."""
    sent = dialect.sent(request)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [m.model_dump() for m in request.messages if m.role != "system"],
        "max_tokens": request.max_tokens or max_tokens,
    }
    system = "\n\n".join(m.content for m in request.messages if m.role == "system")
    if system:
        body["system"] = system
    if "temperature" in sent:
        body["temperature"] = request.temperature
    if "thinking" in sent:
        if not request.reasoning:
            body["thinking"] = {"type": "disabled"}
        elif dialect.thinking == "adaptive":
            body["thinking"] = {"type": "adaptive"}
        else:
            body["thinking"] = {"type": "enabled", "budget_tokens": request.reasoning_tokens}
    if "json_schema" in sent:
        body["output_config"] = {"format": {"type": "json_schema", "schema": request.json_schema}}
    return body


async def read_bounded(response: Any, most: int = MAX_BODY) -> bytes:
    """The body of a streamed response, unpacked; refused beyond `most` bytes, packed or not.

    Raises
    ------
    CallFailure
        Too large, or packed in a way that was not asked for.
    """
    encoding = str(response.headers.get("content-encoding", "")).strip().lower()
    unpack = None
    if encoding in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(47)
    elif encoding not in ("", "identity"):
        raise CallFailure(
            "malformed_response", "the body is packed in a way that was not asked for"
        )
    body = bytearray()
    packed = 0
    async for chunk in response.aiter_raw():
        packed += len(chunk)
        try:
            body += chunk if unpack is None else unpack.decompress(chunk, most + 1 - len(body))
        except zlib.error:
            raise CallFailure("malformed_response", "the packed body is damaged") from None
        if len(body) > most or packed > most:
            raise CallFailure(
                "malformed_response", f"the body has more than {most // 2**20} MiB: not read"
            )
    return bytes(body)
