"""Who is better? `bench` runs any benchmark: one engine, a task for each question."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pertwise.config import check_settings, read_settings, read_toml
from pertwise.errors import InputError, unknown_name

if TYPE_CHECKING:
    from pertwise.benchmark.engine import BenchmarkRun

#: Task -> class, and the setting that only it has.
TASKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "acquisition": ("pertwise.benchmark.acquisition.run:AcquisitionTask", "strategies"),
        "prefilter": ("pertwise.benchmark.prefilter:PrefilterTask", "prefilters"),
        "perturbqa": ("pertwise.benchmark.perturbqa:PerturbqaTask", "labels"),
        "judges": ("pertwise.benchmark.acquisition.judged:JudgeTask", "judges"),
        "drugs": ("pertwise.benchmark.drugs.run:DrugTask", "data"),
        "prediction": ("pertwise.benchmark.prediction.run:PredictionTask", "methods"),
    }
)


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
        One of `TASKS`; by default the one that the settings belong to.
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
    kind = task or next((name for name, (_, mark) in TASKS.items() if mark in data), "")
    if not kind:
        marks = ", ".join(f"{mark} ({name})" for name, (_, mark) in TASKS.items())
        raise InputError(f"these settings belong to no benchmark; each has one of: {marks}")
    if kind not in TASKS:
        raise unknown_name("benchmark", kind, TASKS)
    chosen = pkgutil.resolve_name(TASKS[kind][0])
    if isinstance(settings, Mapping):
        checked = check_settings(settings, chosen.settings_of)
    else:
        checked = read_settings(settings, chosen.settings_of)
    return run_task(chosen(checked, replay=replay), out, **how)
