"""Pseudobulk of one large file in bounded memory, and against plain scanpy/pandas when small.

    python benchmarks/pseudobulk.py                    # 200,000 cells x 8,000 genes
    python benchmarks/pseudobulk.py --cells 20000 --genes 2000

Prints, for simulated cells: time, cells per second and peak memory of `pertwise screen
pseudobulk` at full size; and at a smaller size the time and peak memory of pertwise and of the
reference (anndata in memory, scanpy's normalize_total and log1p, pandas groupby of the dense
matrix, means only) and the largest difference of their means. Each measurement runs in a process
of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def run_pertwise(path: Path, out: Path, hvg: int) -> None:
    from pertwise.screen import PseudobulkSettings
    from pertwise.screen.pseudobulk import pseudobulk

    pseudobulk(path, PseudobulkSettings(n_hvg=hvg)).save(out)


def run_reference(path: Path, out: Path) -> None:
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


def measure(what: str, path: Path, out: Path, hvg: int) -> dict[str, float]:
    """Seconds and peak resident memory of one way, in a fresh process."""
    code = [sys.executable, __file__, "--worker", what, str(path), str(out), "--hvg", str(hvg)]
    done = subprocess.run(code, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=8_000)
    parser.add_argument("--perturbations", type=int, default=2_000)
    parser.add_argument("--counts", type=float, default=3_000.0, help="median counts per cell")
    parser.add_argument("--hvg", type=int, default=0, help="0 keeps all genes (the harder case)")
    parser.add_argument("--small", type=int, default=20_000, help="cells of the comparison")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        what, path, out = args.worker
        from _cells import peak_rss_gb

        start = time.perf_counter()
        if what == "pertwise":
            run_pertwise(Path(path), Path(out), args.hvg)
        else:
            run_reference(Path(path), Path(out))
        print(json.dumps({"seconds": time.perf_counter() - start, "gb": peak_rss_gb()}))
        return
    import numpy as np
    from _cells import write_cells

    from pertwise.screen import read_screen

    with tempfile.TemporaryDirectory(prefix="pertwise-bench-") as name:
        folder = Path(name)
        path = folder / "cells.h5ad"
        stored = write_cells(
            path, args.cells, args.genes, n_perturbations=args.perturbations,
            counts_per_cell=args.counts, seed=0,
        )  # fmt: skip
        print(
            f"SIMULATED {args.cells:,} cells x {args.genes:,} genes, {stored / 1e6:.0f} M values "
            f"({stored / args.cells / args.genes:.0%}), {path.stat().st_size / 1e9:.2f} GB on disk"
        )
        got = measure("pertwise", path, folder / "out.h5ad", args.hvg)
        print(
            f"pertwise: {got['seconds']:.1f} s, {args.cells / got['seconds']:,.0f} cells/s, "
            f"peak {got['gb']:.2f} GB"
        )
        path.unlink()
        write_cells(
            path, args.small, args.genes, n_perturbations=max(20, args.perturbations // 10),
            counts_per_cell=args.counts, seed=1,
        )  # fmt: skip
        mine = measure("pertwise", path, folder / "out.h5ad", 0)
        theirs = measure("reference", path, folder / "means.npy", 0)
        screen = read_screen(folder / "out.h5ad")
        order = np.argsort(screen.obs["perturbation"].to_numpy())
        difference = np.abs(screen.responses[order] - np.load(folder / "means.npy")).max()
        print(
            f"{args.small:,} cells: pertwise {mine['seconds']:.1f} s, {mine['gb']:.2f} GB; "
            f"reference (scanpy + pandas, means only) {theirs['seconds']:.1f} s, "
            f"{theirs['gb']:.2f} GB; ratio of times {theirs['seconds'] / mine['seconds']:.2f}, of "
            f"memory {theirs['gb'] / mine['gb']:.1f}; largest difference {difference:.1e}"
        )


if __name__ == "__main__":
    main()
