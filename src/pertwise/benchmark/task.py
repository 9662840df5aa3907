"""What a benchmark is made of: a task, its units, and what is left of each when it was played."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from pertwise.config import Settings
from pertwise.errors import PertwiseError

if TYPE_CHECKING:
    from pertwise.benchmark.engine import BenchmarkRun

Tables = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Unit:
    """One independent piece of work.

    Attributes
    ----------
    key
        Name of its files: a hash over all that decides the result.
    labels
        What it is, in words: columns of ``units.csv``, and how a failure is told.
    what
        Whatever the task needs to play it; must survive pickling.
    """

    key: str
    labels: Mapping[str, Any]
    what: Any = None

    @property
    def words(self) -> str:
        """ "method kernel ridge, seed 0, fold 1"."""
        return ", ".join(f"{k} {v}" for k, v in self.labels.items())


@dataclass(frozen=True)
class Played:
    """A finished unit.

    Attributes
    ----------
    tables
        What `Task.play` made, by name.
    error
        What made the declared fallback stand in ("" when nothing did).
    seconds, processor
        Wall clock and processor time; NaN for a unit that a kill had interrupted.
    """

    unit: Unit
    tables: Tables
    error: str = ""
    seconds: float = float("nan")
    processor: float = float("nan")


class Failed(PertwiseError):
    """Raised by `Task.play` with the tables of the declared fallback, which stands in."""

    def __init__(self, error: str, tables: Tables) -> None:
        super().__init__(error)
        self.tables = tables


class Task(ABC):
    """What a benchmark is made of; one instance is one set of settings.

    Only the attributes set in ``__init__`` travel to a worker: what is costly to open is a cached
    property, opened once a process.

    Parameters
    ----------
    settings
        Of the class `settings_of`.
    replay
        Chat models answer from their ledger only.
    """

    name: ClassVar[str]
    #: A key of the settings that tells them from those of other tasks.
    mark: ClassVar[str]
    settings_of: ClassVar[type[Settings]]
    #: Files of the tidy scores, of their summary, and function that makes the page (a room below).
    scores: ClassVar[str] = "scores.parquet"
    summary: ClassVar[str] = "summary.csv"
    page_by: ClassVar[str] = "pertwise.report.bench_page:write_page"
    #: Units are kept as files; not so where a ledger already keeps every answer.
    keeps_units: ClassVar[bool] = True

    def __init__(self, settings: Any, *, replay: bool = False) -> None:
        self.settings, self.replay = settings, replay
        #: Something given in the call that no settings describe: then there are no other processes.
        self.given = False
        #: Where the run is written; set by the engine before anything is played.
        self.folder: Path | None = None

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, Mapping[str, str]]:
        """Role -> `pertwise.provenance.input_facts` of everything read."""

    @abstractmethod
    def units(self) -> Sequence[Unit]:
        """All units, in the order of their tables; checks settings that could only fail later."""

    @abstractmethod
    def play(self, unit: Unit, place: Path | None) -> Tables:
        """Make the tables of one unit.

        Parameters
        ----------
        place
            Folder for what an interrupted unit goes on with; None when nothing is kept.

        Raises
        ------
        Failed
            With what stands in.
        """

    @abstractmethod
    def gather(self, played: Sequence[Played]) -> Tables:
        """File name -> table, from all units."""

    def stand_in(self, unit: Unit, error: PertwiseError, place: Path | None) -> Tables | None:
        """The declared fallback of a unit that failed; None: there is none, the run stops."""
        return None

    def unanswered(self, run: BenchmarkRun[Any]) -> dict[str, list[dict[str, Any]]]:
        """Methods of which no answer of a chat model could be used -> "kind" and "action" of what
        was wrong."""
        return {}

    def more(self) -> dict[str, Any]:
        """What the record of this task says besides settings, inputs and versions."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in self.__dict__.items()
            if not isinstance(getattr(type(self), k, None), cached_property)
        }
