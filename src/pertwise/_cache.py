"""What took long to compute, kept on disk for the next start: arrays under a key of their inputs.

A copy holds nothing of its own: one that is damaged is made again, one that cannot be written is
done without. Only what runs inside `keeping` is kept in the user's folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pertwise._files import reason_of
from pertwise._io import atomic_path
from pertwise.errors import InputError
from pertwise.provenance import identity, versions

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]
#: Bytes that the user's folder may hold; what was used longest ago goes first.
MOST_BYTES = 256 << 20
_LOG = logging.getLogger(__name__)
#: None: nothing is kept; else whether what is there is passed over and made again.
_FRESH: ContextVar[bool | None] = ContextVar("fresh", default=None)


def read_arrays(path: Path, read: Callable[[dict[str, NDArray[Any]]], T]) -> T | None:
    """What `read` makes of the arrays of a file, else None.

    `read` raises whatever it likes about arrays that do not fit together.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            return read({name: archive[name] for name in archive.files})
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:  # a damaged copy is made again: it holds nothing of its own
        _LOG.warning("%s is made again: %s", path, reason_of(error))
    return None


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write atomically; a folder that cannot be written does without."""
    try:
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
    except (OSError, InputError) as error:
        _LOG.warning("%s is not kept on disk: %s", path.name, error)


def folder() -> Path | None:
    """$PERTWISE_CACHE, else pertwise in $XDG_CACHE_HOME or ~/.cache; None for "off" or no home."""
    given = os.environ.get("PERTWISE_CACHE")
    if given:
        return None if given == "off" else Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pertwise"
    except RuntimeError:
        return None


@contextlib.contextmanager
def keeping(fresh: bool = False) -> Iterator[None]:
    """What `kept` is asked for inside this block is kept in the user's folder.

    Parameters
    ----------
    fresh
        Pass over what is there and make it again.
    """
    token = _FRESH.set(fresh)
    try:
        yield
    finally:
        _FRESH.reset(token)


def kept(
    what: str,
    question: Callable[[], Any],
    make: Callable[[], Arrays],
    *,
    packages: tuple[str, ...] = (),
) -> Arrays:
    """`make()`, or the arrays that it made for the same question in an earlier run.

    Parameters
    ----------
    what
        What is kept, for the name of the file.
    question
        Everything that the result depends on, JSON-able; `digest` of arrays. The versions of
        pertwise, its code, python, numpy and its kin and the kind of machine are added.
    packages
        Further packages that compute it; without one of them nothing is kept.
    """
    fresh, place = _FRESH.get(), folder()
    if fresh is None or place is None:
        return make()
    try:
        used = _used(packages)
    except PackageNotFoundError:
        return make()
    key = identity(what, used, platform.machine(), _code(), question())
    path = place / f"{what}-{key}.npz"
    found = None if fresh else read_arrays(path, dict)
    if found is not None:
        with contextlib.suppress(OSError):
            os.utime(path)
        return found
    made = make()
    with contextlib.suppress(OSError):
        # What is asked about may be nobody else's business.
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.access(place, os.W_OK):
        write_arrays(path, made)
        _prune(place)
    return made


def digest(arrays: Iterable[Any]) -> str:
    """SHA-256 over kind, shape and values of numeric arrays, held one at a time."""
    total = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(array.data)
    return total.hexdigest()


@functools.cache
def _used(packages: tuple[str, ...]) -> dict[str, str]:
    return {**versions(), **{p: version(p) for p in packages}}


@functools.cache
def _code() -> str:
    """Names, sizes and times of the package's files: a changed line makes everything anew."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    stats = [(f.name, s.st_size, s.st_mtime_ns) for f in files for s in [f.stat()]]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def _prune(place: Path) -> None:
    """Take away what was used longest ago until the rest is within `MOST_BYTES`."""
    with contextlib.suppress(OSError):
        found = [(s.st_mtime_ns, s.st_size, p) for p in place.glob("*.npz") for s in [p.stat()]]
        room = MOST_BYTES
        for _, size, path in sorted(found, reverse=True):
            room -= size
            if room < 0:
                path.unlink(missing_ok=True)
