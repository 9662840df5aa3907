"""`open_chat`: a chat endpoint with ledger, budget, retries and bounded concurrency."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from pydantic import ValidationError

from pertwise._process import dask_client
from pertwise.errors import BudgetError, ChatError, InputError, ReplayMissError
from pertwise.llm.account import Account, LedgerAccount, MemoryAccount
from pertwise.llm.address import Address, find_key, parse_address, redactor_for
from pertwise.llm.base import ChatReply, ChatRequest, Message
from pertwise.llm.budget import (
    Budget,
    Estimate,
    find_price,
    prompt_tokens_at_most,
    prompt_tokens_expected,
)
from pertwise.llm.elsewhere import ElsewhereBackend
from pertwise.llm.ledger import Ledger
from pertwise.llm.loop import run_sync
from pertwise.llm.pace import MOST, MOST_HERE, Pace
from pertwise.llm.paying import Payer
from pertwise.llm.settings import ChatSettings
from pertwise.llm.wire import Backend, first_dialect, open_backend

log = logging.getLogger(__name__)


class _OwnerGone(Exception):
    """The task that was paying for a shared request was cancelled before an answer came."""


class _PerLoop:
    """What belongs to one event loop: network connections and the places for calls."""

    def __init__(self, backend: Backend, places: Pace) -> None:
        self.backend, self.places = backend, places


class EndpointChat:
    """A model at an endpoint; made by `open_chat`. Usable from several loops and threads."""

    def __init__(
        self,
        address: Address,
        settings: ChatSettings,
        ledger: Ledger | None,
        elsewhere: ElsewhereBackend | None = None,
        *,
        owns_ledger: bool = False,
    ) -> None:
        self.address, self.settings, self.ledger = address, settings, ledger
        self._owns_ledger = owns_ledger
        self.replay = ledger is not None and ledger.replay
        self._elsewhere = elsewhere
        # A replay needs neither key nor price; workers have keys of their own.
        self._key = "" if self.replay or elsewhere is not None else find_key(address)
        self._redact = redactor_for(address, self._key)
        self._price = find_price(address, settings.prices)
        if settings.budget_usd is not None and self._price is None and not self.replay:
            raise BudgetError(
                f"no price is known for model {address.model!r} at {address.host}, so a budget of "
                f"${settings.budget_usd:g} cannot be kept: give a price table "
                "(PERTWISE_PRICES=FILE, see docs/llm.md), or a token budget"
            )
        account: Account = MemoryAccount()
        if ledger is not None:
            account = LedgerAccount(ledger, settings.run, settings.call_s)
        self.budget = Budget(settings.budget_tokens, settings.budget_usd, account)
        dialect = first_dialect(address, settings)
        self._payer = Payer(address, settings, ledger, self.budget, self._price, dialect)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _PerLoop] = (
            weakref.WeakKeyDictionary()
        )
        weakref.finalize(self, _close_forgotten, self._loops).atexit = False
        self._under_way: dict[str, Future[ChatReply]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<EndpointChat {self.address}{' replay' if self.replay else ''}>"

    @property
    def name(self) -> str:
        """Model and endpoint, for provenance."""
        return str(self.address)

    @property
    def concurrency(self) -> int:
        """Most calls under way at once."""
        return self.settings.concurrency or (MOST_HERE if self.address.local else MOST)

    @property
    def degraded(self) -> tuple[str, ...]:
        """What the endpoint refused and is no longer sent, e.g. ("json_schema",)."""
        return self._payer.degraded

    # -- requests --------------------------------------------------------------------------

    def request(self, messages: tuple[Message, ...], **settings: Any) -> ChatRequest:
        """Build the request this endpoint would get.

        Keyword arguments override the chat's settings: temperature, max_tokens, reasoning,
        reasoning_tokens, seed, json_schema, replicate.
        """
        given = self.settings
        reasoning = settings.pop("reasoning", given.reasoning)
        reasoning_tokens = settings.pop("reasoning_tokens", given.reasoning_tokens)
        max_tokens = settings.pop("max_tokens", given.max_tokens)
        schema = settings.pop("json_schema", None)
        values: dict[str, Any] = {
            "temperature": given.temperature,
            "seed": given.seed,
            **settings,
            "reasoning": reasoning,
            "reasoning_tokens": reasoning_tokens if reasoning else None,
            "max_tokens": max_tokens + (reasoning_tokens if reasoning else 0),
            "json_schema": schema if given.constrained else None,
        }
        unknown = set(values) - set(ChatRequest.model_fields)
        if unknown:
            raise InputError(f"unknown request settings {sorted(unknown)}")
        return ChatRequest(
            protocol=self.address.protocol,
            endpoint=self.address.url,
            model=self.address.model,
            messages=tuple(messages),
            **values,
        )

    def estimate(self, requests: Sequence[ChatRequest]) -> Estimate:
        """What these requests would cost, without sending any (ledger hits are free)."""
        unique = {r.key(): r for r in requests}
        known = {k for k in unique if self.ledger is not None and self.ledger.has(k)}
        new = [r for k, r in unique.items() if k not in known]
        prompt = sum(prompt_tokens_expected(r) for r in new)
        at_most_prompt = sum(prompt_tokens_at_most(r) for r in new)
        completion = sum(map(self._payer.most, new))
        price = self._price
        return Estimate(
            n_requests=len(requests),
            n_in_ledger=len(known) + len(requests) - len(unique),
            prompt_tokens=prompt,
            tokens_at_most=at_most_prompt + completion,
            cost_usd_prompt=self._payer.cost(prompt, 0),
            cost_usd_at_most=self._payer.cost(at_most_prompt, completion),
            price_as_of="" if price is None else price.as_of,
        )

    # -- answers ---------------------------------------------------------------------------

    async def complete(self, request: ChatRequest) -> ChatReply:
        """Answer from the ledger, from a call already under way, or from the endpoint.

        An answer that this call did not pay for is marked `from_ledger`.

        Raises
        ------
        pertwise.llm.FatalChatError
            Wrong key, unknown model, no credit, or too many failures in a row.
        pertwise.errors.ChatError
            This request failed for good (retries used up, or rejected).
        pertwise.errors.BudgetError
            The budget does not allow the call; nothing was sent.
        pertwise.errors.ReplayMissError
            Replay mode, and the ledger does not hold the request.
        """
        key = request.key()
        while True:
            stored = None if self.ledger is None else self.ledger.get(key)
            if stored is not None:
                return stored
            if self.replay:
                self._replay_miss(request, key)
            with self._lock:
                under_way = self._under_way.get(key)
                if under_way is None:
                    mine: Future[ChatReply] = Future()
                    mine.set_running_or_notify_cancel()
                    self._under_way[key] = mine
            if under_way is None:
                return await self._own(request, key, mine)
            try:
                reply = await asyncio.shield(asyncio.wrap_future(under_way))
                return reply.model_copy(update={"from_ledger": True})
            except _OwnerGone:
                continue

    async def complete_many(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Answers in the order of `requests`, at most `settings.concurrency` calls at once.

        The first error stops what has not been sent; answers already paid stay in the ledger.
        """
        keys = [r.key() for r in requests]
        waiting = deque(dict(zip(keys, requests, strict=True)).items())
        answers: dict[str, ChatReply] = {}
        errors: list[Exception] = []

        async def work() -> None:
            # A call under way is paid for, so it is always seen to its end.
            while waiting and not errors:
                key, request = waiting.popleft()
                try:
                    answers[key] = await self.complete(request)
                except Exception as error:
                    errors.append(error)

        await asyncio.gather(*(work() for _ in range(min(len(waiting), self.concurrency))))
        if errors:
            raise errors[0]
        asked_again = {"from_ledger": True}
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        return [
            answers[key] if first[key] == i else answers[key].model_copy(update=asked_again)
            for i, key in enumerate(keys)
        ]

    async def close(self) -> None:
        """Close the network connections of the running loop."""
        state = self._loops.pop(asyncio.get_running_loop(), None)
        if state is not None:
            await state.backend.close()

    def shutdown(self) -> None:
        """Close the connections made by synchronous calls (`run_sync`, `Selector.select`).

        And a ledger that was given by its path; each opens again when it is used.
        """
        run_sync(self.close())
        if self.ledger is not None and self._owns_ledger:
            self.ledger.close()

    # -- the paid path ---------------------------------------------------------------------

    async def _own(self, request: ChatRequest, key: str, mine: Future[ChatReply]) -> ChatReply:
        try:
            # Another task may have stored it between our look and our claim.
            stored = None if self.ledger is None else self.ledger.get(key)
            reply = stored if stored is not None else await self._pay(request)
        except BaseException as error:
            self._release(key)
            gone = isinstance(error, asyncio.CancelledError)
            mine.set_exception(_OwnerGone() if gone else error)
            raise
        self._release(key)
        mine.set_result(reply)
        return reply

    def _release(self, key: str) -> None:
        with self._lock:
            del self._under_way[key]

    async def _pay(self, request: ChatRequest) -> ChatReply:
        loop = asyncio.get_running_loop()
        state = self._loops.get(loop)
        if state is None:
            backend = self._elsewhere or open_backend(
                self.address, self.settings, self._key, self._redact
            )
            places = Pace(
                str(self.address),
                self.concurrency,
                self.settings.timeout_s / 10,
                here=self.address.local,
            )
            state = self._loops[loop] = _PerLoop(backend, places)
        async with state.places:
            return await self._payer.answer(state.backend, state.places, request)

    # -- replays ---------------------------------------------------------------------------

    def _replay_miss(self, request: ChatRequest, key: str) -> None:
        ledger = self.ledger
        failed = None if ledger is None else ledger.final_failure(key)
        if failed is not None:
            # The recorded run met this failure and went on with its fallback; so must the replay.
            raise ChatError(f"{self.address}: {failed.message} (recorded)")
        path = "" if ledger is None else str(ledger.path)
        start = request.messages[-1].content[:60].replace("\n", " ") if request.messages else ""
        raise ReplayMissError(
            f"replay: ledger {path} holds no answer of {self.address} to request {key[:12]} "
            f"({start!r}...); prompt, model, settings and seeds must be those of the recorded run"
        )


