"""One engine for every benchmark: units are played once, kept, and gathered into tables.

A `Task` says what its units are, plays one of them, and makes tables of all. The engine keeps each
finished unit in files of its own, so that a killed run goes on where it stopped; spreads units over
processes or a dask cluster; lets a declared fallback stand in for a unit that failed, which stays
in the score; and writes the tables with the record of how they were made. A unit is named by a hash
over everything that decides it: settings, contents of its inputs, version of pertwise. Nothing that
was made in another way is ever taken for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pkgutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import pandas as pd

from pertwise._files import PART, reading
from pertwise._io import (
    atomic_path,
    csv_cells,
    optional_import,
    text_of_csv,
    write_csv_atomic,
    write_json_atomic,
)
from pertwise._process import in_processes, only_writer
from pertwise._progress import track
from pertwise.config import Settings, check_settings
from pertwise.errors import InputError, PertwiseError, unknown_name
from pertwise.evaluate.units import STOPS
from pertwise.provenance import jsonable, record

log = logging.getLogger(__name__)

Executor = Literal["serial", "processes", "dask"]
EXECUTORS: tuple[Executor, ...] = ("serial", "processes", "dask")
Tables = dict[str, pd.DataFrame]
#: The record of a run, the folder of its units and the list of them.
RECORD, UNITS, LIST = "run.json", "units", "units.csv"


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


T = TypeVar("T", bound=Task)


@dataclass(frozen=True)
class BenchmarkRun(Generic[T]):
    """A finished run: tidy scores, their summary, its record, its page.

    Attributes
    ----------
    record
        Versions, settings, inputs with checksums, notes, failed units (``run.json``).
    folder
        Where it was written; None when nowhere.
    """

    task: T
    record: dict[str, Any]
    folder: Path | None = None
    tables: Tables = field(default_factory=dict, repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """Tidy scores: one row per measured value."""
        return self.read(self.task.scores)

    @property
    def summary(self) -> pd.DataFrame:
        """One row per method and what it is averaged over."""
        return self.read(self.task.summary)

    @property
    def notes(self) -> list[str]:
        """What a reader must know, e.g. fewer rounds than asked for."""
        return list(self.record["notes"])

    @property
    def failed(self) -> list[dict[str, str]]:
        """ "unit" and "error" of every unit that a fallback stands in for."""
        return list(self.record["failed"])

    def has(self, name: str) -> bool:
        """Whether there is a table of that file name."""
        return name in self.tables or (self.folder is not None and (self.folder / name).is_file())

    def read(self, name: str) -> pd.DataFrame:
        """A table by its file name.

        Raises
        ------
        pertwise.errors.InputError
            If the run has no such table.
        """
        if name not in self.tables:
            path = Path(name) if self.folder is None else self.folder / name
            if self.folder is None or not path.is_file():
                raise InputError(f"{path} is missing: the run is not finished; resume it")
            self.tables[name] = read_table(path)
        return self.tables[name]

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write all tables and, last, run.json into a folder, each atomically."""
        place = Path(folder)
        before = stored_record(place) or {}
        for name in {*map(str, before.get("tables", ()))} - set(self.tables):
            # Of an earlier run here; never anything but a table in this very folder.
            if Path(name).name == name and Path(name).suffix in (".csv", ".parquet"):
                (place / name).unlink(missing_ok=True)
        for name, table in self.tables.items():
            write_table(table, place / name)
        write_json_atomic(place / RECORD, self.record)
        return place

    def page(self, path: str | os.PathLike[str]) -> Path:
        """Write the page of this task as one HTML file; returns where."""
        write: Callable[[BenchmarkRun[T], Path], Path] = pkgutil.resolve_name(self.task.page_by)
        return write(self, Path(path))

    @classmethod
    def open(cls, folder: str | os.PathLike[str], kind: type[T]) -> BenchmarkRun[T]:
        """A run made before.

        Raises
        ------
        pertwise.errors.InputError
            If the folder holds none of that kind.
        """
        place = Path(folder)
        stored = stored_record(place)
        if stored is None or stored.get("task") != kind.name:
            raise InputError(f"{folder} is no run folder of `bench {kind.name}`: see its {RECORD}")
        where = str(place / RECORD)
        return cls(kind(check_settings(stored["settings"], kind.settings_of, where)), stored, place)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a parquet or csv file atomically; an index with a name is kept."""
    index = table.index.name is not None
    if path.suffix == ".csv":
        write_csv_atomic(path, table, index=index)
        return
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=index)


def read_table(path: Path) -> pd.DataFrame:
    """A table that `write_table` wrote."""
    with reading(path, "a table of this run", "give the same command again"):
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        try:
            return csv_cells(pd.read_csv(path, float_precision="round_trip"), text_of_csv)
        except pd.errors.EmptyDataError:
            return pd.DataFrame()


def run_task(
    task: T,
    out: str | os.PathLike[str] | None = None,
    *,
    executor: Executor = "serial",
    workers: int = 2,
    address: str | None = None,
    resume: bool | None = None,
) -> BenchmarkRun[T]:
    """Play what is missing of a task, gather all, write it.

    The result does not depend on the executor: every unit seeds itself.

    Parameters
    ----------
    out
        Folder of results, which one process writes at a time; None keeps nothing.
    executor
        "serial"; "processes": `workers` local ones, which end with this one; "dask": the scheduler
        at `address`, whose workers must see the same paths, or a local cluster of `workers`.
    resume
        None goes on with whatever is in the folder; False refuses a folder that holds a run; True
        wants the settings and inputs to be those of the run there.

    Raises
    ------
    pertwise.errors.InputError
        For a folder in use or of another run, or inputs that cannot be used.
    pertwise.errors.PertwiseError
        A unit failed and its task declares no fallback, or a chat model can be asked no further.
    """
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS, "(serial, processes or dask)")
    if task.given and executor != "serial":
        raise InputError("inputs that are already open run in one process; use files, or serial")
    folder = task.folder = None if out is None else Path(out).resolve()
    # Before anything is written: a wrong method or file must not leave a folder behind.
    units = task.units()
    with only_writer(folder) if folder is not None else contextlib.nullcontext():
        settings = task.settings.model_dump(mode="json")
        made = record(settings, task.inputs, task=task.name)
        if folder is not None:
            _claim(folder, made, resume)
        played = _play_all(task, units, folder, executor, min(workers, len(units)), address)
        tables = {**task.gather(played), LIST: _unit_list(played)}
        told = {**_outcome(played), "tables": list(tables)}
        run = BenchmarkRun(task, {**made, **told, **jsonable(task.more())}, folder, tables)
        if folder is not None:
            run.write(folder)
    return run


def stored_record(folder: Path) -> dict[str, Any] | None:
    """run.json of a folder; None without one.

    Raises
    ------
    pertwise.errors.InputError
        If it is none that pertwise wrote.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found["task"], found["settings"], found["inputs"]
    except (ValueError, KeyError, TypeError, RecursionError, OSError):
        raise InputError(f"{path} was not written by pertwise; name another folder") from None
    return found


