"""Tables of effect sizes by dose as a `Screen`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from pertwise._files import open_text
from pertwise._text import one_line
from pertwise.errors import InputError
from pertwise.screen.conditions import parse_condition
from pertwise.screen.core import Screen


def read_effect_table(path: str | os.PathLike[str]) -> Screen:
    """A lines x conditions table of effect sizes (E-distance) as a screen of log2 values.

    Columns ``[('Drug', dose, 'uM')]``, rows cell lines (public counterpart: the E-distances to
    same-plate controls of Tahoe-100M). Perturbation = drug, dose = dose, features = lines; zero or
    negative distances (no effect beyond sampling) take the smallest positive one of their line.

    Raises
    ------
    pertwise.errors.InputError
        If a column is no condition or there is no number.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    with open_text(file, "a table of effect sizes") as text:
        frame = pd.read_csv(text, sep="\t", index_col=0)
        values = frame.to_numpy(dtype=np.float64)
    conditions = [parse_condition(str(c)) for c in frame.columns]
    bad = [c for c, (_, dose) in zip(frame.columns, conditions, strict=True) if np.isnan(dose)]
    if bad:
        shown = one_line(str(bad[0]), 80)
        raise InputError(f"{file}: column {shown!r} is not of the form [('Drug', dose, unit)]")
    positive = np.where(values > 0, values, np.nan)
    if not values.size or not np.isfinite(positive).any(axis=1).all():
        raise InputError(f"{file}: a line has no positive effect size")
    floor = np.nanmin(positive, axis=1, keepdims=True)
    logs = np.log2(np.where(np.isfinite(values), np.maximum(values, floor), np.nan)).T
    table = pd.DataFrame(conditions, columns=["perturbation", "dose"]).assign(
        context="all lines", n_cells=np.nan, sampling_variance=np.nan
    )
    table = table[["perturbation", "context", "dose", "n_cells", "sampling_variance"]]
    table.index = pd.Index([f"{p}|{d:g}" for p, d in conditions])
    return Screen(
        responses=logs.astype(np.float32),
        obs=table,
        features=tuple(map(str, frame.index)),
        control_mean=np.full((1, len(frame)), np.nan, dtype=np.float32),
        meta={"source": file.name, "unit": "log2 energy distance to same-plate controls"},
    )
