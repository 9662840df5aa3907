"""What an endpoint's refusal means: read from the body first, from the HTTP status second."""

from __future__ import annotations

import email.utils
import json
import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from pertwise._text import one_line, shown_url
from pertwise.llm.address import Redactor

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

_MEANING: dict[str, str] = {
    "auth": "the key was refused",
    "quota": "the account has no credit left",
    "not_found": "no such model or path",
    "rate_limit": "too many requests",
    "server": "server error",
    "bad_request": "the request was rejected",
}


class CallFailure(Exception):
    """A failed attempt; `message` is free of secrets, `said` is the server's text in lower case,
    `fields` are the request fields that the server names as the culprits, `certain` means that
    no other form of the request can help."""

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        status: int | None = None,
        retry_after: float | None = None,
        *,
        said: str = "",
        fields: tuple[str, ...] = (),
        certain: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.status = kind, message, status
        self.retry_after, self.said = retry_after, said or message.lower()
        self.fields, self.certain = fields, certain

    @property
    def blames_stream(self) -> bool:
        """Whether the request was refused because it asks for a stream."""
        refused = self.kind in ("bad_request", "not_found") or self.status in (405, 500, 501)
        return refused and bool(_STREAM.search(" ".join((*self.fields, self.said)).lower()))

    @property
    def blames_system(self) -> bool:
        """Whether the model's chat template knows no system message."""
        return self.kind in ("bad_request", "server") and bool(_SYSTEM.search(self.said))


_SYSTEM = re.compile(
    r"(?:system|developer) (?:role|messages?|instructions?|prompts?) (?:is |are )?not "
    r"(?:supported|enabled|allowed)|roles must alternate|does not support (?:the )?system"
)
_STREAM = re.compile(r"(?<![a-z])stream(?:ing|ed|s|_options)?(?![a-z])")


@dataclass(frozen=True)
class Problem:
    """An error body: its words, its codes and types (lower case), the fields that it blames."""

    text: str
    codes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def status(self) -> int | None:
        """The HTTP status that the body itself states, as a number or by a known name."""
        for code in self.codes:
            if code.isdigit() and 400 <= int(code) <= 599:
                return int(code)
        return next((_STATUS_OF[c] for c in self.codes if c in _STATUS_OF), None)


#: Error types of OpenAI, Anthropic and Google as HTTP statuses.
_STATUS_OF = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "billing_error": 402,
    "insufficient_quota": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "deploymentnotfound": 404,
    "not_found": 404,
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "api_error": 500,
    "server_error": 500,
    "internal": 500,
    "unavailable": 503,
    "timeout_error": 504,
    "overloaded_error": 529,
}
#: Header under which `pertwise.llm.wire` keeps the address of a redirect.
REDIRECTS_TO = "x-pertwise-redirects-to"
_WORDS = ("message", "msg", "detail", "details", "error_description", "title", "reason", "error")
_CODES = ("code", "type", "status", "status_code")
_ANSWERS = ("choices", "content", "message", "output")


def problem_in(payload: Any) -> Problem | None:
    """The error that a JSON body reports, whatever its HTTP status; None when it reports none."""
    texts: list[str] = []
    codes: list[str] = []
    fields: list[str] = []

    def visit(value: Any, depth: int = 0) -> None:
        if depth > 6 or len(texts) > 20 or isinstance(value, bool) or value is None:
            return
        if isinstance(value, str | int | float):
            texts.append(str(value)[:2000])
        elif isinstance(value, list):
            for part in value[:10]:
                visit(part, depth + 1)
        elif isinstance(value, dict):
            for name in _CODES:
                if isinstance(value.get(name), str | int) and not isinstance(value[name], bool):
                    codes.append(str(value[name]).lower()[:100])
            if isinstance(value.get("param"), str):
                fields.append(value["param"].lower())
            if isinstance(value.get("loc"), list):
                fields.extend(str(p).lower() for p in value["loc"][:5])
            for name in (*_WORDS, "errors"):
                visit(value.get(name), depth + 1)

    if isinstance(payload, list):
        payload = payload[0] if payload else None
    if not isinstance(payload, dict):
        return None
    error = payload.get("error") or payload.get("errors")
    stated = bool(error) or "error" in (payload.get("type"), payload.get("object"))
    if error:
        visit(error)
        codes.extend(str(payload[n]).lower() for n in _CODES if isinstance(payload.get(n), int))
    elif stated or isinstance(payload.get("message"), str) or not any(map(payload.get, _ANSWERS)):
        visit(payload)
    texts = [t for t in dict.fromkeys(texts) if t.strip()]
    if not texts and not (stated and codes):
        return None
    return Problem("; ".join(texts) or ", ".join(codes), tuple(codes), tuple(fields))


