"""`LearnedNeighbourPredictor`: learn which knowledge makes responses alike; take neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from pertwise.errors import InputError
from pertwise.kernels.genes import DEFAULT_KERNELS, KernelSource
from pertwise.models.base import Prediction
from pertwise.models.neighbours import NeighbourPredictor
from pertwise.parts import part
from pertwise.screen.training import TrainingData
from pertwise.select.learned import LearnedSelector, learned_selector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


@part(label="learned neighbours", needs="knowledge")
class LearnedNeighbourPredictor:
    """Pairs of measured perturbations teach which kernels tell that responses are alike.

    The learned similarity (`learned_selector`) selects and weights neighbours like any other
    selector, with its reasons listed, and the mean of the neighbours is shrunk by leave-one-out.

    Parameters
    ----------
    k
        Neighbours; other settings as in `NeighbourPredictor`.
    """

    def __init__(
        self,
        kernels: Sequence[str] = DEFAULT_KERNELS,
        *,
        sources: Sequence[KernelSource] = (),
        k: int = 10,
        exclude_from_screen: bool = True,
        name: str = "learned neighbours",
    ) -> None:
        self.kernels = tuple(kernels)
        self.sources = tuple(sources)
        self.k = k
        self.exclude_from_screen = exclude_from_screen
        self.name = name
        self._inner: NeighbourPredictor | None = None
        self.selector: LearnedSelector | None = None

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Learn the similarity from all pairs, then fit the neighbour predictor on it."""
        if knowledge is None:
            raise InputError(f"{self.name!r} needs a knowledge folder: pass knowledge to fit")
        self.selector = learned_selector(
            screen,
            knowledge,
            self.kernels,
            sources=self.sources,
            exclude_from_screen=self.exclude_from_screen,
            max_neighbours=self.k,
        )
        self._names = TrainingData.from_screen(screen, self.name).names
        self._inner = NeighbourPredictor(
            self.selector, k=self.k, how="similarity", shrinkage="cv", name=self.name
        ).fit(screen)
        return self

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Shrunken, weighted mean of the learned neighbours, with the kernels behind each."""
        if self._inner is None or self.selector is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        found = self._inner.predict(perturbations, context)
        table = found.neighbours
        if table is not None and len(table):
            subjects = list(dict.fromkeys(table["perturbation"]))
            column = {n: j for j, n in enumerate(self._names)}
            listed = table.groupby("perturbation", sort=False)["neighbour"]
            reasons: dict[tuple[str, str], str] = {}
            step = self.selector.at_once(len(self._names))
            for start in range(0, len(subjects), step):
                some = subjects[start : start + step]
                parts = self.selector.kernels(some, self._names)
                for i, a in enumerate(some):
                    for b in listed.get_group(a):
                        reasons[a, b] = "; ".join(self.selector.facts(parts[:, i, column[b]]))
            pairs = zip(table["perturbation"], table["neighbour"], strict=True)
            table["reason"] = [reasons[pair] for pair in pairs]
        found.provenance["learned"] = dict(self.selector.settings())
        return found
