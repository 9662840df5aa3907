"""Run every (method, split) once, keep each result in its own file, resume where it stopped."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pertwise import __version__
from pertwise._files import PART, read_frame
from pertwise._io import atomic_path, sha256_file, write_json_atomic
from pertwise._progress import track
from pertwise.errors import InputError
from pertwise.evaluate.methods import Method, make_method
from pertwise.evaluate.prediction.cells import CellBank, open_cell_bank, split_half_table
from pertwise.evaluate.prediction.config import ORACLE, MethodSpec, PredictionConfig, SplitSpec
from pertwise.evaluate.prediction.units import UnitResult, run_unit, unit_key
from pertwise.evaluate.splits import (
    Split,
    split_doubles,
    split_folds,
    split_given,
    split_growing,
)

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

_COMPONENT = re.compile(r"(?i)^(pc|component|dim|factor|latent)[_ -]?\d+$")


@dataclass(frozen=True)
class Inputs:
    """What a benchmark reads, opened once.

    Attributes
    ----------
    screen
        Measured rows of one context: held-out truths and retrieval candidates.
    source
        What is trained on; `screen` itself except in transfer.
    knowledge
        Folder opened, or None.
    checksums
        file -> sha256 (the knowledge folder by its fingerprint).
    """

    screen: Screen
    source: Screen
    knowledge: Knowledge | None
    checksums: dict[str, str]
    #: Single cells of the screen, where given.
    cells: CellBank | None = None

    @property
    def fingerprint(self) -> str:
        """All checksums in one text, for the keys of units."""
        return "|".join(f"{k}={v}" for k, v in sorted(self.checksums.items()))


def one_context(screen: Screen, context: str | None, where: str) -> Screen:
    """Measured rows of one context, one row per perturbation.

    Raises
    ------
    pertwise.errors.InputError
        If several contexts are there and none was chosen, nothing is measured, or a perturbation
        has several doses.
    """
    if context is None and len(screen.contexts) > 1:
        raise InputError(
            f"{where} holds the contexts {', '.join(map(repr, screen.contexts))}; choose one with "
            'context = "..."'
        )
    part = screen if context is None else screen.in_context(context)
    part = part.only_measured()
    if not len(part):
        raise InputError(f"{where}: no perturbation is measured")
    twice = part.obs["perturbation"].duplicated()
    if twice.any():
        name = part.obs["perturbation"][twice].iloc[0]
        raise InputError(
            f"{where}: {name!r} has several rows (doses); keep one dose per perturbation first"
        )
    return part


def open_inputs(config: PredictionConfig) -> Inputs:
    """Read the files of a benchmark.

    Raises
    ------
    pertwise.errors.InputError
        For unreadable files, or a transfer between screens that share no feature or only
        component names (PC1 of one file is not PC1 of another).
    """
    from pertwise.screen import read_screen

    checksums = {config.screen: _checksum(config.screen)}
    whole = read_screen(config.screen)
    screen = one_context(whole, config.context, config.screen)
    source = screen
    if config.split.kind == "transfer":
        spec = config.split
        origin = spec.source or config.screen
        if spec.source:
            checksums[spec.source] = _checksum(spec.source)
        other = read_screen(spec.source) if spec.source else whole
        source = one_context(other, spec.source_context, origin)
        screen, source = _shared_features(screen, source, spec)
    knowledge = None
    if config.knowledge is not None:
        from pertwise.knowledge import Knowledge

        knowledge = Knowledge.open(config.knowledge)
        checksums[config.knowledge] = knowledge.fingerprint()
    if config.split.folds_from:
        checksums[config.split.folds_from] = _checksum(config.split.folds_from)
    cells = None
    if config.cells is not None:
        checksums[config.cells.file] = _checksum(config.cells.file)
        cells = open_cell_bank(config.cells, screen, config.seed)
    return Inputs(screen, source, knowledge, checksums, cells)


def _checksum(path: str) -> str:
    if not Path(path).is_file():
        raise InputError(f"no such file: {path}")
    return sha256_file(path)


def _shared_features(screen: Screen, source: Screen, spec: SplitSpec) -> tuple[Screen, Screen]:
    theirs = set(source.features)
    shared = [f for f in screen.features if f in theirs]
    if not shared:
        raise InputError(
            f"transfer needs common features: the screen has {screen.features[0]!r} ..., the "
            f"source {source.features[0]!r} ..."
        )
    if all(_COMPONENT.match(f) for f in shared) and not spec.same_components:
        raise InputError(
            f"both files measure components ({shared[0]!r} ...), which need not be the same axes; "
            "set same_components = true only if both were projected on one basis"
        )
    return screen.of_features(shared), source.of_features(shared)


def make_splits(config: PredictionConfig, inputs: Inputs) -> list[Split]:
    """The splits of a benchmark, the same for every method."""
    spec, names = config.split, list(inputs.screen.obs["perturbation"])
    if spec.kind == "folds":
        return split_folds(names, spec.folds, spec.shuffles, config.seed)
    if spec.kind == "growing":
        return split_growing(names, spec.train_sizes, spec.shuffles, config.seed, spec.test_share)
    if spec.kind == "doubles":
        return split_doubles(names, spec.shuffles, config.seed, unseen_share=spec.unseen_share)
    if spec.kind == "given":
        return split_given(names, str(spec.folds_from))
    train = tuple(sorted(inputs.source.obs["perturbation"]))
    known = set(train)
    strata = {n: "measured in source" if n in known else "new" for n in names}
    return [Split("transfer", 0, 0, train, tuple(sorted(names)), strata)]


def make_methods(specs: Sequence[MethodSpec]) -> list[Method]:
    """Methods of a benchmark, each checked to exist and to take its settings."""
    out = []
    for spec in specs:
        if spec.use == ORACLE:
            out.append(Method(spec.name, ORACLE, {}))
        else:
            out.append(make_method(spec.use, spec.name, **spec.settings))
    return out


@dataclass(frozen=True)
class _Job:
    method: Method
    split: Split
    use_knowledge: bool
    target: Path


class _Worker:
    """Runs jobs in a child process that opened the inputs once."""

    inputs: Inputs
    config: PredictionConfig


def _start_worker(config: PredictionConfig) -> None:
    _Worker.config = config
    _Worker.inputs = open_inputs(config)


def _do_in_worker(job: _Job) -> None:
    _do(job, _Worker.config, _Worker.inputs)


def _do(job: _Job, config: PredictionConfig, inputs: Inputs) -> None:
    result = run_unit(
        job.method,
        job.split,
        inputs.screen,
        inputs.source,
        inputs.knowledge if job.use_knowledge else None,
        config.metrics,
        keep_means=config.keep_predictions,
        cells=inputs.cells,
    )
    _store(result, job.target)


def _store(result: UnitResult, target: Path) -> None:
    """Scores last: their file is the sign that the whole unit is there."""
    parts = {"neighbours": result.neighbours, "answers": result.answers, "means": result.means}
    for name, table in parts.items():
        if table is not None:
            with atomic_path(target.with_suffix(f".{name}.parquet")) as temporary:
                table.to_parquet(temporary, index=False)
    scores = result.scores.assign(seconds=result.facts["seconds"], error=result.facts["error"])
    with atomic_path(target) as temporary:
        scores.to_parquet(temporary, index=False)


def run_prediction(
    config: PredictionConfig,
    out: str | os.PathLike[str],
    *,
    jobs: int = 1,
    inputs: Inputs | None = None,
) -> Path:
    """Run what is missing of a benchmark and write its tables.

    Every (method, split) is one file in ``OUT/units``, named by a hash over all that decides it
    (inputs, method, settings, code of a user's file, split, metric settings): an interrupted run
    goes on where it stopped, and a changed setting never reuses an old result.

    Parameters
    ----------
    jobs
        Processes; 1 runs in this one.
    inputs
        Already opened inputs (then `jobs` must be 1).

    Returns
    -------
    The folder, holding results.parquet, neighbours.parquet and answers.parquet (if any),
    items.parquet and provenance.json.
    """
    folder = Path(out)
    opened = open_inputs(config) if inputs is None else inputs
    splits = make_splits(config, opened)
    methods = make_methods(config.methods)
    units = folder / "units"
    units.mkdir(parents=True, exist_ok=True)
    wanted: list[_Job] = []
    for spec, method in zip(config.methods, methods, strict=True):
        for split in splits:
            key = unit_key(method, split, f"{opened.fingerprint}|{spec.knowledge}", config.metrics)
            wanted.append(_Job(method, split, spec.knowledge, units / f"{key}.parquet"))
    missing = [job for job in wanted if not _complete(job, config)]
    if inputs is not None and jobs > 1:
        raise InputError("inputs that are already open run in one process; leave jobs at 1")
    for _ in track(_execute(missing, config, opened, jobs), "Predicting", total=len(missing)):
        pass
    _collect(folder, [job.target for job in wanted])
    items = _items(folder, config, opened)
    with atomic_path(folder / "items.parquet") as temporary:
        items.to_parquet(temporary)
    write_json_atomic(folder / "provenance.json", _provenance(config, opened, splits, methods))
    return folder


def _complete(job: _Job, config: PredictionConfig) -> bool:
    if config.keep_predictions and not job.target.with_suffix(".means.parquet").exists():
        return False
    return job.target.exists()


def _execute(
    missing: Sequence[_Job], config: PredictionConfig, inputs: Inputs, jobs: int
) -> Iterator[None]:
    if jobs <= 1 or len(missing) <= 1:
        for job in missing:
            _do(job, config, inputs)
            yield
        return
    # spawn: forking a process that holds BLAS or torch threads can hang.
    with ProcessPoolExecutor(
        min(jobs, len(missing)), get_context("spawn"), _start_worker, (config,)
    ) as pool:
        yield from pool.map(_do_in_worker, missing)


def _collect(folder: Path, targets: Sequence[Path]) -> None:
    tables = {
        "results": [_part(t) for t in targets],
        "neighbours": _optional(targets, "neighbours"),
        "answers": _optional(targets, "answers"),
        "means": _optional(targets, "means"),
    }
    for name, parts in tables.items():
        path = folder / f"{name}.parquet"
        if not parts:
            path.unlink(missing_ok=True)
            continue
        table = pd.concat(parts, ignore_index=True)
        for column in ("method", "split", "perturbation", "stratum", "metric", "error"):
            if column in table:
                table[column] = table[column].astype("category")
        with atomic_path(path) as temporary:
            table.to_parquet(temporary, index=False)


def _part(file: Path) -> pd.DataFrame:
    return read_frame(file, "a finished part of this run", PART)


def _optional(targets: Sequence[Path], name: str) -> list[pd.DataFrame]:
    files = [t.with_suffix(f".{name}.parquet") for t in targets]
    return [_part(f) for f in files if f.exists()]


def _items(folder: Path, config: PredictionConfig, inputs: Inputs) -> pd.DataFrame:
    """`item_table`; with cells the ceilings come from split halves instead of variances."""
    items = item_table(inputs.screen).assign(ceiling_from="sampling variance")
    if inputs.cells is None or config.cells is None:
        return items
    halves = split_half_table(inputs.cells, list(items.index), config.cells.n_splits, config.seed)
    for kind in ("pearson", "cosine"):
        value = halves[f"replicate_{kind}"].reindex(items.index).clip(0.0, 1.0)
        items[f"replicate_{kind}"], items[f"perfect_{kind}"] = value, value**0.5
    return items.assign(ceiling_from="split halves of cells")


def item_table(screen: Screen) -> pd.DataFrame:
    """What is known of every measured perturbation before any prediction.

    Columns: n_cells; effect, noise, replicate_cosine, perfect_cosine, replicate_pearson,
    perfect_pearson (`pertwise.evaluate.ceiling.ceiling_from_variance`; NaN without sampling
    variance, effect then being the plain length of the response); control_likeness = noise /
    (squared length of the response), cut to [0, 1]: 1 = not distinguishable from control.
    """
    import numpy as np

    from pertwise.evaluate.ceiling import ceiling_from_variance

    variance: Any = screen.sampling_variance
    if variance is None:
        variance = screen.obs["sampling_variance"].to_numpy(dtype=float)
    by_cosine = ceiling_from_variance(screen.responses, variance)
    by_pearson = ceiling_from_variance(screen.responses, variance, similarity="pearson")
    size = np.nansum(np.asarray(screen.responses, dtype=np.float64) ** 2, axis=1)
    noise = by_cosine["noise"].to_numpy()
    likeness = np.full(len(size), np.nan)
    np.divide(noise, size, out=likeness, where=size > 0)
    return pd.DataFrame(
        {
            "n_cells": screen.obs["n_cells"].to_numpy(dtype=float),
            "effect": by_cosine["effect"].fillna(pd.Series(np.sqrt(size))).to_numpy(),
            "noise": noise,
            "control_likeness": np.clip(likeness, 0.0, 1.0),
            "replicate_cosine": by_cosine["replicate"].to_numpy(),
            "perfect_cosine": by_cosine["perfect"].to_numpy(),
            "replicate_pearson": by_pearson["replicate"].to_numpy(),
            "perfect_pearson": by_pearson["perfect"].to_numpy(),
        },
        index=pd.Index(screen.obs["perturbation"], name="perturbation"),
    )


def _provenance(
    config: PredictionConfig, inputs: Inputs, splits: Sequence[Split], methods: Sequence[Method]
) -> dict[str, Any]:
    versions = {}
    for package in ("numpy", "scipy", "pandas", "scikit-learn", "torch", "anndata"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "pertwise": __version__,
        "python": platform.python_version(),
        "versions": versions,
        "config": config.model_dump(mode="json"),
        "inputs_sha256": inputs.checksums,
        "methods": [
            {
                "label": m.label,
                "use": m.use,
                "settings": dict(m.settings),
                "code_sha256": m.sha256 or None,
                "files_sha256": dict(m.files),
            }
            for m in methods
        ],
        "splits": [s.key() | {"strata": dict(s.strata)} for s in splits],
        "simulated": inputs.screen.simulated,
        "screen": {
            "perturbations": len(inputs.screen),
            "features": inputs.screen.n_features,
            "contexts": list(inputs.screen.contexts),
            "meta": {
                k: v for k, v in inputs.screen.meta.items() if isinstance(v, (str, bool, int))
            },
        },
    }
