"""Where a model lives, which key opens it, and how that key is kept out of sight."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, quote_plus, unquote, urlsplit, urlunsplit

from pertwise.config import is_secret, query_of
from pertwise.errors import InputError

Protocol = Literal["openai", "anthropic"]

_DEFAULT_URL = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "ollama": "http://localhost:11434/v1",
}
_HELP = (
    "write MODEL@URL for an OpenAI-compatible endpoint (for example qwen3:8b@http://localhost:11434"
    "/v1), openai:MODEL, ollama:MODEL, anthropic:MODEL or anthropic:MODEL@URL"
)
_KEY_SHAPES = re.compile(
    r"\b(sk-[A-Za-z0-9_\-]{8,}|Bearer\s+[A-Za-z0-9._\-]{8,}|x-api-key[\"':\s]+[A-Za-z0-9._\-]{8,})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Address:
    """A model at an endpoint.

    Attributes
    ----------
    url
        Base URL without credentials, query string or trailing slash; goes into ledger keys.
    query
        Query parameters of the given URL (Azure's ``api-version``), sent but never stored.
    """

    protocol: Protocol
    model: str
    url: str
    query: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def host(self) -> str:
        """Host name, lower case."""
        return (urlsplit(self.url).hostname or "").lower()

    @property
    def local(self) -> bool:
        """True for this machine: no key is needed there, and no money is asked."""
        return self.host in {"localhost", "127.0.0.1", "::1"}

    @property
    def azure(self) -> bool:
        """True for Azure OpenAI hosts."""
        return self.host.endswith((".openai.azure.com", ".cognitiveservices.azure.com"))

    def __str__(self) -> str:
        prefix = "anthropic:" if self.protocol == "anthropic" else ""
        return f"{prefix}{self.model}@{self.url}"


def parse_address(text: str) -> Address:
    """Read "MODEL@URL", "openai:MODEL", "ollama:MODEL", "anthropic:MODEL[@URL]".

    Raises
    ------
    pertwise.errors.InputError
        When no endpoint or model can be read, or the URL carries a user name or password. The text
        is never repeated where it may hold a secret.
    """
    provider, rest = "", text.strip()
    for name in _DEFAULT_URL:
        if rest.startswith(name + ":"):
            provider, rest = name, rest[len(name) + 1 :]
            break
    match = re.search(r"@(?=https?://)", rest, re.IGNORECASE)
    if match:
        model, url = rest[: match.start()], rest[match.end() :]
    elif provider:
        model, url = rest, _DEFAULT_URL[provider]
    else:
        said = repr(text) if re.fullmatch(r"[\w.\-]{0,60}", text) else "(not repeated here)"
        raise InputError(f"no endpoint in model address {said}: {_HELP}")
    if not model:
        raise InputError(f"no model name before the endpoint: {_HELP}")
    if re.search(r"://|[?#\s]", model) or not model.isprintable() or _KEY_SHAPES.search(model):
        raise InputError(
            "what stands before the endpoint is no model name (not repeated here: it may hold a "
            f"key): {_HELP}"
        )
    protocol: Protocol = "anthropic" if provider == "anthropic" else "openai"
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise InputError(f"the address of model {model!r} has no usable host name or port: {_HELP}")
    if "@" in parts.netloc or _KEY_SHAPES.search(unquote(parts.path)):
        raise InputError(
            f"the address of model {model!r} holds a user name, password or key; take it out and "
            "put the key into the environment (see `key_variables`)"
        )
    path = parts.path.rstrip("/")
    if protocol == "anthropic":
        # /v1/messages is appended when a request is sent.
        path = path.removesuffix("/v1")
    elif not path:
        path = "/v1"
    base = urlunsplit((parts.scheme.lower(), parts.netloc, path, "", ""))
    return Address(protocol, model, base, query_of(parts.query))


def key_variables(address: Address) -> tuple[str, ...]:
    """Environment variables searched for this endpoint's key, first one wins.

    A provider's own variable is only ever sent to that provider: pointing pertwise at another
    host cannot leak OPENAI_API_KEY to it.
    """
    host = re.sub(r"[^A-Z0-9]+", "_", address.host.upper())
    names = [f"PERTWISE_API_KEY_{host}"]
    if address.host == "api.openai.com":
        names.append("OPENAI_API_KEY")
    elif address.host == "api.anthropic.com":
        names.append("ANTHROPIC_API_KEY")
    elif address.azure:
        names.append("AZURE_OPENAI_API_KEY")
    else:
        names.append("PERTWISE_API_KEY")
    return tuple(names)


def find_key(address: Address) -> str:
    """The endpoint's key from the environment; a placeholder for endpoints on this machine.

    Raises
    ------
    pertwise.errors.InputError
        When none of the variables is set and the endpoint is on another machine.
    """
    names = key_variables(address)
    for name in names:
        value = os.environ.get(name, "").strip()
        if value and not (value.isascii() and value.isprintable()):
            raise InputError(
                f"the key in the environment variable {name} holds a line break or another "
                "character that cannot be sent; set it again (the key is not shown)"
            )
        if value:
            return value
    if address.local:
        return "not-needed"
    raise InputError(
        f"no API key for {address.host}: set {' or '.join(names)} in the environment "
        "(any text will do for a server that checks none)"
    )


class Redactor:
    """Replaces secrets in text that leaves the process: errors, ledger, logs.

    Every form is replaced in which an address, JSON or a page may hold a secret; one of less than
    8 characters only as a word of its own, one of less than 3 is no secret.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        kept = {f for s in secrets if len(s) >= 3 and s != "not-needed" for f in _forms(s)}
        self._n = len(kept)
        # Longest first, so that a secret holding another one is removed whole.
        longest = sorted(kept, key=lambda s: (-len(s), s))
        parts = [
            re.escape(s) if len(s) >= 8 else rf"(?<![A-Za-z0-9]){re.escape(s)}(?![A-Za-z0-9])"
            for s in longest
        ]
        self._known = re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)

    def __call__(self, text: str) -> str:
        return _KEY_SHAPES.sub("[redacted]", self.literal(text))

    def literal(self, text: str) -> str:
        """Remove only the known secrets: for model answers, where a pattern could misfire."""
        if "\\u00" in text:
            # JSON inside the text may spell a secret in escapes, which its reader would undo.
            plain = _ESCAPED.sub(lambda m: chr(int(m[1], 16)), text)
            if self._known.search(plain) and not self._known.search(text):
                text = plain
        return self._known.sub("[redacted]", text)

    def __repr__(self) -> str:
        return f"<Redactor of {self._n} secrets>"


_ESCAPED = re.compile(r"\\u00([2-7][0-9A-Fa-f])")


def _forms(secret: str) -> set[str]:
    encoded = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    lower = {re.sub("%..", lambda m: m[0].lower(), e) for e in encoded}
    plain = {secret, unquote(secret), secret.replace("+", " ")}
    quoted = {json.dumps(secret)[1:-1], repr(secret)[1:-1], html.escape(secret)}
    return encoded | lower | plain | quoted


def redactor_for(address: Address, key: str) -> Redactor:
    """Redactor of the key, of secret-looking query values and of all keys in the environment."""
    query = (v for k, v in address.query.items() if is_secret(k, v))
    return Redactor([key, *query, *_environment()])


def environment_redactor() -> Redactor:
    """Redactor of every key in the environment that this package may read."""
    return Redactor(_environment())


def _environment() -> list[str]:
    names = [n for n in os.environ if _KEY_VARIABLE.fullmatch(n)]
    return [v for n in names if len(v := os.environ[n].strip()) >= 8]


_KEY_VARIABLE = re.compile(
    r"PERTWISE_API_KEY\w*|(?:OPENAI|ANTHROPIC|AZURE_OPENAI)_(?:API_KEY|AUTH_TOKEN)"
)
