"""The chat vocabulary: a request, a reply, and the protocol of everything that answers."""

from __future__ import annotations

import json
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from pertwise._io import sha256_text


class Message(BaseModel):
    """One chat message."""

    model_config = ConfigDict(frozen=True)
    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(BaseModel):
    """Everything that decides the answer, and nothing secret.

    `endpoint` is the base URL without credentials or query string; it is part of the key because
    the same model name can mean different weights on different servers. `temperature` None means
    "do not send one" (some reasoning models refuse it); 0 is sent as 0.
    """

    model_config = ConfigDict(frozen=True)
    protocol: Literal["openai", "anthropic"]
    endpoint: str
    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    reasoning: bool | None = None
    json_schema: dict[str, Any] | None = None
    seed: int | None = None
    #: Distinguishes deliberate repeats of one request (votes, samples); part of the key.
    replicate: int = 0

    def key(self) -> str:
        """SHA-256 of the canonical JSON form: the ledger's primary key."""
        payload = self.model_dump(mode="json")
        return sha256_text(json.dumps(payload, sort_keys=True, separators=(",", ":")))


class ChatReply(BaseModel):
    """One answer. `reasoning` holds thinking text where the endpoint separates it."""

    model_config = ConfigDict(frozen=True)
    text: str
    reasoning: str = ""
    model: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    seconds: float = 0.0
    attempts: int = 1
    from_ledger: bool = False
    request_key: str = ""


@runtime_checkable
class Chat(Protocol):
    """Anything that answers a chat request; see `open_chat` for the real back ends."""

    def request(self, messages: tuple[Message, ...], **settings: Any) -> ChatRequest:
        """Build the request this back end would send (model, endpoint and defaults filled in)."""
        ...

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Answer, from the ledger when it holds the request, else from the endpoint.

        Raises
        ------
        pertwise.errors.ChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
        """
        ...
