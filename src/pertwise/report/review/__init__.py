"""The page one argues with: a plan served to the browsers of this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pertwise._io import optional_import

if TYPE_CHECKING:
    from pertwise.report.review.session import Review


def serve(review: Review, *, port: int = 0, opened: Callable[[str], None]) -> None:
    """Serve a plan on 127.0.0.1 until SIGINT or SIGTERM, which end it in order.

    Every change is on the disk before it is answered, so nothing is lost however this ends.

    Parameters
    ----------
    port
        0 = any free one.
    opened
        Called with the address once it can be opened; it holds the token without which nothing is
        shown.

    Raises
    ------
    pertwise.errors.InputError
        When the port cannot be used.
    pertwise.errors.MissingDependencyError
        Without starlette and uvicorn.
    """
    for module in ("starlette", "uvicorn"):
        optional_import(module, "review", "the review page")
    from pertwise.report.review.server import run

    run(review, port, opened)
