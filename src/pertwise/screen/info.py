"""What is in a file? The recogniser behind ``pertwise screen info``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertwise._names import is_combination
from pertwise.errors import InputError
from pertwise.screen.cells import check_exists, open_cells
from pertwise.screen.core import Screen
from pertwise.screen.grouping import Grouping, group_rows
from pertwise.screen.layouts import (
    Keys,
    Layout,
    label_counts,
    no_control,
    recognise,
)
from pertwise.screen.read import holds_cells, is_table, own_screen, read_screen
from pertwise.screen.scale import decide_scale
from pertwise.screen.scan import context_of, other_matrices, scale_tag

#: So many names of features are shown.
FIRST = 5


@dataclass(frozen=True)
class ScreenInfo:
    """What was recognised in a file; `to_json` gives plain values.

    Attributes
    ----------
    path, holds, layout
        The file; "cells" or "means"; one line that says by which columns.
    n_rows, n_features, n_perturbations, n_combinations
        Rows are cells or means; perturbations without the control.
    first_features
        Names of the first few features.
    contexts
        Context -> number of perturbations there.
    doses
        Number of distinct doses.
    control
        Control labels as they stand in the file.
    control_rows, batches
        Rows that are controls; number of batches (0: none).
    cells
        minimum, median and maximum of cells per perturbation; empty when unknown.
    nan_share
        Share of missing values (means only).
    scale
        Verdict on the values with its evidence.
    simulated
        True for simulated data.
    notes, problems
        Choices and repairs; and what stands in the way of using the file.
    """

    path: str
    holds: str
    layout: str
    n_rows: int
    n_features: int
    first_features: tuple[str, ...] = ()
    n_perturbations: int = 0
    n_combinations: int = 0
    contexts: Mapping[str, int] = field(default_factory=dict)
    doses: int = 0
    control: tuple[str, ...] = ()
    control_rows: int = 0
    batches: int = 0
    cells: Mapping[str, float] = field(default_factory=dict)
    nan_share: float | None = None
    scale: str = ""
    simulated: bool = False
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-able dictionary, in the order of the attributes."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in vars(self).items()
        }


def describe_screen(
    path: str | os.PathLike[str],
    *,
    keys: Keys | None = None,
    layer: str | None = None,
    feature_key: str | None = None,
    drop_empty: bool = False,
    **options: Any,
) -> ScreenInfo:
    """Recognise a file and count what is in it; expression values are only sampled.

    Parameters
    ----------
    options
        Further options of `read_screen` (values, duplicates, infinite, context).

    Raises
    ------
    pertwise.errors.InputError
        If the file is missing or is no table of cells or means at all. What merely stands in
        the way of using it (no control, repeated names ...) is listed in `problems` instead.
    """
    keys = keys or Keys()
    source = check_exists(path)
    given = {
        "perturbation_key": keys.perturbation,
        "control": keys.control,
        "context_key": keys.context,
        "dose_key": keys.dose,
        "batch_key": keys.batch,
        "n_cells_key": keys.n_cells,
        "labels": keys.labels,
        **options,
    }
    if is_table(source):
        return _of_screen(source, read_screen(source, drop_empty=drop_empty, **given))
    own = own_screen(source)
    if own is not None:
        return _of_screen(source, own, own=True)
    with open_cells(source, layer=layer, feature_key=feature_key) as file:
        context = options.get("context")
        name = context_of(file.uns) if context is None else str(context)
        layout = recognise(
            file.obs, keys, context_name=name, where=str(source), features=file.features
        )
        problems: list[str] = []
        try:
            grouping = group_rows(file.obs, layout, drop_empty=drop_empty, where=str(source))
        except InputError as error:
            problems.append(str(error))
            grouping = group_rows(file.obs, layout, drop_empty=True, where=str(source))
        if holds_cells(grouping):
            if not layout.control:
                problems.append(str(no_control(label_counts(file.obs, layout), str(source))))
            try:
                verdict = decide_scale(
                    file.sample(),
                    tag=scale_tag(file),
                    where=str(source),
                    others=other_matrices(file),
                )
                scale = f"{verdict.scale} in {file.layer} ({verdict.evidence})"
            except InputError as error:
                scale = "cannot be told"
                problems.append(str(error))
            return _of_cells(
                source,
                file.obs,
                layout,
                grouping,
                file.features,
                scale,
                (*file.notes, *layout.notes, *_left_out(grouping)),
                problems,
                bool(file.uns.get("simulated")),
            )
        n_rows, features = len(file), file.features
    if not problems:
        try:
            screen = read_screen(
                source, layer=layer, feature_key=feature_key, drop_empty=drop_empty, **given
            )
            return _of_screen(source, screen)
        except InputError as error:
            problems.append(str(error))
    return ScreenInfo(
        path=str(source),
        holds="means",
        layout=layout.describe(),
        n_rows=n_rows,
        n_features=len(features),
        first_features=features[:FIRST],
        problems=tuple(problems),
    )


def _of_cells(
    source: Path,
    obs: pd.DataFrame,
    layout: Layout,
    grouping: Grouping,
    features: tuple[str, ...],
    scale: str,
    notes: tuple[str, ...],
    problems: list[str],
    simulated: bool,
) -> ScreenInfo:
    groups = grouping.groups
    perturbed = groups[~groups["is_control"]]
    counts = np.bincount(grouping.codes[grouping.codes >= 0], minlength=len(groups))
    of_perturbation = counts[perturbed.index]
    is_control = groups["is_control"].to_numpy(dtype=bool)
    return ScreenInfo(
        path=str(source),
        holds="cells",
        layout=layout.describe(),
        n_rows=len(obs),
        n_features=len(features),
        first_features=features[:FIRST],
        scale=scale,
        **_of_groups(perturbed),
        control=layout.control,
        control_rows=int(counts[is_control].sum()),
        batches=len(np.unique(grouping.batches)) if layout.batch else 0,
        cells=_spread(of_perturbation),
        simulated=simulated,
        notes=notes,
        problems=tuple(problems),
    )


def _of_screen(source: Path, screen: Screen, own: bool = False) -> ScreenInfo:
    control = screen.meta.get("control", ())
    cells = screen.obs["n_cells"].to_numpy(dtype=float)
    unit = str(screen.meta.get("unit", ""))
    taken = screen.meta.get("values")
    return ScreenInfo(
        path=str(source),
        holds="means",
        layout="pertwise screen" if own else str(screen.meta.get("layout", "")),
        n_rows=len(screen),
        n_features=screen.n_features,
        first_features=screen.features[:FIRST],
        scale=unit + (f"; read as {taken}" if taken else ""),
        **_of_groups(screen.obs),
        control=(control,) if isinstance(control, str) else tuple(control),
        cells=_spread(cells[np.isfinite(cells)]),
        nan_share=float(np.isnan(screen.responses).mean()) if screen.responses.size else 0.0,
        simulated=screen.simulated,
        notes=tuple(map(str, screen.meta.get("notes", ()))),
    )


def _of_groups(groups: pd.DataFrame) -> dict[str, Any]:
    names = groups["perturbation"].unique()
    contexts = groups.groupby("context", sort=False)["perturbation"].nunique()
    return {
        "n_perturbations": len(names),
        "n_combinations": sum(is_combination(n) for n in names),
        "contexts": {str(k): int(v) for k, v in contexts.items()},
        "doses": int(groups["dose"].nunique()),
    }


def _left_out(grouping: Grouping) -> tuple[str, ...]:
    n = grouping.n_left_out
    return (f"{n} cells of labels that are no perturbation left out",) if n else ()


def _spread(counts: Any) -> dict[str, float]:
    if not len(counts):
        return {}
    return {
        "min": float(np.min(counts)),
        "median": float(np.median(counts)),
        "max": float(np.max(counts)),
    }
