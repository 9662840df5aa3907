"""The labels of other lines as further screens of the methods that learn from them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from pertwise import parts
from pertwise.benchmark.perturbqa.scorers import Scorer, predictor_scorer
from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats
from pertwise.kernels.transfer import measured_in
from pertwise.knowledge import Knowledge
from pertwise.models.methods import Method, make_method

#: "anywhere": the knock-downs scored are hidden in the other lines; "elsewhere": only those that
#: another line measured are scored, and may be looked up there. The two are never mixed.
Setting = Literal["anywhere", "elsewhere"]
Files = Mapping[tuple[str, str], Path]


def of_others(files: Files, line: str) -> dict[str, str]:
    """Label -> file of every label table of another line.

    Raises
    ------
    pertwise.errors.InputError
        If the folder has no other line.
    """
    found = {f"{other} {task}": str(p) for (other, task), p in files.items() if other != line}
    if not found:
        raise InputError(f"the labels are those of {line} alone: there is no other line to use")
    return found


def learns(method: Method) -> bool:
    """Whether a method takes other screens."""
    return "other" in parts.describe("predictor", method.use).facts.reads


def informed(
    method: Method,
    files: Files,
    knowledge: Knowledge | None,
    setting: Setting,
    line: str,
    task: str,
) -> Scorer:
    """The scorer of a method that also learns from the labels of the other lines."""
    settings = {**method.settings, "other": of_others(files, line)}
    made = make_method(method.use, method.label, **settings)

    def scorer(train: pd.DataFrame, pairs: pd.DataFrame) -> Floats:
        asked = sorted(set(pairs["pert"])) if setting == "anywhere" else []
        build = partial(made.build, hidden=asked, knowledge=knowledge)
        scores = predictor_scorer(build, task, knowledge, context=line)(train, pairs)
        return np.asarray(scores, dtype=np.float64)

    return scorer


def elsewhere(
    test: pd.DataFrame, files: Files, knowledge: Knowledge | None, line: str
) -> pd.DataFrame:
    """The pairs whose knock-down another line measured.

    Raises
    ------
    pertwise.errors.InputError
        If there is none.
    """
    names = sorted(set(test["pert"]))
    seen = measured_in(of_others(files, line), names, knowledge).values()
    kept = test[test["pert"].isin(frozenset().union(*seen))]
    if not len(kept):
        raise InputError(
            f"none of the {len(names)} knock-downs scored in {line} is in another line"
        )
    return kept
