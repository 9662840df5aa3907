"""Who is better? `bench` runs any benchmark: one engine, a task for each question."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pertwise import parts
from pertwise.config import check_settings, read_settings, read_toml
from pertwise.errors import InputError

if TYPE_CHECKING:
    from pertwise.benchmark.engine import BenchmarkRun
    from pertwise.benchmark.task import Task


def bench(
    settings: Mapping[str, Any] | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    task: str = "",
    replay: bool = False,
    **how: Any,
) -> BenchmarkRun[Any]:
    """Run a benchmark: table, summary, notes and page of what `settings` ask for.

    Parameters
    ----------
    settings
        As in a TOML file of `pertwise bench`, or its path (file names in it are relative to it).
    out
        Folder of results, reused to go on where a run stopped; None keeps nothing.
    task
        A task of `pertwise.parts`; by default the one that the settings belong to.
    replay
        Chat models answer from the ledger in `out` only.
    how
        ``executor``, ``workers``, ``address``, ``resume`` of `pertwise.benchmark.engine.run_task`.

    Raises
    ------
    pertwise.errors.InputError
        For settings that are no benchmark's, or at fault.
    """
    from pertwise.benchmark.engine import run_task

    data = settings if isinstance(settings, Mapping) else read_toml(settings)
    chosen = parts.find("task", task) if task else _task_of(data)
    if isinstance(settings, Mapping):
        checked = check_settings(settings, chosen.settings_of)
    else:
        checked = read_settings(settings, chosen.settings_of)
    return run_task(chosen(checked, replay=replay), out, **how)


def _task_of(data: Mapping[str, Any]) -> type[Task]:
    known: list[type[Task]] = [parts.find("task", name) for name in parts.names("task")]
    for found in known:
        if found.mark in data:
            return found
    marks = ", ".join(f"{found.mark} ({found.name})" for found in known)
    raise InputError(f"these settings belong to no benchmark; each has one of: {marks}")
