"""Two runs of PerturbQA that asked two models the same: before and after tuning, say."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd

from pertwise.benchmark.engine import BenchmarkRun
from pertwise.benchmark.perturbqa.task import PerturbqaTask
from pertwise.errors import InputError
from pertwise.evaluate.statistics import compare_methods, holm
from pertwise.provenance import contents

#: Settings that may differ: who was asked, with which prompt, and what else was scored.
_FREE = ("labels", "knowledge", "ratings", "methods", "votes", "llm", "prompt")


def check_before(folder: str | os.PathLike[str], task: PerturbqaTask) -> BenchmarkRun[Any]:
    """The earlier run in a folder, which scored the same pairs in the same manner.

    Raises
    ------
    pertwise.errors.InputError
        When it is no such run, asked no model, is not finished, or differs in another setting or
        input than model and prompt.
    """
    run = BenchmarkRun.open(folder, PerturbqaTask)
    if not run.task.model or not run.record.get("finished"):
        raise InputError(f"{folder} holds no finished run that asked a model (--llm MODEL@URL)")
    old, new = (t.settings.model_dump(mode="json") for t in (run.task, task))
    changed = [k for k in new if k not in _FREE and old[k] != new[k]]
    if contents(run.record["inputs"]) != contents(task.inputs):
        changed.append("label files or knowledge")
    if changed:
        what = ", ".join(changed)
        raise InputError(f"{folder} was made with other {what}: both must be asked the same")
    return run


def before_and_after(before: BenchmarkRun[Any], after: BenchmarkRun[Any]) -> pd.DataFrame:
    """One row a cell line and task, paired over target genes.

    Returns
    -------
    pandas.DataFrame
        line, task, n_genes, before, after (mean AUROC), difference, low, high (paired bootstrap,
        95 %), p (Wilcoxon), p_holm (over all rows), coverage_before, coverage_after.
    """
    sides = {"before": before, "after": after}
    genes = {name: _of_model(run, run.table) for name, run in sides.items()}
    covered = {name: _of_model(run, run.summary) for name, run in sides.items()}
    rows = []
    for (line, task), _ in genes["after"].groupby(["line", "task"], sort=False):
        of_file = {n: t[(t["line"] == line) & (t["task"] == task)] for n, t in genes.items()}
        each = {n: t.groupby("gene")["auroc"].mean() for n, t in of_file.items()}
        wide = pd.DataFrame(each).dropna()
        seed = np.random.default_rng(after.task.settings.seed)
        row = compare_methods(wide[["after", "before"]], seed).iloc[0]
        found = {"line": line, "task": task, "n_genes": len(wide), **wide.mean()}
        found |= {k: row[k] for k in ("difference", "low", "high", "p")}
        for name, table in covered.items():
            here = table[(table["line"] == line) & (table["task"] == task)]
            found[f"coverage_{name}"] = float(here["coverage"].mean())
        rows.append(found)
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    return table


def _of_model(run: BenchmarkRun[Any], table: pd.DataFrame) -> pd.DataFrame:
    return table[table["method"] == run.task.model]
