"""The acquisition task: rounds replayed on a finished screen, strategies x predictors x seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from pertwise import parts
from pertwise.acquire.base import AcquisitionState, Strategy
from pertwise.benchmark.acquisition.biology import (
    enriched_sets,
    module_coverage_by_round,
    relation_shares,
)
from pertwise.benchmark.acquisition.config import AcquisitionConfig, Curve, curves
from pertwise.benchmark.acquisition.loop_models import open_loop_model
from pertwise.benchmark.acquisition.replay import Replay, make_split
from pertwise.benchmark.acquisition.strategies import open_replay_strategy
from pertwise.benchmark.acquisition.tables import (
    CURVE,
    bias_table,
    curve_areas,
    hit_table,
    labels_needed,
    mean_bias,
    mean_hits,
    overlap,
    paired_differences,
    phase_differences,
    pick_table,
    round_table,
    sorted_rounds,
)
from pertwise.benchmark.acquisition.world import World, make_world
from pertwise.benchmark.engine import BenchmarkRun
from pertwise.benchmark.task import Played, Tables, Task, Unit
from pertwise.errors import InputError, PertwiseError
from pertwise.kernels.transfer import measured_in, of_line, without
from pertwise.knowledge import Knowledge
from pertwise.models.methods import file_checksums
from pertwise.provenance import checksum, contents, identity, input_facts
from pertwise.select.base import Selection


def target_free(config: AcquisitionConfig) -> frozenset[str]:
    """Labels of strategies that look at neither model nor target: one replay serves all targets."""
    free = set()
    for label, settings in config.strategies.items():
        part = parts.describe("strategy", str(settings.get("use", label)))
        if part.facts.more.get("target_free"):
            free.add(label)
    return frozenset(free)


class AcquisitionTask(Task):
    """Rounds of acquisition, each strategy on the same held-out sets.

    Beside its tables a unit keeps ``round_NN.json``, written as each round ends: a killed unit goes
    on in the middle. Chat strategies share one ledger, ``ledger.sqlite`` in the run folder.
    """

    name, mark, settings_of = "acquisition", "strategies", AcquisitionConfig
    scores, summary = "rounds.parquet", "areas.parquet"
    page_by = "pertwise.report.acquisition_page:write_run"
    settings: AcquisitionConfig

    @cached_property
    def world(self) -> World:
        """Reading the knowledge costs more than a unit of work: once a process."""
        return make_world(self.settings)

    @cached_property
    def inputs(self) -> Mapping[str, Mapping[str, str]]:
        """Screen and knowledge."""
        if not Path(self.settings.screen).is_file():
            raise InputError(f"no such file: {self.settings.screen}")
        found = {"screen": input_facts(self.settings.screen)}
        if self.settings.knowledge is not None:
            found["knowledge"] = input_facts(Knowledge.open(self.settings.knowledge))
        for i, file in enumerate(self.settings.ratings):
            found[f"ratings {i + 1}" if i else "ratings"] = input_facts(file)
        return found

    def units(self) -> list[Unit]:
        """Curves, seeds outermost."""
        settings = self.settings
        for label in settings.strategies:
            self._strategy(label, settings.protocol.first_seed)
        shared = [
            contents(self.inputs),
            settings.context,
            settings.embedding,
            settings.protocol.model_dump(
                mode="json", exclude={"seeds", "first_seed", "batch", "initial", "setting"}
            ),
        ]
        if settings.protocol.setting != "anywhere":
            shared.append(settings.protocol.setting)
        found = []
        for curve in curves(settings, target_free(settings)):
            labels = curve.model_dump()
            own = [
                settings.strategies[curve.strategy],
                _code("strategy", curve.strategy, settings.strategies[curve.strategy]),
                settings.predictors[curve.predictor],
                _code("predictor", curve.predictor, settings.predictors[curve.predictor]),
                [
                    t.model_dump(mode="json")
                    for t in settings.targets
                    if curve.target in ("*", t.name)
                ],
            ]
            chosen = settings.predictors[curve.predictor]
            if "other" in chosen:
                own.append(file_checksums(str(chosen.get("use", curve.predictor)), chosen))
            found.append(Unit(identity(labels, own, *shared), labels, curve))
        return found

    def _strategy(self, label: str, seed: int) -> Strategy:
        chosen = self.settings.strategies[label]
        return open_replay_strategy(
            label, chosen, self.settings, self.folder, seed=seed, replay=self.replay
        )

    def play(self, unit: Unit, place: Path | None) -> Tables:
        """Replay one curve."""
        return self._played(unit.what, self._strategy(unit.what.strategy, unit.what.seed), place)

    def stand_in(self, unit: Unit, error: PertwiseError, place: Path | None) -> Tables:
        """Random picks in every round that is left, said in a note."""
        tables = self._played(unit.what, _StandIn(unit.what.strategy), place)
        note = f"{unit.words}: {error}; random picks stand in"
        return {**tables, "notes": pd.DataFrame({"note": [*tables["notes"]["note"], note]})}

    @cached_property
    def elsewhere(self) -> frozenset[str]:
        """Perturbations that the other screens of any predictor measured.

        Raises
        ------
        pertwise.errors.InputError
            If there are none, or one is of the line that is asked about.
        """
        world, found = self.world, frozenset[str]()
        for settings in self.settings.predictors.values():
            there = measured_in(settings.get("other", ()), world.names, world.knowledge)
            found = found.union(*there.values())
            for label in there:
                if of_line(label, world.context):
                    raise InputError(
                        f"the other screen {label!r} is of the line that is asked about "
                        f'({world.context}): leave it out, or say setting = "anywhere"'
                    )
        if not found:
            raise InputError(
                'setting = "elsewhere", but no predictor has other screens (other = [FILE, ...]) '
                "that measured a perturbation of the screen"
            )
        return found

    def _played(self, curve: Curve, strategy: Strategy, place: Path | None) -> Tables:
        world = self.world
        rows = None
        if world.embedding is not None:
            rows = dict(zip(world.names, world.embedding, strict=True))
        chosen = self.settings.predictors[curve.predictor]
        protocol, scored = self.settings.protocol, None
        if protocol.setting == "elsewhere":
            scored = self.elsewhere
        elif "other" in chosen:
            held = make_split(world.names, protocol.heldout, curve.seed).heldout
            chosen = {**chosen, "other": without(chosen["other"], held, world.knowledge)}
        make = partial(open_loop_model, curve.predictor, chosen, rows, world.embedding_kind)
        records = Replay(world, curve, protocol, strategy, make, place, scored).run()
        return {
            "rounds": round_table(curve, records),
            "picks": pick_table(curve, records),
            "bias": bias_table(curve, records),
            "hits": hit_table(curve, records),
            "notes": pd.DataFrame({"note": sorted({r["note"] for r in records} - {""})}),
        }

    def gather(self, played: Sequence[Played]) -> Tables:
        """rounds, picks, areas, differences to random, phases, bias, hits, overlap, biology."""
        rounds = sorted_rounds([p.tables["rounds"] for p in played])
        picks = pd.concat([p.tables["picks"] for p in played], ignore_index=True)
        areas = curve_areas(rounds)
        tables = {"rounds.parquet": rounds, "picks.parquet": picks, "areas.parquet": areas}
        if "random" in set(areas["strategy"]):
            tables["differences.csv"] = paired_differences(areas)
            tables["phases.csv"] = phase_differences(areas)
            tables["labels_needed.csv"] = labels_needed(rounds)
        # A unit that an older version played does not tell.
        tables["bias.csv"] = mean_bias([p.tables["bias"] for p in played if "bias" in p.tables])
        tables["hits.csv"] = mean_hits([p.tables["hits"] for p in played if "hits" in p.tables])
        return {**tables, "overlap.csv": overlap(picks), **self._biology(picks)}

    def _biology(self, picks: pd.DataFrame) -> Tables:
        """What the picks mean, where there is knowledge to read them by."""
        world = self.world
        if world.knowledge is None:
            return {}
        found = {
            "coverage.csv": module_coverage_by_round(picks, world),
            "relations.csv": relation_shares(picks, world),
        }
        if "reactome" in world.knowledge.graph_names():
            membership = world.knowledge.features("reactome", world.names)
            names = world.knowledge.feature_names("reactome")
            found["enrichment.csv"] = enriched_sets(picks, world.names, membership, names)
        return found

    def unanswered(self, run: BenchmarkRun[Any]) -> dict[str, list[dict[str, Any]]]:
        """Chat strategies of which every pick is a fallback's."""
        found = {}
        picks = run.read("picks.parquet")
        for label, settings in self.settings.strategies.items():
            own = picks[picks["strategy"] == label]
            part = parts.describe("strategy", str(settings.get("use", label)))
            if "chat" in part.facts.needs and len(own) and own["pick_fallback"].all():
                rounds = own.drop_duplicates([*CURVE, "seed", "round"])
                kinds = [k for text in rounds["repairs"] for k in text.split(", ") if k]
                found[label] = [{"kind": kind, "action": ""} for kind in kinds]
        return found

    def more(self) -> dict[str, Any]:
        """Whether the screen comes from the simulator."""
        return {"simulated": self.world.screen.simulated}


class _StandIn:
    """Random picks for a strategy that failed, each selection marked as its fallback."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._inner: Strategy = parts.load("strategy", "random")

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Draw with the state's generator."""
        return replace(self._inner.choose(state, n), source=self.name, fallback=True)


def _code(kind: str, label: str, settings: Mapping[str, Any]) -> str:
    """Checksum of a user's own file; "" for what is built in."""
    part = parts.describe(kind, str(settings.get("use", label)))
    return checksum(part.file) if part.file else ""
