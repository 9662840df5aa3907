"""Peak memory of the multi-kernel predictor, beside that of all its kernels held at once.

    python benchmarks/memory.py                       # 10,000 perturbations x 5,000 features
    python benchmarks/memory.py -n 1600 -d 2000

SIMULATED: 26 kernels of unit feature rows, 24 sparse (20 to 300 features a perturbation) and two
dense embeddings of 256, and responses that follow three of them. The fit is with both targets (the
responses and their directions), as "multi-kernel" is offered; then `--asked` perturbations that
were not measured are predicted. Set OMP_NUM_THREADS for the number of threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
from _cells import peak_rss_gb
from scipy.sparse import csr_matrix

from pertwise.knowledge.genes.features import unit_rows
from pertwise.models.recipes import multi_kernel_of_genes
from pertwise.screen import make_screen
from pertwise.testing.knowledge import SmallKnowledge

SPARSE, DENSE, WIDTH, COLUMNS = 24, 2, 256, 20_000


class Simulated:
    """Kernels of made-up features for the names given."""

    source = "simulated features"

    def __init__(self, names: Sequence[str], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        n = len(names)
        self.kinds = tuple(f"kernel {i}" for i in range(SPARSE + DENSE))
        self._place = {name: i for i, name in enumerate(names)}
        self._rows: dict[str, csr_matrix] = {}
        for i, kind in enumerate(self.kinds):
            if i < SPARSE:
                each = int(np.geomspace(20, 300, SPARSE)[i])
                columns = (COLUMNS * rng.random((n, each)) ** 2).astype(int).ravel()
                at = (np.repeat(np.arange(n), each), columns)
                found = csr_matrix((rng.random(n * each), at), shape=(n, COLUMNS))
            else:
                found = csr_matrix(rng.standard_normal((n, WIDTH)))
            self._rows[kind] = unit_rows(found)

    def rows(self, kind: str, genes: Sequence[str]) -> csr_matrix:
        """(n_genes, k) unit rows."""
        return self._rows[kind][[self._place[g] for g in genes]]


def main() -> None:
    """Print the peak and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=10_000, help="training perturbations")
    parser.add_argument("-d", type=int, default=5_000, help="response features")
    parser.add_argument("--asked", type=int, default=1_000, help="perturbations to predict")
    given = parser.parse_args()
    n, d = given.n, given.d
    names = [f"SIM{i:06d}" for i in range(n + given.asked)]
    source = Simulated(names)
    rng = np.random.default_rng(1)
    y = 0.3 * rng.standard_normal((n, d), dtype=np.float32)
    for kind in (source.kinds[3], source.kinds[12], source.kinds[-1]):
        rows = source.rows(kind, names[:n])
        y += rows @ rng.standard_normal((rows.shape[1], d), dtype=np.float32)
    screen = make_screen(y, names[:n], [f"f{i}" for i in range(d)], meta={"simulated": True})
    del y
    before = peak_rss_gb()
    start, used = time.perf_counter(), time.process_time()
    model = multi_kernel_of_genes(kernels=(), sources=[source])
    model.fit(screen, SmallKnowledge())
    fitted = time.perf_counter()
    model.predict(names[n:])
    done = time.perf_counter()
    dense = 8 * (SPARSE + DENSE + 1) * n * n / 1e9
    peak = peak_rss_gb()
    print(f"SIMULATED kernels, {n:,} perturbations x {d:,} features, {SPARSE + DENSE} kernels")
    print(f"fit {fitted - start:.1f} s, predict {given.asked:,}: {done - fitted:.1f} s")
    print(f"processor time of both {time.process_time() - used:.1f} s")
    print(f"peak resident memory {peak:.2f} GB (before the fit {before:.2f} GB)")
    print(f"all kernels at once {dense:.2f} GB: the peak is {peak / dense:.2f} of that")


if __name__ == "__main__":
    main()
