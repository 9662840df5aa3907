"""Processor seconds of every strategy for ten rounds of a large pool, beside random.

    python benchmarks/strategies.py                              # 10,000 candidates, 10 x 100
    python benchmarks/strategies.py --pool 2000 --only lcmd badge

SIMULATED: unit embeddings of `--width` columns in 200 loose groups, and an ensemble of five that
disagrees on 50 features. Only what a strategy itself computes is timed, not the models that a
replay fits between its rounds. Strategies that ask a language model are left out.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import pandas as pd

from pertwise import parts
from pertwise.acquire.base import AcquisitionState
from pertwise.errors import PertwiseError


def world(pool: int, width: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, (pool, width) unit embeddings and (5, pool, 50) predictions."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((200, width))
    rows = centres[rng.integers(0, 200, pool)] + rng.standard_normal((pool, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scale = rng.uniform(0.2, 2.0, size=(1, pool, 1))
    members = rng.standard_normal((5, pool, 50)) * scale
    return [f"SIM{i:06d}" for i in range(pool)], rows.astype("f4"), members.astype("f4")


def seconds(name: str, pool: int, width: int, rounds: int, batch: int) -> float:
    """Processor seconds of all rounds."""
    names, rows, members = world(pool, width)
    strategy, measured, used = parts.load("strategy", name), list[int](), 0.0
    for r in range(1, rounds + 1):
        left = np.setdiff1d(np.arange(pool), measured)
        shown = members[:, left]
        candidates = tuple(names[i] for i in left)
        state = AcquisitionState(
            candidates=candidates,
            measured=tuple(names[i] for i in sorted(measured)),
            rng=np.random.default_rng(r),
            uncertainty=pd.Series(shown.var(axis=0, ddof=1).mean(axis=1), index=list(candidates)),
            member_predictions=shown,
            embedding=rows[np.concatenate([left, sorted(measured)]).astype(int)],
            round=r,
            rounds_left=rounds - r,
        )
        start = time.process_time()
        chosen = strategy.choose(state, batch)
        used += time.process_time() - start
        measured += [names.index(p.item) for p in chosen.picks]
    return used


def main() -> None:
    """Print one line a strategy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=512, help="columns of the embedding")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="names of strategies; else all")
    given = parser.parse_args()
    size = (given.pool, given.width, given.rounds, given.batch)
    print(f"SIMULATED, {given.pool:,} candidates, {given.rounds} rounds of {given.batch}")
    base = seconds("random", *size)
    print(f"{'strategy':28} {'cpu s':>8} {'x random':>9}")
    for name in given.only or parts.names("strategy"):
        try:
            took = seconds(name, *size)
        except PertwiseError as error:
            print(f"{name:28} not run: {str(error)[:80]}", flush=True)
            continue
        print(f"{name:28} {took:8.2f} {took / base:9.1f}", flush=True)


if __name__ == "__main__":
    main()
