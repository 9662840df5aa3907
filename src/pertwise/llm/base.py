"""The chat vocabulary: a request, a reply, and the protocol of everything that answers."""

from __future__ import annotations

import json
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from pertwise._io import sha256_text
from pertwise.errors import ChatError


class FatalChatError(ChatError):
    """No call to this endpoint can succeed (wrong key, unknown model, server gone): stop.

    A picker falls back to its declared fallback on a plain `ChatError`; on this one it must not,
    because every further call would fail the same way and the run would be all fallback.
    """


class Message(BaseModel):
    """One chat message."""

    model_config = ConfigDict(frozen=True)
    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(BaseModel):
    """Everything that decides the answer, and nothing secret.

    `endpoint` is the base URL without credentials or query string; it is part of the key because
    the same model name can mean different weights on different servers. `temperature` None means
    "do not send one" (some reasoning models refuse it); 0 is sent as 0. `max_tokens` bounds all
    generated tokens, reasoning included; `reasoning_tokens` is the part meant for reasoning.
    """

    model_config = ConfigDict(frozen=True)
    protocol: Literal["openai", "anthropic"]
    endpoint: str
    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    reasoning: bool | None = None
    reasoning_tokens: int | None = None
    json_schema: dict[str, Any] | None = None
    seed: int | None = None
    #: Distinguishes deliberate repeats of one request (votes, samples); part of the key.
    replicate: int = 0
    #: Most tokens worth asking for: what an answer of the wanted shape needs, amply. A limit of
    #: the call and no part of the key: a larger `max_tokens` stays allowed to a model that thinks.
    answer_tokens: int | None = None

    def key(self) -> str:
        """SHA-256 of the canonical JSON form: the ledger's primary key.

        Fields at their default are left out, so that a field added later does not orphan the
        exchanges already paid for.
        """
        payload = self.model_dump(mode="json", exclude_defaults=True, exclude={"answer_tokens"})
        return sha256_text(json.dumps(payload, sort_keys=True, separators=(",", ":")))


class ChatReply(BaseModel):
    """One answer. `reasoning` holds thinking text where the endpoint separates it.

    `finish_reason` is normalised: "stop", "length" (cut off at the token limit), "refusal", or
    whatever else the endpoint said. `degraded` names what the endpoint would not accept and was
    therefore sent without, e.g. ("json_schema",). `cost_usd` is None when no price is known.
    """

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
    degraded: tuple[str, ...] = ()


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
