"""All metrics of 2,000 perturbations x 5,000 genes, against cell-eval on the same arrays.

    python benchmarks/metrics.py            # the full size; cell-eval alone takes many minutes
    python benchmarks/metrics.py --quick    # 300 x 1,000

Both sides get the same simulated deltas in memory and run one after the other in fresh processes
(so that peak memory is each one's own), single-threaded unless OMP_NUM_THREADS says otherwise.
Times are processor seconds (all threads), so that other work on the machine does not count.
Compared are the metrics both have: Pearson delta, MSE, MAE, retrieval by L2 and by cosine, overlap
of the top 50 and 100 differential genes. Ours then also computes everything else
(`score_predictions`: top-k sets, all three retrieval distances, both directions). The scores of
both are checked against each other, so a fast wrong answer cannot win.

`--sample N` lets cell-eval do retrieval for only N perturbations and scales its time (its cost is
linear in them: it computes one row of distances at a time); the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np

SEED = 0


def arrays(n: int, d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulated control (d,), measured and predicted deltas (n, d), float32."""
    rng = np.random.default_rng(SEED)
    shared = rng.normal(size=d)
    programs = rng.normal(size=(20, d))
    weights = rng.normal(size=(n, 20)) * rng.gamma(1.0, 0.5, size=(n, 1))
    truth = 0.3 * shared + 0.2 * weights @ programs + 0.3 * rng.normal(size=(n, d))
    prediction = 0.3 * shared + 0.1 * weights @ programs + 0.2 * rng.normal(size=(n, d))
    control = rng.uniform(0, 3, size=d)
    return control.astype(np.float32), truth.astype(np.float32), prediction.astype(np.float32)


def names(n: int, d: int) -> tuple[list[str], list[str]]:
    """Perturbations are genes too, as in a real screen."""
    return [f"G{i:05d}" for i in range(n)], [f"G{i:05d}" for i in range(d)]


def peak_mb() -> float:
    """Peak resident memory of this process so far, in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_ours(n: int, d: int) -> dict[str, Any]:
    """Time the shared metrics, then everything."""
    from pertwise.evaluate import genes, metrics, retrieval, score_predictions

    _, truth, prediction = arrays(n, d)
    perturbations, features = names(n, d)
    before = peak_mb()
    out: dict[str, Any] = {"seconds": {}, "mean": {}, "input_mb": before}

    def timed(name: str, work: Any) -> None:
        start = time.process_time()
        value = work()
        out["seconds"][name] = time.process_time() - start
        out["mean"][name] = float(np.nanmean(value))

    timed("pearson_delta", lambda: metrics.pearson_delta(truth, prediction))
    timed("mse", lambda: metrics.mse(truth, prediction))
    timed("mae", lambda: metrics.mae(truth, prediction))
    for kind in ("l2", "cosine"):
        # cell-eval divides the 0-based rank by n, we by n - 1.
        timed(
            f"retrieval_{kind}",
            lambda k=kind: 1 - (1 - retrieval(prediction, truth, kind=k).score) * (n - 1) / n,
        )
    for k in (50, 100):
        timed(f"overlap_at_{k}", lambda k=k: genes.de_overlap(truth, prediction, k))
    start = time.process_time()
    table = score_predictions(
        truth,
        prediction,
        perturbations=perturbations,
        features=features,
        reference=truth.mean(axis=0),
        candidates=truth,
    )
    out["everything"] = {
        "seconds": time.process_time() - start,
        "columns": table.values.shape[1],
        "scores": int(table.values.size),
    }
    out["peak_mb"] = peak_mb()
    return out


def run_theirs(n: int, d: int, sample: int) -> dict[str, Any]:
    """The same with cell-eval: one cell per perturbation, so that its pseudobulk is our array."""
    import anndata as ad
    import pandas as pd
    import polars as pl
    from cell_eval._types import PerturbationAnndataPair, initialize_de_comparison
    from cell_eval.metrics import _anndata

    control, truth, prediction = arrays(n, d)
    perturbations, features = names(n, d)
    out: dict[str, Any] = {"seconds": {}, "mean": {}, "input_mb": peak_mb()}
    silent_tqdm(_anndata)

    def pair(k: int) -> PerturbationAnndataPair:
        obs = pd.DataFrame({"pert": [*perturbations[:k], "ctrl"]}).set_index(
            pd.Index([str(i) for i in range(k + 1)])
        )
        var = pd.DataFrame(index=features)
        sides = [
            ad.AnnData(np.vstack([control + x[:k], control]), obs=obs.copy(), var=var.copy())
            for x in (truth, prediction)
        ]
        return PerturbationAnndataPair(*sides, pert_col="pert", control_pert="ctrl")

    def timed(name: str, work: Any, scale: float = 1.0) -> None:
        start = time.process_time()
        value = list(work().values())
        out["seconds"][name] = (time.process_time() - start) * scale
        out["mean"][name] = float(np.mean(value))

    whole = pair(n)
    timed("pearson_delta", lambda: _anndata.pearson_delta(whole))
    timed("mse", lambda: _anndata.mse_delta(whole))
    timed("mae", lambda: _anndata.mae_delta(whole))
    for kind in ("l2", "cosine"):
        timed(
            f"retrieval_{kind}",
            lambda k=kind: sampled(whole, sample, n, k),
            scale=n / min(sample, n),
        )
    rows = {"target": np.repeat(perturbations, d), "feature": np.tile(features, n)}
    significant = np.zeros(n * d, dtype=np.float32)

    def table(x: np.ndarray) -> pl.DataFrame:
        values = {"log2_fold_change": x.ravel(), "p_value": significant, "fdr": significant}
        return pl.DataFrame({**rows, **values})

    comparison = initialize_de_comparison(table(truth), table(prediction))
    for k in (50, 100):
        timed(f"overlap_at_{k}", lambda k=k: comparison.compute_overlap(k=k, fdr_threshold=0.05))
    out["peak_mb"] = peak_mb()
    return out


def sampled(pair: Any, sample: int, n: int, kind: str) -> dict[str, float]:
    """cell-eval's discrimination score; beyond `sample` perturbations its loop is cut short."""
    from cell_eval.metrics import _anndata

    if sample >= n:
        return _anndata.discrimination_score(pair, metric=kind, exclude_target_gene=False)

    class Enough(Exception):
        pass

    real, calls = _anndata.skm.pairwise_distances, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        if len(calls) == sample:
            raise Enough
        calls.append(1)
        return real(*args, **kwargs)

    _anndata.skm.pairwise_distances = counted
    try:
        _anndata.discrimination_score(pair, metric=kind, exclude_target_gene=False)
    except Enough:
        pass
    finally:
        _anndata.skm.pairwise_distances = real
    return {"not compared": float("nan")}


