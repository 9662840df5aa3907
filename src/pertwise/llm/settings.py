"""How a chat endpoint is called."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pertwise.llm.budget import Price


class ChatSettings(BaseModel):
    """Settings of `open_chat`; none of them is secret.

    Attributes
    ----------
    temperature
        None = not sent; 0 is sent as 0.
    max_tokens
        Most tokens of the visible answer. With `reasoning` True, `reasoning_tokens` more are
        allowed (and that many are asked for where the protocol can say so).
    reasoning
        None = the endpoint's default; True/False switch it on or off.
    reasoning_style
        How an OpenAI-protocol server is told: "effort" (reasoning_effort), "template"
        (chat_template_kwargs.enable_thinking; vLLM, SGLang, llama.cpp), or "auto" (effort for
        OpenAI, Azure and Ollama's port 11434, else template).
    constrained
        Send a JSON schema where the caller has one; an endpoint that rejects it is asked plainly.
    max_schema_names
        A closed list longer than this is left out of the schema (endpoints limit enum sizes; the
        answer is validated against the list in any case).
    timeout_s, call_s
        Seconds of silence after which an attempt is given up (answers are streamed; of a server
        that cannot stream, the seconds until the answer); seconds an attempt may take in all.
    attempts, backoff_s, backoff_max_s, retry_after_max_s
        Attempts a call; exponential backoff with full jitter between them, unless the server says
        how long to wait (Retry-After, obeyed up to the last).
    max_consecutive_failures
        After this many calls in a row failed for good the run stops instead of falling back for
        every item that is left.
    concurrency
        Most calls under way at once; None = 8, and 2 on this machine. A run starts with one or two
        and opens a place with each answer within a tenth of `timeout_s`; a waiting retry keeps its
        place and halves their number, so a storm of 429 slows all.
    budget_tokens, budget_usd
        Limits of the run: with a ledger, of everything ever asked under the label `run`, by any
        number of processes. `budget_usd` needs a known price for the model.
    prices
        User's own table, {model: Price}; see `read_prices`.
    run
        Label stored with every exchange, under which budgets are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int = Field(default=4096, ge=1)
    reasoning: bool | None = None
    reasoning_tokens: int = Field(default=4096, ge=1024)
    reasoning_style: Literal["auto", "effort", "template"] = "auto"
    seed: int | None = None
    constrained: bool = True
    max_schema_names: int = Field(default=500, ge=0)
    timeout_s: float = Field(default=300.0, gt=0)
    call_s: float = Field(default=3600.0, gt=0)
    attempts: int = Field(default=6, ge=1)
    backoff_s: float = Field(default=1.0, ge=0)
    backoff_max_s: float = Field(default=60.0, ge=0)
    retry_after_max_s: float = Field(default=300.0, ge=0)
    max_consecutive_failures: int = Field(default=10, ge=1)
    concurrency: int | None = Field(default=None, ge=1)
    budget_tokens: int | None = Field(default=None, ge=1)
    budget_usd: float | None = Field(default=None, gt=0)
    prices: dict[str, Price] = Field(default_factory=dict)
    run: str = ""
