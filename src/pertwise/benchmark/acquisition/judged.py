"""Judging a run: pairs from its picks, judges from addresses, tables into its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertwise._io import write_csv_atomic, write_json_atomic
from pertwise._process import only_writer
from pertwise.benchmark.acquisition.run import Run
from pertwise.benchmark.acquisition.world import make_world
from pertwise.benchmark.judging import (
    ask_judges,
    estimate_cost,
    judge_tables,
    make_pairs,
    make_showings,
)
from pertwise.errors import InputError
from pertwise.llm import open_chat, parse_address


@dataclass(frozen=True)
class Judged:
    """What a panel said; `tables` is empty after a dry run."""

    folder: Path
    estimates: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    answers: pd.DataFrame = field(default_factory=pd.DataFrame)


def judge_run(
    folder: str | os.PathLike[str],
    judges: Sequence[str],
    *,
    reference: str | None = None,
    rounds: Sequence[int] | None = None,
    max_pairs: int | None = None,
    seed: int = 0,
    dry_run: bool = False,
    replay: bool = False,
    context_text: str = "",
    **limits: Any,
) -> Judged:
    """Judge the batches of a run; answers and tables go to ``judge/`` in its folder.

    `limits` are settings of each judge's chat (budget_usd, ...); a budget holds for all reruns of
    a judge together.
    The ledger there makes an interrupted panel go on where it stopped, with nothing paid twice.

    Raises
    ------
    pertwise.errors.InputError
        No judge, two judges of one address, or no pair to compare.
    """
    if not judges:
        raise InputError("name at least one judge (--llm MODEL@URL)")
    # Tables, settings and messages name a judge without the query of its address.
    opened = {str(parse_address(j)): j for j in judges}
    if len(opened) != len(judges):
        raise InputError(f"each judge must be named once, got twice one of {list(opened)}")
    judges = list(opened)
    run = Run.open(folder)
    rng = np.random.default_rng(seed)
    pairs = make_pairs(run.table("picks.parquet"), reference=reference, rounds=rounds, rng=rng)
    if not pairs:
        raise InputError(f"{folder}: no two strategies with different batches to compare")
    if max_pairs is not None and len(pairs) > max_pairs:
        kept = np.sort(rng.choice(len(pairs), size=max_pairs, replace=False))
        pairs = [pairs[i] for i in kept]
    world = make_world(run.config)
    showings = make_showings(
        pairs,
        judges,
        {t.name: t.pathway for t in world.targets.values()},
        rng=rng,
        context=world.context,
        context_text=context_text,
    )
    out = run.folder / "judge"
    out.mkdir(exist_ok=True)
    chats = {
        j: open_chat(
            opened[j], ledger=out / "ledger.sqlite", replay=replay, run=f"judge {j}", **limits
        )
        for j in judges
    }
    estimates = estimate_cost(showings, chats)
    if dry_run:
        return Judged(out, estimates)
    with only_writer(out):
        answers = ask_judges(showings, chats)
        tables = judge_tables(answers)
        for name, table in {"answers": answers, **tables}.items():
            write_csv_atomic(out / f"{name}.csv", table)
        write_json_atomic(
            out / "settings.json",
            {
                "judges": list(judges),
                "reference": reference,
                "rounds": None if rounds is None else list(rounds),
                "max_pairs": max_pairs,
                "n_pairs": len(pairs),
                "seed": seed,
                "context_text": context_text,
            },
        )
    return Judged(out, estimates, tables, answers)
