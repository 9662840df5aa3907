"""Run every (method, split) once, keep each result in its own file, resume where it stopped."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pertwise import __version__, parts
from pertwise._io import atomic_path, sha256_file, write_json_atomic
from pertwise._process import in_processes, only_writer
from pertwise._progress import track
from pertwise.benchmark.prediction.config import MethodSpec, PredictionConfig, SplitSpec
from pertwise.errors import InputError
from pertwise.evaluate.cells import CellBank, open_cell_bank, split_half_table
from pertwise.evaluate.specs import ORACLE
from pertwise.evaluate.splits import Split
from pertwise.evaluate.units import UnitResult, run_unit, unit_key
from pertwise.models.methods import Method, asks_chat, make_method
from pertwise.screen.training import one_context

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
    if config.split.trains_elsewhere:
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
    splitter = parts.describe("split", spec.kind).serve(
        n_folds=spec.folds,
        n_shuffles=spec.shuffles,
        n_repeats=spec.shuffles,
        sizes=spec.train_sizes,
        test_share=spec.test_share,
        unseen_share=spec.unseen_share,
        path=spec.folds_from,
        source=list(inputs.source.obs["perturbation"]),
        **spec.settings,
    )
    splits: list[Split] = splitter(perturbations=names, seed=config.seed)
    return splits


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
    tables = {"neighbours": result.neighbours, "answers": result.answers, "means": result.means}
    for name, table in tables.items():
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
            asking = _with_account(method, folder)
            wanted.append(_Job(asking, split, spec.knowledge, units / f"{key}.parquet"))
    missing = [job for job in wanted if not _complete(job, config)]
    if inputs is not None and jobs > 1:
        raise InputError("inputs that are already open run in one process; leave jobs at 1")
    with only_writer(folder):
        for _ in track(_execute(missing, config, opened, jobs), "Predicting", total=len(missing)):
            pass
        _collect(folder, [job.target for job in wanted])
        items = _items(folder, config, opened)
        with atomic_path(folder / "items.parquet") as temporary:
            items.to_parquet(temporary)
        write_json_atomic(folder / "provenance.json", _provenance(config, opened, splits, methods))
    return folder


def _with_account(method: Method, folder: Path) -> Method:
    """A method that asks a chat model, with one ledger and one account for all of its units."""
    if method.use == ORACLE or not asks_chat(method.use, method.settings):
        return method
    settings = {"ledger": str(folder / "ledger.sqlite"), **method.settings}
    settings["chat_settings"] = {"run": method.label, **settings.get("chat_settings", {})}
    return replace(method, settings=settings)


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
    todo = [(job,) for job in missing]
    yield from in_processes(_do_in_worker, todo, min(jobs, len(todo)), _start_worker, (config,))


def without_answers(folder: Path, config: PredictionConfig) -> dict[str, list[dict[str, Any]]]:
    """Methods of which no answer of a chat model could be used -> what was wrong."""
    found: dict[str, list[dict[str, Any]]] = {}
    path = folder / "answers.parquet"
    answers = pd.read_parquet(path).astype({"method": str}) if path.exists() else pd.DataFrame()
    results = pd.read_parquet(folder / "results.parquet", columns=["method", "error"]).astype(str)
    for spec in config.methods:
        if spec.use == ORACLE or not asks_chat(spec.use, spec.settings):
            continue
        said = answers[answers["method"] == spec.name] if len(answers) else answers
        errors = results.loc[results["method"] == spec.name, "error"]
        if len(said) and bool(said["fallback"].all()):
            found[spec.name] = said[["kind", "action"]].to_dict("records")
        elif not len(said) and bool((errors != "").all()):
            found[spec.name] = [{"kind": "failed", "action": e} for e in errors.unique()]
    return found


def _collect(folder: Path, targets: Sequence[Path]) -> None:
    tables = {
        "results": [pd.read_parquet(t) for t in targets],
        "neighbours": _optional(targets, "neighbours"),
        "answers": _optional(targets, "answers"),
        "means": _optional(targets, "means"),
    }
    for name, pieces in tables.items():
        path = folder / f"{name}.parquet"
        if not pieces:
            path.unlink(missing_ok=True)
            continue
        table = pd.concat(pieces, ignore_index=True)
        for column in ("method", "split", "perturbation", "stratum", "metric", "error"):
            if column in table:
                table[column] = table[column].astype("category")
        with atomic_path(path) as temporary:
            table.to_parquet(temporary, index=False)


def _optional(targets: Sequence[Path], name: str) -> list[pd.DataFrame]:
    files = [t.with_suffix(f".{name}.parquet") for t in targets]
    return [pd.read_parquet(f) for f in files if f.exists()]


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
