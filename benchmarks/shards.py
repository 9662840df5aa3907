"""Pseudobulk over many shards: cells per second, peak memory, 1 against 2 workers, kill and resume.

    python benchmarks/shards.py                                  # a small run
    python benchmarks/shards.py --cells 5000000 --genes 2000     # the size of a large atlas

Writes SIMULATED shards into a temporary folder (deleted at the end; cells of one condition lie in
all shards), runs the command with 1 and with 2 workers, then once more with `kill -9` of the whole
process group in the middle and a second start, and checks that all results are equal bit for bit.
Memory is the largest sum of resident sets over the command and its workers, sampled ten times a
second (pages that processes share count in each of them, so it is an upper bound).
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
COMMAND = "from pertwise.cli.main import main; main()"


def command(shards: Path, out: Path, workers: int, rows: int) -> list[str]:
    return [
        sys.executable, "-c", COMMAND, "screen", "pseudobulk", str(shards), str(out), "--hvg", "0",
        "--workers", str(workers), "--rows-per-task", str(rows),
    ]  # fmt: skip


def timed(shards: Path, out: Path, workers: int, rows: int) -> tuple[float, float, float]:
    """Seconds, CPU seconds (workers included) and peak GB of one complete run."""
    from _cells import TreeMemory

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(command(shards, out, workers, rows), stdout=subprocess.DEVNULL)
    with TreeMemory(process.pid) as memory:
        if process.wait():
            raise SystemExit(f"the run with {workers} workers failed")
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, memory.peak


def killed(shards: Path, out: Path, workers: int, rows: int, parts: int) -> int:
    """Start, kill -9 everything once `parts` parts of the second pass exist; how many there are."""
    folder = out.with_name(out.name + ".parts")
    process = subprocess.Popen(
        command(shards, out, workers, rows), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while len(list(folder.glob("*/second-*.h5"))) < parts:
        if process.poll() is not None:
            raise SystemExit("the run ended before it could be killed")
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return len(list(folder.glob("*/second-*.h5")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--perturbations", type=int, default=500)
    parser.add_argument("--counts", type=float, default=150.0, help="median counts per cell")
    parser.add_argument("--rows", type=int, default=250_000, help="cells of one task")
    args = parser.parse_args()
    import numpy as np
    from _cells import write_cells

    from pertwise.screen import read_screen

    with tempfile.TemporaryDirectory(prefix="pertwise-bench-") as name:
        folder = Path(name) / "shards"
        folder.mkdir()
        start = time.perf_counter()
        stored = 0
        per_shard = args.cells // args.shards
        for i in range(args.shards):
            stored += write_cells(
                folder / f"shard{i:03d}.h5ad", per_shard, args.genes,
                n_perturbations=args.perturbations, counts_per_cell=args.counts, seed=i,
                contexts=("SimLine1", "SimLine2"), compression="lzf",
            )  # fmt: skip
        size = sum(p.stat().st_size for p in folder.iterdir()) / 1e9
        n = per_shard * args.shards
        print(
            f"SIMULATED {n:,} cells x {args.genes:,} genes in {args.shards} shards: "
            f"{stored / 1e6:,.0f} M values, {size:.2f} GB on disk, written in "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
        seconds = {}
        for workers in (1, 2):
            out = Path(name) / f"out{workers}.h5ad"
            seconds[workers], cpu, peak = timed(folder, out, workers, args.rows)
            print(
                f"{workers} worker(s): {seconds[workers]:.1f} s, "
                f"{n / seconds[workers]:,.0f} cells/s, "
                f"CPU {cpu:.1f} s, peak {peak:.2f} GB, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        print(f"speed of 2 workers over 1: {seconds[1] / seconds[2]:.2f}")
        tasks = args.shards * -(-per_shard // args.rows)
        out = Path(name) / "out_killed.h5ad"
        done = killed(folder, out, 1, args.rows, max(1, tasks // 2))
        rest, _, _ = timed(folder, out, 1, args.rows)
        print(f"killed with {done} of {tasks} second-pass parts done; resumed in {rest:.1f} s")
        one, two, again = (read_screen(Path(name) / f"out{k}.h5ad") for k in ("1", "2", "_killed"))
        for other in (two, again):
            np.testing.assert_array_equal(one.responses, other.responses)
            np.testing.assert_array_equal(one.sampling_variance, other.sampling_variance)
        print("1 worker, 2 workers, killed and resumed: equal bit for bit")


if __name__ == "__main__":
    main()
