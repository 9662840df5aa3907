"""Fit and predict for 2,000 perturbations x 5,000 genes: graph neighbours and multi-kernel.

    python benchmarks/predictors.py            # the full size, about five minutes on 2 cores
    python benchmarks/predictors.py --quick    # 400 x 1,000

SIMULATED screen with the simulator's own knowledge (STRING-like edges, GO, pathways, texts, ...).
A fifth of the perturbations is held out and predicted.

Graph neighbours against a plain Python loop over the same edges: dictionaries, sort, mean.
Multi-kernel with nested cross-validation (weights and noise are chosen inside each of five outer
folds, every perturbation is predicted once) against scikit-learn's GridSearchCV over KernelRidge
on the plain sum of the same, precomputed kernels: the same outer folds, five inner folds, the
same number of noise values. Both sides see the same arrays; the squared errors are printed too,
so that a fast wrong answer cannot win. Seconds are wall-clock: that is what a user waits.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
import numpy as np
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, KFold

from pertwise import parts
from pertwise.evaluate.splits import split_folds
from pertwise.kernels.genes import DEFAULT_KERNELS, gene_blocks
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.models.kernel_ridge import NOISE_GRID
from pertwise.screen import Screen, simulate_screen

SEED, NEIGHBOURS = 0, 5


def squared_error(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Mean over perturbations of the squared error summed over genes."""
    return float(((predicted - truth) ** 2).sum(axis=1).mean())


def plain_neighbours(train: Screen, names: list[str], knowledge: Knowledge) -> np.ndarray:
    """The strongest measured neighbours of each name, with dictionaries and loops."""
    graph = knowledge.graph("string", True)
    edges: dict[str, list[tuple[str, float]]] = {}
    matrix = graph.adjacency.tocoo()
    for i, j, weight in zip(matrix.row, matrix.col, matrix.data, strict=True):
        edges.setdefault(graph.nodes[i], []).append((graph.nodes[j], float(weight)))
    measured = {p: train.responses[i] for i, p in enumerate(train.perturbations)}
    mean = train.responses.mean(axis=0)
    out = []
    for name in names:
        found = [(-w, g) for g, w in edges.get(name, []) if g in measured and g != name]
        rows = [measured[g] for _, g in sorted(found)[:NEIGHBOURS]]
        out.append(np.mean(rows, axis=0) if rows else mean)
    return np.array(out)


def nested_pertwise(screen: Screen, knowledge: Knowledge, folds: list) -> np.ndarray:
    """Every perturbation predicted by a multi-kernel model tuned without it."""
    place = {p: i for i, p in enumerate(screen.perturbations)}
    out = np.zeros(screen.responses.shape)
    for fold in folds:
        model = parts.load("predictor", "multi-kernel").fit(
            screen.of_perturbations(fold.train), knowledge
        )
        out[[place[p] for p in fold.test]] = model.predict(fold.test).mean
    return out


def nested_sklearn(screen: Screen, knowledge: Knowledge, folds: list) -> np.ndarray:
    """The same by GridSearchCV over KernelRidge on the mean of the kernels."""
    kernel = gene_blocks(knowledge, screen.perturbations, DEFAULT_KERNELS, skip_missing=True)
    gram = kernel.gram().mean(axis=0)
    place = {p: i for i, p in enumerate(screen.perturbations)}
    out = np.zeros(screen.responses.shape)
    for fold in folds:
        rows = np.array([place[p] for p in fold.train])
        test = np.array([place[p] for p in fold.test])
        y = screen.responses[rows].astype(float)
        search = GridSearchCV(
            KernelRidge(kernel="precomputed"),
            {"alpha": NOISE_GRID},
            cv=KFold(5, shuffle=True, random_state=SEED),
            scoring="neg_mean_squared_error",
        ).fit(gram[np.ix_(rows, rows)], y - y.mean(axis=0))
        out[test] = y.mean(axis=0) + search.predict(gram[np.ix_(test, rows)])
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="400 perturbations x 1,000 genes")
    quick = parser.parse_args().quick
    n, d = (400, 1000) if quick else (2000, 5000)
    threads = os.environ["OMP_NUM_THREADS"]
    print(f"SIMULATED screen, {n} perturbations x {d} genes, {threads} threads")
    simulation = simulate_screen(SEED, n_perturbations=n, n_features=d, n_pathways=max(8, n // 50))
    with tempfile.TemporaryDirectory() as folder:
        build_knowledge(
            simulation.write_sources(Path(folder) / "sources"), Path(folder) / "knowledge"
        )
        knowledge = Knowledge.open(Path(folder) / "knowledge")
        screen = simulation.screen
        folds = split_folds(screen.perturbations, 5, 1, SEED)
        train, names = screen.of_perturbations(folds[0].train), list(folds[0].test)
        truth = screen.of_perturbations(names).responses
        rows: list[tuple[str, float, float]] = []

        def timed(label: str, work, expected: np.ndarray) -> None:
            start = time.perf_counter()
            predicted = work()
            seconds = time.perf_counter() - start
            rows.append((label, seconds, squared_error(predicted, expected)))
            print(f"{label:58} {seconds:8.2f} s   squared error {rows[-1][2]:8.2f}", flush=True)

        def graph() -> np.ndarray:
            model = parts.load("predictor", "graph neighbours", k=NEIGHBOURS).fit(train, knowledge)
            return model.predict(names).mean

        mean = np.tile(train.responses.mean(axis=0), (len(names), 1))
        print(f"{'training mean':58} {'':8}     squared error {squared_error(mean, truth):8.2f}")
        # The reference goes first, so that reading the tables from disk counts against it once and
        # not against either side of the comparison afterwards.
        knowledge.graph("string", True)
        timed("plain loop: neighbours", lambda: plain_neighbours(train, names, knowledge), truth)
        timed("pertwise: graph neighbours, fit + tune spread + predict", graph, truth)
        whole = screen.responses
        order = "5 outer folds"
        timed(
            f"scikit-learn: GridSearchCV(KernelRidge), {order}",
            lambda: nested_sklearn(screen, knowledge, folds),
            whole,
        )
        timed(
            f"pertwise: multi-kernel, {order}",
            lambda: nested_pertwise(screen, knowledge, folds),
            whole,
        )

        def once() -> np.ndarray:
            model = parts.load("predictor", "multi-kernel").fit(train, knowledge)
            return model.predict(names).mean

        timed("pertwise: multi-kernel, one fit + predict", once, truth)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"graph neighbours / plain loop: {rows[0][1] / rows[1][1]:.2f}x as fast")
    print(f"multi-kernel / scikit-learn:   {rows[2][1] / rows[3][1]:.2f}x as fast")
    print(f"limits: graph neighbours < 1 s: {rows[1][1] < 1.0}; nested < 60 s: {rows[3][1] < 60}")
    print(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
