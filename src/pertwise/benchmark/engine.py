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
import os
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from pertwise._io import write_json_atomic
from pertwise._process import only_writer
from pertwise._shown import Shown
from pertwise.benchmark.playing import (
    EXECUTORS,
    UNITS,
    Executor,
    play_all,
    read_table,
    write_table,
)
from pertwise.benchmark.task import Played, Tables, Task
from pertwise.config import check_settings
from pertwise.errors import InputError, unknown_name
from pertwise.provenance import jsonable, record

#: The record of a run, and the list of its units.
RECORD, LIST = "run.json", "units.csv"
T = TypeVar("T", bound=Task)


@dataclass(frozen=True, repr=False)
class BenchmarkRun(Shown, Generic[T]):
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
        played = play_all(task, units, folder, executor, min(workers, len(units)), address)
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
    # What was refused before its first unit is no run; the next call may be right.
    begun = before is not None and (before.get("finished") or any((folder / UNITS).glob("*")))
    if before is not None:
        if before["task"] != made["task"]:
            raise InputError(
                f"{folder} holds a run of `bench {before['task']}`; name another folder"
            )
        if resume is False and begun:
            raise InputError(
                f"{folder} already holds a run: give --resume to go on with it, or another folder"
            )
        if resume:
            _same(folder, before, made)
    if not begun:
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
