"""How control cells become predicted cells: by a shift, by location and scale, by counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pertwise.errors import InputError

Floats = NDArray[np.float64]
Kind = Literal["counts", "scale", "shift"]
KINDS: tuple[str, ...] = get_args(Kind)
#: What each model says, for files and pages.
STATED = {
    "shift": "control cells moved by the predicted response",
    "scale": "control cells moved by the predicted response and stretched around their mean as the "
    "standard deviation of a gene follows its mean over the genes of the controls",
    "counts": "negative binomial: a control cell's counts are thinned where a gene goes down, and "
    "where it goes up Poisson counts are added at the cell's own rate (gamma, the gene's "
    "dispersion in the controls)",
}
#: ln fold changes at which the count model is tabulated; values (cells x genes) used for it, cells
#: at least, and groups of cells by size.
_GRID = np.linspace(-5.0, 5.0, 41)
_TABLED, _LEAST, _SIZES = 4_000_000, 50, 5
#: Bins of genes by their mean, in the trend of standard deviation on mean.
_BINS = 20


@dataclass(frozen=True)
class CellModel:
    """A distribution of cells for any predicted response, learned from control cells alone.

    Attributes
    ----------
    kind
        One of `KINDS`; "counts" needs `counts`.
    values
        (n_controls, d) log1p of normalised counts (or what else the responses are differences of).
    counts
        (n_controls, d) raw counts, or None.
    size
        (n_controls,) counts of each cell over all genes of its file; with `counts`.
    target_sum
        Counts per cell after normalisation, before log1p.
    """

    kind: str
    values: NDArray[np.float32]
    counts: NDArray[np.float32] | None = None
    size: Floats | None = None
    target_sum: float = 1e4

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"cell model {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.kind == "counts" and (self.counts is None or self.size is None):
            raise InputError(
                "the count model needs control cells with raw counts (X or layers['counts']); "
                "choose the cell model 'scale' for logged values"
            )

    @cached_property
    def mean(self) -> Floats:
        """(d,) mean of the controls."""
        return np.asarray(self.values.mean(axis=0, dtype=np.float64))

    @cached_property
    def bounded(self) -> bool:
        """Values that are logarithms of counts are never negative."""
        return bool(self.values.min() >= 0)

    def draw(
        self,
        delta: Floats,
        rows: NDArray[np.int64],
        rng: np.random.Generator,
        spread: Floats | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Cells made of the control cells `rows`.

        Parameters
        ----------
        delta
            (d,) predicted response; 0 where nothing is predicted.
        spread
            (d,) standard deviation of the response, drawn anew for every cell, or None.

        Returns
        -------
        (n, d) values and, of the count model, (n, d) counts.
        """
        noise = None if spread is None else spread * rng.standard_normal((len(rows), len(delta)))
        if self.kind == "counts":
            return self._draw_counts(delta, rows, rng, noise)
        moved = self.mean + delta
        factor = self._stretch(moved) if self.kind == "scale" else 1.0
        out = moved + (self.values[rows] - self.mean) * factor
        out = out if noise is None else out + noise
        return (np.maximum(out, 0.0) if self.bounded else out).astype(np.float32), None

    # -- location and scale ---------------------------------------------------------------------

    @cached_property
    def _trend(self) -> tuple[Floats, Floats]:
        """Mean of a gene and root mean square standard deviation, by bins of genes."""
        deviation = self.values.std(axis=0, dtype=np.float64)
        order = np.argsort(self.mean, kind="stable")
        bins = [b for b in np.array_split(order, min(_BINS, len(order))) if len(b)]
        at = np.array([self.mean[b].mean() for b in bins])
        return at, np.array([np.sqrt((deviation[b] ** 2).mean()) for b in bins])

    def _stretch(self, moved: Floats) -> Floats:
        at, deviation = self._trend
        before = np.interp(self.mean, at, deviation)
        after = np.interp(np.maximum(moved, 0.0) if self.bounded else moved, at, deviation)
        ratio = np.divide(after, before, out=np.ones_like(after), where=before > 0)
        return np.asarray(np.clip(ratio, 1 / 3, 3.0))

    # -- counts ---------------------------------------------------------------------------------

    @cached_property
    def _rates(self) -> tuple[Floats, Floats]:
        """(d,) share of a cell's counts and gamma shape (1 / dispersion, by moments)."""
        counts, size = np.asarray(self.counts, dtype=np.float64), np.asarray(self.size)
        share = np.maximum(counts.sum(axis=0), 0.5) / size.sum()
        expected = size[:, None] * share
        extra = ((counts - expected) ** 2 - expected).sum(axis=0)
        shape = np.divide(
            (expected**2).sum(axis=0), extra, out=np.full_like(share, 1e4), where=extra > 0
        )
        return share, np.clip(shape, 0.05, 1e4)

    @cached_property
    def _table(self) -> Floats:
        """(grid, d) mean value at each ln fold change.

        One rate is drawn for every cell and gene; the mean over the Poisson counts is exact, so
        that the rows of the table differ by the fold change and not by luck.
        """
        n, d = self.values.shape
        rows = np.arange(n)[: max(_LEAST, int(_TABLED / d))]
        rates, size = self._draw_rates(rows, np.arange(d), np.random.default_rng(0)), self.size
        total = np.zeros((len(_GRID), d))
        # Cells of about one size share the factor between counts and normalised counts.
        for part in np.array_split(np.argsort(np.asarray(size)[rows], kind="stable"), _SIZES):
            if len(part):
                at, level = _log1p_of_poisson(self.target_sum / np.asarray(size)[rows][part].mean())
                own = np.log(np.maximum(rates[part], 1e-12))
                for k, x in enumerate(_GRID):
                    total[k] += np.interp(own + x, at, level).sum(axis=0)
        return total / len(rows)

    def _draw_rates(
        self, rows: NDArray[np.int64], genes: NDArray[np.int64], rng: np.random.Generator
    ) -> Floats:
        """(n, genes) expected counts of each cell, drawn from their gamma posterior."""
        share, shape = (values[genes] for values in self._rates)
        expected = np.asarray(self.size)[rows][:, None] * share
        counts = np.asarray(self.counts)[np.ix_(rows, genes)]
        return rng.gamma(counts + shape, 1 / (1 + shape / expected))

    def _log_fold(self, target: Floats) -> Floats:
        """(d,) ln fold change at which the mean value is `target`."""
        table, out = self._table, np.empty_like(target)
        for j, wanted in enumerate(target):
            out[j] = np.interp(wanted, table[:, j], _GRID)
        return out

    def _changed(
        self, rows: NDArray[np.int64], log_fold: Floats, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        counts = np.asarray(self.counts)[rows]
        fold = np.broadcast_to(np.exp(log_fold), counts.shape)
        out = rng.binomial(counts.astype(np.int64), np.minimum(fold, 1.0)).astype(np.float32)
        up = np.flatnonzero((fold > 1).any(axis=0))
        if len(up):
            # Poisson counts at the cell's own rate keep the counts negative binomial, with the mean
            # multiplied and the dispersion unchanged.
            added = np.maximum(fold[:, up] - 1.0, 0.0) * self._draw_rates(rows, up, rng)
            out[:, up] += rng.poisson(added)
        return out

    def _draw_counts(
        self,
        delta: Floats,
        rows: NDArray[np.int64],
        rng: np.random.Generator,
        noise: Floats | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # Differences of the table: its own value at no change stands for the controls' mean.
        base = self._table[len(_GRID) // 2]
        log_fold = np.where(delta == 0, 0.0, self._log_fold(np.maximum(base + delta, 0.0)))[None]
        if noise is not None:
            slope = np.gradient(self._table, _GRID, axis=0)
            at = np.abs(_GRID[:, None] - log_fold).argmin(axis=0)
            local = np.maximum(slope[at, np.arange(len(delta))], 0.05)
            log_fold = np.clip(log_fold + noise / local, _GRID[0], _GRID[-1])
        counts = self._changed(rows, log_fold, rng)
        total = np.asarray(self.size)[rows] + (counts - np.asarray(self.counts)[rows]).sum(axis=1)
        values = np.log1p(counts * (self.target_sum / np.maximum(total, 1.0))[:, None])
        return values.astype(np.float32), counts


def _log1p_of_poisson(factor: float) -> tuple[Floats, Floats]:
    """(grid of ln rates, mean of log1p(factor x count) of Poisson counts of that rate)."""
    at = np.linspace(np.log(1e-4), np.log(1e5), 400)
    rate = np.exp(at)
    # Second-order expansion, exact enough from 50 counts on.
    scaled = factor * rate
    level = np.log1p(scaled) - factor**2 * rate / (2 * (1 + scaled) ** 2)
    few = rate < 50
    k = np.arange(150)
    level[few] = stats.poisson.pmf(k, rate[few][:, None]) @ np.log1p(factor * k)
    return at, level
