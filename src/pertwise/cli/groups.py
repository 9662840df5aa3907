"""The groups of options that several commands share: reading, facts, cells, language model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from pertwise._text import shown_url
from pertwise.cli.asking import BudgetTokens, BudgetUsd, Concurrency, Timeout, limits
from pertwise.cli.options import OptionGroup
from pertwise.config import user_file, user_settings
from pertwise.errors import InputError

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat

_READING = "Reading SCREEN"
_LLM = "Language model"
_CONTEXT = "Context"


@dataclass(frozen=True)
class Reading(OptionGroup):
    """How a file of responses is read, where that is not recognised; see `read_screen`."""

    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL", help="Control label; repeat for several.", rich_help_panel=_READING
        ),
    ] = None
    perturbation_key: Annotated[
        str | None,
        typer.Option(help="Column that names the perturbation.", rich_help_panel=_READING),
    ] = None
    context_key: Annotated[
        str | None, typer.Option(help="Column of the cell line or type.", rich_help_panel=_READING)
    ] = None
    dose_key: Annotated[
        str | None, typer.Option(help="Column of the dose.", rich_help_panel=_READING)
    ] = None
    values: Annotated[
        str | None,
        typer.Option(
            help="deltas (control-subtracted already) or means.", rich_help_panel=_READING
        ),
    ] = None
    duplicates: Annotated[
        str | None,
        typer.Option(help="average: take the mean of repeated rows.", rich_help_panel=_READING),
    ] = None
    infinite: Annotated[
        str | None,
        typer.Option(help="nan: infinite values count as not measured.", rich_help_panel=_READING),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            help="auto, genes (fold guides to genes) or as-is (every label is a perturbation).",
            rich_help_panel=_READING,
        ),
    ] = None
    drop_empty: Annotated[
        bool,
        typer.Option(
            "--drop-empty", help="Leave out rows without a name.", rich_help_panel=_READING
        ),
    ] = False

    def settings(self) -> dict[str, Any]:
        """What was given, as arguments of `read_screen`."""
        found = {name: getattr(self, name) for name in self.given}
        if "control" in found:
            found["control"] = tuple(found["control"])
        return found


@dataclass(frozen=True)
class Facts(OptionGroup):
    """What is already known: a folder about genes, tables about compounds and cell lines."""

    knowledge: Annotated[
        Path | None, typer.Option(help="Knowledge folder (pertwise knowledge build).")
    ] = None
    drugs: Annotated[
        list[Path] | None,
        typer.Option(help="Table of drug facts (parquet, csv); repeat, earlier ones win."),
    ] = None
    lines: Annotated[
        Path | None, typer.Option(help="Table of cell-line facts (organ, driver genes).")
    ] = None
    ratings: Annotated[
        list[Path] | None,
        typer.Option(help="Table of marks (pertwise rate, or filled in by hand); repeat."),
    ] = None

    @cached_property
    def folder(self) -> Path | None:
        """The knowledge folder given, else that of the user's defaults (`config.user_settings`)."""
        default = None if self.knowledge else user_settings().knowledge
        if default is None:
            return self.knowledge
        typer.echo(f"knowledge: {default} (from {user_file()})", err=True)
        return Path(default)

    def open(self) -> Knowledge | None:
        """The knowledge, or None when nothing was given."""
        from pertwise.knowledge import Knowledge

        folder = self.folder
        if folder is None and not self.given:
            return None
        return Knowledge.open(
            folder,
            drugs=self.drugs or (),
            lines=self.lines,
            ratings=self.ratings or (),
        )

    def needed(self) -> Knowledge:
        """The knowledge.

        Raises
        ------
        pertwise.errors.InputError
            When nothing was given.
        """
        found = self.open()
        if found is None:
            raise InputError(
                "--knowledge DIR is needed (make one with `pertwise knowledge build`); for "
                "compounds --drugs TABLE"
            )
        return found


@dataclass(frozen=True)
class Cells(OptionGroup):
    """Which cells: the context of a screen, and words about it for a model."""

    context: Annotated[
        str | None,
        typer.Option(help="Cell line or type, where SCREEN has several.", rich_help_panel=_CONTEXT),
    ] = None
    context_text: Annotated[
        str,
        typer.Option(help="Free text about the cells for a chat model.", rich_help_panel=_CONTEXT),
    ] = ""


@dataclass(frozen=True)
class Asking(OptionGroup):
    """How a model is asked, and where its answers are kept."""

    prompt: Annotated[
        str | None,
        typer.Option(
            help="Template of your own; `pertwise llm prompt NAME` prints the one to start from.",
            rich_help_panel=_LLM,
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(help="Of the order in which things are shown, and whatever else is drawn."),
    ] = 0
    ledger: Annotated[
        Path | None,
        typer.Option(help="SQLite ledger (default: beside OUT).", rich_help_panel=_LLM),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what it would cost; ask nothing.", rich_help_panel=_LLM
        ),
    ] = False

    def kept(self, usual: Path | None) -> Path | None:
        """The ledger to open: `usual` unless one is named; of a dry run, one that is there."""
        path = self.ledger or usual
        return None if self.dry_run and (path is None or not path.is_file()) else path


@dataclass(frozen=True)
class Llm(OptionGroup):
    """A chat endpoint and its limits."""

    #: What means nothing without a model.
    dependent: ClassVar[tuple[str, ...]] = (
        "replay",
        "budget_tokens",
        "budget_usd",
        "timeout",
        "concurrency",
    )
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL@URL",
            help="Chat endpoint (or openai:MODEL, anthropic:MODEL, ollama:MODEL); keys come from "
            "the environment.",
            rich_help_panel=_LLM,
        ),
    ] = None
    replay: Annotated[
        bool,
        typer.Option(
            "--replay", help="Answer from the ledger only, never call out.", rich_help_panel=_LLM
        ),
    ] = False
    budget_tokens: BudgetTokens = None
    budget_usd: BudgetUsd = None
    timeout: Timeout = None
    concurrency: Concurrency = None

    def limits(self) -> dict[str, Any]:
        """The limits that were given, as settings of `pertwise.llm.open_chat`."""
        return limits(self.budget_tokens, self.budget_usd, self.timeout, self.concurrency)

    @contextmanager
    def opened(self, run: str, ledger: Path | None) -> Iterator[Chat | None]:
        """The chat, closed at the end; None without --llm.

        Raises
        ------
        pertwise.errors.InputError
            When limits were given but no model.
        """
        if self.llm is None:
            self.refuse("no model is asked (--llm MODEL@URL)")
            yield None
            return
        with self.asked(run, ledger) as chat:
            yield chat

    @contextmanager
    def asked(self, run: str, ledger: Path | None, dask: str | None = None) -> Iterator[Chat]:
        """The chat of a command that cannot do without (`name`), closed at the end."""
        from pertwise.llm.client import chat_for

        how = {"ledger": ledger, "replay": self.replay, "run": run, **self.limits()}
        with chat_for(self.name, dask=dask, **how) as chat:
            yield chat

    @cached_property
    def name(self) -> str:
        """The endpoint as given, else that of the user's defaults.

        Raises
        ------
        pertwise.errors.InputError
            Without either.
        """
        if not self.llm and (default := user_settings().llm):
            typer.echo(f"model: {shown_url(default)} (from {user_file()})", err=True)
            return default
        if not self.llm:
            raise InputError(
                "a model is needed: --llm MODEL@URL (for example "
                "qwen3:8b@http://localhost:11434/v1, or anthropic:MODEL)"
            )
        return self.llm