_KEY = re.compile(
    r"api[ _-]?key|authenticat|unauthori[sz]ed|no auth|credentials|user not found|"
    r"permission[ _]denied|access denied|(?:invalid|expired|bearer|access)[ _]token|token expired"
)
_CREDIT = re.compile(
    r"insufficient[ _](?:quota|credit|balance|fund)|credit balance|out of credit|no credit|"
    r"(?:enough|more|remaining) credit|exceeded your current quota|billing|payment[ _]required|"
    r"account balance|spend(?:ing)? limit|add funds|top[ -]up|overdue|arrear"
)
_NO_MODEL = re.compile(
    r"not[ _]found|(?:does not|doesn't|not) exist|unknown model|no such model|invalid model|"
    r"not a valid model|unsupported model|model \S* ?is not supported|(?:no|not have) access|"
    r"not available|not loaded|not deployed|not served|decommissioned|deprecated|retired|"
    r"no endpoints found|unrecogni[sz]ed model|no allowed providers"
)
_FLAGGED = re.compile(r"moderation|flagged|content policy|safety")
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,2000})", re.IGNORECASE)


def web_page(data: bytes, content_type: str, redact: Redactor) -> str:
    """ "" unless the body is a web page; else what it is, with its title."""
    start = data[:20_000].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if not re.match(r"<(?:!doctype\s+html|html|head|body)\b", start, re.IGNORECASE) and not (
        content_type.startswith("text/html") and start.startswith("<")
    ):
        return ""
    title = _TITLE.search(start)
    called = one_line(redact(one_line(title[1])), 100) if title else ""
    named = f" titled {called!r}" if called else ""
    return (
        f"the answer is a web page (HTML){named}, not that of a chat service: a proxy or login "
        "page is in the way, or the address lacks its path (often /v1)"
    )


def refused(
    status: int, headers: Any, data: bytes, payload: Any, redact: Redactor, model: str
) -> CallFailure:
    """The failure that an HTTP error means, or an error body inside HTTP 200.

    Parameters
    ----------
    status
        Of the HTTP response.
    payload
        The body as JSON, None when it is not JSON.
    model
        Name asked for: its words are not taken for the server's.
    """
    if 300 <= status < 400:
        given = headers.get(REDIRECTS_TO) or headers.get("location") or ""
        where = redact(shown_url(str(given)))[:200]
        return CallFailure(
            "not_found",
            f"HTTP {status}: the server redirects to {where or 'nowhere'}; a redirect is not "
            "followed, because the key and the prompt would go there. If that is the right "
            "address, name it",
            status,
        )
    problem = problem_in(payload) or Problem("")
    page = web_page(data, str(headers.get("content-type", "")).lower(), redact)
    text = problem.text or page or data[:2000].decode("utf-8", "replace")
    # Words of the model's name ("json-schema-model", "key-1") are not the server's.
    said = " ".join((text, *problem.codes)).lower()
    bare = said.replace(model.lower(), " ") if len(model) > 2 else said
    stated = problem.status
    real = stated if status < 300 or (stated in (401, 402, 403) and status != 429) else status
    kind = _kind(real, bare, said, problem, model.lower())
    shown = page if page and not problem.text else redact(one_line(text))[:500] or "(no text)"
    http = f"HTTP {status}" + (f" (the body says {real})" if real not in (status, None) else "")
    return CallFailure(
        kind,
        f"{http}, {_MEANING[kind]}: {shown}",
        real or status,
        retry_after(headers),
        said=bare,
        fields=problem.fields,
        certain=bool(page) or unknown_model(said, problem, model.lower()),
    )


