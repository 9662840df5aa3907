"""Single cells for a simulated screen: raw counts with library sizes and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from pertwise.errors import InputError
from pertwise.screen.simulate import CONTROL

if TYPE_CHECKING:
    from anndata import AnnData

    from pertwise.screen.simulate import Simulation

#: Mean counts per cell and feature; shallow, as droplet data are.
DEPTH_PER_FEATURE = 2.0


def simulate_cells(
    simulation: Simulation,
    rng: np.random.Generator | int,
    *,
    n_batches: int = 1,
    max_cells: int | None = None,
) -> AnnData:
    """Counts of single cells with the truth of `simulation`.

    A cell of library size ``s`` has counts ``Poisson(s p_d g_d)`` with
    ``p = softmax(baseline + effect + batch shift)`` and ``g_d`` gamma with mean 1 whose variance
    grows with the simulation's cell-to-cell variance. Pseudobulk of these cells agrees with the
    screen in direction; it is a new draw of the noise, and log1p shrinks the effects on genes
    with few counts.

    Parameters
    ----------
    n_batches
        Batches, each with its own small shift of every gene; controls are in all of them.
    max_cells
        At most so many cells per perturbation and context (controls: ten times as many).

    Returns
    -------
    AnnData: X csr float32 counts; obs perturbation, cell_line, batch; uns["simulated"] = True.

    Raises
    ------
    pertwise.errors.InputError
        If `n_batches` or `max_cells` is below 1.
    """
    from anndata import AnnData

    if n_batches < 1 or (max_cells is not None and max_cells < 1):
        raise InputError(f"n_batches ({n_batches}) and max_cells ({max_cells}) must be at least 1")
    generator = np.random.default_rng(rng)
    screen, truth = simulation.screen, simulation.truth
    d = screen.n_features
    shifts = generator.normal(0, 0.15 if n_batches > 1 else 0.0, (n_batches, d))
    control_cells = int(screen.meta["control_cells"])
    groups: list[tuple[str, str, int, int]] = []  # label, context, row (-1 = control), cells
    for context in screen.contexts:
        limit = control_cells if max_cells is None else min(control_cells, 10 * max_cells)
        groups.append((CONTROL, context, -1, limit))
    for row, (label, context, n) in enumerate(
        zip(screen.obs["perturbation"], screen.obs["context"], screen.obs["n_cells"], strict=True)
    ):
        groups.append((label, context, row, int(n if max_cells is None else min(n, max_cells))))

    blocks, labels, lines, batches = [], [], [], []
    for label, context, row, n in groups:
        batch = generator.integers(n_batches, size=n)
        level = truth.baseline[screen.contexts.index(context)] + shifts[batch]
        if row >= 0:
            level = level + truth.effect[row]
        rate = np.exp(level - level.max(axis=1, keepdims=True))
        rate /= rate.sum(axis=1, keepdims=True)
        size = generator.lognormal(np.log(DEPTH_PER_FEATURE * d), 0.35, (n, 1))
        shape = 1.0 / np.maximum(0.2 * truth.cell_variance, 1e-3)
        extra = generator.gamma(shape, 1.0 / shape, (n, d))
        counts = generator.poisson(rate * size * extra).astype(np.float32)
        blocks.append(sparse.csr_matrix(counts))
        labels += [label] * n
        lines += [context] * n
        batches.append(batch)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(labels),
            "cell_line": pd.Categorical(lines),
            "batch": pd.Categorical([f"batch{b + 1}" for b in np.concatenate(batches)]),
        },
        index=pd.Index([f"simcell{i}" for i in range(len(labels))]),
    )
    # Real files come in no order of perturbation; readers must not depend on one.
    order = generator.permutation(len(obs))
    return AnnData(
        X=sparse.vstack(blocks, format="csr")[order],
        obs=obs.iloc[order],
        var=pd.DataFrame(index=pd.Index(screen.features)),
        uns={"simulated": True, "source": "pertwise simulator"},
    )
