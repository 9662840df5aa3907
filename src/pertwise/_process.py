"""Processes: one writer a folder, workers that die with their parent, signals as one line."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from pertwise._io import why_not
from pertwise._progress import is_quiet, set_quiet
from pertwise.errors import InputError, PertwiseError

T = TypeVar("T")


@contextlib.contextmanager
def only_writer(target: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a folder, or of a file to be written; a second process is refused.

    The lock is the operating system's, on ``.lock`` in the folder (beside the file): it ends with
    the process, however that ends.

    Raises
    ------
    pertwise.errors.InputError
        When another process holds it, or the place cannot be written to.
    """
    from filelock import FileLock, Timeout

    path = Path(target)
    lock = (
        path.parent / f".{path.name}.lock" if path.suffix and not path.is_dir() else path / ".lock"
    )
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{path} is being written by another pertwise process; wait for it to end, or name "
            "another place"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {why_not(error)}") from None
    try:
        yield
    finally:
        held.release()


# -- workers -----------------------------------------------------------------------------------


def in_processes(
    work: Callable[..., T],
    payloads: Sequence[tuple[Any, ...]],
    workers: int,
    start: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[T]:
    """``work(*payload)`` over local processes, results in the order they are done.

    Workers die with this process, whatever ends it. The first error stops the rest; on an
    interruption they are killed, so that none goes on paying.

    Parameters
    ----------
    start, arguments
        Called in each worker before its first payload.

    Raises
    ------
    pertwise.errors.PertwiseError
        When a worker was ended from outside; whatever `work` raises.
    """
    # spawn: a forked child of a process that has used BLAS or torch threads can hang.
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (is_quiet(), start, arguments))
    try:
        with _unheard(signal.SIGINT):
            pending: set[Future[T]] = {pool.submit(work, *p) for p in payloads}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        pool.shutdown(wait=True, cancel_futures=True)
        raise PertwiseError(
            "a worker process was ended from outside, most often because memory ran out: use fewer "
            "workers; what is finished is kept, the same command goes on from there"
        ) from None
    except Exception:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@contextlib.contextmanager
def _unheard(number: signal.Signals) -> Iterator[None]:
    """Processes started inside never get the signal: Ctrl-C goes to the whole terminal, and each
    worker would print a traceback of its own. This process gets it when the block ends."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _begin_worker(
    quiet: bool, start: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    die_with_parent()
    set_quiet(quiet)
    if start is not None:
        start(*arguments)


def die_with_parent() -> None:
    """End this worker at once when the process that started it is gone.

    On Linux the kernel sees to it (also while native code runs); elsewhere, and for a parent that
    is gone already, a thread waits for the parent's end.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


# -- signals -----------------------------------------------------------------------------------


class Interrupted(SystemExit):
    """A signal asked this process to end; `code` is 128 + its number (130 for Ctrl-C)."""


@contextlib.contextmanager
def ends_on_signals() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM raise `Interrupted`, once: what is open is closed, what is
    answered is kept. The second one ends the process as it is."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    except Interrupted:
        # Unfinished work of other threads must not hold up the end.
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def idle_cores() -> int:
    """Cores that threads of this process may use: all of them, one inside a worker process."""
    if multiprocessing.parent_process() is not None:
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
