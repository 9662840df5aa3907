"""`KernelModel`: what all predictors on knowledge kernels share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.arrays.direction import with_direction
from pertwise.arrays.gaussian_process import Floats
from pertwise.arrays.memory import BLOCK_BYTES, require_memory
from pertwise.errors import InputError
from pertwise.kernels.genes import GeneBlocks, KernelSource, gene_blocks
from pertwise.kernels.ratings import GivenRatings, mark_kernels
from pertwise.kernels.transfer import GivenScreens, OtherScreen, other_screens
from pertwise.knowledge import Knowledge
from pertwise.models.base import MEAN_FALLBACK, support_table
from pertwise.screen.training import TrainingData

if TYPE_CHECKING:
    from pertwise.screen import Screen


#: Share of the kernels of other screens that is tried where weights are not learned one by one.
TRUST = (0.0, 0.25, 0.5, 0.75)


class KernelModel:
    """Settings, training data and feature rows; a subclass adds `fit` and `predict`.

    Parameters
    ----------
    kernels
        See `gene_kernels.DEFAULT_KERNELS`.
    sources
        Further kernels, e.g. neighbours named by a language model (`named.NamedNeighbours`); with
        ``kernels=()`` the only ones.
    ratings
        Marks whose kernels join the others (`kernels.ratings.mark_kernels`): True for those that
        the knowledge holds, a file, or False for none.
    other
        Other screens, each of which is fitted on its own line and gives kernels that join
        (`kernels.transfer`): screens, files, or name -> one of them; `look_up`: also the kernels of
        what they measured (`looked_up.LookedUp` decides).
    exclude_from_screen
        Leave out knowledge that was derived from a perturbation screen.
    skip_missing
        Leave out kernels that the knowledge folder cannot give, instead of raising.
    """

    #: Square arrays between all training rows, and arrays of the size of the responses, that a
    #: fit holds at one time.
    _squares, _tables = 5, 8

    def __init__(
        self,
        kernels: Sequence[str],
        sources: Sequence[KernelSource],
        exclude_from_screen: bool,
        name: str,
        skip_missing: bool = True,
        ratings: GivenRatings = True,
        other: GivenScreens = (),
        look_up: bool = True,
    ) -> None:
        self.kernels = (kernels,) if isinstance(kernels, str) else tuple(kernels)
        self._given_sources, self.ratings = tuple(sources), ratings
        self.other, self.look_up = other, look_up
        self.sources = self._given_sources
        self.exclude_from_screen = exclude_from_screen
        self.skip_missing = skip_missing
        self.name = name
        self._knowledge: Knowledge | None = None
        self._data: TrainingData | None = None

    def _start(self, screen: Screen, knowledge: Knowledge | None) -> TrainingData:
        """Training data and feature rows of a fit.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured, there is no knowledge to build a kernel from, or the fit would
            need more than the available memory.
        """
        if knowledge is None:
            if self.kernels:
                raise InputError(f"{self.name!r} needs a knowledge folder: pass knowledge to fit")
            knowledge = Knowledge()  # what was given says it all
        data = TrainingData.from_screen(screen, self.name)
        self.sources = (
            *self._given_sources,
            *mark_kernels(knowledge, self.ratings),
            *other_screens(
                knowledge,
                self.other,
                exclude_from_screen=self.exclude_from_screen,
                look_up=self.look_up,
            ),
        )
        if not self.kernels and not self.sources:
            raise InputError(
                f"{self.name!r}: there are no marks; give a table of them (ratings=FILE, --ratings "
                "FILE on the command line), which `pertwise rate` makes or a person fills in; for "
                "a method that reads lists (fused), answers=FILE, which `pertwise ask` makes"
            )
        n, d = data.y.shape
        require_memory(
            8 * n * (self._squares * n + self._tables * d) + 3 * BLOCK_BYTES,
            f"{self.name!r} on {n:,} training perturbations x {d:,} features",
            "take fewer perturbations or features (screen.of_perturbations), a method without a "
            "matrix between all perturbations ('pca-ridge'), or a larger machine",
        )
        self._knowledge, self._data = knowledge, data
        self._blocks = self._rows(data.names, self.kernels, self.skip_missing)
        return data

    def _trained(self) -> TrainingData:
        if self._data is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._data

    def _folder(self) -> Knowledge:
        if self._knowledge is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        return self._knowledge

    def _asked(self, names: Sequence[str]) -> GeneBlocks:
        """Feature rows of other perturbations, of the kernels that the fit used."""
        own = {k for source in self.sources for k in source.kinds}
        return self._rows(names, [k for k in self._blocks.kinds if k not in own], False)

    def _of_others(self, kinds: Sequence[str]) -> NDArray[np.bool_]:
        """(m,) True for the kernels of the screens in `other`."""
        own = self.sources[len(self._given_sources) :]
        theirs = {k for s in own if isinstance(s, OtherScreen) for k in s.kinds}
        return np.array([k in theirs for k in kinds], dtype=bool)

    def _answer(
        self,
        names: tuple[str, ...],
        known: NDArray[np.bool_],
        means: Sequence[Floats],
        direction: float,
    ) -> tuple[Floats, pd.DataFrame]:
        """(q, d) means, turned to those of a second model by `direction`, and their support: the
        training mean, stated, where no kernel knows a name."""
        data = self._trained()
        mean = with_direction(means[0], means[1], direction) if len(means) > 1 else means[0]
        count = np.where(known, len(data.names), 0)
        support = support_table(names, count, ["" if i else MEAN_FALLBACK for i in known])
        return np.where(known[:, None], mean, data.mean), support

    def _rows(self, names: Sequence[str], kinds: Sequence[str], skip_missing: bool) -> GeneBlocks:
        return gene_blocks(
            self._folder(),
            names,
            kinds,
            sources=self.sources,
            exclude_from_screen=self.exclude_from_screen,
            skip_missing=skip_missing,
        )
