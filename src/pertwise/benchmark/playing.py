"""Playing units: here, over processes or on a dask cluster; each is kept in files of its own."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from pertwise._files import PART, reading
from pertwise._io import (
    atomic_path,
    csv_cells,
    text_of_csv,
    write_csv_atomic,
    write_json_atomic,
)
from pertwise._process import in_processes, limit_threads, on_dask
from pertwise._progress import track
from pertwise.benchmark.task import Failed, Played, Task, Unit
from pertwise.errors import PertwiseError
from pertwise.evaluate.units import STOPS
from pertwise.provenance import jsonable

log = logging.getLogger(__name__)

Executor = Literal["serial", "processes", "dask"]
#: Folder of the units in that of a run.
UNITS = "units"
EXECUTORS: tuple[Executor, ...] = ("serial", "processes", "dask")


def play_all(
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
    else:
        payloads = [(task, u, place) for u in missing]
        if executor == "processes":
            done = in_processes(_play_in_worker, payloads, workers, limit_threads)
        else:
            done = on_dask(_play_in_worker, payloads, address, workers, limit_threads)
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


# -- tables --------------------------------------------------------------------------------------


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
