"""Everything measured beside the field's tools, in one run; docs/performance.md is its output.

    python benchmarks/peers.py --env /tmp/peers --page docs/performance.md
    python benchmarks/peers.py --env /tmp/peers --quick            # small sizes, a few minutes

The peers (`PEERS`) live in a virtual environment of their own, which is made in the folder given by
`--env` when it is not there; one that cannot be installed is a line that says so. SIMULATED data.
Each measurement runs in a process of its own, with one thread. Times are processor seconds of the
work alone (its second run in a process, children included), so that other work on the machine
counts less; memory is the peak of the process. Every pair is checked to give the same result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np  # noqa: E402

PEERS = ("scanpy", "decoupler", "crispyx", "cell-eval", "cell-eval2", "scikit-learn", "gpytorch")
#: Largest difference at which two results count as the same.
SAME = {"pseudobulk": 1e-4, "metrics": 1e-3, "kernel regression": 1e-4}
NOISE = 0.5


# -- pseudobulk: deltas of perturbations, names in sorted order ------------------------------------


def pseudobulk_pertwise(folder: Path) -> np.ndarray:
    from pertwise.screen import PseudobulkSettings
    from pertwise.screen.pseudobulk import pseudobulk

    screen = pseudobulk(folder / "cells.h5ad", PseudobulkSettings(n_hvg=0))
    return screen.responses[np.argsort(screen.obs["perturbation"].to_numpy().astype(str))]


def _normalised(folder: Path) -> Any:
    import scanpy

    data = scanpy.read_h5ad(folder / "cells.h5ad")
    scanpy.pp.normalize_total(data, target_sum=1e4)
    scanpy.pp.log1p(data)
    return data


def _deltas(names: Any, means: Any) -> np.ndarray:
    names = np.asarray(names).astype(str)
    order = [i for i in np.argsort(names) if names[i] != "control"]
    return np.asarray(means)[order] - np.asarray(means)[names == "control"]


def pseudobulk_scanpy(folder: Path) -> np.ndarray:
    import scanpy

    found = scanpy.get.aggregate(_normalised(folder), by="perturbation", func="mean")
    return _deltas(found.obs_names, found.layers["mean"])


def pseudobulk_decoupler(folder: Path) -> np.ndarray:
    import decoupler

    found = decoupler.pp.pseudobulk(
        _normalised(folder), "perturbation", None, mode="mean", skip_checks=True
    )
    return _deltas(found.obs["perturbation"], found.X)


def pseudobulk_crispyx(folder: Path) -> np.ndarray:
    from crispyx.pseudobulk import compute_normalized_effects

    (folder / "crispyx.h5ad").unlink(missing_ok=True)
    found = compute_normalized_effects(
        folder / "cells.h5ad",
        perturbation_column="perturbation",
        control_label="control",
        output_path=folder / "crispyx.h5ad",
        verbose=False,
    )
    values = found.X[:]
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    return values[np.argsort(np.asarray(found.obs_names).astype(str))]


# -- metrics: means of Pearson delta, MSE and MAE over perturbations -------------------------------


def _arrays(folder: Path) -> Any:
    from metrics import arrays, names

    n, d = json.loads((folder / "size.json").read_text())
    return arrays(n, d), names(n, d)


def metrics_pertwise(folder: Path) -> Callable[[], np.ndarray]:
    from pertwise.evaluate import metrics

    (_, truth, prediction), _ = _arrays(folder)
    made = (metrics.pearson_delta, metrics.mse, metrics.mae)
    return lambda: np.array([np.mean(f(truth, prediction)) for f in made])


def _pair(folder: Path) -> Any:
    import anndata as ad
    import pandas as pd

    (control, truth, prediction), (perturbations, features) = _arrays(folder)
    obs = pd.DataFrame({"pert": [*perturbations, "ctrl"]})
    obs.index = obs.index.astype(str)
    var = pd.DataFrame(index=features)
    return [
        ad.AnnData(np.vstack([control + x, control]), obs=obs.copy(), var=var.copy())
        for x in (truth, prediction)
    ]


def metrics_cell_eval(folder: Path) -> Callable[[], np.ndarray]:
    from cell_eval._types import PerturbationAnndataPair
    from cell_eval.metrics import _anndata
    from metrics import silent_tqdm

    silent_tqdm(_anndata)
    both = PerturbationAnndataPair(*_pair(folder), pert_col="pert", control_pert="ctrl")
    made = (_anndata.pearson_delta, _anndata.mse_delta, _anndata.mae_delta)
    return lambda: np.array([np.mean(list(f(both).values())) for f in made])


def metrics_cell_eval2(folder: Path) -> Callable[[], np.ndarray]:
    from cell_eval2.metrics import delta

    real, predicted = _pair(folder)
    made = (delta.pearson_delta, delta.mse_delta, delta.mae_delta)
    asked = {"pert_col": "pert", "control": "ctrl"}
    return lambda: np.array([np.mean(list(f(predicted, real, **asked).values())) for f in made])


# -- kernel regression: one kernel and noise, means at new points ----------------------------------


def _regression(folder: Path) -> tuple[np.ndarray, ...]:
    found = np.load(folder / "regression.npz")
    return found["x"], found["y"], found["new"]


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    apart = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.exp(-apart / (2 * a.shape[1]))


def regression_pertwise(folder: Path) -> Callable[[], np.ndarray]:
    from pertwise.arrays.gaussian_process import solved

    x, y, new = _regression(folder)
    return lambda: _kernel(new, x) @ solved(_kernel(x, x), NOISE, y)[0]


def regression_sklearn(folder: Path) -> Callable[[], np.ndarray]:
    from sklearn.kernel_ridge import KernelRidge

    x, y, new = _regression(folder)
    model = KernelRidge(alpha=NOISE, kernel="rbf", gamma=1 / (2 * x.shape[1]))
    return lambda: model.fit(x, y).predict(new)


def regression_gpytorch(folder: Path) -> Callable[[], np.ndarray]:
    import gpytorch
    import torch

    torch.set_num_threads(1)
    x, y, new = (torch.tensor(a) for a in _regression(folder))

    covariance = gpytorch.kernels.RBFKernel().double()
    covariance.lengthscale = float(x.shape[1]) ** 0.5

    def work() -> np.ndarray:
        # Its exact GP would factorise anew for each output; here all share one, as ours do.
        exact = gpytorch.settings.fast_computations(False, False, False)
        with torch.no_grad(), exact:
            inside = covariance(x).add_diagonal(torch.tensor(NOISE, dtype=x.dtype))
            return (covariance(new, x) @ inside.solve(y)).numpy()

    return work


STEPS: dict[str, dict[str, Callable[[Path], Any]]] = {
    "pseudobulk": {
        "pertwise": pseudobulk_pertwise,
        "scanpy": pseudobulk_scanpy,
        "decoupler": pseudobulk_decoupler,
        "crispyx": pseudobulk_crispyx,
    },
    "metrics": {
        "pertwise": metrics_pertwise,
        "cell-eval": metrics_cell_eval,
        "cell-eval2": metrics_cell_eval2,
    },
    "kernel regression": {
        "pertwise": regression_pertwise,
        "scikit-learn": regression_sklearn,
        "gpytorch": regression_gpytorch,
    },
}
#: What is imported before the clock starts.
IMPORTS = {"pertwise": "pertwise.screen.pseudobulk", "scikit-learn": "sklearn"}


def step(topic: str, who: str, folder: Path) -> None:
    """One measurement, in this process; prints seconds and memory, leaves its result in a file."""
    import importlib

    from _cells import peak_rss_gb

    importlib.import_module(IMPORTS.get(who, who.replace("-", "_")))
    work = STEPS[topic][who]
    work = work if topic == "pseudobulk" else (lambda _, made=work(folder): made())
    work(folder)  # what a tool compiles or imports at its first call is not part of the work
    start = sum(os.times()[:4])
    result = work(folder)
    took = sum(os.times()[:4]) - start
    np.save(folder / f"{who}.npy", result)
    print(json.dumps({"seconds": took, "gb": peak_rss_gb()}))


def prepare(env: Path) -> tuple[Path, dict[str, str]]:
    """The peers' interpreter, and peer -> its version, or "" and why not."""
    python = env / "bin" / "python"
    if not python.exists():
        venv.create(env, with_pip=True)
    versions = {}
    for peer in PEERS:
        asked = [
            str(python),
            "-c",
            f"from importlib.metadata import version as v;print(v('{peer}'))",
        ]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        if found.returncode:
            install = [str(python), "-m", "pip", "install", "-q", peer]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            found = subprocess.run(asked, capture_output=True, text=True, check=False)
            if found.returncode:
                said = (done.stderr.strip() or "pip says nothing").splitlines()[-1]
                versions[peer] = f"not installed: {said[:120]}"
                continue
        versions[peer] = found.stdout.strip()
    return python, versions


