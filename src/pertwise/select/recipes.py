"""The numeric selectors of `pertwise.select.words`: how each is made from knowledge and a screen.

A factory is handed what its signature names: ``knowledge``, ``screen`` (the training rows), the
argument after the colon, and of the settings those that it knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pertwise.arrays.gaussian_process import Floats
from pertwise.errors import InputError
from pertwise.kernels.genes import gene_blocks
from pertwise.kernels.known import fitting, mean_kernel, only_similarities
from pertwise.parts import part
from pertwise.select.embedding import EmbeddingSelector
from pertwise.select.graph import GraphSelector
from pertwise.select.kernel import KernelSelector
from pertwise.select.learned import LearnedSelector, learned_selector
from pertwise.select.recorded import RecordedSelector
from pertwise.select.similarity import SimilaritySelector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen


@part(needs="knowledge", argument="graphs*")
def graph(
    knowledge: Knowledge,
    graphs: Sequence[str] = ("string",),
    *,
    weighted: bool = True,
    exclude_from_screen: bool = True,
    rewire_seed: int | None = None,
    max_neighbours: int = 20,
) -> GraphSelector:
    """Neighbours in a knowledge graph, or in several merged."""
    return GraphSelector(
        knowledge,
        graphs,
        weighted=weighted,
        exclude_from_screen=exclude_from_screen,
        rewire_seed=rewire_seed,
        max_neighbours=max_neighbours,
    )


@part(needs="knowledge", argument="kind")
def embedding(
    knowledge: Knowledge, kind: str = "text", *, dim: int = 256, max_neighbours: int = 20
) -> EmbeddingSelector:
    """Nearest by the cosine of an embedding, or of several joined by "+"."""
    return EmbeddingSelector(knowledge, kind, dim=dim, max_neighbours=max_neighbours)


@part(needs="knowledge", argument="kernels*")
def kernel(
    knowledge: Knowledge,
    screen: Screen,
    kernels: Sequence[str] = ("string",),
    *,
    exclude_from_screen: bool = True,
    max_neighbours: int = 20,
) -> SimilaritySelector:
    """Nearest by the mean of knowledge kernels at equal weights; no weight is learned.

    Of genes, of compounds ("chemistry,mechanism"), or "all" that fit the screen; "mechanism>0.3"
    names those that are more alike than that, and nobody else.
    """
    names, _, least = ",".join(kernels).partition(">")
    kernels = fitting(knowledge, screen.perturbations) if names == "all" else names.split(",")
    if least or any(only_similarities(knowledge, k) for k in kernels):
        made = mean_kernel(knowledge, kernels)
        return KernelSelector(made, above=_number(least), max_neighbours=max_neighbours)

    def between(subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        asked, known = (
            gene_blocks(knowledge, names, kernels, exclude_from_screen=exclude_from_screen)
            for names in (subjects, candidates)
        )
        return np.asarray(asked.cross(known))

    return LearnedSelector(
        between,
        kernels,
        np.full(len(kernels), 1.0 / len(kernels)),
        max_neighbours=max_neighbours,
        name=f"kernel ({', '.join(kernels)})",
    )


@part(reads="answers", argument="answers")
def recorded(answers: str, knowledge: Knowledge | None = None) -> RecordedSelector:
    """Neighbour lists from a file of recorded answers."""
    if knowledge is None:
        return RecordedSelector.from_file(answers)
    made = knowledge.keep(("recorded", answers), lambda: RecordedSelector.from_file(answers))
    return made.resolving(knowledge)


def _number(text: str) -> float:
    try:
        return float(text or 0.0)
    except ValueError:
        raise InputError(
            f"a least similarity is a number, as in mechanism>0.3; not {text!r}"
        ) from None


@part(needs="knowledge")
def learned(
    screen: Screen,
    knowledge: Knowledge,
    *,
    exclude_from_screen: bool = True,
    max_neighbours: int = 20,
) -> LearnedSelector:
    """Nearest by a similarity learned from the pairs of measured perturbations."""
    return learned_selector(
        screen,
        knowledge,
        exclude_from_screen=exclude_from_screen,
        max_neighbours=max_neighbours,
    )
