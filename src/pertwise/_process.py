"""Processes: one writer a folder, workers that die with their parent, signals as one line."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from pertwise._io import optional_import, why_not
from pertwise._progress import is_quiet, set_quiet
from pertwise._text import one_line
from pertwise.errors import BusyError, InputError, PertwiseError

T = TypeVar("T")
#: What a run whose worker ended says of its results.
GOES_ON = "what is finished is kept, the same command goes on from there"
#: How long a dask scheduler may take to answer.
CONNECT_SECONDS = 20


@contextlib.contextmanager
def only_writer(target: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a folder, or of a file to be written; a second process is refused.

    The lock is the operating system's, on ``.lock`` in the folder (beside the file): it ends with
    the process, however that ends.

    Raises
    ------
    pertwise.errors.InputError
        `BusyError` when another process holds it; or the place cannot be written to.
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
        raise BusyError(
            f"{path} is being written by another pertwise process; wait for it to end, or name "
            "another place"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {why_not(error)}") from None
    try:
        yield
    finally:
        held.release()


def alive(pid: int) -> bool:
    """Whether a process of this machine goes on; True where the system cannot be asked.

    On Windows ``os.kill(pid, 0)`` is no question: it ends the process, or sends it Ctrl-C.
    """
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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
    interruption they are killed, so that none goes on paying. An error that cannot travel between
    processes arrives as a `PertwiseError` with its words.

    Parameters
    ----------
    start, arguments
        Called in each worker before its first payload.

    Raises
    ------
    pertwise.errors.PertwiseError
        When a worker ended before its work, or could not start; whatever `work` raises.
    """
    # spawn: a forked child of a process that has used BLAS or torch threads can hang.
    context = multiprocessing.get_context("spawn")
    before = processes = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (is_quiet(), start, arguments))
    try:
        with _unheard(signal.SIGINT):
            pending: set[Future[T]] = {
                pool.submit(_unpacked, pickle.dumps((work, p))) for p in payloads
            }
        processes = set(multiprocessing.active_children()) - before
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        pool.shutdown(wait=True, cancel_futures=True)
        codes = [p.exitcode for p in processes - before if p.exitcode is not None]
        raise PertwiseError(f"{_how_ended(codes)}; {GOES_ON}") from None
    except Exception:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def on_dask(
    work: Callable[..., T],
    payloads: Sequence[tuple[Any, ...]],
    address: str | None,
    workers: int,
    start: Callable[[], None],
) -> Iterator[T]:
    """As `in_processes`, on the dask scheduler at `address`, or a local cluster of `workers`.

    Raises
    ------
    pertwise.errors.InputError
        If no scheduler answers there.
    pertwise.errors.PertwiseError
        When workers were lost; whatever `work` raises.
    pertwise.errors.MissingDependencyError
        Without dask.
    """
    distributed = optional_import("distributed", "dask", "running on a dask cluster")
    with dask_client(address, workers) as client:
        futures = [client.submit(_begun, start, work, p, pure=False) for p in payloads]
        try:
            for _, result in distributed.as_completed(futures, with_results=True):
                yield result
        except (distributed.KilledWorker, CancelledError):
            raise workers_lost(client) from None
        finally:
            client.cancel(futures)


@contextlib.contextmanager
def dask_client(address: str | None, workers: int = 1) -> Iterator[Any]:
    """A client of the dask scheduler at `address`, or of a local cluster of `workers`; errors as of
    `on_dask`."""
    distributed = optional_import("distributed", "dask", "running on a dask cluster")
    with contextlib.ExitStack() as stack:
        # What it would log as a traceback is told as one line.
        said = logging.getLogger("distributed.client")
        stack.callback(said.setLevel, said.level)
        said.setLevel(logging.CRITICAL)
        if address is None:
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None
            )
            address = stack.enter_context(cluster).scheduler_address
        try:
            client = stack.enter_context(distributed.Client(address, timeout=CONNECT_SECONDS))
        except (OSError, ValueError) as error:
            raise InputError(f"no dask scheduler answers at {address}: {error}") from error
        yield client


