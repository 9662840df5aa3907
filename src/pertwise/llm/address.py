"""Where a model lives, which key opens it, and how that key is kept out of sight."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

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
        When no endpoint or model can be read, or the URL carries a user name or password.
    """
    provider, rest = "", text.strip()
    for name in _DEFAULT_URL:
        if rest.startswith(name + ":"):
            provider, rest = name, rest[len(name) + 1 :]
            break
    match = re.search(r"@(?=https?://)", rest)
    if match:
        model, url = rest[: match.start()], rest[match.end() :]
    elif provider:
        model, url = rest, _DEFAULT_URL[provider]
    else:
        # Not echoed beyond the part before any "@": what follows may hold a secret.
        raise InputError(f"no endpoint in model address {text.split('@')[0]!r}: {_HELP}")
    if not model:
        raise InputError(f"no model name before the endpoint: {_HELP}")
    protocol: Protocol = "anthropic" if provider == "anthropic" else "openai"
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise InputError(
            f"the address of model {model!r} holds a user name or password; take it out and put "
            "the key into the environment (see `key_variables`)"
        )
    if not parts.hostname:
        raise InputError(f"the address of model {model!r} has no host name: {_HELP}")
    path = parts.path.rstrip("/")
    if protocol == "anthropic":
        # The SDK appends /v1/messages itself.
        path = path.removesuffix("/v1")
    elif not path:
        path = "/v1"
    base = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return Address(protocol, model, base, dict(parse_qsl(parts.query)))


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
        if value:
            return value
    if address.local:
        return "not-needed"
    raise InputError(
        f"no API key for {address.host}: set {' or '.join(names)} in the environment "
        "(any text will do for a server that checks none)"
    )


_KEY_SHAPES = re.compile(
    r"\b(sk-[A-Za-z0-9_\-]{8,}|Bearer\s+[A-Za-z0-9._\-]{8,}|x-api-key[\"':\s]+[A-Za-z0-9._\-]{8,})",
    re.IGNORECASE,
)


class Redactor:
    """Replaces secrets in text that leaves the process: errors, ledger, logs."""

    def __init__(self, secrets: Iterable[str]) -> None:
        kept = {s for s in secrets if len(s) >= 4 and s != "not-needed"}
        # Longest first, so that a secret holding another one is removed whole.
        self._secrets = sorted(kept, key=lambda s: (-len(s), s))

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        return _KEY_SHAPES.sub("[redacted]", text)

    def literal(self, text: str) -> str:
        """Remove only the known secrets: for model answers, where a pattern could misfire."""
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        return text

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._secrets)} secrets>"


def redactor_for(address: Address, key: str) -> Redactor:
    """Redactor of the key and of secret-looking query values."""
    query = [v for k, v in address.query.items() if k != "api-version" and len(v) >= 8]
    return Redactor([key, *query])
