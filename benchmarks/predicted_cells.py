"""Predicted cells against the real ones, on SIMULATED screens: energy distance and MMD.

    python benchmarks/predicted_cells.py

Cells of a simulated screen become a screen (pseudobulk); a quarter of the perturbations is held
out. Their cells are predicted from control cells by every cell model, with and without the
predicted spread, from the responses of a predictor and from the measured ones (`measured`: what a
good mean would give), and compared with other real cells. `controls` are unmoved control cells;
`halves` are two halves of the real cells, which nothing can beat on average.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pertwise.evaluate.distribution import energy_distance, mmd
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.models.methods import make_method
from pertwise.prediction.cells import read_controls, to_cells
from pertwise.screen import PseudobulkSettings, simulate_screen
from pertwise.screen.pseudobulk import pseudobulk
from pertwise.screen.simulate_cells import simulate_cells


def scores(cells: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Both distances, unbiased, and the error of the mean."""
    return {
        "energy": energy_distance(cells, real, unbiased=True),
        "mmd x 1000": 1000 * mmd(cells, real),
        "mean error": float(np.sqrt(((cells.mean(axis=0) - real.mean(axis=0)) ** 2).sum())),
    }


def world(seed: int, n_perturbations: int, n_features: int, n: int) -> pd.DataFrame:
    """One simulated screen: a row a held-out perturbation and way to predict its cells."""
    simulation = simulate_screen(
        seed, n_perturbations=n_perturbations, n_features=n_features, mean_cells=2000.0
    )
    data = simulate_cells(simulation, seed, max_cells=2000)
    # The cells compared with are others than those behind the responses and the controls.
    fresh = simulate_cells(simulation, seed + 1000, max_cells=2 * n)
    screen = pseudobulk(data, PseudobulkSettings(n_hvg=None))
    names = sorted(screen.perturbations)
    held = [str(x) for x in np.random.default_rng(seed).permutation(names)[: len(names) // 4]]
    with tempfile.TemporaryDirectory() as folder:
        sources = simulation.write_sources(Path(folder) / "sources")
        knowledge = Knowledge.open(build_knowledge(sources, Path(folder) / "knowledge"))
        found = make_method("kernel-ridge").build().fit(screen.hide(held), knowledge)
        predicted = found.predict(held)
    truth = screen.of_perturbations(held)
    measured = replace(predicted, mean=np.nan_to_num(truth.responses))
    controls = read_controls(data)
    labels = fresh.obs["perturbation"].astype(str).to_numpy()
    size = np.asarray(fresh.X.sum(axis=1))
    log = np.log1p(fresh.X.toarray() / size * 1e4)
    rng, rows = np.random.default_rng([seed, 1]), []
    ways = [(m, s) for m in ("shift", "scale", "counts") for s in (0.0, 1.0)]
    made = {
        (who, m, s): to_cells(p, controls, n, seed, model=m, spread=s, with_controls=False)
        for who, p in (("predicted", predicted), ("measured", measured))
        for m, s in ways
        if not (who == "measured" and s)
    }
    for name in held:
        real = rng.permutation(np.flatnonzero(labels == name))
        half = len(real) // 2
        real_cells = log[real[:n]]
        start = rng.integers(len(controls.values), size=n)
        rows.append(
            {"mean": "-", "cells": "controls", **scores(controls.values[start], real_cells)}
        )
        if half > 2:
            found_halves = scores(log[real[:half]], log[real[half:]])
            rows.append({"mean": "-", "cells": "halves of the real", **found_halves})
        for (who, m, s), cells in made.items():
            own = cells[(cells.obs["perturbation"] == name).to_numpy()].X.toarray()
            label = f"{m}{' + spread' if s else ''}"
            rows.append({"mean": who, "cells": label, **scores(own, real_cells)})
    return pd.DataFrame(rows).assign(seed=seed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--perturbations", type=int, default=40)
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--cells", type=int, default=200)
    given = parser.parse_args()
    table = pd.concat(
        world(seed, given.perturbations, given.features, given.cells) for seed in range(given.seeds)
    )
    print(
        f"SIMULATED data: {given.seeds} screens, {given.features} genes, {given.cells} cells each"
    )
    means = table.groupby(["mean", "cells"], sort=False).mean(numeric_only=True)
    print(means.drop(columns="seed").round(3).to_string())


if __name__ == "__main__":
    main()
