"""What a prediction benchmark reads, opened once; what is known of every item before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise.benchmark.prediction.config import PredictionConfig, SplitSpec
from pertwise.errors import InputError
from pertwise.evaluate.ceiling import ceiling_from_variance
from pertwise.evaluate.cells import CellBank, open_cell_bank, split_half_table
from pertwise.knowledge.genes.species import same_species
from pertwise.provenance import input_facts
from pertwise.screen.training import one_context

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

_COMPONENT = re.compile(r"(?i)^(pc|component|dim|factor|latent)[_ -]?\d+$")


@dataclass(frozen=True)
class Inputs:
    """What a benchmark reads, opened once.

    Attributes
    ----------
    screen
        Measured rows of one context: held-out truths and retrieval candidates.
    source
        What is trained on; `screen` itself except in transfer.
    knowledge
        Folder opened, or None.
    facts
        Role -> path and checksum (`pertwise.provenance.input_facts`).
    """

    screen: Screen
    source: Screen
    knowledge: Knowledge | None
    facts: Mapping[str, Mapping[str, str]]
    #: Single cells of the screen, where given.
    cells: CellBank | None = None
    #: What reading found: what was dropped, duplicated, not known.
    notes: Mapping[str, Any] = field(default_factory=dict)


def open_inputs(config: PredictionConfig) -> Inputs:
    """Read the files of a benchmark.

    Raises
    ------
    pertwise.errors.InputError
        For unreadable files, a screen of another species than the folder, or a transfer between
        screens that share no feature or only component names (PC1 of one file is not PC1 of
        another).
    """
    from pertwise.screen import read_screen

    spec = config.split
    named = {
        "screen": config.screen,
        "source": spec.source if spec.trains_elsewhere else None,
        "folds": spec.folds_from,
        "cells": None if config.cells is None else config.cells.file,
        "lines": config.lines,
        **{f"drugs {i}": path for i, path in enumerate(config.drugs, start=1)},
    }
    for path in named.values():
        if path is not None and not Path(path).is_file():
            raise InputError(f"no such file: {path}")
    for path in spec.files:
        if not Path(path).exists():
            raise InputError(f"no such file or folder: {path}")
    named |= {f"split {i}": path for i, path in enumerate(spec.files, start=1)}
    facts = {role: input_facts(path) for role, path in named.items() if path is not None}
    whole = read_screen(config.screen)
    if spec.by_rows:
        chosen = whole if config.context is None else whole.in_context(config.context)
        source = screen = chosen.only_measured()
    else:
        source = screen = one_context(whole, config.context, config.screen)
    if spec.trains_elsewhere:
        other = read_screen(spec.source) if spec.source else whole
        source = one_context(other, spec.source_context, spec.source or config.screen)
        screen, source = _shared_features(screen, source, spec)
    knowledge = None
    if config.knowledge or config.drugs or config.lines:
        from pertwise.knowledge import Knowledge

        knowledge = Knowledge.open(config.knowledge, drugs=config.drugs, lines=config.lines)
    if knowledge is not None and config.knowledge:
        facts["knowledge"] = input_facts(knowledge)
        same_species("screen", screen.perturbations, knowledge)
    cells = None if config.cells is None else open_cell_bank(config.cells, screen, config.seed)
    return Inputs(screen, source, knowledge, facts, cells)


def _shared_features(screen: Screen, source: Screen, spec: SplitSpec) -> tuple[Screen, Screen]:
    theirs = set(source.features)
    shared = [f for f in screen.features if f in theirs]
    if not shared:
        raise InputError(
            f"transfer needs common features: the screen has {screen.features[0]!r} ..., the "
            f"source {source.features[0]!r} ..."
        )
    if all(_COMPONENT.match(f) for f in shared) and not spec.same_components:
        raise InputError(
            f"both files measure components ({shared[0]!r} ...), which need not be the same axes; "
            "set same_components = true only if both were projected on one basis"
        )
    return screen.of_features(shared), source.of_features(shared)


def described_items(settings: PredictionConfig, inputs: Inputs) -> pd.DataFrame:
    """`item_table`; with cells the ceilings come from split halves instead of variances."""
    items = item_table(inputs.screen).assign(ceiling_from="sampling variance")
    if inputs.cells is None or settings.cells is None:
        return items
    n_splits, names = settings.cells.n_splits, list(items.index)
    halves = split_half_table(inputs.cells, names, n_splits, settings.seed)
    for kind in ("pearson", "cosine"):
        value = halves[f"replicate_{kind}"].reindex(items.index).clip(0.0, 1.0)
        items[f"replicate_{kind}"], items[f"perfect_{kind}"] = value, value**0.5
    return items.assign(ceiling_from="split halves of cells")


def item_table(screen: Screen) -> pd.DataFrame:
    """What is known of every measured perturbation before any prediction.

    Columns: n_cells; effect, noise, replicate_cosine, perfect_cosine, replicate_pearson,
    perfect_pearson (`pertwise.evaluate.ceiling.ceiling_from_variance`; NaN without sampling
    variance, effect then being the plain length of the response); control_likeness = noise /
    (squared length of the response), cut to [0, 1]: 1 = not distinguishable from control.
    """
    variance: Any = screen.sampling_variance
    if variance is None:
        variance = screen.obs["sampling_variance"].to_numpy(dtype=float)
    by_cosine = ceiling_from_variance(screen.responses, variance)
    by_pearson = ceiling_from_variance(screen.responses, variance, similarity="pearson")
    size = np.nansum(np.asarray(screen.responses, dtype=np.float64) ** 2, axis=1)
    noise = by_cosine["noise"].to_numpy()
    likeness = np.full(len(size), np.nan)
    np.divide(noise, size, out=likeness, where=size > 0)
    return pd.DataFrame(
        {
            "n_cells": screen.obs["n_cells"].to_numpy(dtype=float),
            "effect": by_cosine["effect"].fillna(pd.Series(np.sqrt(size))).to_numpy(),
            "noise": noise,
            "control_likeness": np.clip(likeness, 0.0, 1.0),
            "replicate_cosine": by_cosine["replicate"].to_numpy(),
            "perfect_cosine": by_cosine["perfect"].to_numpy(),
            "replicate_pearson": by_pearson["replicate"].to_numpy(),
            "perfect_pearson": by_pearson["perfect"].to_numpy(),
        },
        index=pd.Index(screen.obs["perturbation"], name="perturbation"),
    )