def write_inputs(topic: str, folder: Path, quick: bool) -> str:
    """The inputs of a topic; returns what they are."""
    if topic == "pseudobulk":
        from _cells import write_cells

        cells, genes = (10_000, 2_000) if quick else (100_000, 8_000)
        write_cells(
            folder / "cells.h5ad", cells, genes, n_perturbations=cells // 200,
            counts_per_cell=3_000.0, seed=0, n_batches=1,
        )  # fmt: skip
        return (
            f"{cells:,} cells x {genes:,} genes: normalised, log1p, mean minus the controls' mean"
        )
    n, d = (300, 1_000) if quick else (2_000, 5_000)
    if topic == "metrics":
        (folder / "size.json").write_text(json.dumps([n, d]))
        return f"Pearson delta, MSE and MAE of {n:,} perturbations x {d:,} genes"
    n, d = (500, 200) if quick else (2_000, 1_000)
    rng = np.random.default_rng(0)
    x, new = rng.standard_normal((n, 50)), rng.standard_normal((200, 50))
    np.savez(folder / "regression.npz", x=x, new=new, y=rng.standard_normal((n, d)))
    return (
        f"{n:,} points x {d:,} outputs, one radial kernel and noise, means at 200 new points; "
        "pertwise's time includes leave-one-out predictions, which the others do not give"
    )


