"""Pseudobulk of large files beside scanpy: CPU time, memory, slope, two workers, counts.

    python benchmarks/pseudobulk.py                              # 200,000 cells x 8,000 genes
    python benchmarks/pseudobulk.py --cells 400000 --workers 2 --counts
    python benchmarks/pseudobulk.py --cells 20000 --genes 2000

For simulated cells of half and of the whole size, each in a process of its own: CPU seconds (user +
system, children included), seconds on the clock and peak memory of pertwise (sums, sums of squares,
matched controls, variances) and of scanpy (`read_h5ad`, `normalize_total`, `log1p`, `aggregate` to
means of perturbations); the cost per cell from the two sizes, and what it makes of 5 M cells.
At a small size the responses are compared with means less batch-matched controls by pandas.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
MANY = 5_000_000


def run_pertwise(path: Path, out: Path, hvg: int, workers: int, counts: bool) -> None:
    from pertwise.screen import PseudobulkSettings
    from pertwise.screen.shards import pseudobulk_shards

    pseudobulk_shards(
        [path],
        PseudobulkSettings(n_hvg=hvg, min_cells=1),
        workdir=out.with_suffix(".parts"),
        workers=workers,
        counts=out.with_name("counts.h5ad") if counts else None,
        # Every worker has work at every size; the parts do not change the result.
        rows_per_task=rows_per_task(path, workers),
    )


def rows_per_task(path: Path, workers: int) -> int:
    import h5py

    from pertwise.screen.shards import ROWS_PER_TASK

    with h5py.File(path) as handle:
        n = handle["X/indptr"].shape[0] - 1
    return min(ROWS_PER_TASK, -(-n // workers))


def run_scanpy(path: Path, out: Path) -> None:
    import anndata
    import scanpy

    data = anndata.read_h5ad(path)
    scanpy.pp.normalize_total(data, target_sum=1e4)
    scanpy.pp.log1p(data)
    scanpy.get.aggregate(data, by="perturbation", func="mean").layers["mean"].sum()


def run_notebook(path: Path, out: Path) -> None:
    """Means of perturbations minus batch-matched controls, as one would write it in a notebook."""
    import anndata
    import numpy as np
    import pandas as pd
    import scanpy

    data = anndata.read_h5ad(path)
    scanpy.pp.normalize_total(data, target_sum=1e4)
    scanpy.pp.log1p(data)
    x = pd.DataFrame(data.X.toarray(), columns=list(data.var_names))
    batch = data.obs["batch"].to_numpy()
    label = data.obs["perturbation"].to_numpy()
    control = x[label == "control"].groupby(batch[label == "control"], observed=True).mean()
    delta = x - control.loc[batch].to_numpy()
    means = delta[label != "control"].groupby(label[label != "control"].astype(str)).mean()
    np.save(out, means.to_numpy())


def measure(what: str, path: Path, out: Path, hvg: int, workers: int = 1, counts: bool = False):
    """cpu, seconds and gb of one way, in a fresh process."""
    code = [sys.executable, __file__, "--worker", what, str(path), str(out), "--hvg", str(hvg)]
    code += ["--workers", str(workers)] + ["--counts"] * counts
    start = time.perf_counter()
    done = subprocess.run(code, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"seconds": time.perf_counter() - start}


def worker(args: argparse.Namespace) -> None:
    from _cells import TreeMemory, peak_rss_gb

    what, path, out = args.worker[0], Path(args.worker[1]), Path(args.worker[2])
    with TreeMemory(os.getpid()) as tree:
        if what == "pertwise":
            run_pertwise(path, out, args.hvg, args.workers, args.counts)
        else:
            {"scanpy": run_scanpy, "notebook": run_notebook}[what](path, out)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    # What the clock would show on idle cores: this process, then the workers side by side.
    own, children = ((u.ru_utime + u.ru_stime) for u in used)
    path = own + children / args.workers
    print(json.dumps({"cpu": cpu, "path": path, "gb": max(tree.peak, peak_rss_gb())}))


def line(name: str, cells: int, got: dict[str, float]) -> str:
    return (
        f"{name}, {cells:,} cells: CPU {got['cpu']:.1f} s, clock {got['seconds']:.1f} s, "
        f"peak {got['gb'] * 1000:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=8_000)
    parser.add_argument("--perturbations", type=int, default=2_000)
    parser.add_argument("--depth", type=float, default=3_000.0, help="median counts per cell")
    parser.add_argument("--hvg", type=int, default=0, help="0 keeps all genes (the harder case)")
    parser.add_argument("--small", type=int, default=20_000, help="cells of the check; 0: none")
    parser.add_argument("--workers", type=int, default=1, help="also measured with so many")
    parser.add_argument("--counts", action="store_true", help="also measured with sums of counts")
    parser.add_argument("--no-scanpy", action="store_true", help="pertwise only")
    parser.add_argument("--keep", type=Path, help="folder of the simulated files, used again")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args)
        return
    with tempfile.TemporaryDirectory(prefix="pertwise-bench-") as name:
        folder = Path(name)
        kept = args.keep or folder
        kept.mkdir(parents=True, exist_ok=True)
        compare(args, folder, kept)
        if args.small:
            check(args, folder)


def compare(args: argparse.Namespace, folder: Path, kept: Path) -> None:
    from _cells import write_cells

    out, ways = folder / "out.h5ad", ["pertwise"] + ["scanpy"] * (not args.no_scanpy)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    sizes = (args.cells // 2, args.cells)
    for n in sizes:
        path = kept / f"cells{n}x{args.genes}x{args.perturbations}.h5ad"
        if not path.exists():
            stored = write_cells(
                path, n, args.genes, n_perturbations=args.perturbations,
                counts_per_cell=args.depth, seed=0,
            )  # fmt: skip
            share = stored / n / args.genes
            print(f"SIMULATED {n:,} cells x {args.genes:,} genes, {share:.0%} of values stored")
        for way in ways:
            found[way].append(measure(way, path, out, args.hvg))
            print(line(way, n, found[way][-1]), flush=True)
    for way, (half, whole) in found.items():
        slope = (whole["cpu"] - half["cpu"]) / (sizes[1] - sizes[0])
        many = whole["cpu"] + slope * (MANY - sizes[1])
        print(f"{way}: {slope * 1e6:.0f} CPU s per million cells; 5 M cells {many / 60:.1f} min")
    if "scanpy" in found:
        a, b = found["pertwise"][1], found["scanpy"][1]
        print(f"pertwise / scanpy: CPU {a['cpu'] / b['cpu']:.2f}, memory {a['gb'] / b['gb']:.2f}")
    if args.workers > 1:
        got = measure("pertwise", path, out, args.hvg, args.workers)
        print(line(f"pertwise, {args.workers} workers (memory of all)", args.cells, got))
        one = found["pertwise"][1]
        print(
            f"{one['seconds'] / got['seconds']:.2f} times as fast as one; on idle cores, by CPU "
            f"of each process, {one['cpu'] / got['path']:.2f} times"
        )
    if args.counts:
        got = measure("pertwise", path, out, args.hvg, counts=True)
        print(line("pertwise with sums of counts", args.cells, got))


def check(args: argparse.Namespace, folder: Path) -> None:
    import numpy as np
    from _cells import write_cells

    from pertwise.screen import PseudobulkSettings
    from pertwise.screen.pseudobulk import pseudobulk

    path = folder / "small.h5ad"
    write_cells(
        path, args.small, args.genes, n_perturbations=max(20, args.perturbations // 10),
        counts_per_cell=args.depth, seed=1,
    )  # fmt: skip
    measure("notebook", path, folder / "means.npy", 0)
    screen = pseudobulk(path, PseudobulkSettings(n_hvg=0, min_cells=1))
    order = np.argsort(screen.obs["perturbation"].to_numpy())
    difference = np.abs(screen.responses[order] - np.load(folder / "means.npy")).max()
    print(f"{args.small:,} cells: largest difference from pandas {difference:.1e}")


if __name__ == "__main__":
    main()
