"""One place that decides whether progress is shown, so that `--quiet` silences all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_state = {"quiet": True}


def set_quiet(quiet: bool) -> None:
    """Show (False) or hide (True) progress bars. Hidden by default: a library stays silent."""
    _state["quiet"] = quiet


def is_quiet() -> bool:
    """Whether progress bars are hidden."""
    return _state["quiet"]


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a rich progress bar on standard error, or plainly when quiet."""
    if is_quiet():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(
        items, description=description, total=total, console=Console(stderr=True), transient=True
    )