def _close_forgotten(
    loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _PerLoop],
) -> None:
    """Close what a chat left open when it is garbage-collected."""
    for loop, state in list(loops.items()):
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(state.backend.close(), loop)


def open_chat(
    address: str,
    settings: ChatSettings | None = None,
    *,
    ledger: Ledger | str | os.PathLike[str] | None = None,
    replay: bool = False,
    client: Any = None,
    **overrides: Any,
) -> EndpointChat:
    """Open a chat model.

    Parameters
    ----------
    address
        "MODEL@URL" (OpenAI protocol: OpenAI, Azure, vLLM, Ollama, llama.cpp ...),
        "openai:MODEL", "ollama:MODEL", "anthropic:MODEL" or "anthropic:MODEL@URL".
    ledger
        Ledger or its path; without one nothing is stored and nothing can be resumed.
    replay
        Answer from the ledger only and never call out.
    client
        A ``distributed.Client``, whose workers make the calls, each with a key from its own
        environment; see `pertwise.llm.elsewhere`.
    overrides
        Single `ChatSettings` fields.

    Raises
    ------
    pertwise.errors.InputError
        Bad address or settings, or no key in the environment.
    pertwise.errors.BudgetError
        A money budget for a model without a known price.
    """
    try:
        given = (settings or ChatSettings()).model_dump()
        merged = ChatSettings.model_validate({**given, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"chat setting {where!r} = {first.get('input')!r}: {first['msg']}"
        ) from None
    if replay and ledger is None:
        raise InputError("replay needs a ledger to answer from")
    lent = ledger
    if ledger is not None and not isinstance(ledger, Ledger):
        ledger = Ledger(ledger, replay=replay)
    elif ledger is not None and replay and not ledger.replay:
        ledger = Ledger(ledger.path, replay=True)
    parsed = parse_address(address)
    elsewhere = None if client is None else ElsewhereBackend(client, parsed, merged)
    return EndpointChat(parsed, merged, ledger, elsewhere, owns_ledger=ledger is not lent)


@contextlib.contextmanager
def chat_for(
    address: str, *, dask: str | None = None, replay: bool = False, **how: Any
) -> Iterator[EndpointChat]:
    """`open_chat`, closed at the end.

    Parameters
    ----------
    dask
        Address of a scheduler ("tcp://host:8786") whose workers make the calls.

    Raises
    ------
    pertwise.errors.InputError
        As `open_chat`; no scheduler answers, or nothing would be sent to it.
    pertwise.errors.MissingDependencyError
        If `dask` is given and dask is not installed.
    """
    if dask is not None and replay:
        raise InputError(f"a replay sends nothing to the dask workers at {dask}: leave out one")
    with contextlib.ExitStack() as stack:
        client = None if dask is None else stack.enter_context(dask_client(dask))
        chat = open_chat(address, replay=replay, client=client, **how)
        stack.callback(chat.shutdown)
        yield chat
