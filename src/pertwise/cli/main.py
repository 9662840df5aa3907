"""The `pertwise` command: parses, calls, prints. Sub-commands live one per module beside this."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from pertwise import __version__
from pertwise._io import why_not
from pertwise._process import Interrupted, ends_on_signals
from pertwise._progress import set_quiet
from pertwise._text import one_line
from pertwise.cli import (
    ask,
    bench,
    bench_acquisition,
    bench_exchange,
    demo,
    design,
    doctor,
    drugs,
    guides,
    knowledge,
    llm,
    parts,
    plan,
    predict,
    rate,
    review,
    screen,
    train,
)
from pertwise.cli.door import close_door
from pertwise.errors import PertwiseError

app = typer.Typer(
    name="pertwise",
    help="Which perturbations next, what will they do, and can we trust that?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
bench.app.command("drugs")(drugs.bench_drugs)
app.command("predict")(predict.predict)
app.command("ask")(ask.ask)
app.command("rate")(rate.rate)
# The names of the two questions, as the papers call them.
app.command("langpert", hidden=True)(ask.ask)
app.command("lgr", hidden=True)(ask.ask)
app.add_typer(bench.app, name="bench")
bench_acquisition.register(bench.app, app)
bench_exchange.register(bench.app)
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(llm.app, name="llm")
app.command("parts")(parts.parts)
app.add_typer(plan.app, name="plan")
app.command("review")(review.review)
app.command("guides")(guides.guides)
app.command("design")(design.design)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(screen.app, name="screen")
app.add_typer(train.app, name="train")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"pertwise {__version__}")
        raise typer.Exit()


@app.callback()
def _common(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log to standard error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    set_quiet(quiet)
    close_door()
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def main() -> None:
    """Entry point: an expected error is one clear line and exit status 2, never a traceback.

    Ctrl-C and SIGTERM are one line, too, with the exit status of the signal (130, 143).
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A Windows pipe is cp1252: a sign that it lacks becomes "?" and does not end the run.
            stream.reconfigure(errors="replace")
    with ends_on_signals():
        try:
            app()
        except PertwiseError as error:
            typer.echo(f"error: {one_line(str(error), 4000)}", err=True)
            raise SystemExit(2) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise SystemExit(1) from None
            name = f"{error.filename}: " if error.filename else ""
            typer.echo(f"error: {name}{why_not(error)}", err=True)
            raise SystemExit(2) from None
        except Interrupted as stop:
            notes = getattr(stop, "__notes__", [])
            typer.echo(": ".join(["interrupted", "; ".join(notes)][: 1 + bool(notes)]), err=True)
            sys.stdout.flush()
            # Taking the interpreter down takes seconds, which a batch system may not give.
            os._exit(int(stop.code or 1))
