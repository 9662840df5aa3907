"""Files of simulated cells of any size, written block by block, for the pseudobulk benchmarks.

Columns follow scPerturb (perturbation, cell_line, batch). Counts are multinomial: each cell draws
its library size, then genes with probabilities that depend on its perturbation. SIMULATED data.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

#: Counts drawn at a time.
BLOCK_COUNTS = 5_000_000


def write_cells(
    path: Path,
    n_cells: int,
    n_genes: int,
    *,
    n_perturbations: int,
    counts_per_cell: float,
    seed: int,
    n_batches: int = 4,
    contexts: tuple[str, ...] = ("SimLine1",),
    control_share: float = 0.05,
    compression: str | None = "lzf",
    world: int = 0,
) -> int:
    """Write one h5ad of raw counts; returns the number of stored values.

    Files with the same `world` share genes and effects, and differ by `seed` in their cells.
    """
    shared = np.random.default_rng([world, n_genes, n_perturbations])
    base = shared.lognormal(0.0, 1.5, n_genes)
    # Each perturbation scales thirty genes: enough to be found, small enough to store.
    genes = shared.integers(0, n_genes, (n_perturbations, 30))
    factor = shared.lognormal(0.0, 0.7, (n_perturbations, 30))
    rng = np.random.default_rng([seed, 1])
    names = np.array(["control", *(f"SIM{i:05d}" for i in range(1, n_perturbations + 1))])
    code = np.where(
        rng.random(n_cells) < control_share, 0, rng.integers(1, n_perturbations + 1, n_cells)
    )
    batch = rng.integers(0, n_batches, n_cells)
    line = rng.integers(0, len(contexts), n_cells)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical.from_codes(code, names),
            "cell_line": pd.Categorical.from_codes(line, list(contexts)),
            "batch": pd.Categorical.from_codes(batch, [f"batch{b}" for b in range(n_batches)]),
        },
        index=pd.Index(np.char.add("c", np.arange(n_cells).astype(str))),
    )
    cdf = np.cumsum(base / base.sum())
    stored = 0
    with h5py.File(path, "w") as handle:
        handle.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(handle, "obs", obs)
        gene_names = pd.Index([f"GENE{i:05d}" for i in range(n_genes)])
        write_elem(handle, "var", pd.DataFrame(index=gene_names))
        write_elem(handle, "uns", {"simulated": True})
        x = handle.create_group("X")
        x.attrs.update(
            {
                "encoding-type": "csr_matrix",
                "encoding-version": "0.1.0",
                "shape": [n_cells, n_genes],
            }
        )
        options = {"maxshape": (None,), "chunks": (1 << 18,), "compression": compression}
        data = x.create_dataset("data", (0,), "f4", shuffle=True, **options)
        indices = x.create_dataset("indices", (0,), "i4", shuffle=True, **options)
        indptr = [np.zeros(1, dtype=np.int64)]
        block = max(1000, int(BLOCK_COUNTS / counts_per_cell))
        for start in range(0, n_cells, block):
            n = min(block, n_cells - start)
            size = np.maximum(5, rng.lognormal(np.log(counts_per_cell), 0.3, n)).astype(np.int64)
            row = np.repeat(np.arange(n), size)
            draws = np.searchsorted(cdf, rng.random(int(size.sum()))).clip(max=n_genes - 1)
            flat = np.sort(row * n_genes + draws)
            first = np.flatnonzero(np.r_[True, np.diff(flat) > 0])
            count = np.diff(np.r_[first, len(flat)]).astype(np.float64)
            key = flat[first]
            cell, gene = key // n_genes, key % n_genes
            _perturb(count, cell, gene, code[start : start + n], genes, factor, rng, n_genes)
            kept = count > 0
            cell, gene, count = cell[kept], gene[kept], count[kept]
            for target, values in ((data, count), (indices, gene)):
                target.resize((stored + len(values),))
                target[stored:] = values
            indptr.append(stored + np.cumsum(np.bincount(cell, minlength=n)))
            stored += len(count)
        x.create_dataset("indptr", data=np.concatenate(indptr))
    return stored


def _perturb(count, cell, gene, code, genes, factor, rng, n_genes) -> None:
    """Scale the counts of affected genes, rounding at random."""
    table = np.ones((len(factor) + 1, n_genes), dtype=np.float32)
    np.put_along_axis(table[1:], genes, factor.astype(np.float32), axis=1)
    scaled = count * table[code[cell], gene]
    count[:] = np.floor(scaled + rng.random(len(scaled)))


def peak_rss_gb() -> float:
    """Largest resident set of this process so far, in GB.

    From VmHWM: unlike ru_maxrss it does not start with what the parent had before exec.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError("/proc/self/status has no VmHWM: not Linux?")


class TreeMemory:
    """Largest summed resident set of this process and its descendants, sampled from /proc."""

    def __init__(self, pid: int, interval: float = 0.1) -> None:
        self.pid, self.interval = pid, interval
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> TreeMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.peak = max(self.peak, sum(map(_resident_gb, _tree(self.pid))))
            time.sleep(self.interval)


def _tree(pid: int) -> list[int]:
    """The process and its descendants; a child is listed under the thread that started it."""
    found, queue = [], [pid]
    while queue:
        current = queue.pop()
        found.append(current)
        for listing in Path(f"/proc/{current}/task").glob("*/children"):
            try:
                queue += map(int, listing.read_text().split())
            except OSError:
                continue
    return found


def _resident_gb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * 4096 / 1e9
