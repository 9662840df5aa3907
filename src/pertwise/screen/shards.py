"""Pseudobulk of many files: in parallel, in bounded memory, resumable after a kill.

The tasks of `pertwise.screen.passes` (some rows of one file each) leave their sums in small
HDF5 files of a work folder, written atomically. A task whose file exists is not run again, so a run
that was killed continues where it stopped. The folder's name is a hash of the inputs' fingerprints
and the settings: parts of other inputs or settings are never mixed in. Sums are exact
(`pertwise.screen.sums`), so the result is the same, bit for bit, for any number of workers.

Tasks run in this process, in local worker processes, or on a dask cluster by address; on a cluster
the files and the work folder must be visible to every worker under the same path.
"""

from __future__ import annotations

import hashlib
import operator
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise._files import PART, reading
from pertwise._hdf5 import check_room
from pertwise._io import atomic_path
from pertwise._process import in_processes, limit_threads, on_dask
from pertwise._progress import track
from pertwise.errors import InputError
from pertwise.provenance import identity
from pertwise.screen.batchsums import BatchSums, Range, Stored, merged
from pertwise.screen.cells import check_exists
from pertwise.screen.core import Screen
from pertwise.screen.countsums import check_counts, count_file, write_counts
from pertwise.screen.finish import finish, sums_of_batches
from pertwise.screen.matched_controls import (
    Part,
    Reference,
    part_of_batches,
    reference,
    rows_at_once,
)
from pertwise.screen.passes import first_pass, one_pass, second_pass
from pertwise.screen.scan import PseudobulkSettings, Scan, Task, plan_tasks, scan
from pertwise.screen.sums import GroupSums, merge
from pertwise.screen.tenx import is_mtx_folder

#: Cells of one task: large enough that its overhead does not count, small enough to lose.
ROWS_PER_TASK = 250_000
_EDGE = 1 << 16
SHARD_SUFFIXES = (".h5ad", ".zarr", ".parquet")
#: Change when the content of part files changes.
_PARTS_FORMAT = 2


