"""What a run may cost: prices, reservations before each call, and an estimate before all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import random
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pertwise._files import read_json_object, reading
from pertwise.config import user_settings
from pertwise.errors import BudgetError
from pertwise.llm.account import Account, Amount
from pertwise.llm.address import Address
from pertwise.llm.base import ChatReply, ChatRequest


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
    """A user's price table: {model: Price}, or a JSON file.

    The file is {model: {"input":, "output":}} in US dollars per million tokens, or the table that
    LiteLLM maintains (``model_prices_and_context_window.json``: ``input_cost_per_token``, ...), of
    which entries without a price per token are left out.

    Raises
    ------
    pertwise.errors.InputError
        When the file is missing or is not such a table.
    """
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    what = "a price table {model: {'input': USD per million tokens, 'output': ...}}"
    with reading(path, what, "correct it there"):
        raw = read_json_object(path, what)
        if any(isinstance(v, dict) and _PER_TOKEN[0] in v for v in raw.values()):
            listed = {k: [v.get(c) for c in _PER_TOKEN] for k, v in raw.items()
                      if isinstance(v, dict)}  # fmt: skip
            raw = {k: {"input": a * 1e6, "output": b * 1e6} for k, (a, b) in listed.items()
                   if isinstance(a, (int, float)) and isinstance(b, (int, float))}  # fmt: skip
        return {str(k): Price.model_validate(v) for k, v in raw.items()}


#: What LiteLLM's table calls US dollars per token.
_PER_TOKEN = ("input_cost_per_token", "output_cost_per_token")


def own_prices() -> dict[str, Price]:
    """The table of $PERTWISE_PRICES, else of ``prices`` in `pertwise.config.user_file`; or {}.

    Raises
    ------
    pertwise.errors.InputError
        When the file is missing or is not such a table.
    """
    named = os.environ.get("PERTWISE_PRICES") or user_settings().prices
    return read_prices(named) if named else {}


def find_price(address: Address, user: Mapping[str, Price]) -> Price | None:
    """The price of a model: the user's table, 0 on this machine, else the dated table shipped.

    The user's is `user`, where that lacks the model `own_prices`. Names match exactly, or without a
    trailing date ("-2024-07-18"). None when unknown.
    """
    names = (address.model, _DATED.sub("", address.model))
    for table in (user, own_prices()):
        for name in names:
            if name in table:
                return table[name]
    if address.local:
        return Price(input=0.0, output=0.0, as_of="this machine")
    text = resources.files("pertwise.llm").joinpath("prices.json").read_text(encoding="utf-8")
    shipped = _PriceFile.model_validate_json(text).hosts.get(address.host, {})
    return next((shipped[name] for name in names if name in shipped), None)


#: Tokens that a server may add around what is sent: roles and separators of a message; the
#: default system prompt of a chat template (up to about 100 tokens) and of a schema.
PER_MESSAGE, PER_REQUEST = 16, 128
#: A report below this share of what is expected is not believed: prose, the sparsest text, has
#: about 0.75 of it.
CREDIBLE = 0.4
#: What a tokenizer splits text into, roughly: a word, two capitals or digits, one sign.
_PIECE = re.compile(r"[a-z]{1,7}|[A-Z0-9]{1,2}|[^\sA-Za-z0-9]|\n")


def tokens_expected(text: str) -> int:
    """About how many tokens: UTF-8 bytes / 3.5 of prose, more of symbols and SMILES."""
    return max(math.ceil(len(text.encode()) / 3.5), len(_PIECE.findall(text)))


def prompt_tokens_expected(request: ChatRequest) -> int:
    """About how many prompt tokens: `tokens_expected`, 16 bytes added a message."""
    return tokens_expected("".join(_texts(request)) + " " * PER_MESSAGE * len(request.messages))


def prompt_tokens_at_most(request: ChatRequest) -> int:
    """An upper bound for reservations.

    Exact count plus a twentieth where the provider's tokenizer is known and at hand
    (`_known_encoding`); else UTF-8 bytes: byte-level BPE and SentencePiece with byte fallback start
    from single bytes and only ever merge them. Both plus what a server wraps around the messages.
    """
    around = PER_REQUEST + PER_MESSAGE * len(request.messages)
    texts = _texts(request)
    encoding = _known_encoding(request.endpoint, request.model)
    if encoding is None:
        return sum(len(text.encode()) for text in texts) + around
    exact = sum(len(encoding.encode_ordinary(text)) for text in texts)
    return math.ceil(1.05 * exact) + around


@lru_cache
def _known_encoding(endpoint: str, model: str) -> Any:
    """OpenAI's own tokenizer, where tiktoken is installed and has its vocabulary on this disk."""
    if not endpoint.startswith("https://api.openai.com/"):
        return None
    try:
        import tiktoken

        name = tiktoken.encoding_name_for_model(model)
    except (ImportError, KeyError):
        return None
    # tiktoken would download what is missing: a prompt must not wait for another host.
    url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    where = Path(folder or Path(tempfile.gettempdir(), "data-gym-cache"))
    if not (where / hashlib.sha1(url.encode()).hexdigest()).is_file():
        return None
    try:
        return tiktoken.get_encoding(name)
    except Exception:  # a damaged cache is no reason to stop: the bound holds without it
        return None


