"""The `pertwise` command: parses, calls, prints. Sub-commands live one per module beside this."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from pertwise import __version__
from pertwise._io import why_not
from pertwise._progress import set_quiet
from pertwise.cli import (
    bench,
    bench_acquisition,
    demo,
    drugs,
    knowledge,
    langpert,
    llm,
    plan,
    predict,
    screen,
)
from pertwise.errors import PertwiseError

app = typer.Typer(
    name="pertwise",
    help="Which perturbations next, what will they do, and can we trust that?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
bench.app.command("drugs")(drugs.bench_drugs)
app.command("predict")(predict.predict)
app.command("predict-drug")(drugs.predict_drug_command)
app.command("lgr")(drugs.lgr)
app.command("langpert")(langpert.langpert)
app.add_typer(bench.app, name="bench")
bench_acquisition.register(bench.app, app)
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(llm.app, name="llm")
app.add_typer(plan.app, name="plan")
app.command("demo")(demo.demo)
app.add_typer(screen.app, name="screen")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"pertwise {__version__}")
        raise typer.Exit()


@app.callback()
def _common(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log to standard error.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    set_quiet(quiet or not sys.stderr.isatty())
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def main() -> None:
    """Entry point: an expected error is one clear line and exit status 2, never a traceback."""
    try:
        app()
    except PertwiseError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{why_not(error)}", err=True)
        raise SystemExit(2) from None
