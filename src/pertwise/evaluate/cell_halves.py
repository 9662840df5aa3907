"""Two random halves of every perturbation's cells: their means, and a sample of the cells."""

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
    variance, second_variance
        (n, d) sampling variance of each half's response.
    q, second_q
        (n, d) Benjamini-Hochberg q of each half's Welch test against the controls, 1 where there
        is none.
    cells
        (m, d) csr of log values: up to so many cells of each half as were asked for.
    half_of
        (m,) half h of perturbation i is 2 i + h.
    """

    perturbations: tuple[str, ...]
    features: tuple[str, ...]
    first: Floats
    second: Floats
    variance: Floats
    second_variance: Floats
    q: Floats
    second_q: Floats
    cells: sparse.csr_matrix
    half_of: NDArray[np.int64]

    @property
    def significant(self) -> NDArray[np.bool_]:
        """(n, d) differential in the first half: q < 0.05."""
        return np.asarray(self.q < FDR)


def read_halves(
    cells: str | os.PathLike[str] | AnnData,
    *,
    seed: int = 0,
    min_cells: int = 30,
    keys: Keys | None = None,
    target_sum: float = 1e4,
    sample: int = 0,
    sampled: int = 500,
) -> Halves:
    """Read single cells block by block into the sums of two halves of every perturbation.

    Counts are normalised to `target_sum` and logged; a perturbation in several contexts or at
    several doses is taken apart by them (a name then carries its context).

    Parameters
    ----------
    sample, sampled
        Cells of each half that are kept, of so many perturbations at most (chosen by `seed`).

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
        enough = np.flatnonzero(~control & (count >= max(min_cells, 4)))
        chosen = np.isin(codes, np.random.default_rng(seed).permutation(enough)[:sampled])
        chosen &= place < 2 * sample
        kept_cells: list[sparse.csr_matrix] = []
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
            kept_cells.append(sparse.csr_matrix(x)[chosen[start : start + block.shape[0]]])
        features = file.features
    n = np.bincount(slot[slot >= 0], minlength=len(total)).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n[:, None]
        spread = (squares - n[:, None] * mean**2) / np.maximum(n[:, None] - 1, 1) / n[:, None]
    at = {c: i for i, c in enumerate(groups["context"]) if control[i]}
    kept = np.array([g for g in enough if groups["context"].iloc[g] in at], dtype=int)
    base = np.array([at[groups["context"].iloc[g]] for g in kept], dtype=int)
    names = list(groups["perturbation"].iloc[kept])
    if len(set(names)) < len(names):
        parts = groups.iloc[kept]
        names = [f"{p}|{c}|{d}" for p, c, d in zip(
            parts["perturbation"], parts["context"], parts["dose"], strict=True
        )]  # fmt: skip
    at_row = np.full(len(groups), -1)
    at_row[kept] = np.arange(len(kept))
    halves = []
    for rows in (kept, kept + len(groups)):
        delta = mean[rows] - mean[base]
        variance = np.maximum(spread[rows] + spread[base], 1e-12)
        q = np.nan_to_num(compare_to_control(delta, variance, n[rows]).q, nan=1.0)
        halves.append((delta, variance, q))
    (first, variance, q), (other, other_variance, other_q) = halves
    return Halves(
        perturbations=tuple(names),
        features=features,
        first=first,
        second=other,
        variance=variance,
        second_variance=other_variance,
        q=q,
        second_q=other_q,
        cells=sparse.vstack(kept_cells, format="csr"),
        half_of=2 * at_row[codes[chosen]] + second[chosen],
    )
