"""`pertwise review`: a plan as a page one argues with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pertwise.cli.groups import Facts
from pertwise.cli.options import grouped


@grouped
def review(
    plan: Annotated[Path, typer.Argument(help="plan.json, or the folder that holds it.")],
    facts: Facts,
    by: Annotated[str, typer.Option(help="Your name, offered on the page.")] = "",
    port: Annotated[int, typer.Option(help="Port on this machine; 0 = any free one.")] = 0,
    browser: Annotated[
        bool | None,
        typer.Option(
            "--browser/--no-browser", help="Open it in a browser. Default: where there is a screen."
        ),
    ] = None,
) -> None:
    """Swap, drop, pin and sign picks of a plan in the browser; ends with Ctrl-C."""
    from pertwise.report.review import serve
    from pertwise.report.review.session import Review

    facts.refuse("a review only asks who is alike", but=("knowledge", "drugs"))
    shown = Review(plan, facts.open(), by)

    def opened(address: str) -> None:
        typer.echo(f"review of {shown.file}: open\n  {address}")
        typer.echo("Only this machine can open it. Every change is saved at once. Ctrl-C ends.")
        sys.stdout.flush()
        if _has_screen() if browser is None else browser:
            import webbrowser

            webbrowser.open(address)

    serve(shown, port=port, opened=opened)
    typer.echo(f"closed; the panel as it is now is in {shown.file.parent}")
    if shown.busy:
        # Nobody waits for the reading of knowledge; taken down with it, Python would complain.
        sys.stdout.flush()
        os._exit(0)


def _has_screen() -> bool:
    """Whether a browser would have a window: a text browser must not take over the terminal."""
    if not sys.stdout.isatty():
        return False
    seen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return seen or sys.platform in ("darwin", "win32")