def expand_sources(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Files, zarr stores and 10x folders as they are; of other folders the h5ad, zarr and parquet
    files in them.

    Raises
    ------
    pertwise.errors.InputError
        If a path does not exist, or a folder holds no such file.
    """
    found: list[Path] = []
    for given in paths:
        path = check_exists(given)
        is_zarr = path.suffix == ".zarr" or any(
            (path / n).exists() for n in (".zgroup", "zarr.json")
        )
        if not path.is_dir() or is_zarr or is_mtx_folder(path):
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix in SHARD_SUFFIXES)
        if not inside:
            raise InputError(
                f"the folder {path} holds no {', '.join(SHARD_SUFFIXES)} file and no matrix.mtx"
            )
        found += inside
    return found


def fingerprint(path: Path) -> str:
    """Hash of a file's path, size, time of change and first and last 64 kB (or of a folder's list).

    Reading hundreds of gigabytes to hash them would cost as much as the work itself; a file that
    changes without changing any of these is not noticed.
    """
    digest = hashlib.sha256(str(path.resolve()).encode())
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        state = file.stat()
        name = file.relative_to(path).as_posix()
        digest.update(f"{name} {state.st_size} {state.st_mtime_ns};".encode())
    if path.is_file():
        with open(path, "rb") as handle:
            digest.update(handle.read(_EDGE))
            handle.seek(max(0, path.stat().st_size - _EDGE))
            digest.update(handle.read(_EDGE))
    return digest.hexdigest()


def run_key(
    sources: Sequence[Path],
    settings: PseudobulkSettings,
    rows_per_task: int,
    counted: bool = False,
) -> str:
    """Name of the work folder of one run: inputs, settings and version decide it."""
    facts = {
        "format": _PARTS_FORMAT,
        "settings": asdict(settings),
        "rows_per_task": rows_per_task,
        "counted": counted,
        "inputs": [fingerprint(p) for p in sources],
    }
    return identity(facts)[:20]


def save_sums(
    path: Path, sums: dict[str, GroupSums | BatchSums], empty: tuple[int, int] = (0, 0)
) -> None:
    """Write sums to one HDF5 file, atomically; with them the cells without any count."""
    import h5py

    check_room(path, sum(_nbytes(p) for p in sums.values()))
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as handle:
        handle.attrs["empty"] = empty
        for name, part in sums.items():
            _put(handle.create_group(name), part)


def _nbytes(part: Any) -> int:
    values = [getattr(part, f.name) for f in fields(part)]
    return sum(_nbytes(v) if is_dataclass(v) else v.nbytes for v in values)


def _put(group: Any, part: Any) -> None:
    for field in fields(part):
        value = getattr(part, field.name)
        if is_dataclass(value):
            _put(group.create_group(field.name), value)
        else:
            group[field.name] = value


def load_sums(path: Path, name: str, between: tuple[int, int] | None = None) -> GroupSums:
    """Read sums back, all groups or only those with lo <= id < hi."""
    import h5py

    with reading(path, "partial sums", PART), h5py.File(path, "r") as handle:
        group = handle[name]
        lo, hi = _within(group["groups"][:], between)
        return GroupSums(*(group[f.name][lo:hi] for f in fields(GroupSums)))


def load_batches(path: Path, between: tuple[int, int], n_blocks: int) -> BatchSums:
    """Read sums by group and block of the groups with lo <= id < hi."""
    import h5py

    with reading(path, "partial sums", PART), h5py.File(path, "r") as handle:
        group = handle["groups"]
        lo, hi = _within(group["pairs"][:], (between[0] * n_blocks, between[1] * n_blocks))
        first, last = _within(group["groups"][:], between)
        return BatchSums(
            pairs=group["pairs"][lo:hi],
            n=group["n"][lo:hi],
            total=_stored(group["total"], lo, hi),
            groups=group["groups"][first:last],
            square=_stored(group["square"], first, last),
        )


def _stored(group: Any, lo: int, hi: int) -> Stored:
    rows = group["rows"][:]
    a, b = _within(rows, (lo, hi))
    return Stored(group["sums"][lo:hi], rows[a:b] - lo, group["carried"][a:b])


def _within(ids: NDArray[np.int64], between: tuple[int, int] | None) -> tuple[int, int]:
    if between is None:
        return 0, len(ids)
    lo, hi = np.searchsorted(ids, between)
    return int(lo), int(hi)


def _empty(path: Path) -> NDArray[np.int64]:
    import h5py

    with reading(path, "partial sums", PART), h5py.File(path, "r") as handle:
        return np.asarray(handle.attrs["empty"], dtype=np.int64)


def _first_task(found: Scan, settings: PseudobulkSettings, folder: Path, task: Task) -> None:
    part = first_pass(found, settings, task)
    sums: dict[str, GroupSums | BatchSums] = {"controls": part.controls, "training": part.training}
    save_sums(_part_path(folder, "first", task), sums, (part.n_empty, 0))


def _second_task(
    found: Scan,
    settings: PseudobulkSettings,
    ref: Reference | None,
    folder: Path,
    counted: bool,
    task: Task,
) -> None:
    if counted:
        with count_file(_part_path(folder, "counts", task), found) as sink:
            sums, empty = second_pass(found, settings, ref, task, sink)
    else:
        sums, empty = second_pass(found, settings, ref, task)
    save_sums(_part_path(folder, "second", task), {"groups": sums}, empty)


def _part_path(folder: Path, name: str, task: Task) -> Path:
    return folder / f"{name}-{task.source:05d}-{task.start:012d}.h5"


def pseudobulk_shards(
    sources: Sequence[str | os.PathLike[str]],
    settings: PseudobulkSettings | None = None,
    *,
    workdir: str | os.PathLike[str],
    workers: int = 1,
    dask: str | None = None,
    rows_per_task: int = ROWS_PER_TASK,
    keep_parts: bool = False,
    counts: str | os.PathLike[str] | None = None,
) -> Screen:
    """`pertwise.screen.pseudobulk.pseudobulk` over many files, resumable and in parallel.

    Cells of one condition may lie in several files. The result equals, bit for bit, that of
    `pseudobulk` on the same cells in one file.

    Parameters
    ----------
    sources
        Files (h5ad, zarr, parquet) or folders of them; all with the same features in order.
    workdir
        Folder for the partial sums; after a kill, the same call continues from them.
    workers
        Local processes. In a script, call this under ``if __name__ == "__main__":``, as for any
        use of multiple processes.
    dask
        Address of a running scheduler ("tcp://host:8786") instead of local workers.
    rows_per_task
        Cells of one task: the unit of parallel work and of what a kill can lose.
    keep_parts
        Keep the partial sums after success.
    counts
        An h5ad file to write as well: `pertwise.screen.countsums.write_counts`.

    Raises
    ------
    pertwise.errors.InputError
        As `pseudobulk`; also if no scheduler answers at the address.
    pertwise.errors.MissingDependencyError
        If `dask` is given and dask is not installed.
    """
    settings = settings or PseudobulkSettings()
    for name, value in {"workers": workers, "rows_per_task": rows_per_task}.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    paths = expand_sources(sources)
    folder = Path(workdir) / run_key(paths, settings, rows_per_task, counts is not None)
    screen = run(paths, settings, folder, rows_per_task, counts, workers, dask)
    if not keep_parts:
        shutil.rmtree(folder)
        if not any(Path(workdir).iterdir()):
            Path(workdir).rmdir()
    return screen


def run(
    sources: Sequence[Any],
    settings: PseudobulkSettings,
    folder: Path,
    rows_per_task: int = ROWS_PER_TASK,
    counts: str | os.PathLike[str] | None = None,
    workers: int = 1,
    dask: str | None = None,
) -> Screen:
    """The passes over all sources with their partial sums in `folder`, and the screen of them."""
    found = scan(sources, settings)
    if counts is not None:
        check_counts(found)
    tasks = plan_tasks(found, rows_per_task)
    if not tasks:
        raise InputError(f"no cells in {', '.join(map(str, found.sources))}")
    folder.mkdir(parents=True, exist_ok=True)
    second = [_part_path(folder, "second", t) for t in tasks]
    n_blocks, only = len(found.blocks), one_pass(found)
    ref = None if only else _reference(found, settings, folder, tasks, workers, dask)
    work = partial(_second_task, found, settings, ref, folder, counts is not None)
    _do(work, tasks, folder, "second", "cells" if only else "perturbations", workers, dask)
    n_empty = np.sum([_empty(path) for path in second], axis=0)

    def batches(lo: int, hi: int) -> Range:
        cut = [load_batches(path, (lo, hi), n_blocks) for path in second]
        return merged(cut, n_blocks, len(found.features))

    def load(lo: int, hi: int) -> GroupSums:
        if only:
            return sums_of_batches(found, chosen, batches(lo, hi))
        return merge(load_sums(path, "groups", (lo, hi)) for path in second)

    if ref is None:
        part = part_of_batches(found, settings, batches, int(n_empty[0]))
        ref = reference(found, settings, part)
    chosen = ref
    screen = finish(found, settings, ref, load, int(n_empty[1]), rows_at_once(found, only))
    if counts is not None:
        parts = [_part_path(folder, "counts", t) for t in tasks]
        write_counts(Path(counts), found, settings, parts)
    return screen


def _reference(
    found: Scan,
    settings: PseudobulkSettings,
    folder: Path,
    tasks: Sequence[Task],
    workers: int,
    dask: str | None,
) -> Reference:
    work = partial(_first_task, found, settings, folder)
    _do(work, tasks, folder, "first", "controls", workers, dask)
    parts = (
        Part(load_sums(path, "controls"), load_sums(path, "training"), int(_empty(path)[0]))
        for path in (_part_path(folder, "first", t) for t in tasks)
    )
    return reference(found, settings, reduce(operator.add, parts))


def _do(
    work: Callable[[Task], None],
    tasks: Sequence[Task],
    folder: Path,
    name: str,
    title: str,
    workers: int,
    dask: str | None,
) -> None:
    """Run the tasks that have left no part yet: here, over processes or on a cluster."""
    left = [(t,) for t in tasks if not _part_path(folder, name, t).exists()]
    if not left:
        return
    if dask is not None:
        done = on_dask(work, left, dask, workers, limit_threads)
    elif workers > 1:
        done = in_processes(work, left, workers, limit_threads)
    else:
        done = map(work, (task for (task,) in left))
    for _ in track(done, title, total=len(left)):
        pass
