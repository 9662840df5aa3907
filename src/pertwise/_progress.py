"""One place that decides whether progress is shown, so that `--quiet` silences all of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pertwise._text import clean_text

T = TypeVar("T")
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


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a rich progress bar on a terminal's standard error, else plainly."""
    if is_quiet() or not sys.stderr.isatty():
        yield from items
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