def _kind(status: int | None, bare: str, said: str, problem: Problem, model: str) -> FailureKind:
    theirs = status is None or status in (400, 401, 402, 403, 404, 422)
    if status == 429:
        later = re.search(r"retry|try again|per minute|per day", bare)
        broke = "insufficient_quota" in bare or (_CREDIT.search(bare) and not later)
        return "quota" if broke else "rate_limit"
    if theirs and status != 422:
        if _FLAGGED.search(bare) and status in (400, 403):
            return "bad_request"
        if status == 402 or _CREDIT.search(bare):
            return "quota"
        if unknown_model(said, problem, model) and status != 401:
            return "not_found"
        if status in (401, 403) or _KEY.search(bare):
            return "auth"
        if status == 404:
            return "not_found"
    if status is None or status in (408, 409, 425) or status >= 500:
        return "server"
    return "bad_request"


def unknown_model(said: str, problem: Problem, model: str) -> bool:
    """Whether a refusal is about the model's name (and not about what the model cannot do)."""
    if {"model_not_found", "deploymentnotfound"} & set(problem.codes) or "model" in problem.fields:
        return True
    if "not_found_error" in problem.codes and "model" in said:
        return True
    named = "model" in said or (len(model) > 2 and model in said)
    bare = said.replace(model, " ") if len(model) > 2 else said
    return named and bool(_NO_MODEL.search(bare)) and not mentioned(bare)


#: How servers name what we may send, by our own names for it.
_MENTIONS = {
    "json_schema": r"response[ _]?format|json[ _]?schema|output_config|output_format|guided_json|"
    r"structured[ _]outputs?|grammar|json[ _]mode|json_object|schema",
    "temperature": r"temperature",
    "seed": r"(?:random_)?seed",
    "chat_template_kwargs": r"chat[ _]template[ _]kwargs|enable_thinking",
    "reasoning_effort": r"reasoning[ _.]effort",
    "max_tokens": r"max_tokens|max_completion_tokens|max_output_tokens",
    "thinking": r"thinking|budget_tokens",
}
_MENTION = re.compile(
    r"(?<![a-z0-9_])(?:"
    + "|".join(f"(?P<{k}>{v})" for k, v in _MENTIONS.items())
    + r")(?![a-z0-9])"
)
_JOINED = re.compile(r"[\s,'\"`/&]*(?:and|or)?[\s'\"`]*")


def mentioned(said: str) -> tuple[str, ...]:
    """Request fields that a server's words name: the first one, and those joined to it by commas.

    Later ones are often what it would rather have ("temperature may only be 1 with thinking").
    """
    found: list[str] = []
    end = 0
    for mention in _MENTION.finditer(said[:5000]):
        if found and not _JOINED.fullmatch(said, end, mention.start()):
            break
        found.append(str(mention.lastgroup))
        end = mention.end()
    return tuple(dict.fromkeys(found))


def disliked(failure: CallFailure) -> tuple[str, ...]:
    """Our names of the request fields that a failure blames: by its own fields, else its words."""
    blamed = tuple(dict.fromkeys(n for f in failure.fields for n in mentioned(f.replace(".", " "))))
    return blamed or mentioned(failure.said)


def retry_after(headers: Any, now: float | None = None) -> float | None:
    """Seconds a server asks to wait: ``retry-after-ms``, or ``Retry-After`` as seconds or date."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if not value:
        return None
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    try:
        when = email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, when - (time.time() if now is None else now))


def _seconds(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    # "nan" would make every comparison false and wait for ever.
    return max(0.0, number) if number == number else None


def as_json(data: bytes) -> Any:
    """A body as JSON of any UTF: invalid bytes replaced, absurdly long numbers as floats, bounded
    nesting.

    Raises
    ------
    ValueError
        When it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(
            data.decode(json.detect_encoding(data), "replace"),
            strict=False,
            parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits),
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
