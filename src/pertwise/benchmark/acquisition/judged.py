"""Judging a run: pairs from its picks, judges from addresses, tables into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import field_validator

from pertwise.benchmark.acquisition.run import AcquisitionTask
from pertwise.benchmark.acquisition.world import make_world
from pertwise.benchmark.engine import BenchmarkRun
from pertwise.benchmark.judging import (
    Showing,
    ask_judges,
    estimate_cost,
    judge_tables,
    make_pairs,
    make_showings,
)
from pertwise.benchmark.task import Played, Tables, Task, Unit
from pertwise.config import FileName, Settings
from pertwise.errors import InputError
from pertwise.llm import open_chat, parse_address
from pertwise.llm.base import Chat
from pertwise.provenance import identity, input_facts


class JudgeConfig(Settings):
    """Who judges which batches of which run of `bench acquisition`."""

    run: FileName
    judges: tuple[str, ...]
    #: Compare every strategy with this one only; None = all pairs.
    reference: str | None = None
    rounds: tuple[int, ...] | None = None
    #: At most so many pairs, drawn at random.
    max_pairs: int | None = None
    seed: int = 0
    context_text: str = ""

    @field_validator("judges")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Without the query of their addresses, which is nobody's business in tables."""
        if not value:
            raise ValueError("name at least one judge (--llm MODEL@URL)")
        named = tuple(str(parse_address(j)) for j in value)
        if len(set(named)) != len(named):
            raise ValueError(f"each judge must be named once, got {list(named)}")
        return named


class JudgeTask(Task):
    """A panel of chat models over the batches of a run; the ledger keeps what they said, so an
    interrupted panel goes on where it stopped, with nothing paid twice.

    Parameters
    ----------
    addresses
        Of the judges, in full (`JudgeConfig` keeps no query).
    limits
        Settings of each judge's chat (budget_usd, ...); a budget holds for all reruns of a judge
        together.
    """

    name, mark, settings_of = "judges", "judges", JudgeConfig
    scores, summary = "answers.csv", "overall.csv"
    keeps_units = False
    settings: JudgeConfig

    def __init__(
        self,
        settings: JudgeConfig,
        *,
        addresses: Sequence[str] = (),
        replay: bool = False,
        **limits: Any,
    ) -> None:
        super().__init__(settings, replay=replay)
        self.addresses, self.limits = tuple(addresses) or settings.judges, limits

    @property
    def place(self) -> Path:
        """Where a panel is written: ``judge/`` in the folder of the run."""
        return Path(self.settings.run) / "judge"

    @cached_property
    def judged(self) -> BenchmarkRun[AcquisitionTask]:
        """The run that is judged."""
        return BenchmarkRun.open(self.settings.run, AcquisitionTask)

    @cached_property
    def inputs(self) -> Mapping[str, Mapping[str, str]]:
        """The picks of the run."""
        self.judged.read("picks.parquet")
        return {"picks": input_facts(Path(self.settings.run) / "picks.parquet")}

    @cached_property
    def showings(self) -> list[Showing]:
        """Blinded prompts, the same for every judge.

        Raises
        ------
        pertwise.errors.InputError
            No two strategies have different batches.
        """
        settings = self.settings
        rng = np.random.default_rng(settings.seed)
        picks = self.judged.read("picks.parquet")
        pairs = make_pairs(picks, reference=settings.reference, rounds=settings.rounds, rng=rng)
        if not pairs:
            raise InputError(f"{settings.run}: no two strategies with different batches to compare")
        if settings.max_pairs is not None and len(pairs) > settings.max_pairs:
            kept = np.sort(rng.choice(len(pairs), size=settings.max_pairs, replace=False))
            pairs = [pairs[i] for i in kept]
        world = make_world(self.judged.task.settings)
        return make_showings(
            pairs,
            settings.judges,
            {t.name: t.pathway for t in world.targets.values()},
            rng=rng,
            context=world.context,
            context_text=settings.context_text,
        )

    @cached_property
    def chats(self) -> dict[str, Chat]:
        """Judge -> its chat; one ledger for all."""
        ledger = self.place / "ledger.sqlite"
        return {
            j: open_chat(
                address, ledger=ledger, replay=self.replay, run=f"judge {j}", **self.limits
            )
            for j, address in zip(self.settings.judges, self.addresses, strict=True)
        }

    def estimates(self) -> dict[str, Any]:
        """What asking would cost at most, per judge; nothing is sent."""
        self.place.mkdir(exist_ok=True)
        return estimate_cost(self.showings, self.chats)

    def units(self) -> list[Unit]:
        """One a judge."""
        return [
            Unit(identity(j, self.settings.model_dump(mode="json")), {"judge": j}, j)
            for j in self.settings.judges
        ]

    def play(self, unit: Unit, place: Path | None) -> Tables:
        """Ask one judge everything."""
        own = [s for s in self.showings if s.judge == unit.what]
        return {"answers": ask_judges(own, self.chats)}

    def gather(self, played: Sequence[Played]) -> Tables:
        """answers (showing by showing) and `judge_tables`."""
        parts = [p.tables["answers"] for p in played]
        answers = pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)
        tables = {"answers": answers, **judge_tables(answers)}
        return {f"{name}.csv": table for name, table in tables.items()}

    def unanswered(self, run: BenchmarkRun[Any]) -> dict[str, list[dict[str, Any]]]:
        """The panel, when no judge gave a verdict."""
        if (run.table["winner"] != "").any():
            return {}
        problems = [{"kind": "no verdict", "action": p} for p in run.table["problem"]]
        return {", ".join(self.settings.judges): problems}

    def more(self) -> dict[str, Any]:
        """How many pairs were shown."""
        return {"n_pairs": len({s.pair.key for s in self.showings})}
