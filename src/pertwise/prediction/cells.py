"""Predictions as cells: control cells, resampled and changed as predicted (`cell_models`)."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pertwise.errors import InputError
from pertwise.models import Prediction
from pertwise.prediction.cell_models import STATED, CellModel
from pertwise.prediction.writing import CONTROLS, label_in
from pertwise.screen.cells import open_cells
from pertwise.screen.grouping import group_rows
from pertwise.screen.layouts import Keys, recognise
from pertwise.screen.scale import decide_scale, tag_of
from pertwise.screen.sums import normalise

if TYPE_CHECKING:
    from anndata import AnnData

#: Control cells kept, drawn among those of the file.
MAX_CONTROLS = 2000


@dataclass(frozen=True)
class Controls:
    """Control cells of a file.

    Attributes
    ----------
    values
        (n, d) log1p of normalised counts, or the values as they stand where they are no counts.
    counts
        (n, d) raw counts, or None.
    size
        (n,) counts of each cell.
    """

    values: NDArray[np.float32]
    counts: NDArray[np.float32] | None
    size: NDArray[np.float64]
    features: tuple[str, ...]
    names: tuple[str, ...]
    label: str


def read_controls(
    path: str | os.PathLike[str] | AnnData,
    *,
    context: str = "",
    keys: Keys | None = None,
    target_sum: float = 1e4,
    seed: int = 0,
    most: int = MAX_CONTROLS,
) -> Controls:
    """The control cells of any file that `pertwise.screen` reads; at most `most`, drawn.

    A layer "counts" goes before X. Values that are no counts are taken as they stand: they must be
    what the screen's responses are differences of.

    Raises
    ------
    pertwise.errors.InputError
        If there is no control, or none of `context` where the file tells contexts apart.
    """
    with open_cells(path) as file:
        where = str(file.path)
        layout = recognise(file.obs, keys, where=where, features=file.features)
        grouping = group_rows(file.obs, layout, drop_empty=True, where=where)
        groups = grouping.groups
        wanted = groups["is_control"].to_numpy(dtype=bool)
        if context and layout.context and groups["context"].nunique() > 1:
            wanted &= (groups["context"] == context).to_numpy()
        rows = np.flatnonzero((grouping.codes >= 0) & wanted[grouping.codes])
        if not len(rows):
            place = f" of {context!r}" if context else ""
            raise InputError(
                f"{where}: no control cell{place} found ({layout.describe()}); name their label "
                "with --control"
            )
        if len(rows) > most:
            rows = np.sort(np.random.default_rng([seed, 7]).choice(rows, most, replace=False))
        blocks = []
        for start, block in file.blocks():
            inside = rows[(rows >= start) & (rows < start + block.shape[0])] - start
            blocks.append(block[inside])
        x = sparse.vstack(blocks, format="csr")
        tag = tag_of(file.uns) if file.layer == "X" else None
        try:
            scale = decide_scale(x[:60], tag=tag, where=where).scale
        except InputError:
            # Components, z-scores, smooth values: they are used as they stand.
            scale = "as-is"
        names = tuple(map(str, file.obs.index[rows]))
        features = file.features
    size = np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
    counted = scale == "counts"
    values = normalise(x, scale, size, target_sum).toarray().astype(np.float32)
    counts = x.toarray().astype(np.float32) if counted else None
    label = layout.control[0] if layout.control else "control"
    return Controls(values, counts, size, features, names, label)


def to_cells(
    prediction: Prediction,
    controls: str | os.PathLike[str] | AnnData | Controls,
    n: int = 100,
    seed: int = 0,
    *,
    model: str | None = None,
    spread: float = 0.0,
    values: Literal["log", "counts"] = "log",
    column: str = "perturbation",
    control: str | None = None,
    context: str = "",
    with_controls: bool = True,
    keys: Keys | None = None,
    target_sum: float = 1e4,
) -> AnnData:
    """Predicted cells: `n` of every perturbation, and the control cells they were made of.

    Genes of the control file that are not predicted stay as they are (``var["predicted"]``). The
    draw of a perturbation depends on its name and the seed alone.

    Parameters
    ----------
    controls
        A file with control cells (`read_controls`), or what that returned.
    model
        "counts" (default where the controls are counts), "scale" (default elsewhere), "shift"
        (`cell_models.STATED`).
    spread
        Every cell draws a response of its own: the mean plus normal noise of `spread` times the
        predicted standard deviation. 0: all cells share the mean response.
    values
        What X holds: log1p of normalised counts, or raw counts (the other one is a layer).
    column, control
        Column of labels, and the label of the controls (None: what goes with the column, see
        `writing.to_anndata`, else as in their file).
    with_controls
        False leaves the control cells out, as some submissions must.

    Returns
    -------
    AnnData: X; layers "counts" or "log"; obs `column`, is_control, source_cell (the control cell it
    was made of), context where given; uns scale, and in "pertwise_cells" how they were made.

    Raises
    ------
    pertwise.errors.InputError
        For fewer than one cell, an unknown model, counts that are not there, or no common feature.
    """
    from anndata import AnnData

    if n < 1 or spread < 0:
        raise InputError(f"n ({n}) must be at least 1 and spread ({spread}) not negative")
    if not isinstance(controls, Controls):
        controls = read_controls(
            controls, context=context, keys=keys, target_sum=target_sum, seed=seed
        )
    kind = model or ("scale" if controls.counts is None else "counts")
    made = CellModel(kind, controls.values, controls.counts, controls.size, target_sum)
    if values == "counts" and kind != "counts":
        raise InputError("raw counts come from the count model: leave --cells-model out")
    at = {f: j for j, f in enumerate(controls.features)}
    own = [j for j, f in enumerate(prediction.features) if f in at]
    if not own:
        raise InputError("the control cells measure none of the predicted features")
    place = np.array([at[prediction.features[j]] for j in own])
    d, drawn, sources = len(controls.features), [], []
    for i, name in enumerate(prediction.perturbations):
        rng = np.random.default_rng([seed, *name.encode()])
        rows = rng.integers(len(controls.values), size=n)
        delta, noise = np.zeros(d), None
        delta[place] = prediction.mean[i, own]
        if spread and prediction.spread is not None:
            noise = np.zeros(d)
            noise[place] = spread * prediction.spread[i, own].astype(np.float64)
        drawn.append([_sparse(part) for part in made.draw(delta, rows, rng, noise)])
        sources.append(rows)
    label = control or CONTROLS.get(column) or controls.label
    shown = [label_in(column, name, label) for name in prediction.perturbations]
    labels = np.repeat(np.array(shown, dtype=object), n)
    index = [f"{name}-{k}" for name in prediction.perturbations for k in range(1, n + 1)]
    source = np.concatenate(sources)
    if with_controls:
        there = [_sparse(controls.values), _sparse(controls.counts)]
        drawn.append(there if kind == "counts" else [there[0], None])
        labels = np.concatenate([labels, np.full(len(controls.names), label, dtype=object)])
        source = np.concatenate([source, np.arange(len(controls.names))])
        index += [f"control-{k}" for k in range(1, len(controls.names) + 1)]
    stacked = [
        None if parts[0] is None else sparse.vstack(parts, format="csr")
        for parts in zip(*drawn, strict=True)
    ]
    obs = pd.DataFrame({column: pd.Categorical(labels)}, index=pd.Index(index))
    obs["is_control"] = np.arange(len(obs)) >= n * len(prediction.perturbations)
    obs["source_cell"] = np.array(controls.names, dtype=object)[source]
    if context:
        obs["context"] = context
    first, second = stacked if values == "log" else stacked[::-1]
    said = {"model": kind, "stated": STATED[kind], "n": n, "seed": seed, "spread": spread}
    var = pd.DataFrame({"predicted": False}, index=pd.Index(controls.features))
    var.iloc[place, 0] = True
    scale = "counts" if values == "counts" else "log1p" if made.bounded else "as-is"
    data = AnnData(
        X=first,
        obs=obs,
        var=var,
        uns={"scale": scale, "target_sum": target_sum, "pertwise_cells": json.dumps(said)},
    )
    if second is not None:
        data.layers["counts" if values == "log" else "log"] = second
    return data


def _sparse(values: NDArray[np.float32] | None) -> sparse.csr_matrix | None:
    return None if values is None else sparse.csr_matrix(values)


def write_cells(data: AnnData, path: str | os.PathLike[str]) -> Path:
    """Write predicted cells as h5ad, atomically."""
    from pertwise._hdf5 import write_h5ad_atomic

    write_h5ad_atomic(path, data)
    return Path(path)
