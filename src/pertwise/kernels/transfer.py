"""`OtherScreen`: the same knock-downs measured in another cell line, as kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from pertwise.arrays.direction import half_scaled
from pertwise.errors import InputError
from pertwise.knowledge.genes.features import unit_rows
from pertwise.screen import Screen
from pertwise.screen.training import TrainingData


class OtherScreen:
    """Two perturbations are alike if their responses in another line were.

    The other line needs no feature in common with the line to predict: only the similarity of
    responses within it is used. Perturbations that were not measured there have a zero row and
    are predicted from the other kernels. Three kernels: cosine of the responses, cosine of the
    responses around their mean, and the length of the response (strong in one line, strong in the
    other) as the product of (1, standardised log length).

    Parameters
    ----------
    screen
        Responses in the other line; NaN counts as that line's mean.
    context
        The line to use when the screen holds several.
    """

    kinds: tuple[str, ...] = ("other line", "other line around its mean", "strength in other line")

    def __init__(self, screen: Screen, context: str | None = None) -> None:
        if context is not None:
            screen = screen.in_context(context)
        data = TrainingData.from_screen(screen, "cross-line transfer")
        if len(data.names) < 3:
            raise InputError(
                f"the other screen holds {len(data.names)} perturbations; at least 3 are needed"
            )
        self.source = f"responses in {data.context or 'another line'}"
        self._place = {n: i for i, n in enumerate(data.names)}
        y = np.where(np.isfinite(data.y), data.y, data.mean)
        scaled = half_scaled(y)
        size = np.log(np.linalg.norm(y, axis=1) + 1e-6)
        size = (size - size.mean()) / max(float(size.std()), 1e-9)
        self._rows = dict(
            zip(
                self.kinds,
                (scaled, scaled - scaled.mean(axis=0), np.stack([np.ones(len(y)), size], axis=1)),
                strict=True,
            )
        )

    def rows(self, kind: str, genes: Sequence[str]) -> csr_matrix:
        """(n_genes, k) unit rows; zero for perturbations not measured in the other line."""
        matrix = self._rows[kind]
        out = np.zeros((len(genes), matrix.shape[1]))
        for i, gene in enumerate(genes):
            if gene in self._place:
                out[i] = matrix[self._place[gene]]
        return unit_rows(csr_matrix(out))
