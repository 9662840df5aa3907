"""A run: all units of a config, in a folder that can be killed, resumed, read and audited."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel

from pertwise import __version__
from pertwise._files import PART, read_frame, read_json, read_json_object, readable
from pertwise._io import (
    atomic_path,
    optional_import,
    sha256_file,
    sha256_text,
    write_json_atomic,
)
from pertwise._progress import track
from pertwise.acquire.base import Strategy
from pertwise.errors import InputError
from pertwise.evaluate.acquisition.biology import (
    enriched_sets,
    module_coverage_by_round,
    relation_shares,
)
from pertwise.evaluate.acquisition.config import AcquisitionConfig, Executor, Unit, units
from pertwise.evaluate.acquisition.loop_models import open_loop_model
from pertwise.evaluate.acquisition.replay import Replay, read_round
from pertwise.evaluate.acquisition.strategies import open_replay_strategy
from pertwise.evaluate.acquisition.tables import (
    DIFFERENCES,
    curve_areas,
    labels_needed,
    overlap,
    paired_differences,
    pick_table,
    round_table,
)
from pertwise.evaluate.acquisition.world import World, make_world

log = logging.getLogger(__name__)

_NEW = "start a new folder"


class _Facts(BaseModel):
    inputs: dict[str, Any]
    packages: dict[str, str]
    pertwise: str
    python: str
    settings_sha256: str


Records = list[dict[str, Any]]
Payload = tuple[str, str, str, bool]


def target_free(config: AcquisitionConfig) -> frozenset[str]:
    """Labels of strategies that look at neither model nor target: one replay serves all targets."""
    free = set()
    for label, settings in config.strategies.items():
        use = str(settings.get("use", label))
        if use in {"random", "coreset", "typiclust", "variance_reduction"}:
            free.add(label)
    return frozenset(free)


@lru_cache(maxsize=2)
def _world(config_json: str) -> World:
    """One world a process: reading the knowledge costs more than a unit of work."""
    return make_world(AcquisitionConfig.model_validate_json(config_json))


def run_unit(config_json: str, unit_json: str, folder: str, replay: bool = False) -> Records:
    """Replay one unit; the function that worker processes and dask workers call.

    With `replay`, chat strategies answer from the ledger of the run and never call out.
    """
    config = AcquisitionConfig.model_validate_json(config_json)
    unit = Unit.model_validate_json(unit_json)
    world = _world(config_json)
    strategy: Strategy = open_replay_strategy(
        unit.strategy,
        config.strategies[unit.strategy],
        config,
        Path(folder),
        seed=unit.seed,
        replay=replay,
    )
    rows = None
    if world.embedding is not None:
        rows = dict(zip(world.names, world.embedding, strict=True))
    make = partial(
        open_loop_model,
        unit.predictor,
        config.predictors[unit.predictor],
        rows,
        world.embedding_kind,
    )
    rounds = Path(folder) / "units" / unit.key
    before = sorted(rounds.glob("round_*.json"))
    wall, cpu = time.perf_counter(), time.process_time()
    records = Replay(world, unit, config.protocol, strategy, make, rounds).run()
    if not before:
        # Only an unbroken unit has a time worth telling; it is no part of any result table.
        seconds = {"wall": time.perf_counter() - wall, "processor": time.process_time() - cpu}
        write_json_atomic(rounds / "seconds.json", seconds)
    return records


def _limit_threads(n: int = 1) -> None:
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


class Run:
    """A folder with config, provenance, units, tables and the ledger of a replay benchmark.

    Layout: ``config.json``, ``provenance.json``, ``units/<unit>/round_NN.json`` (written as each
    round ends), ``ledger.sqlite`` (with a chat strategy), and after completion ``rounds.parquet``,
    ``picks.parquet``, ``areas.parquet``, ``differences.csv``, ``labels_needed.csv``,
    ``overlap.csv``.
    """

    def __init__(self, folder: str | os.PathLike[str], config: AcquisitionConfig) -> None:
        self.folder, self.config = Path(folder), config

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], config: AcquisitionConfig, *, resume: bool = False
    ) -> Run:
        """Start a run, or go on with one made by the same config and inputs.

        Raises
        ------
        pertwise.errors.InputError
            When the folder holds a run and `resume` is False, or another config or other inputs.
        """
        path = Path(folder)
        stored = path / "config.json"
        run = cls(path, config)
        if stored.is_file():
            if not resume:
                raise InputError(
                    f"{path} already holds a run: give --resume to go on with it, or another folder"
                )
            before = read_json_object(stored, "the settings of a run", _NEW)
            now = json.loads(config.model_dump_json())
            if before != now:
                changed = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
                raise InputError(
                    f"{path} was made with other settings ({', '.join(changed)}): resume with the "
                    "same config, or start a new folder"
                )
            known = run.facts()
            inputs = run.inputs()
            if known["inputs"] != inputs:
                raise InputError(
                    f"the inputs of {path} have changed since it was started "
                    f"(then {known['inputs']}, now {inputs}): start a new folder"
                )
            return run
        path.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path / "provenance.json", run.provenance())
        write_json_atomic(stored, json.loads(config.model_dump_json()))
        return run

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """A run made before."""
        stored = Path(folder) / "config.json"
        if not stored.is_file():
            raise InputError(f"{folder} is no run folder: it has no config.json")
        values = read_json_object(stored, "the settings of a run", _NEW)
        return cls(folder, AcquisitionConfig.parse(values, where=str(stored)))

    def facts(self) -> dict[str, Any]:
        """`provenance` as it was stored when the run was started."""
        file = self.folder / "provenance.json"
        found = read_json_object(file, "the provenance of a run", _NEW)
        with readable(file, "the provenance of a run", _NEW):
            _Facts.model_validate(found)
        return found

    def inputs(self) -> dict[str, Any]:
        """Names and checksums of everything read."""
        found: dict[str, Any] = {
            "screen": {
                "name": Path(self.config.screen).name,
                "sha256": sha256_file(self.config.screen),
            }
        }
        if self.config.knowledge is not None:
            from pertwise.knowledge import Knowledge

            knowledge = Knowledge.open(self.config.knowledge)
            found["knowledge"] = {"fingerprint": knowledge.fingerprint()}
        return found

    def provenance(self) -> dict[str, Any]:
        """Versions, platform, inputs and the hash of the settings."""
        packages = {}
        for name in ("numpy", "scipy", "scikit-learn", "pandas", "torch"):
            try:
                packages[name] = version(name)
            except PackageNotFoundError:
                continue
        return {
            "pertwise": __version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "packages": packages,
            "settings_sha256": sha256_text(self.config.model_dump_json()),
            "inputs": self.inputs(),
        }

    def units(self) -> tuple[Unit, ...]:
        """All units, in the order they are started."""
        return units(self.config, target_free(self.config))

    def execute(
        self,
        *,
        executor: Executor = "serial",
        workers: int = 2,
        address: str | None = None,
        replay: bool = False,
    ) -> None:
        """Run what is missing, then write the tables.

        The result does not depend on the executor: every unit seeds itself. With dask, workers
        must see the same paths as this process.
        """
        todo = self.units()
        payloads = [
            (self.config.model_dump_json(), u.model_dump_json(), str(self.folder.resolve()), replay)
            for u in todo
        ]
        log.info("%d units, executor %s", len(todo), executor)
        if executor == "serial":
            done: Iterator[Any] = (run_unit(*p) for p in payloads)
        elif executor == "processes":
            done = _in_processes(payloads, workers)
        else:
            done = _on_dask(payloads, address, workers)
        for _ in track(done, "replaying", total=len(todo)):
            pass
        self.write_tables()

    def results(self) -> list[tuple[Unit, Records]]:
        """Every unit with the rounds it has on disk, complete or not."""
        found = []
        for unit in self.units():
            folder = self.folder / "units" / unit.key
            files = sorted(folder.glob("round_*.json")) if folder.is_dir() else []
            found.append((unit, [read_round(f) for f in files]))
        return found

    def write_tables(self) -> None:
        """Tables from whatever rounds are on disk; readable without pertwise."""
        results = [(u, r) for u, r in self.results() if r]
        if not results:
            raise InputError(f"{self.folder} holds no finished round yet")
        rounds = round_table(results)
        picks = pick_table(results)
        areas = curve_areas(rounds)
        self._write(rounds, "rounds.parquet")
        self._write(picks, "picks.parquet")
        self._write(areas, "areas.parquet")
        if "random" in set(areas["strategy"]):
            self._write(paired_differences(areas), "differences.csv")
            self._write(labels_needed(rounds), "labels_needed.csv")
        self._write(overlap(picks), "overlap.csv")
        self._write_biology(picks)

    def _write_biology(self, picks: pd.DataFrame) -> None:
        """What the picks mean, where there is knowledge to read them by."""
        world = _world(self.config.model_dump_json())
        if world.knowledge is None:
            return
        self._write(module_coverage_by_round(picks, world), "coverage.csv")
        self._write(relation_shares(picks, world), "relations.csv")
        if "reactome" not in world.knowledge.graph_names():
            return
        membership = world.knowledge.features("reactome", world.names)
        names = world.knowledge.feature_names("reactome")
        self._write(enriched_sets(picks, world.names, membership, names), "enrichment.csv")

    def _write(self, table: pd.DataFrame, name: str) -> None:
        with atomic_path(self.folder / name) as temporary:
            if name.endswith(".parquet"):
                table.to_parquet(temporary, index=False)
            else:
                table.to_csv(temporary, index=False)

    def table(self, name: str) -> pd.DataFrame:
        """A table written by `write_tables`."""
        path = self.folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing: the run is not finished; resume it")
        return read_frame(path, "a table of this run", PART)

    def differences(self) -> pd.DataFrame:
        """`paired_differences` to random; without rows where there was nothing to compare."""
        if not (self.folder / "differences.csv").is_file():
            return pd.DataFrame(columns=list(DIFFERENCES))
        return self.table("differences.csv")

    def notes(self) -> list[str]:
        """What the protocol had to change, e.g. fewer rounds than asked for."""
        return sorted({r["note"] for _, records in self.results() for r in records if r["note"]})

    def seconds(self) -> pd.DataFrame:
        """Time of every unbroken unit: predictor, strategy, wall and processor seconds."""
        rows = []
        for unit in self.units():
            file = self.folder / "units" / unit.key / "seconds.json"
            if file.is_file():
                with readable(file, "times of a unit", PART):
                    spent = read_json(file)
                    rows.append((unit.predictor, unit.strategy, spent["wall"], spent["processor"]))
        return pd.DataFrame(rows, columns=["predictor", "strategy", "wall", "processor"])


def _in_processes(payloads: Sequence[Payload], workers: int) -> Iterator[Any]:
    """Units over local processes, in the order they finish; the first error stops the rest."""
    import multiprocessing

    # spawn: a forked child of a process that has used BLAS or torch threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_limit_threads) as pool:
        pending: set[Future[Records]] = {pool.submit(run_unit, *p) for p in payloads}
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _on_dask(payloads: Sequence[Payload], address: str | None, workers: int) -> Iterator[Any]:
    """Units on a dask cluster: by scheduler address, or a local one of `workers` processes."""
    distributed = optional_import("distributed", "dask", "running on a dask cluster")
    cluster = (
        None
        if address
        else distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None
        )
    )
    with distributed.Client(address or cluster) as client:
        client.run(_limit_threads)
        futures = client.map(
            run_unit, *[list(column) for column in zip(*payloads, strict=True)], pure=False
        )
        for _, result in distributed.as_completed(futures, with_results=True):
            yield result
    if cluster is not None:
        cluster.close()
