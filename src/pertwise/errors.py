"""Errors a user can act on.

Every message names the file, row or gene at fault and says what to do next. They carry no
secrets: nothing that came from the environment is ever put into a message.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PertwiseError(Exception):
    """Base of all errors raised on purpose by pertwise."""


class InputError(PertwiseError, ValueError):
    """What the user gave (a file, a table, a name, a setting) cannot be used as it is."""


class LedgerError(InputError):
    """A ledger is damaged, foreign, or cannot be written: asking without it would pay twice."""


class BusyError(InputError):
    """Another process is writing there; it can be tried again."""


class UnknownNameError(InputError):
    """A name is not on the list it must come from; `suggestions` holds the nearest ones."""

    def __init__(self, message: str, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.suggestions = suggestions


class MissingDependencyError(PertwiseError, ImportError):
    """An optional package is needed; the message holds the `pip install` line."""


class BudgetError(PertwiseError):
    """A token or money budget would be exceeded; nothing more was sent."""


class ChatError(PertwiseError):
    """A chat endpoint failed for good (after retries)."""


class ReplayMissError(ChatError):
    """Replay mode met a request that the ledger does not hold."""


def suggest(name: str, known: Iterable[str], n: int = 3) -> tuple[str, ...]:
    """The at most `n` entries of `known` nearest to `name`, ignoring case."""
    by_fold = {k.casefold(): k for k in known}
    hits = difflib.get_close_matches(name.casefold(), list(by_fold), n=n, cutoff=0.5)
    return tuple(by_fold[h] for h in hits)


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """An `UnknownNameError` that says what is nearest: "unknown pathway 'X'; did you mean ...?"."""
    found = suggest(name, known)
    message = f"unknown {kind} {name!r}"
    if found:
        message += f"; did you mean {', '.join(map(repr, found))}?"
    if hint:
        message += f" {hint}"
    return UnknownNameError(message, found)