def silent_tqdm(module: Any) -> None:
    """Progress bars would be part of the time."""
    from cell_eval._types import _anndata as types

    types.tqdm = lambda items, **_: items


def child(side: str, n: int, d: int, sample: int) -> dict[str, Any]:
    """Run one side in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--n", str(n), "--d", str(d)]
    command += ["--sample", str(sample)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="300 perturbations x 1,000 genes")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--d", type=int, default=5000)
    parser.add_argument("--sample", type=int, default=10**9, help="rows cell-eval retrieves")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    n, d = (300, 1000) if given.quick else (given.n, given.d)
    if given.side:
        run = run_ours(n, d) if given.side == "ours" else run_theirs(n, d, given.sample)
        print(json.dumps(run))
        return
    ours = child("ours", n, d, given.sample)
    theirs = child("theirs", n, d, given.sample)
    print(f"SIMULATED data, {n} perturbations x {d} genes, {os.environ['OMP_NUM_THREADS']} thread")
    if given.sample < n:
        print(f"cell-eval retrieval timed on {given.sample} of {n} perturbations and scaled")
    print(f"{'metric':16} {'pertwise s':>11} {'cell-eval s':>12} {'ratio':>8}   means")
    for name, seconds in ours["seconds"].items():
        other = theirs["seconds"][name]
        a, b = ours["mean"][name], theirs["mean"][name]
        print(f"{name:16} {seconds:11.3f} {other:12.2f} {other / seconds:7.0f}x   {a:.5f} {b:.5f}")
        if not np.isnan(b) and abs(a - b) > 1e-3:
            raise SystemExit(f"{name}: the two disagree ({a} and {b})")
    total, other = sum(ours["seconds"].values()), sum(theirs["seconds"].values())
    print(f"{'sum':16} {total:11.2f} {other:12.1f} {other / total:7.0f}x")
    everything = ours["everything"]
    print(
        f"everything we compute ({everything['columns']} columns, {everything['scores']} scores): "
        f"{everything['seconds']:.1f} s, {other / everything['seconds']:.0f}x faster than the "
        "shared part with cell-eval"
    )
    print(f"peak memory: pertwise {ours['peak_mb']:.0f} MB, cell-eval {theirs['peak_mb']:.0f} MB")
    if given.json:
        given.json.write_text(json.dumps({"ours": ours, "theirs": theirs}, indent=2))


if __name__ == "__main__":
    main()