def _claim(folder: Path, made: dict[str, Any], resume: bool | None) -> None:
    """Refuse a folder of another run; else say in it what is being run."""
    before = stored_record(folder)
    if before is not None:
        if before["task"] != made["task"]:
            raise InputError(
                f"{folder} holds a run of `bench {before['task']}`; name another folder"
            )
        if resume is False:
            raise InputError(
                f"{folder} already holds a run: give --resume to go on with it, or another folder"
            )
        if resume:
            _same(folder, before, made)
    else:
        write_json_atomic(folder / RECORD, {**made, "notes": [], "failed": [], "finished": False})


def _same(folder: Path, before: dict[str, Any], made: dict[str, Any]) -> None:
    old, new = before["settings"], made["settings"]
    changed = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
    if changed:
        raise InputError(
            f"{folder} was made with other settings ({', '.join(changed)}): resume with the same "
            "settings, or start a new folder"
        )
    if before["inputs"] != made["inputs"]:
        raise InputError(
            f"the inputs of {folder} have changed since it was started (then {before['inputs']}, "
            f"now {made['inputs']}): start a new folder"
        )


def _outcome(played: Sequence[Played]) -> dict[str, Any]:
    notes = [n for p in played if "notes" in p.tables for n in p.tables["notes"]["note"]]
    failed = [{"unit": p.unit.words, "error": p.error} for p in played if p.error]
    return {"notes": sorted(set(notes)), "failed": failed, "finished": True}


def _unit_list(played: Sequence[Played]) -> pd.DataFrame:
    rows = [
        {"unit": p.unit.key, **p.unit.labels, "seconds": p.seconds, "processor": p.processor,
         "error": p.error}
        for p in played
    ]  # fmt: skip
    return pd.DataFrame(rows)


# -- playing -------------------------------------------------------------------------------------


