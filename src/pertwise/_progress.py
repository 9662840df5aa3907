"""One place that decides whether progress is shown, so that `--quiet` silences all of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from pertwise._text import clean_text

T = TypeVar("T")
#: Seconds between two lines of progress in a file or pipe.
EVERY = 10.0
_state: dict[str, Any] = {"quiet": True, "console": None}


def set_quiet(quiet: bool) -> None:
    """Show (False) or hide (True) progress. Hidden by default: a library stays silent."""
    _state["quiet"] = quiet


def is_quiet() -> bool:
    """Whether progress is hidden."""
    return bool(_state["quiet"])


def tell(text: str) -> None:
    """One line on standard error, also into a file or pipe, unless quiet."""
    if is_quiet():
        return
    text = clean_text(text)
    if _state["console"] is not None:
        # Above the running bar instead of through it.
        _state["console"].print(text, markup=False, highlight=False)
    else:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _in_lines(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    if total is None and isinstance(items, Sized):
        total = len(items)
    start = last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now - last >= EVERY:
            last = now
            left = "" if total is None else f" of {total}, {_time(now - start, done, total)} left"
            tell(f"{description}: {done}{left}")
        yield item


def _time(spent: float, done: int, total: int) -> str:
    """The time that is left at the pace so far: "40 s", "3 min"."""
    seconds = spent / done * (total - done)
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a rich progress bar on a terminal's standard error; into a file or pipe with a
    line every `EVERY` seconds that says how much time is left."""
    if is_quiet():
        yield from items
        return
    if not sys.stderr.isatty():
        yield from _in_lines(items, description, total)
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    console = _state["console"] = Console(stderr=True)
    try:
        yield from rich_track(
            items, description=description, total=total, console=console, transient=True
        )
    finally:
        _state["console"] = None
