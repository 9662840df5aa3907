"""Calls that the workers of a dask cluster make for this process.

They send, and nothing else: budget, ledger, retries and what an answer means stay here, where one
process decides and writes. A worker reads the key from its own environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any

from pertwise._process import GOES_ON, in_worker, workers_lost
from pertwise._text import one_line
from pertwise.errors import InputError, PertwiseError
from pertwise.llm.address import Address, find_key, redactor_for
from pertwise.llm.base import ChatReply, ChatRequest
from pertwise.llm.failures import CallFailure
from pertwise.llm.settings import ChatSettings
from pertwise.llm.wire import Dialect, open_backend

#: The only part of an address's query that goes to workers: any other may be a key, which the
#: scheduler would keep and show.
OPEN_QUERY = frozenset({"api-version"})
#: Seconds after which a client knows that its scheduler is gone.
SETTLE = 0.5


class ElsewhereBackend:
    """A `pertwise.llm.wire.Backend` whose calls a dask client's workers make, each call once.

    A call whose worker is lost is not repeated by dask unseen: it may have been billed, so it comes
    back as a lost connection, which counts against the budget, is recorded, and is asked again.

    Raises
    ------
    pertwise.errors.InputError
        For an address whose query may hold a key.
    """

    def __init__(self, client: Any, address: Address, settings: ChatSettings) -> None:
        if set(address.query) - OPEN_QUERY:
            raise InputError(
                f"the query of {address} may hold a key, which a dask scheduler would keep: leave "
                "it out, and put the key into the environment of the workers"
            )
        self._client, self._how = client, (address, settings)
        self._executor = client.get_executor(pure=False)

    async def close(self) -> None:
        """Nothing: a connection ends with its call."""

    async def send(self, request: ChatRequest, dialect: Dialect) -> ChatReply:
        """One attempt by whichever worker is free.

        Raises
        ------
        pertwise.llm.failures.CallFailure
            As the worker met it, or the worker was lost.
        pertwise.errors.PertwiseError
            No call can be made: the scheduler is gone, or a worker cannot run it (`InputError`: it
            has no key).
        """
        from distributed import Event, KilledWorker

        if self._client.status != "running":
            # What is given to a client without its scheduler waits for ever.
            raise self._gone()
        mark = f"pertwise-call-{uuid.uuid4().hex}"
        call = self._executor.submit(in_worker, _sent, (mark, *self._how, request, dialect))
        try:
            told = await asyncio.wrap_future(call)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody here gave up: the client lost its scheduler.
            raise self._gone() from None
        except KilledWorker:
            raise workers_lost(self._client) from None
        except InputError as error:
            raise InputError(f"a dask worker: {error}") from None
        except Exception as error:
            # A scheduler that ends may show as any error some time before the client knows.
            await asyncio.sleep(SETTLE)
            if self._client.status != "running":
                raise self._gone() from None
            # Also what it cannot import, which dask reports as it is.
            what = one_line(f"{type(error).__name__}: {error}", 1000)
            raise PertwiseError(f"a dask worker cannot ask: {what}") from None
        finally:
            self._client.loop.add_callback(self._forget, Event(mark, self._client))
        if isinstance(told, ChatReply):
            return told
        raise CallFailure(**told)

    @staticmethod
    async def _forget(mark: Any) -> None:
        with contextlib.suppress(OSError):
            await mark.clear()

    def _gone(self) -> PertwiseError:
        return PertwiseError(
            f"the dask scheduler at {self._client.scheduler.address} is gone; {GOES_ON}"
        )


def _sent(
    mark: str, address: Address, settings: ChatSettings, request: ChatRequest, dialect: Dialect
) -> ChatReply | dict[str, Any]:
    """On a worker: the answer, or the arguments of a `CallFailure` (raised, each would be a
    traceback in the worker's log)."""
    from distributed import Event

    begun = Event(mark)
    if begun.is_set():
        return {"kind": "connection", "message": "the dask worker that asked was lost"}
    begun.set()
    try:
        return asyncio.run(_once(address, settings, request, dialect))
    except CallFailure as failure:
        return vars(failure)


async def _once(
    address: Address, settings: ChatSettings, request: ChatRequest, dialect: Dialect
) -> ChatReply:
    key = find_key(address)
    backend = open_backend(address, settings, key, redactor_for(address, key))
    try:
        return await backend.send(request, dialect)
    finally:
        await backend.close()
