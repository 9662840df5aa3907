"""Options of every command that asks a chat model, and what such a command ends with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from pertwise.select.base import Selection

_PANEL = "Language model"
#: Kinds of repair that say what followed, not what was wrong.
CONSEQUENCES = ("fallback", "too_few", "missing", "left_empty")

Figures = Annotated[
    str | None,
    typer.Option(metavar="FORMATS", help="Figures as files, too: svg, png, pdf, or a comma list."),
]
Anonymise = Annotated[
    bool,
    typer.Option(
        "--anonymise",
        help="Control: show codes with annotations of the knowledge instead of names.",
    ),
]
BudgetTokens = Annotated[
    int | None,
    typer.Option(min=1, help="Most tokens to use, earlier calls included.", rich_help_panel=_PANEL),
]
BudgetUsd = Annotated[
    float | None,
    typer.Option(
        min=0.0, help="Most US dollars to spend, earlier calls included.", rich_help_panel=_PANEL
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="Seconds of silence after which a call is given up (default 300).",
        rich_help_panel=_PANEL,
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most calls at once (default 8; 2 where the model runs on this machine).",
        rich_help_panel=_PANEL,
    ),
]


def limits(
    budget_tokens: int | None, budget_usd: float | None, timeout: float | None, at_once: int | None
) -> dict[str, Any]:
    """The settings of `pertwise.llm.open_chat` that were given."""
    given = {
        "budget_tokens": budget_tokens,
        "budget_usd": budget_usd,
        "timeout_s": timeout,
        "concurrency": at_once,
    }
    return {name: value for name, value in given.items() if value is not None}


def check_answers(who: str, answers: Sequence[Selection]) -> None:
    """End with exit status 1 when there are answers and none is the model's own."""
    from pertwise.select.base import usable

    if answers and not any(a.picks and usable(a.fallback, a.provenance) for a in answers):
        nothing_usable(who, [vars(r) for a in answers for r in a.repairs])


def nothing_usable(who: str, repairs: Iterable[Mapping[str, Any]], then: str = "") -> NoReturn:
    """End with exit status 1: no answer of the model could be used; the commonest reason is told.

    Parameters
    ----------
    repairs
        ``kind`` and ``action`` of what was wrong.
    then
        What was done instead.
    """
    found = [r for r in repairs if r["kind"] not in CONSEQUENCES]
    counts = Counter(str(r["kind"]) for r in found)
    why = "no call was made"
    if counts:
        kind = counts.most_common(1)[0][0]
        words = next((str(r["action"]) for r in found if r["kind"] == kind and r["action"]), "")
        why = ", ".join(f"{k} {n}" for k, n in counts.most_common())
        why += f" (for example: {words[:300]})" if words else ""
    # An address is told without its query, which may hold a key.
    who = re.sub(r"(://[^\s?#]*)[?#]\S*", r"\1", who)
    typer.echo(f"error: no answer of {who} could be used: {why}{then and '; '}{then}", err=True)
    raise typer.Exit(1)
