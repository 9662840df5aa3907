"""Exact sums of every pair of a group and a block (batch), small enough to keep while reading once.

Sums by pair hold whatever a screen needs: controls of each batch, training cells of each context,
and the cross sums of `pertwise.screen.sums.contrast`, since ``sum of x * centre of its block`` is
``sum over blocks of centre * sum of x``. So the cells are read once, not once for the controls and
once against them. Whole numbers in 32 bits halve the memory; what could overflow is carried over to
float64 in time, so that the result is exact, whatever the order of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pertwise.screen.sums import GRID, FloatArray, scatter, with_values

Ids = NDArray[np.int64]
#: The largest sum that a 32-bit entry may hold.
ROOM = 2**31 - 1
#: Squares are multiples of 1 / SQUARE_GRID: coarser than values, so that hundreds of cells fit.
SQUARE_GRID = float(2**17)


@dataclass(frozen=True)
class Stored:
    """Sums of whole numbers: (k, width) int32, and (m,) sorted rows with (m, width) to add."""

    sums: NDArray[np.int32]
    rows: Ids
    carried: FloatArray

    def add_to(self, out: FloatArray, at: Ids) -> None:
        """``out[at] += `` the sums; `at` (k,) names no row twice."""
        out[at] += self.sums
        out[at[self.rows]] += self.carried


class WholeSums:
    """Sums of whole numbers by row: 32 bits, and float64 for rows that outgrew them."""

    def __init__(self, n_rows: int, width: int) -> None:
        self.sums = np.zeros((n_rows, width), dtype=np.int32)
        self._room = np.full(n_rows, ROOM, dtype=np.int64)
        self._carried: dict[int, FloatArray] = {}

    def add(self, x: sparse.csr_matrix, row: Ids) -> None:
        """Add the rows of `x` (n, width; whole numbers of any type) to the rows (n,) of the sums.

        A row of `x` must not name a column twice.
        """
        if not x.nnz:
            return
        bound = int(max(abs(float(x.data.max())), abs(float(x.data.min())), 1.0))
        if bound > ROOM:
            self._add_large(x, row)
            return
        fit = ROOM // bound
        n = np.bincount(row, minlength=len(self._room))
        if n.max() > fit:
            # Cells of one row beyond what fits at a time wait for the next turn.
            turn = _ranks(row) // fit
            for t in range(int(turn.max()) + 1):
                now = np.flatnonzero(turn == t)
                self.add(x[now], row[now])
            return
        for r in np.flatnonzero(self._room < n * bound):
            self._large(int(r))[:] += self.sums[r]
            self.sums[r] = 0
            self._room[r] = ROOM
        self._room -= n * bound
        scatter(self.sums, row, x, x.data)

    def _large(self, row: int) -> FloatArray:
        return self._carried.setdefault(row, np.zeros(self.sums.shape[1]))

    def _add_large(self, x: sparse.csr_matrix, row: Ids) -> None:
        for i, r in enumerate(row):
            lo, hi = x.indptr[i], x.indptr[i + 1]
            self._large(int(r))[x.indices[lo:hi]] += x.data[lo:hi]

    def rows(self, rows: Ids) -> FloatArray:
        """(len(rows), width) sums of these rows."""
        out = self.sums[rows].astype(np.float64)
        for i, r in enumerate(rows):
            if int(r) in self._carried:
                out[i] += self._carried[int(r)]
        return out

    def stored(self) -> Stored:
        """The sums as arrays (shared, not copied)."""
        rows = np.array(sorted(self._carried), dtype=np.int64)
        large = [self._carried[int(r)] for r in rows]
        return Stored(self.sums, rows, np.array(large).reshape(len(rows), self.sums.shape[1]))


def _ranks(row: Ids) -> Ids:
    """(n,) how many earlier entries are the same."""
    order = np.argsort(row, kind="stable")
    ranks = np.empty(len(row), dtype=np.int64)
    ordered = row[order]
    ranks[order] = np.arange(len(row)) - np.searchsorted(ordered, ordered)
    return ranks


@dataclass(frozen=True)
class BatchSums:
    """Sums of the cells of pairs (group, block); what a task of the only pass leaves.

    Attributes
    ----------
    pairs
        (p,) sorted ``group * n_blocks + block``.
    n
        (p,) cells.
    total
        (p, n_features) sums of x in units of 1 / `GRID`.
    groups, square
        (k,) sorted groups and (k, n_features) sums of x**2 in units of 1 / `SQUARE_GRID`.
    """

    pairs: Ids
    n: Ids
    total: Stored
    groups: Ids
    square: Stored


class BatchAccumulator:
    """Adds blocks of cells; `sums` gives the `BatchSums` so far."""

    def __init__(self, pairs: Ids, n_blocks: int, width: int) -> None:
        self._pairs, self._blocks = np.asarray(pairs, dtype=np.int64), n_blocks
        self._groups = np.unique(self._pairs // n_blocks)
        self._n = np.zeros(len(self._pairs), dtype=np.int64)
        self._total = WholeSums(len(self._pairs), width)
        self._square = WholeSums(len(self._groups), width)

    def add(self, x: sparse.csr_matrix, group: Ids, block: Ids) -> None:
        """Add cells: `x` (n, n_features) quantised, (n,) group and block of each."""
        pair = np.searchsorted(self._pairs, group * self._blocks + block)
        self._n += np.bincount(pair, minlength=len(self._n))
        squares = x.data * x.data
        np.rint(np.multiply(squares, SQUARE_GRID, out=squares), out=squares)
        self._square.add(with_values(x, squares), np.searchsorted(self._groups, group))
        # Not needed any more in its own unit, so no copy is made.
        np.multiply(x.data, GRID, out=x.data)
        self._total.add(x, pair)

    def sums(self) -> BatchSums:
        """What has been added (the arrays are shared, not copied)."""
        total, square = self._total.stored(), self._square.stored()
        return BatchSums(self._pairs, self._n, total, self._groups, square)


@dataclass(frozen=True)
class Range:
    """Merged `BatchSums` of some consecutive groups: dense, in the unit of x.

    Attributes
    ----------
    group, block, n
        (p,) of each pair, sorted.
    total
        (p, n_features).
    groups, square
        (k,) and (k, n_features).
    """

    group: Ids
    block: Ids
    n: Ids
    total: FloatArray
    groups: Ids
    square: FloatArray

    def by_group(self, per_pair: NDArray[Any]) -> NDArray[Any]:
        """(k, ...) sums over the pairs of each group, blocks in order."""
        starts = np.searchsorted(self.group, self.groups)
        return np.add.reduceat(per_pair, starts, axis=0) if len(starts) else per_pair[:0]


def merged(parts: list[BatchSums], n_blocks: int, width: int) -> Range:
    """Add up parts cut to the same groups; exact, so their order does not matter."""
    pairs = _union([p.pairs for p in parts])
    groups = _union([p.groups for p in parts])
    n = np.zeros(len(pairs), dtype=np.int64)
    total, square = np.zeros((len(pairs), width)), np.zeros((len(groups), width))
    for part in parts:
        at = np.searchsorted(pairs, part.pairs)
        n[at] += part.n
        part.total.add_to(total, at)
        part.square.add_to(square, np.searchsorted(groups, part.groups))
    total /= GRID
    square /= SQUARE_GRID
    return Range(pairs // n_blocks, pairs % n_blocks, n, total, groups, square)


def _union(ids: list[Ids]) -> Ids:
    return np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *ids]))
