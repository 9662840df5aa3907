"""Exact, mergeable sums over groups of cells: the kernel of pseudobulk.

Every value is rounded to a multiple of 2**-20 (about 1e-6) before it is added, and so are squares
and products. Sums of such numbers are exact in float64 as long as they stay below 2**33, so the
result does not depend on the order of cells, the size of blocks, the number of shards or of
workers: partial sums can be merged in any order and give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pertwise.screen.scale import TO_NATURAL

try:
    # One pass in C that adds to what is there; the public `toarray(out=...)` sets it to zero first.
    from scipy.sparse._sparsetools import coo_todense
except ImportError:  # pragma: no cover
    coo_todense = None

FloatArray = NDArray[np.float64]
#: Values are multiples of 1 / GRID.
GRID = float(2**20)
#: Counts below this are looked up in a table of logarithms, one row per cell.
LISTED = 64


@dataclass(frozen=True)
class GroupSums:
    """Sums over the cells of each group; ``a + b`` merges two sets of cells.

    Attributes
    ----------
    groups
        (k,) sorted ids of the groups that have cells here.
    n
        (k, n_blocks) int64: cells per group and block (batch).
    total, square
        (k, n_features): sum of x and of x**2.
    cross
        (k, n_features): sum of x * centre of the cell's block; (k, 0) when not wanted.
    """

    groups: NDArray[np.int64]
    n: NDArray[np.int64]
    total: FloatArray
    square: FloatArray
    cross: FloatArray

    @classmethod
    def empty(cls, n_blocks: int, n_features: int, with_cross: bool = False) -> GroupSums:
        """The neutral element of ``+``."""
        return cls(
            np.zeros(0, dtype=np.int64),
            np.zeros((0, n_blocks), dtype=np.int64),
            np.zeros((0, n_features)),
            np.zeros((0, n_features)),
            np.zeros((0, n_features if with_cross else 0)),
        )

    def of(self, rows: NDArray[Any]) -> GroupSums:
        """Only these rows (positions or mask)."""
        return GroupSums(
            self.groups[rows], self.n[rows], self.total[rows], self.square[rows], self.cross[rows]
        )

    def between(self, lo: int, hi: int) -> GroupSums:
        """Only groups with lo <= id < hi."""
        a, b = np.searchsorted(self.groups, [lo, hi])
        return self.of(np.arange(a, b))

    def __add__(self, other: GroupSums) -> GroupSums:
        groups = np.union1d(self.groups, other.groups)

        def merged(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
            out = np.zeros((len(groups), a.shape[1]), dtype=a.dtype)
            out[np.searchsorted(groups, self.groups)] = a
            out[np.searchsorted(groups, other.groups)] += b
            return out

        return GroupSums(
            groups,
            merged(self.n, other.n),
            merged(self.total, other.total),
            merged(self.square, other.square),
            merged(self.cross, other.cross),
        )


def merge(sums: Iterable[GroupSums]) -> GroupSums:
    """Merge group sums; exact, so the order does not matter."""
    return reduce(lambda a, b: a + b, sums)


def quantise(values: FloatArray) -> FloatArray:
    """Round to multiples of 2**-20, in place."""
    np.multiply(values, GRID, out=values)
    np.rint(values, out=values)
    np.multiply(values, 1.0 / GRID, out=values)
    return values


def scatter(out: NDArray[Any], row: NDArray[Any], x: sparse.csr_matrix, data: NDArray[Any]) -> None:
    """``out[row[i], j] += data`` for every stored entry (i, j) of `x`, in place.

    Parameters
    ----------
    out
        (k, n_features), contiguous by rows.
    row
        (n,) row of `out` that each row of `x` goes to; may repeat.
    data
        Values in the order of ``x.data``, cast to the type of `out`.
    """
    rows = np.repeat(row.astype(x.indices.dtype), np.diff(x.indptr))
    data = data.astype(out.dtype, copy=False)
    if coo_todense is not None:
        coo_todense(*out.shape, len(data), rows, x.indices, data, out.reshape(-1), 0)
        return
    np.add.at(out.reshape(-1), rows.astype(np.int64) * out.shape[1] + x.indices, data)


class Accumulator:
    """Adds blocks of cells into fixed arrays; `sums` gives the `GroupSums` so far.

    Parameters
    ----------
    groups
        (k,) sorted ids of the groups that will be met.
    n_blocks, n_features
        Widths of the result.
    centres
        (n_blocks, n_features) or None: what `cross` multiplies with.
    """

    def __init__(
        self,
        groups: NDArray[np.int64],
        n_blocks: int,
        n_features: int,
        centres: FloatArray | None = None,
    ) -> None:
        self._groups = np.asarray(groups, dtype=np.int64)
        k = len(self._groups)
        self._n = np.zeros((k, n_blocks), dtype=np.int64)
        self._total = np.zeros((k, n_features))
        self._square = np.zeros((k, n_features))
        self._cross = np.zeros((k, n_features if centres is not None else 0))
        self._centres = centres

    def add(self, x: sparse.csr_matrix, group: NDArray[np.int64], block: NDArray[np.int64]) -> None:
        """Add cells.

        Parameters
        ----------
        x
            (n, n_features) csr of quantised float64 values.
        group, block
            (n,) group id of each cell (must be among `groups`) and its block.
        """
        position = np.searchsorted(self._groups, group)
        np.add.at(self._n, (position, block), 1)
        values = np.asarray(x.data, dtype=np.float64)
        scatter(self._total, position, x, values)
        scatter(self._square, position, x, quantise(values * values))
        if self._centres is not None:
            width = self._total.shape[1]
            offset = np.repeat(block.astype(np.int64) * width, np.diff(x.indptr))
            centre = self._centres.reshape(-1)[offset + x.indices]
            scatter(self._cross, position, x, quantise(values * centre))

    def sums(self) -> GroupSums:
        """What has been added (the arrays are shared, not copied)."""
        return GroupSums(self._groups, self._n, self._total, self._square, self._cross)


def normalise(
    x: sparse.csr_matrix, scale: str, library: FloatArray, target_sum: float
) -> sparse.csr_matrix:
    """Counts to quantised log1p values; normalised values are only logged, others left alone.

    Values that were divided by the library size already are not divided again: the file may hold
    only some of the genes, whose sum is no library size.

    Parameters
    ----------
    x
        (n, n_features) csr of any numeric type.
    scale
        A `pertwise.screen.scale.Scale`.
    library
        (n,) library size of each cell (used for counts only); 0 leaves a cell at zero.
    target_sum
        Counts per cell after scaling: ``log1p(x / library * target_sum)``.
    """
    if scale == "counts":
        factor = np.divide(target_sum, library, out=np.zeros_like(library), where=library > 0)
        return with_values(x, _log_counts(x, factor))
    values = np.array(x.data, dtype=np.float64)
    if scale == "normalised":
        np.log1p(values, out=values)
    values *= TO_NATURAL.get(scale, 1.0)
    return with_values(x, quantise(values))


def with_values(x: sparse.csr_matrix, values: FloatArray) -> sparse.csr_matrix:
    """Other values (in the order of ``x.data``) at the places of `x`."""
    return sparse.csr_matrix((values, x.indices, x.indptr), shape=x.shape)


def _log_counts(x: sparse.csr_matrix, factor: FloatArray) -> FloatArray:
    """Quantised ``log1p(x * factor)`` of the stored values; small counts by a table."""
    lengths = np.diff(x.indptr)
    if x.nnz < LISTED * len(factor):
        scaled = x.data * np.repeat(factor, lengths)
        return quantise(np.log1p(scaled, out=scaled))
    table = quantise(np.log1p(np.arange(LISTED) * factor[:, None]))
    with np.errstate(invalid="ignore"):
        whole = x.data.astype(np.int32)
    other = np.flatnonzero((whole != x.data) | (whole >= LISTED) | (whole < 0))
    whole[other] = 0
    whole += np.repeat(np.arange(len(factor), dtype=np.int32) * LISTED, lengths)
    values: FloatArray = table.reshape(-1)[whole]
    row = np.searchsorted(x.indptr, other, side="right") - 1
    values[other] = quantise(np.log1p(x.data[other] * factor[row]))
    return values


def keep_columns(
    x: sparse.csr_matrix, column_of: NDArray[np.int64], width: int
) -> sparse.csr_matrix:
    """Columns with ``column_of[old] = new >= 0``, others dropped; much faster than x[:, cols]."""
    if width == x.shape[1] and np.array_equal(column_of, np.arange(width)):
        return x
    new = column_of[x.indices]
    kept = new >= 0
    counts = np.concatenate([[0], np.cumsum(kept)])
    return sparse.csr_matrix((x.data[kept], new[kept], counts[x.indptr]), shape=(x.shape[0], width))


@dataclass(frozen=True)
class Contrast:
    """Means against matched controls; see `contrast`."""

    delta: FloatArray
    variance: FloatArray
    n: NDArray[np.int64]


def contrast(
    sums: GroupSums,
    centres: FloatArray,
    centre_n: NDArray[np.int64],
    control_variance: FloatArray,
) -> Contrast:
    """Difference of each group from its batch-matched controls, and its sampling variance.

    With ``n_b`` of the ``n`` cells of a group in block (batch) ``b``, ``w_b = n_b / n`` and the
    control mean ``c_b`` over ``m_b`` control cells:

    * delta = mean over the group's cells of ``x - c_b(cell)`` = ``sum(x)/n - sum_b w_b c_b``
    * s2 = ``(sum (x - c_b)**2 - n delta**2) / (n - 1)``; for a group of one cell the variance of
      the controls stands in
    * variance = ``s2 / n + s2_control * sum_b w_b**2 / m_b``: the group's own share and the
      controls' share

    Parameters
    ----------
    sums
        Of k groups, with `cross` against the same `centres` (or, for a single block, without).
    centres
        (n_blocks, n_features) control means.
    centre_n
        (n_blocks,) control cells behind each.
    control_variance
        (k, n_features) variance between control cells (within blocks) in the group's context.

    Returns
    -------
    Contrast: delta, variance (k, n_features), n (k,).
    """
    n = sums.n.sum(axis=1)
    weight = sums.n / n[:, None]
    delta = sums.total / n[:, None] - weight @ centres
    # Without cross sums all cells of a group are in blocks of one centre: the cross sum is known.
    cross = sums.cross if sums.cross.shape[1] else sums.total * (weight @ centres)
    squares = sums.square - 2.0 * cross + sums.n @ (centres**2)
    degrees = np.maximum(n - 1, 1)[:, None]
    within = np.maximum(squares - n[:, None] * delta**2, 0.0) / degrees
    within = np.where(n[:, None] > 1, within, control_variance)
    share = np.divide(weight**2, centre_n, out=np.zeros_like(weight), where=sums.n > 0).sum(axis=1)
    variance = within / n[:, None] + control_variance * share[:, None]
    return Contrast(delta, variance, n)


def within_variance(sums: GroupSums) -> tuple[FloatArray, FloatArray]:
    """(mean, variance), each (k, n_features), of every group; variance NaN for a single cell."""
    n = sums.n.sum(axis=1)[:, None].astype(np.float64)
    mean = sums.total / n
    spread = np.maximum(sums.square - n * mean**2, 0.0)
    return mean, np.divide(spread, n - 1, out=np.full_like(spread, np.nan), where=n > 1)


def select_variable(
    mean: FloatArray, variance: FloatArray, n_top: int, n_bins: int = 20
) -> NDArray[np.int64]:
    """Highly variable features: variance of log expression above the trend with the mean.

    The variance of log-normalised expression is compared with that of features of similar mean
    (`n_bins` bins of equal size): score = (variance - median of the bin) / MAD of the bin. This is
    the mean-variance trend idea of Lun, McCarthy and Marioni 2016 (F1000Research 5:2122) with the
    binned standardisation of Zheng et al. 2017 (Nat Commun 8:14049).

    Parameters
    ----------
    mean, variance
        (n_features,) over the cells that may be looked at.

    Returns
    -------
    Sorted positions of the `n_top` best; features that never vary are never chosen, ties go to
    the first.
    """
    usable = np.flatnonzero((variance > 0) & np.isfinite(variance))
    if len(usable) <= n_top:
        return usable
    order = usable[np.argsort(mean[usable], kind="stable")]
    score = np.empty(len(mean))
    for members in np.array_split(order, min(n_bins, max(1, len(order) // 10))):
        centre = np.median(variance[members])
        mad = np.median(np.abs(variance[members] - centre))
        score[members] = (variance[members] - centre) / (mad if mad > 0 else 1.0)
    best = usable[np.argsort(-score[usable], kind="stable")[:n_top]]
    return np.sort(best)
