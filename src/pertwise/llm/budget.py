"""What a run may cost: prices, reservations before each call, and an estimate before all."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pertwise.errors import BudgetError, InputError
from pertwise.llm.address import Address
from pertwise.llm.base import ChatRequest


class Price(BaseModel):
    """US dollars per million tokens; `as_of` says when the price was read ("" = user's own)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input: float
    output: float
    as_of: str = ""

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost in US dollars."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class _PriceFile(BaseModel):
    """{"as_of": ..., "hosts": {host: {model: {"input": .., "output": ..}}}}."""

    as_of: str = ""
    hosts: dict[str, dict[str, Price]]


_DATED = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")


def read_prices(source: str | os.PathLike[str] | Mapping[str, Price]) -> dict[str, Price]:
    """A user's price table: {model: Price}, or a JSON file {model: {"input":, "output":}}.

    Raises
    ------
    pertwise.errors.InputError
        When the file is missing or is not such a table.
    """
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): Price.model_validate(v) for k, v in raw.items()}
    except FileNotFoundError:
        raise InputError(f"price table {path} does not exist") from None
    except (ValueError, AttributeError, ValidationError) as error:
        raise InputError(
            f"price table {path} is not {{model: {{'input': USD per million tokens, 'output': "
            f"...}}}}: {error}"
        ) from None


def find_price(address: Address, user: Mapping[str, Price]) -> Price | None:
    """The price of a model: the user's table, 0 on this machine, else the dated table shipped.

    Names match exactly, or without a trailing date ("-2024-07-18"). None when unknown.
    """
    names = (address.model, _DATED.sub("", address.model))
    for name in names:
        if name in user:
            return user[name]
    if address.local:
        return Price(input=0.0, output=0.0, as_of="this machine")
    text = resources.files("pertwise.llm").joinpath("prices.json").read_text(encoding="utf-8")
    table = _PriceFile.model_validate_json(text).hosts.get(address.host, {})
    for name in names:
        if name in table:
            return table[name]
    return None


def prompt_tokens_expected(request: ChatRequest) -> int:
    """About how many prompt tokens: UTF-8 bytes / 3.5 (English text with gene symbols)."""
    return math.ceil(_prompt_bytes(request) / 3.5)


def prompt_tokens_at_most(request: ChatRequest) -> int:
    """A prudent bound for reservations: UTF-8 bytes / 2 (symbols and numbers split finely)."""
    return math.ceil(_prompt_bytes(request) / 2)


def _prompt_bytes(request: ChatRequest) -> int:
    size = sum(len(m.content.encode()) + 16 for m in request.messages)
    if request.json_schema is not None:
        size += len(json.dumps(request.json_schema))
    return size


@dataclass(frozen=True)
class Estimate:
    """What a set of requests would cost if sent now; re-asks and retries not included.

    `cost_usd` values are None when the price is unknown. Completion tokens are unknown before the
    call: the bound takes `max_tokens` for each.
    """

    n_requests: int
    n_in_ledger: int
    prompt_tokens: int
    tokens_at_most: int
    cost_usd_prompt: float | None
    cost_usd_at_most: float | None
    price_as_of: str

    def __str__(self) -> str:
        new = self.n_requests - self.n_in_ledger
        money = (
            "price unknown"
            if self.cost_usd_at_most is None
            else f"at most ${self.cost_usd_at_most:.4f} (prices: {self.price_as_of or 'yours'})"
        )
        return (
            f"{self.n_requests} requests, {self.n_in_ledger} already in the ledger, {new} to send: "
            f"about {self.prompt_tokens} prompt tokens, at most {self.tokens_at_most} tokens in "
            f"all, {money}"
        )


@dataclass
class _Amount:
    tokens: int = 0
    usd: float = 0.0


class Budget:
    """Tokens and money of one run, shared by threads; a call is reserved before it is sent.

    A reservation takes the most a call can cost (prompt bound + max_tokens). When it does not fit
    but calls are under way, the caller waits for them to settle, because they usually cost
    less than reserved; when nothing is under way it is refused. So concurrent calls cannot
    overshoot together.
    """

    def __init__(
        self, tokens: int | None, usd: float | None, spent_tokens: int = 0, spent_usd: float = 0.0
    ) -> None:
        self.limit_tokens, self.limit_usd = tokens, usd
        self.spent = _Amount(spent_tokens, spent_usd)
        self._held = _Amount()
        self._in_flight = 0
        self._waiting: list[Future[None]] = []
        self._lock = threading.Lock()

    async def reserve(self, tokens: int, usd: float) -> None:
        """Hold `tokens` and `usd`, waiting for calls under way if that can help.

        Raises
        ------
        pertwise.errors.BudgetError
            When it cannot fit.
        """
        while True:
            with self._lock:
                if self._fits(tokens, usd):
                    self._held.tokens += tokens
                    self._held.usd += usd
                    self._in_flight += 1
                    return
                if self._in_flight == 0:
                    raise BudgetError(self._refusal(tokens, usd))
                waiter: Future[None] = Future()
                self._waiting.append(waiter)
            await asyncio.wrap_future(waiter)

    def settle(self, held_tokens: int, held_usd: float, tokens: int, usd: float) -> None:
        """Replace a reservation by what the call really used (0 when nothing was answered)."""
        with self._lock:
            self._held.tokens -= held_tokens
            self._held.usd -= held_usd
            self.spent.tokens += tokens
            self.spent.usd += usd
            self._in_flight -= 1
            waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)

    def _fits(self, tokens: int, usd: float) -> bool:
        all_tokens = self.spent.tokens + self._held.tokens + tokens
        all_usd = self.spent.usd + self._held.usd + usd
        return (self.limit_tokens is None or all_tokens <= self.limit_tokens) and (
            self.limit_usd is None or all_usd <= self.limit_usd + 1e-12
        )

    def _refusal(self, tokens: int, usd: float) -> str:
        parts = []
        if self.limit_tokens is not None:
            parts.append(
                f"{self.spent.tokens} of {self.limit_tokens} tokens used and the next call may "
                f"need {tokens}"
            )
        if self.limit_usd is not None:
            parts.append(
                f"${self.spent.usd:.4f} of ${self.limit_usd:.4f} used and the next call may need "
                f"${usd:.4f}"
            )
        return (
            f"budget reached: {'; '.join(parts)}. Nothing more was sent; every answer so far is in "
            "the ledger, so a rerun with a larger budget goes on from here"
        )