def compare(topic: str, python: Path, versions: dict[str, str], quick: bool) -> list[str]:
    """A section of the page."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="pertwise-peers-") as name:
        folder = Path(name)
        lines += [f"## {topic.capitalize()}", "", f"{write_inputs(topic, folder, quick)}.", ""]
        lines += [
            "| tool | version | CPU s | peak GB | time / pertwise | memory / pertwise | "
            "largest difference |",
            "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        ours: dict[str, float] = {}
        for who in STEPS[topic]:
            own = who == "pertwise"
            version = "this one" if own else versions[who]
            if version.startswith("not installed"):
                lines.append(f"| {who} | {version} | | | | | |")
                continue
            asked = [sys.executable if own else str(python), __file__, "--step", topic, who, name]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            if done.returncode:
                why = (done.stderr.strip() or "no reason given").splitlines()[-1][:160]
                lines.append(f"| {who} | {version} | failed: {why} | | | | |")
                continue
            got = json.loads(done.stdout.splitlines()[-1])
            ours = ours or got
            apart = np.abs(np.load(folder / f"{who}.npy") - np.load(folder / "pertwise.npy")).max()
            same = f"{apart:.0e}" if apart <= SAME[topic] else f"**{apart:.0e}, not the same**"
            ratios = (got["seconds"] / max(ours["seconds"], 1e-3), got["gb"] / ours["gb"])
            lines.append(
                f"| {who} | {version} | {got['seconds']:.3g} | {got['gb']:.2f} | "
                f"{ratios[0]:.2f} | {ratios[1]:.2f} | {'' if own else same} |"
            )
            print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    """Run everything, print the lines and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--env", type=Path, help="folder of the peers' virtual environment")
    parser.add_argument("--page", type=Path, help="write the markdown page here")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--only", nargs="*", choices=tuple(STEPS), default=tuple(STEPS))
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        step(given.step[0], given.step[1], Path(given.step[2]))
        return
    if given.env is None:
        parser.error("--env FOLDER says where the peers are installed")
    python, versions = prepare(given.env)
    command = "python benchmarks/peers.py --env FOLDER --page docs/performance.md"
    today = datetime.date.today().isoformat()
    lines = [
        "# Performance beside other tools",
        "",
        f"Output of `{command}{' --quick' if given.quick else ''}` of {today} (Python "
        f"{platform.python_version()}, {platform.machine()}, one thread). SIMULATED data. CPU s: "
        "processor seconds of the second run in a process of its own. A ratio above 1 means that "
        "pertwise needs less, one below 1 that it needs more. The last column compares results.",
        "",
    ]
    for topic in given.only:
        lines += compare(topic, python, versions, given.quick)
    text = "\n".join(lines).rstrip() + "\n"
    if given.page:
        # What was measured by other commands stays.
        _, kept, rest = (given.page.read_text("utf-8") if given.page.exists() else "").partition(
            "\n## Commands"
        )
        text += kept + rest
        given.page.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
