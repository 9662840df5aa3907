"""`LinePosterior`: what one screen, fitted on its own, says of every gene.

A Gaussian process with the knowledge kernels (`kernels.genes`), weights by marginal likelihood,
gives two tables in principal components of the responses: what is *expected* of any gene (the
posterior mean, measured or not), and what is *kept* of a measurement, shrunk less than that.
Memory is linear in genes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pertwise.arrays.gaussian_process import Floats, combine, fit_weights, solve
from pertwise.arrays.memory import require_memory
from pertwise.kernels.genes import FOREST_KERNELS, gene_blocks, linked
from pertwise.knowledge import Knowledge
from pertwise.screen.training import TrainingData

#: Components of the responses that are kept, and rows on which the kernel weights are learned.
MAX_COMPONENTS, MAX_ROWS = 64, 400
MAX_ITERATIONS = 30
#: Share of the noise of the fit that is taken for error of measurement in what is kept; the rest is
#: what only this gene does. Set beforehand, not tuned.
ERROR_SHARE = 0.3


def components(y: Floats, most: int = MAX_COMPONENTS) -> NDArray[np.float32]:
    """(n, r <= most) scores whose products are those of the (n, d) responses, or nearly.

    With gaps, every feature is taken around its mean and a gap counts as that mean.
    """
    missing = ~np.isfinite(y)
    if missing.any():
        count = np.maximum((~missing).sum(axis=0), 1)
        y = np.where(missing, 0.0, y - np.nansum(y, axis=0) / count)
    if min(y.shape) > most:
        from sklearn.decomposition import TruncatedSVD

        y = TruncatedSVD(most, random_state=0).fit_transform(y)
    return np.asarray(y, dtype=np.float32)


class LinePosterior:
    """A screen of one context and knowledge about its genes.

    Attributes
    ----------
    names
        (n,) measured perturbations.
    expected, kept
        (n, r) float32: posterior means of the measured ones, and their shrunk measurements.

    Raises
    ------
    pertwise.errors.InputError
        If the fit would need more than the available memory.
    """

    def __init__(
        self, data: TrainingData, knowledge: Knowledge, exclude_from_screen: bool = True
    ) -> None:
        self.names = data.names
        self._knowledge, self._exclude = knowledge, exclude_from_screen
        n = len(data.names)
        require_memory(
            24 * n * n,
            f"the posterior of another screen of {n:,} perturbations",
            "take fewer perturbations of it (screen.of_perturbations), or a larger machine",
        )
        y = components(data.y).astype(np.float64)
        self._blocks = gene_blocks(
            knowledge,
            data.names,
            FOREST_KERNELS,
            exclude_from_screen=exclude_from_screen,
            skip_missing=True,
        )
        some = np.arange(0, n, int(np.ceil(n / MAX_ROWS)))
        gram = self._blocks.take(some).gram()
        self._fit = fit_weights(
            np.concatenate([np.ones((1, len(some), len(some))), gram]),
            y[some] @ y[some].T,
            y.shape[1],
            max_iterations=MAX_ITERATIONS,
        )
        del gram
        k = np.empty((n, n))
        for rows, parts in self._blocks.gram_blocks():
            k[rows] = self._summed(parts)
        self._alpha = solve(k, self._fit.noise, y)
        error = self._fit.noise * self._alpha
        self.expected = (y - error).astype(np.float32)
        self.kept = (y - ERROR_SHARE * error).astype(np.float32)

    def _summed(self, parts: Floats) -> Floats:
        return np.asarray(combine(parts, self._fit.weights[1:]) + self._fit.weights[0])

    def predict(self, genes: Sequence[str]) -> NDArray[np.float32]:
        """(n_genes, r) expected of genes that were not measured; 0 where nothing is known."""
        out = np.empty((len(genes), self._alpha.shape[1]), dtype=np.float32)
        asked = gene_blocks(
            self._knowledge, genes, self._blocks.kinds, exclude_from_screen=self._exclude
        )
        for rows, parts in asked.cross_blocks(self._blocks):
            known = linked(parts)
            out[rows] = np.where(known[:, None], self._summed(parts) @ self._alpha, 0.0)
        return out