def _play_all(
    task: Task,
    units: Sequence[Unit],
    folder: Path | None,
    executor: Executor,
    workers: int,
    address: str | None,
) -> list[Played]:
    """Every unit in the order of `units`; those with files are read."""
    place = None if folder is None or not task.keeps_units else folder / UNITS
    missing = [u for u in units if place is None or not (place / f"{u.key}.json").is_file()]
    log.info("%d of %d units to play, executor %s", len(missing), len(units), executor)
    if executor == "serial" or len(missing) <= 1:
        done: Iterator[tuple[str, Played | None]] = (play_unit(task, u, place) for u in missing)
    elif executor == "processes":
        payloads = [(task, u, place) for u in missing]
        done = in_processes(_play_in_worker, payloads, workers, limit_threads)
    else:
        done = _on_dask(task, missing, place, workers, address)
    fresh = dict(track(done, f"{task.name}: units", total=len(missing)))
    if place is None:
        return [p for p in (fresh[u.key] for u in units) if p is not None]
    return [_stored(u, place) for u in units]


_OPENED: dict[str, Task] = {}


def _play_in_worker(task: Task, unit: Unit, place: Path | None) -> tuple[str, Played | None]:
    """As `play_unit`, with the inputs of a task opened once a process."""
    name = f"{task.name} {task.settings.model_dump_json()}"
    if name not in _OPENED:
        _OPENED.clear()
        _OPENED[name] = task
    return play_unit(_OPENED[name], unit, place)


def play_unit(task: Task, unit: Unit, place: Path | None) -> tuple[str, Played | None]:
    """Play one unit and keep it in `place`; (key, what was played when nothing is kept)."""
    own = None if place is None else place / unit.key
    begun_before = own is not None and own.is_dir()
    wall, processor = time.perf_counter(), time.process_time()
    error = ""
    try:
        tables = task.play(unit, own)
    except Failed as failed:
        error, tables = str(failed), failed.tables
    except STOPS:
        # The run must stop and can go on later; a stored fallback would never be asked again.
        raise
    except PertwiseError as problem:
        fallback = task.stand_in(unit, problem, own)
        if fallback is None:
            raise
        error, tables = f"{type(problem).__name__}: {problem}", fallback
    spent = (time.perf_counter() - wall, time.process_time() - processor)
    # Only an unbroken unit has a time worth telling.
    played = Played(unit, tables, error, *((float("nan"),) * 2 if begun_before else spent))
    if place is None:
        return unit.key, played
    _store(played, place)
    return unit.key, None


def _store(played: Played, place: Path) -> None:
    """The json last: it is the sign that the whole unit is there."""
    key = played.unit.key
    for name, table in played.tables.items():
        write_table(table, place / f"{key}.{name}.parquet")
    facts = {
        "unit": dict(played.unit.labels),
        "tables": list(played.tables),
        "error": played.error,
        "seconds": played.seconds,
        "processor": played.processor,
    }
    write_json_atomic(place / f"{key}.json", jsonable(facts))


def _stored(unit: Unit, place: Path) -> Played:
    path = place / f"{unit.key}.json"
    with reading(path, "a finished part of this run", PART):
        facts = json.loads(path.read_text(encoding="utf-8"))
        files = {n: place / f"{unit.key}.{n}.parquet" for n in map(str, facts["tables"])}
        tables = {n: pd.read_parquet(f) for n, f in files.items()}
        times = [float("nan") if facts[k] is None else facts[k] for k in ("seconds", "processor")]
        return Played(unit, tables, facts["error"], *times)


def limit_threads(n: int = 1) -> None:
    """One thread a worker process: workers share the cores, and results then do not depend on
    how many of them there are."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(n)
    from threadpoolctl import threadpool_limits

    threadpool_limits(n)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(n)


def _on_dask(
    task: Task, units: Sequence[Unit], place: Path | None, workers: int, address: str | None
) -> Iterator[tuple[str, Played | None]]:
    """Units on a dask cluster: by scheduler address, or a local one of `workers` processes."""
    distributed = optional_import("distributed", "dask", "running on a dask cluster")
    with contextlib.ExitStack() as stack:
        cluster = address or stack.enter_context(
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None
            )
        )
        client = stack.enter_context(distributed.Client(cluster))
        client.run(limit_threads)
        futures = [client.submit(_play_in_worker, task, u, place, pure=False) for u in units]
        for _, result in distributed.as_completed(futures, with_results=True):
            yield result
