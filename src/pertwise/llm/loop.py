"""Calling asynchronous chat code from synchronous code, also inside a running event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from pertwise._progress import track

T = TypeVar("T")


class _Background:
    """One event loop in a daemon thread per process; a forked child starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._thread: threading.Thread | None = None

    def is_here(self) -> bool:
        """Whether the caller runs on the loop's own thread."""
        return self._pid == os.getpid() and threading.current_thread() is self._thread

    def loop(self) -> asyncio.AbstractEventLoop:
        if self._pid != os.getpid():
            # After a fork the lock may be held by a thread that does not exist here.
            self._lock, self._loop, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="pertwise-chat", daemon=True
                )
                self._thread.start()
            return self._loop


_background = _Background()


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the background loop."""
    return asyncio.run_coroutine_threadsafe(coroutine, _background.loop())


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from synchronous code (a notebook's running loop included).

    Raises
    ------
    RuntimeError
        When called by code that itself runs on the background loop: waiting there would never end.
    """
    if _background.is_here():
        coroutine.close()
        raise RuntimeError(
            "a synchronous chat call inside an asynchronous one: await its asynchronous form "
            "(`aselect`, `complete`) instead"
        )
    future = submit(coroutine)
    try:
        return future.result()
    except BaseException:
        # Ctrl-C while waiting: stop the call instead of leaving it to spend in the background.
        future.cancel()
        raise


class _Stopped(Exception):
    """This call was not started because another one failed."""


def run_many(
    calls: Sequence[Callable[[], Coroutine[Any, Any, T]]],
    *,
    at_once: int = 32,
    description: str = "asking",
    on_result: Callable[[int, T], None] | None = None,
) -> list[T]:
    """Run coroutines on the background loop with a progress bar; results in the given order.

    At most `at_once` are alive at a time, so that thousands of prompts are never in memory
    together. The first error stops those not yet started; those under way, which are paid for,
    are seen to their end before it is raised. `on_result` is called in the caller's thread with
    the position and result of each call that succeeded, in the given order.
    """
    gate = asyncio.Semaphore(at_once)
    stopped = False

    async def one(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        nonlocal stopped
        async with gate:
            if stopped:
                raise _Stopped
            try:
                return await call()
            except Exception:
                stopped = True
                raise

    futures = [submit(one(call)) for call in calls]
    results: list[T] = []
    errors: list[Exception] = []
    try:
        for position, future in enumerate(track(futures, description, total=len(futures))):
            try:
                results.append(future.result())
            except _Stopped:
                continue
            except Exception as error:
                errors.append(error)
                continue
            if on_result is not None:
                on_result(position, results[-1])
    except BaseException:
        stopped = True
        for future in futures:
            future.cancel()
        raise
    if errors:
        raise errors[0]
    return results
