"""Means of two random halves of every perturbation's cells."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats
from pertwise.screen.cells import open_cells
from pertwise.screen.degs import compare_to_control
from pertwise.screen.grouping import group_rows
from pertwise.screen.layouts import Keys, recognise
from pertwise.screen.scale import decide_scale, tag_of
from pertwise.screen.sums import normalise

if TYPE_CHECKING:
    from anndata import AnnData

FDR = 0.05


@dataclass(frozen=True)
class Halves:
    """Responses of two halves, control-subtracted.

    Attributes
    ----------
    first, second
        (n, d) mean of each half minus the mean of all controls of the context.
    variance
        (n, d) sampling variance of the first half's response.
    significant
        (n, d) differential in the first half: Benjamini-Hochberg q < 0.05 of Welch's t.
    """

    perturbations: tuple[str, ...]
    features: tuple[str, ...]
    first: Floats
    second: Floats
    variance: Floats
    significant: NDArray[np.bool_]


def read_halves(
    cells: str | os.PathLike[str] | AnnData,
    *,
    seed: int = 0,
    min_cells: int = 30,
    keys: Keys | None = None,
    target_sum: float = 1e4,
) -> Halves:
    """Read single cells block by block into the sums of two halves of every perturbation.

    Counts are normalised to `target_sum` and logged; a perturbation in several contexts or at
    several doses is taken apart by them (a name then carries its context).

    Raises
    ------
    pertwise.errors.InputError
        If there are no controls.
    """
    with open_cells(cells) as file:
        where = str(file.path)
        layout = recognise(file.obs, keys, where=where, features=file.features)
        grouping = group_rows(file.obs, layout, drop_empty=True, where=where)
        groups, codes = grouping.groups, grouping.codes
        control = groups["is_control"].to_numpy(dtype=bool)
        if not control.any():
            raise InputError(f"{where}: no control found; name its label with --control")
        tag = tag_of(file.uns) if file.layer == "X" else None
        scale = decide_scale(file.sample(), tag=tag, where=where).scale
        # Halves: the parity of a random order within each group.
        order = np.lexsort((np.random.default_rng(seed).random(len(codes)), codes))
        count = np.bincount(codes[codes >= 0], minlength=len(groups))
        place = np.empty(len(codes), dtype=np.int64)
        place[order] = np.arange(len(codes)) - np.searchsorted(codes[order], codes[order])
        second = (place % 2 == 1) & ~control[codes]
        slot = np.where(codes >= 0, codes + second * len(groups), -1)
        shape = (2 * len(groups), len(file.features))
        total, squares = np.zeros(shape), np.zeros(shape)
        for start, block in file.blocks():
            own = slot[start : start + block.shape[0]]
            library = np.asarray(block.sum(axis=1), dtype=np.float64).ravel()
            x = normalise(block, scale, library, target_sum)
            rows = np.flatnonzero(own >= 0)
            put = sparse.csr_matrix((np.ones(len(rows)), (own[rows], rows)), (len(total), len(own)))
            total += (put @ x).toarray()
            squares += (put @ x.multiply(x)).toarray()
        features = file.features
    n = np.bincount(slot[slot >= 0], minlength=len(total)).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n[:, None]
        spread = (squares - n[:, None] * mean**2) / np.maximum(n[:, None] - 1, 1) / n[:, None]
    at = {c: i for i, c in enumerate(groups["context"]) if control[i]}
    kept = np.flatnonzero(~control & (count >= max(min_cells, 4)))
    kept = np.array([g for g in kept if groups["context"].iloc[g] in at], dtype=int)
    base = np.array([at[groups["context"].iloc[g]] for g in kept], dtype=int)
    names = list(groups["perturbation"].iloc[kept])
    if len(set(names)) < len(names):
        parts = groups.iloc[kept]
        names = [f"{p}|{c}|{d}" for p, c, d in zip(
            parts["perturbation"], parts["context"], parts["dose"], strict=True
        )]  # fmt: skip
    one = mean[kept] - mean[base]
    variance = np.maximum(spread[kept] + spread[base], 1e-12)
    tests = compare_to_control(one, variance, n[kept])
    return Halves(
        perturbations=tuple(names),
        features=features,
        first=one,
        second=mean[kept + len(groups)] - mean[base],
        variance=variance,
        significant=np.asarray(np.nan_to_num(tests.q, nan=1.0) < FDR),
    )
