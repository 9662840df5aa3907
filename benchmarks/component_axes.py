"""What the approximate principal axes of the context kernels cost, on a fifth of Tahoe's compounds.

    PERTWISE_DATA=FOLDER python benchmarks/component_axes.py --min-effect 0.8

Above `component_scales.EXACT_ROWS` rows the leading axes are found by subspace iteration. Here the
same model is fitted with all of them by an eigendecomposition, and with the iteration, and both
predict compounds that neither saw: squared error, processor seconds, largest difference.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np

from pertwise import parts
from pertwise.arrays import component_scales
from pertwise.benchmark.prediction.regimes import RegimesConfig, open_regimes
from pertwise.config import read_settings


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--min-effect", type=float, default=0.8, help="fewer rows, the larger")
    given = parser.parse_args()
    config = read_settings(
        "benchmarks/drugs_tahoe.toml", RegimesConfig, folder=os.environ["PERTWISE_DATA"]
    )
    data = config.data.model_copy(update={"min_effect": given.min_effect})
    opened = open_regimes(config.model_copy(update={"data": data}), plates=False)
    screen, knowledge = opened.screen.only_measured(), opened.knowledge
    held = screen.perturbations[::5]
    train = screen.hide(held).only_measured()
    print(f"{len(train):,} training rows, {len(held)} compounds held out")
    found = {}
    for way, rows in (("exact", len(train)), ("iteration", 0)):
        component_scales.EXACT_ROWS = rows
        start = time.process_time()
        model = parts.load("predictor", "multi-kernel").fit(train, knowledge)
        took = time.process_time() - start
        errors, means = [], []
        for context in screen.contexts:
            at = (screen.obs["context"] == context) & screen.obs["perturbation"].isin(held)
            rows_here = np.flatnonzero(at.to_numpy())
            if context not in train.contexts or not len(rows_here):
                continue
            names = [str(n) for n in screen.obs["perturbation"].iloc[rows_here]]
            mean = model.predict(names, context).mean
            means.append(mean)
            errors.append(np.nanmean((screen.responses[rows_here] - mean) ** 2, axis=1))
        found[way] = (float(np.concatenate(errors).mean()), np.concatenate(means))
        print(f"{way:10} {took:7.1f} CPU s  mean squared error {found[way][0]:.6f}", flush=True)
    (error, mean), (other, approximate) = found["exact"], found["iteration"]
    print(
        f"loss {100 * (other / error - 1):+.4f} % of the error; largest difference of a value "
        f"{np.abs(mean - approximate).max():.1e} of {np.abs(mean).max():.1f}"
    )


if __name__ == "__main__":
    main()
