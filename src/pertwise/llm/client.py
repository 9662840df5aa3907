"""`open_chat`: a chat endpoint with ledger, budget, retries and bounded concurrency."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from pertwise.errors import BudgetError, ChatError, InputError, ReplayMissError
from pertwise.llm.account import Account, Amount, LedgerAccount, MemoryAccount
from pertwise.llm.address import Address, find_key, key_variables, parse_address, redactor_for
from pertwise.llm.base import ChatReply, ChatRequest, FatalChatError, Message
from pertwise.llm.budget import (
    Budget,
    Estimate,
    credible,
    find_price,
    prompt_tokens_at_most,
    prompt_tokens_expected,
)
from pertwise.llm.failures import FATAL, RETRYABLE, CallFailure
from pertwise.llm.ledger import Failure, Ledger
from pertwise.llm.loop import run_sync
from pertwise.llm.pace import MOST, MOST_HERE, Pace
from pertwise.llm.reasoning import visible_text
from pertwise.llm.settings import ChatSettings
from pertwise.llm.wire import Backend, first_dialect, open_backend

log = logging.getLogger(__name__)


class _OwnerGone(Exception):
    """The task that was paying for a shared request was cancelled before an answer came."""


class _CutWhileThinking(Exception):
    """The limit meant for the answer ended the reasoning before it."""


class _PerLoop:
    """What belongs to one event loop: network connections and the places for calls."""

    def __init__(self, backend: Backend, places: Pace) -> None:
        self.backend, self.places = backend, places


class EndpointChat:
    """A model at an endpoint; made by `open_chat`. Usable from several loops and threads."""

    def __init__(self, address: Address, settings: ChatSettings, ledger: Ledger | None) -> None:
        self.address, self.settings, self.ledger = address, settings, ledger
        self.replay = ledger is not None and ledger.replay
        # A replay needs neither key nor price.
        self._key = "" if self.replay else find_key(address)
        self._redact = redactor_for(address, self._key)
        self._price = find_price(address, settings.prices)
        if settings.budget_usd is not None and self._price is None and not self.replay:
            raise BudgetError(
                f"no price is known for model {address.model!r} at {address.host}, so a budget of "
                f"${settings.budget_usd:g} cannot be kept: give a price table, or a token budget"
            )
        account: Account = MemoryAccount()
        if ledger is not None:
            account = LedgerAccount(ledger, settings.run, settings.call_s)
        self.budget = Budget(settings.budget_tokens, settings.budget_usd, account)
        self._dialect = first_dialect(address, settings)
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _PerLoop] = (
            weakref.WeakKeyDictionary()
        )
        weakref.finalize(self, _close_forgotten, self._loops).atexit = False
        self._under_way: dict[str, Future[ChatReply]] = {}
        self._lock = threading.Lock()
        self._thinks = False
        self._excess = 1.0
        self._failed_in_a_row = 0
        self._given_up: FatalChatError | None = None

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
        return self._dialect.degraded

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
        completion = sum(map(self._most, new))
        price = self._price
        return Estimate(
            n_requests=len(requests),
            n_in_ledger=len(known) + len(requests) - len(unique),
            prompt_tokens=prompt,
            tokens_at_most=at_most_prompt + completion,
            cost_usd_prompt=self._cost(prompt, 0),
            cost_usd_at_most=self._cost(at_most_prompt, completion),
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
        """Close the connections made by synchronous calls (`run_sync`, `Selector.select`)."""
        run_sync(self.close())

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
            backend = open_backend(self.address, self.settings, self._key, self._redact)
            places = Pace(
                str(self.address),
                self.concurrency,
                self.settings.timeout_s / 10,
                here=self.address.local,
            )
            state = self._loops[loop] = _PerLoop(backend, places)
        async with state.places:
            if self._given_up is not None:
                # Calls that were waiting for their place would only fail the same way.
                raise FatalChatError(str(self._given_up))
            return await self._attempts(state, request)

    async def _paid(
        self, backend: Backend, request: ChatRequest, attempts: int, started: float, plain: bool
    ) -> ChatReply:
        """One attempt within the budget, stored before its reservation is settled."""
        prompt, completion = prompt_tokens_at_most(request), self._most(request)
        bound = Amount(prompt + completion, self._cost(prompt, completion) or 0.0)
        most = bound.times(self._excess)
        hold = await self.budget.reserve(most)
        # Until something else is known the call counts in full: it may have been billed.
        paid, doubtful = Amount(), most
        try:
            sent = request.model_copy(update={"max_tokens": completion})
            reply = await self._adapting(backend, sent, plain=plain)
            cost = self._cost(reply.prompt_tokens, reply.completion_tokens)
            reply = reply.model_copy(
                update={
                    "attempts": attempts,
                    "seconds": time.monotonic() - started,
                    "cost_usd": cost,
                    "request_key": request.key(),
                }
            )
            believed = _believed(request, reply)
            used = Amount(reply.prompt_tokens + reply.completion_tokens, cost or 0.0)
            # A server that uses more than it was allowed will do so again.
            self._excess = max(self._excess, used.tokens / bound.tokens)
            cut = completion < self._all(request) and _cut_while_thinking(reply)
            if cut:
                self._thinks = True
                self._store_cut(request, reply)
            elif self.ledger is not None:
                reply = self.ledger.put(request, reply, self.settings.run)
            paid, doubtful = used, Amount() if believed else most.less(used)
            if cut:
                raise _CutWhileThinking
            return reply
        except CallFailure as failure:
            if not _may_be_billed(failure):
                doubtful = Amount()
            raise
        finally:
            self.budget.account.release(hold, paid, doubtful)

    def _all(self, request: ChatRequest) -> int:
        return request.max_tokens or self.settings.max_tokens

    def _most(self, request: ChatRequest) -> int:
        """Tokens to ask for: what the answer needs, unless the model thinks before it answers."""
        if request.answer_tokens is None or request.reasoning or self._thinks:
            return self._all(request)
        return min(request.answer_tokens, self._all(request))

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        price = self._price
        return None if price is None else price.cost(prompt_tokens, completion_tokens)

    async def _attempts(self, state: _PerLoop, request: ChatRequest) -> ChatReply:
        from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
        from tenacity.wait import wait_random_exponential

        settings = self.settings
        jitter = wait_random_exponential(multiplier=settings.backoff_s, max=settings.backoff_max_s)
        started, places = time.monotonic(), state.places
        attempts = errors_500 = 0

        def worth_retrying(error: BaseException) -> bool:
            return (
                isinstance(error, CallFailure)
                and error.kind in RETRYABLE
                and (error.retry_after or 0.0) <= settings.retry_after_max_s
            )

        def wait(retry: RetryCallState) -> float:
            error = retry.outcome.exception() if retry.outcome is not None else None
            if isinstance(error, CallFailure) and error.retry_after is not None:
                # A little jitter on top, or all waiting calls would return at the same moment.
                return error.retry_after + 0.1 * jitter(retry)
            return jitter(retry)

        def note(retry: RetryCallState) -> None:
            error = retry.outcome.exception() if retry.outcome is not None else None
            if isinstance(error, CallFailure):
                self._store_failure(request, error, started, final=False)
                if error.kind in ("rate_limit", "timeout"):
                    places.slower()
                log.info("attempt %d failed: %s", retry.attempt_number, error.message)

        async def once() -> ChatReply:
            nonlocal attempts, errors_500
            attempts += 1
            plain = errors_500 > 1
            try:
                try:
                    return await self._paid(state.backend, request, attempts, started, plain)
                except _CutWhileThinking:
                    return await self._paid(state.backend, request, attempts, started, plain)
            except CallFailure as error:
                errors_500 += error.status == 500
                raise

        failure: CallFailure
        try:
            reply: ChatReply = await AsyncRetrying(
                stop=stop_after_attempt(settings.attempts),
                wait=wait,
                retry=retry_if_exception(worth_retrying),
                before_sleep=note,
                reraise=True,
            )(once)
        except CallFailure as error:
            failure = error
        else:
            self._failed_in_a_row = 0
            return reply
        self._failed_in_a_row += 1
        self._store_failure(request, failure, started, final=True)
        final = self._final_error(failure, attempts)
        if isinstance(final, FatalChatError):
            self._given_up = final
        raise final

    async def _adapting(
        self, backend: Backend, request: ChatRequest, *, plain: bool = False
    ) -> ChatReply:
        """Send; when the endpoint rejects a feature, send once more without it and remember.

        With `plain`, the schema is left out from the start: the server failed on it repeatedly.
        """
        dialect, first = self._dialect, None
        if plain and "json_schema" in dialect.sent(request):
            dialect = replace(dialect, degraded=(*dialect.degraded, "json_schema"))
        while True:
            try:
                reply = await backend.send(request, dialect)
            except CallFailure as failure:
                simpler = dialect.without(failure, request)
                if simpler is None:
                    raise (first or failure) from None
                first, dialect = first or failure, simpler
                continue
            if dialect != self._dialect:
                log.warning("%s: continuing without %s", self.address, dialect.degraded or "")
                self._dialect = dialect
            return reply

    # -- errors ----------------------------------------------------------------------------

    def _store_failure(
        self, request: ChatRequest, failure: CallFailure, started: float, *, final: bool
    ) -> None:
        if self.ledger is not None:
            record = Failure(failure.kind, failure.message, final, time.monotonic() - started)
            self.ledger.put_failure(request, record, self.settings.run)

    def _store_cut(self, request: ChatRequest, reply: ChatReply) -> None:
        if self.ledger is not None:
            what = "the model reasons at length; asked once more with all of max_tokens"
            record = Failure("cut_while_thinking", what, False, reply.seconds)
            self.ledger.put_failure(request, record, self.settings.run, reply)

    def _final_error(self, failure: CallFailure, attempts: int) -> ChatError:
        text = f"{self.address}: {failure.message}"
        if failure.kind == "auth":
            names = " or ".join(key_variables(self.address))
            return FatalChatError(f"{text} (the key is read from {names})")
        if failure.kind in FATAL:
            return FatalChatError(text)
        if failure.retry_after is not None and failure.retry_after > (
            self.settings.retry_after_max_s
        ):
            return ChatError(
                f"{text}; the server asks to wait {failure.retry_after:g} s, more than the "
                f"{self.settings.retry_after_max_s:g} s allowed"
            )
        if self._failed_in_a_row >= self.settings.max_consecutive_failures:
            return FatalChatError(
                f"{self.address}: {self._failed_in_a_row} calls in a row failed for good, so the "
                "endpoint seems to be down. Answers so far are in the ledger; a rerun goes on "
                f"from there. Last: {failure.message}"
            )
        return ChatError(f"{text} ({attempts} attempt{'s' if attempts > 1 else ''})")

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


def _believed(request: ChatRequest, reply: ChatReply) -> bool:
    if "usage_estimated" in reply.degraded:
        return "usage_not_believed" not in reply.degraded
    return credible(request, reply)


def _cut_while_thinking(reply: ChatReply) -> bool:
    return reply.finish_reason == "length" and (
        bool(reply.reasoning) or not visible_text(reply.text).strip()
    )


def _may_be_billed(failure: CallFailure) -> bool:
    """Whether the server may have answered, and charged, although no answer arrived."""
    if failure.kind == "connection":
        return "ConnectError" not in failure.message
    return failure.kind in ("timeout", "malformed_response")


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
    if ledger is not None and not isinstance(ledger, Ledger):
        ledger = Ledger(ledger, replay=replay)
    elif ledger is not None and replay and not ledger.replay:
        ledger = Ledger(ledger.path, replay=True)
    return EndpointChat(parse_address(address), merged, ledger)