def workers_lost(client: Any) -> PertwiseError:
    """What to say when the workers of a dask client are gone, or their scheduler."""
    return PertwiseError(
        f"the dask workers at {client.scheduler.address} were lost, most often because memory ran "
        f"out: use fewer or larger ones; {GOES_ON}"
    )


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


#: What made the start of this worker fail.
_unfit: Exception | None = None


def _begin_worker(
    quiet: bool, start: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    global _unfit
    die_with_parent()
    set_quiet(quiet)
    if start is not None:
        try:
            start(*arguments)
        except Exception as error:
            # Raised here, it would break the pool and print a traceback for each worker.
            _unfit = error


def _unpacked(task: bytes) -> Any:
    # Read here: what a worker cannot import would otherwise end it with a traceback.
    try:
        work, payload = pickle.loads(task)
    except Exception as error:
        raise PertwiseError(f"a worker process cannot read its task: {_words(error)}") from None
    return in_worker(work, payload)


def in_worker(work: Callable[..., T], payload: tuple[Any, ...]) -> T:
    """``work(*payload)`` in a worker; an error that cannot travel is told in words."""
    if _unfit is not None:
        raise PertwiseError(f"a worker process cannot start: {_words(_unfit)}")
    try:
        return work(*payload)
    except Exception as error:
        try:
            travels = type(pickle.loads(pickle.dumps(error))) is type(error)
        except Exception:
            travels = False
        if travels:
            raise
        # An error that cannot be made again in the parent would break the pool there.
        raise PertwiseError(f"in a worker process: {_words(error)}") from error


@functools.cache
def _begin(start: Callable[[], None]) -> None:
    start()


def _begun(start: Callable[[], None], work: Callable[..., T], payload: tuple[Any, ...]) -> T:
    """A worker that stands in for a lost one has not been started: each does so by itself."""
    _begin(start)
    return in_worker(work, payload)


def _words(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}", 1000)


def _how_ended(codes: Sequence[int]) -> str:
    """Why a pool is broken, from the exit codes of its workers (negative: a signal)."""
    # The pool itself ends the workers that are left with SIGTERM.
    codes = [c for c in codes if c not in (0, -signal.SIGTERM)]
    if any(c > 0 for c in codes):
        return (
            f"a worker process ended by itself with status {max(codes)}: if this is a script of "
            "yours, call from a file, under `if __name__ == '__main__':`"
        )
    # Windows has no such signal, and no negative codes.
    crashes = {c for c in codes if c != -getattr(signal, "SIGKILL", 9)}
    if crashes:
        return f"a worker process crashed in native code (signal {-min(crashes)}): use one worker"
    return (
        "a worker process was ended from outside, most often because memory ran out: use fewer "
        "workers"
    )


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


def limit_threads(n: int = 1) -> None:
    """One thread a worker process: workers share the cores, and results then do not depend on
    how many of them there are."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(n)
    from threadpoolctl import threadpool_limits

    threadpool_limits(n)
    try:
        import torch
    except (ImportError, OSError):
        # OSError: a library of an installation that broke off; who needs torch is told so there.
        return
    torch.set_num_threads(n)


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


#: Products of fewer rows are done before a second thread has been waited for.
FEW_ROWS = 1_000


def threads_for(n: int) -> contextlib.AbstractContextManager[object]:
    """One thread for linear algebra within, where matrices have fewer than `FEW_ROWS` rows.

    Hundreds of small products in a row are slower on two threads than on one: each waits for the
    other, and on a machine that does something else as well it waits for a whole time slice.
    """
    if n >= FEW_ROWS:
        return contextlib.nullcontext()
    from threadpoolctl import threadpool_limits

    limits: contextlib.AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits
