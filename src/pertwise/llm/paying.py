"""`Payer`: one answer from the endpoint, within the budget, with retries, into the ledger."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from pertwise.errors import ChatError
from pertwise.llm.account import Amount
from pertwise.llm.address import Address, key_variables
from pertwise.llm.base import ChatReply, ChatRequest, FatalChatError
from pertwise.llm.budget import Budget, Price, credible, prompt_tokens_at_most
from pertwise.llm.failures import FATAL, RETRYABLE, CallFailure
from pertwise.llm.ledger import Failure, Ledger
from pertwise.llm.pace import Pace
from pertwise.llm.reasoning import visible_text
from pertwise.llm.settings import ChatSettings
from pertwise.llm.wire import Backend, Dialect

log = logging.getLogger(__name__)


class _CutWhileThinking(Exception):
    """The limit meant for the answer ended the reasoning before it."""


class Payer:
    """Pays for answers of one endpoint and remembers what it is like: what it refuses, whether it
    thinks, whether it uses more than it is allowed, whether it has given up."""

    def __init__(
        self,
        address: Address,
        settings: ChatSettings,
        ledger: Ledger | None,
        budget: Budget,
        price: Price | None,
        dialect: Dialect,
    ) -> None:
        self._address, self._settings, self._ledger = address, settings, ledger
        self._budget, self._price, self._dialect = budget, price, dialect
        self._thinks = False
        self._excess = 1.0
        self._failed_in_a_row = 0
        self._given_up: FatalChatError | None = None

    @property
    def degraded(self) -> tuple[str, ...]:
        """What the endpoint refused and is no longer sent."""
        return self._dialect.degraded

    async def answer(self, backend: Backend, places: Pace, request: ChatRequest) -> ChatReply:
        """The answer, paid and stored; errors as of `EndpointChat.complete`."""
        if self._given_up is not None:
            # Calls that were waiting for their place would only fail the same way.
            raise FatalChatError(str(self._given_up))
        return await self._attempts(backend, places, request)

    async def _paid(
        self, backend: Backend, request: ChatRequest, attempts: int, started: float, plain: bool
    ) -> ChatReply:
        """One attempt within the budget, stored before its reservation is settled."""
        prompt, completion = prompt_tokens_at_most(request), self.most(request)
        bound = Amount(prompt + completion, self.cost(prompt, completion) or 0.0)
        most = bound.times(self._excess)
        hold = await self._budget.reserve(most)
        # Until something else is known the call counts in full: it may have been billed.
        paid, doubtful = Amount(), most
        try:
            sent = request.model_copy(update={"max_tokens": completion})
            reply = await self._adapting(backend, sent, plain=plain)
            cost = self.cost(reply.prompt_tokens, reply.completion_tokens)
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
            elif self._ledger is not None:
                reply = self._ledger.put(request, reply, self._settings.run)
            paid, doubtful = used, Amount() if believed else most.less(used)
            if cut:
                raise _CutWhileThinking
            return reply
        except CallFailure as failure:
            if not _may_be_billed(failure):
                doubtful = Amount()
            raise
        finally:
            self._budget.account.release(hold, paid, doubtful)

    def _all(self, request: ChatRequest) -> int:
        return request.max_tokens or self._settings.max_tokens

    def most(self, request: ChatRequest) -> int:
        """Tokens to ask for: what the answer needs, unless the model thinks before it answers."""
        if request.answer_tokens is None or request.reasoning or self._thinks:
            return self._all(request)
        return min(request.answer_tokens, self._all(request))

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """US dollars, where the price is known."""
        price = self._price
        return None if price is None else price.cost(prompt_tokens, completion_tokens)

    async def _attempts(self, backend: Backend, places: Pace, request: ChatRequest) -> ChatReply:
        from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
        from tenacity.wait import wait_random_exponential

        settings = self._settings
        jitter = wait_random_exponential(multiplier=settings.backoff_s, max=settings.backoff_max_s)
        started = time.monotonic()
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
                    return await self._paid(backend, request, attempts, started, plain)
                except _CutWhileThinking:
                    return await self._paid(backend, request, attempts, started, plain)
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
                log.warning("%s: continuing without %s", self._address, dialect.degraded or "")
                self._dialect = dialect
            return reply

    def _store_failure(
        self, request: ChatRequest, failure: CallFailure, started: float, *, final: bool
    ) -> None:
        if self._ledger is not None:
            record = Failure(failure.kind, failure.message, final, time.monotonic() - started)
            self._ledger.put_failure(request, record, self._settings.run)

    def _store_cut(self, request: ChatRequest, reply: ChatReply) -> None:
        if self._ledger is not None:
            what = "the model reasons at length; asked once more with all of max_tokens"
            record = Failure("cut_while_thinking", what, False, reply.seconds)
            self._ledger.put_failure(request, record, self._settings.run, reply)

    def _final_error(self, failure: CallFailure, attempts: int) -> ChatError:
        text = f"{self._address}: {failure.message}"
        if failure.kind == "auth":
            names = " or ".join(key_variables(self._address))
            return FatalChatError(f"{text} (the key is read from {names})")
        if failure.kind in FATAL:
            return FatalChatError(text)
        if failure.retry_after is not None and failure.retry_after > (
            self._settings.retry_after_max_s
        ):
            return ChatError(
                f"{text}; the server asks to wait {failure.retry_after:g} s, more than the "
                f"{self._settings.retry_after_max_s:g} s allowed"
            )
        if self._failed_in_a_row >= self._settings.max_consecutive_failures:
            return FatalChatError(
                f"{self._address}: {self._failed_in_a_row} calls in a row failed for good, so the "
                "endpoint seems to be down. Answers so far are in the ledger; a rerun goes on "
                f"from there. Last: {failure.message}"
            )
        return ChatError(f"{text} ({attempts} attempt{'s' if attempts > 1 else ''})")


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