def credible(request: ChatRequest, reply: ChatReply) -> bool:
    """Whether a server's count of tokens can be true of the text that was sent and came back."""
    sent = sum(tokens_expected(m.content) for m in request.messages)
    came = tokens_expected(reply.text + reply.reasoning)
    return (
        reply.prompt_tokens >= CREDIBLE * sent - 1
        and reply.completion_tokens >= CREDIBLE * came - 1
    )


def _texts(request: ChatRequest) -> list[str]:
    texts = [m.content for m in request.messages]
    return texts if request.json_schema is None else [*texts, json.dumps(request.json_schema)]


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


class Budget:
    """Limits of one run; a call is reserved before it is sent.

    A reservation takes the most a call can cost (prompt bound + most tokens of the answer). When
    it does not fit but calls are under way, in this process or another one that shares the
    account, the caller waits for them, because they usually cost less than reserved; when none
    is under way it is refused. So calls at the same moment cannot overshoot together.
    """

    def __init__(self, tokens: int | None, usd: float | None, account: Account) -> None:
        self.limit_tokens, self.limit_usd, self.account = tokens, usd, account

    @property
    def spent(self) -> Amount:
        """What counts against the limits so far."""
        return self.account.spent()

    async def reserve(self, most: Amount) -> int:
        """Hold `most`; gives the number to release it by.

        Raises
        ------
        pertwise.errors.BudgetError
            When it cannot fit.
        """
        pause = 0.01
        while True:
            # Looked at first: a call that ends in between makes room, and is then found by hold.
            busy = self.account.busy()
            hold = self.account.hold(most, self._fits)
            if hold is not None:
                return hold
            if not busy:
                raise BudgetError(self._refusal(most))
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(2 * pause, 0.25)

    def _fits(self, amount: Amount) -> bool:
        return (self.limit_tokens is None or amount.tokens <= self.limit_tokens) and (
            self.limit_usd is None or amount.usd <= self.limit_usd + 1e-12
        )

    def _refusal(self, most: Amount) -> str:
        spent = self.spent
        parts = []
        if self.limit_tokens is not None:
            parts.append(
                f"{spent.tokens} of {self.limit_tokens} tokens used and the next call may "
                f"need {most.tokens}"
            )
        if self.limit_usd is not None:
            parts.append(
                f"${spent.usd:.4f} of ${self.limit_usd:.4f} used and the next call may need "
                f"${most.usd:.4f}"
            )
        return (
            f"budget reached: {'; '.join(parts)}. Nothing more was sent; every answer so far is in "
            "the ledger, so a rerun with a larger budget goes on from here"
        )
