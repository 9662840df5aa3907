"""Where a run's spending stands, in one process or in a ledger that several share."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pertwise._process import alive
from pertwise.llm.ledger import Ledger


@dataclass(frozen=True)
class Amount:
    """Tokens and US dollars."""

    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.usd + other.usd)

    def times(self, factor: float) -> Amount:
        """Scaled, rounded up."""
        return Amount(math.ceil(factor * self.tokens), factor * self.usd)

    def less(self, other: Amount) -> Amount:
        """What is left of this one, never below nothing."""
        return Amount(max(0, self.tokens - other.tokens), max(0.0, self.usd - other.usd))


class Account(Protocol):
    """What `pertwise.llm.budget.Budget` keeps its limits against."""

    def spent(self) -> Amount:
        """Paid, and held by calls whose end is not known."""
        ...

    def hold(self, most: Amount, fits: Callable[[Amount], bool]) -> int | None:
        """Reserve `most` if all that is spent and held, this included, ``fits``; its number."""
        ...

    def release(self, hold: int, paid: Amount, doubtful: Amount) -> None:
        """Replace a reservation: by what a stored exchange says, and what counts beside it."""
        ...

    def busy(self) -> bool:
        """Whether calls of the run are under way, which may turn out cheaper than reserved."""
        ...


class MemoryAccount:
    """The account of a chat without a ledger."""

    def __init__(self) -> None:
        self._counted = Amount()
        self._held: dict[int, Amount] = {}
        self._next = 0
        self._lock = threading.Lock()

    def spent(self) -> Amount:
        """See `Account`."""
        return sum(self._held.values(), self._counted)

    def hold(self, most: Amount, fits: Callable[[Amount], bool]) -> int | None:
        """See `Account`."""
        with self._lock:
            if not fits(self.spent() + most):
                return None
            self._next += 1
            self._held[self._next] = most
            return self._next

    def release(self, hold: int, paid: Amount, doubtful: Amount) -> None:
        """See `Account`."""
        with self._lock:
            del self._held[hold]
            self._counted += paid + doubtful

    def busy(self) -> bool:
        """See `Account`."""
        return bool(self._held)


@dataclass(frozen=True)
class LedgerAccount:
    """`Account` of one run label, shared by all processes with this ledger.

    What a killed process held stays counted: nobody can know whether it was billed.

    Attributes
    ----------
    longest_s
        Seconds after which a call that has not ended is not waited for any more.
    """

    ledger: Ledger
    run: str
    longest_s: float

    def spent(self) -> Amount:
        """See `Account`."""
        return Amount(*self.ledger.spent(self.run)) + Amount(*self.ledger.doubtful(self.run)[1:])

    def hold(self, most: Amount, fits: Callable[[Amount], bool]) -> int | None:
        """Reserve, in one transaction with the look at what is spent."""
        with self.ledger.write() as connection:
            if not fits(self.spent() + most):
                return None
            until = time.time() + self.longest_s
            owner = f"{os.getpid()}@{socket.gethostname()}"
            row = (self.run, owner, until, most.tokens, most.usd)
            done = connection.execute(
                "INSERT INTO holds (run, owner, until, tokens, usd) VALUES (?,?,?,?,?)", row
            )
            return done.lastrowid

    def release(self, hold: int, paid: Amount, doubtful: Amount) -> None:
        """Take a reservation off, or leave `doubtful` counted for good; `paid` is stored."""
        with self.ledger.write() as connection:
            if doubtful.tokens or doubtful.usd:
                connection.execute(
                    "UPDATE holds SET owner='', until=0, tokens=?, usd=? WHERE id=?",
                    (doubtful.tokens, doubtful.usd, hold),
                )
            else:
                connection.execute("DELETE FROM holds WHERE id=?", (hold,))

    def busy(self) -> bool:
        """Whether a living process has a call under way."""
        query = "SELECT DISTINCT owner FROM holds WHERE run=? AND until>?"
        return any(_alive(row[0]) for row in self.ledger.rows(query, (self.run, time.time())))


def _alive(owner: str) -> bool:
    pid, _, host = owner.partition("@")
    # Another machine cannot be asked.
    if host != socket.gethostname():
        return True
    try:
        return alive(int(pid))
    except (ValueError, OverflowError):
        return True
