"""Pseudobulk of many files: in parallel, in bounded memory, resumable after a kill.

The tasks of `pertwise.screen.pseudobulk` (some rows of one file each) leave their sums in small
HDF5 files of a work folder, written atomically. A task whose file exists is not run again, so a run
that was killed continues where it stopped. The folder's name is a hash of the inputs' fingerprints
and the settings: parts of other inputs or settings are never mixed in. Sums are exact
(`pertwise.screen.sums`), so the result is the same, bit for bit, for any number of workers.

Tasks run in this process, in local worker processes, or on a dask cluster by address; on a cluster
the files and the work folder must be visible to every worker under the same path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pertwise._files import PART, reading
from pertwise._hdf5 import check_room
from pertwise._io import atomic_path
from pertwise._process import in_processes, limit_threads, on_dask
from pertwise._progress import track
from pertwise.errors import InputError
from pertwise.provenance import identity
from pertwise.screen.cells import check_exists
from pertwise.screen.core import Screen
from pertwise.screen.pseudobulk import (
    Part,
    Reference,
    finish,
    first_pass,
    merge,
    reference,
    second_pass,
)
from pertwise.screen.scan import PseudobulkSettings, Scan, Task, plan_tasks, scan
from pertwise.screen.sums import GroupSums

#: Cells of one task: large enough that its overhead does not count, small enough to lose.
ROWS_PER_TASK = 250_000
_EDGE = 1 << 16
SHARD_SUFFIXES = (".h5ad", ".zarr", ".parquet")
#: Change when the content of part files changes.
_PARTS_FORMAT = 1


def expand_sources(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Files as they are; a folder that is no zarr store gives its h5ad, zarr and parquet files.

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
        if not path.is_dir() or is_zarr:
            found.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix in SHARD_SUFFIXES)
        if not inside:
            raise InputError(f"the folder {path} holds no {', '.join(SHARD_SUFFIXES)} file")
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


def run_key(sources: Sequence[Path], settings: PseudobulkSettings, rows_per_task: int) -> str:
    """Name of the work folder of one run: inputs, settings and version decide it."""
    facts = {
        "format": _PARTS_FORMAT,
        "settings": asdict(settings),
        "rows_per_task": rows_per_task,
        "inputs": [fingerprint(p) for p in sources],
    }
    return identity(facts)[:20]


def save_sums(path: Path, sums: dict[str, GroupSums], n_empty: int) -> None:
    """Write sums to one HDF5 file, atomically."""
    import h5py

    fields = ("groups", "n", "total", "square", "cross")
    check_room(path, sum(getattr(part, f).nbytes for part in sums.values() for f in fields))
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as handle:
        handle.attrs["n_empty"] = n_empty
        for name, part in sums.items():
            group = handle.create_group(name)
            for field in fields:
                group[field] = getattr(part, field)


def load_sums(path: Path, name: str, between: tuple[int, int] | None = None) -> GroupSums:
    """Read sums back, all groups or only those with lo <= id < hi."""
    import h5py
    import numpy as np

    with reading(path, "partial sums", PART), h5py.File(path, "r") as handle:
        group = handle[name]
        ids = group["groups"][:]
        lo, hi = (0, len(ids)) if between is None else map(int, np.searchsorted(ids, between))
        return GroupSums(ids[lo:hi], *(group[f][lo:hi] for f in ("n", "total", "square", "cross")))


def _n_empty(path: Path) -> int:
    import h5py

    with reading(path, "partial sums", PART), h5py.File(path, "r") as handle:
        return int(handle.attrs["n_empty"])


def _first_task(found: Scan, settings: PseudobulkSettings, folder: Path, task: Task) -> None:
    part = first_pass(found, settings, task)
    sums = {"controls": part.controls, "training": part.training}
    save_sums(_part_path(folder, "first", task), sums, part.n_empty)


def _second_task(
    found: Scan, settings: PseudobulkSettings, ref: Reference, folder: Path, task: Task
) -> None:
    sums, n_empty = second_pass(found, settings, ref, task)
    save_sums(_part_path(folder, "second", task), {"groups": sums}, n_empty)


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
    folder = Path(workdir) / run_key(paths, settings, rows_per_task)
    found = scan(paths, settings)
    tasks = plan_tasks(found, rows_per_task)
    folder.mkdir(parents=True, exist_ok=True)
    work = partial(_first_task, found, settings, folder)
    _do(work, tasks, folder, "first", "controls", workers, dask)
    whole: Part | None = None
    for path in (_part_path(folder, "first", t) for t in tasks):
        part = Part(load_sums(path, "controls"), load_sums(path, "training"), _n_empty(path))
        whole = part if whole is None else whole + part
    if whole is None:
        raise InputError(f"no cells in {', '.join(map(str, paths))}")
    ref = reference(found, settings, whole)
    work = partial(_second_task, found, settings, ref, folder)
    _do(work, tasks, folder, "second", "perturbations", workers, dask)
    second = [_part_path(folder, "second", t) for t in tasks]

    def load(lo: int, hi: int) -> GroupSums:
        return merge(load_sums(path, "groups", (lo, hi)) for path in second)

    screen = finish(found, settings, ref, load, sum(map(_n_empty, second)))
    if not keep_parts:
        shutil.rmtree(folder)
        if not any(Path(workdir).iterdir()):
            Path(workdir).rmdir()
    return screen


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
