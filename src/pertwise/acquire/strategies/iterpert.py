"""IterPert: uncertain, but not like what is already there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    arg_best,
    check_n,
    deviations,
    need_embedding,
    random_start,
    scale01,
    selection,
    tie_order,
    unit_rows,
)
from pertwise.errors import InputError
from pertwise.kernels.genes import gene_blocks
from pertwise.select.base import Selection

#: The prior kernels of `FusedIterPert`: networks, annotation, complexes, signalling and text.
PRIORS = ("string", "go", "reactome", "complexes", "omnipath", "text")
Rows: TypeAlias = NDArray[Any] | csr_matrix


def fused_cosines(some: Sequence[Rows], others: Sequence[Rows]) -> Floats:
    """Mean over blocks of the products of unit rows: (n, m)."""
    return np.asarray(sum(_product(a, b) for a, b in zip(some, others, strict=True)) / len(some))


def _product(a: Rows, b: Rows) -> Floats:
    found: Any = a @ b.T
    return np.asarray(found.toarray() if issparse(found) else found, dtype=np.float64)


def iterpert(
    uncertainty: Floats,
    blocks: Sequence[Rows],
    weight: float,
    n: int,
    ties: NDArray[np.int64],
) -> tuple[list[int], Floats, NDArray[np.int64]]:
    """Greedy uncertainty minus weighted maximum similarity.

        a(p | A) = u~(p) - w * max_{q in A} max(0, k(p, q))

    with u~ the uncertainty min-max scaled to [0, 1] over the candidates, A the acquired items
    plus those already chosen, and k the mean over the blocks of the cosine of p and q (kernel
    fusion by the mean, Huang et al. 2024). a never increases while A grows, so picks come in
    descending order.

    Parameters
    ----------
    uncertainty
        (n_candidates,) >= 0.
    blocks
        (n_candidates + n_acquired, width) unit rows each (a zero row is like nothing).

    Returns
    -------
    order (n picks), a (n_candidates,) when chosen or after the last pick, and for every candidate
    the position of its most similar item (< n_candidates: a candidate; else n_candidates + index
    of an acquired one; -1: none).
    """
    u = scale01(np.asarray(uncertainty, dtype=np.float64))
    total = len(u)
    ours = [rows[:total] for rows in blocks]
    nearest = np.full(total, -1, dtype=np.int64)
    similarity = np.zeros(total)
    if blocks[0].shape[0] > total:
        cosine = fused_cosines(ours, [rows[total:] for rows in blocks])
        best = cosine.argmax(axis=1)
        top = cosine[np.arange(total), best]
        closer = top > 0
        similarity[closer] = top[closer]
        nearest[closer] = total + best[closer]
    allowed = np.ones(total, dtype=bool)
    value = u - weight * similarity
    order: list[int] = []
    for _ in range(min(n, total)):
        j = arg_best(value, ties, allowed)
        order.append(j)
        allowed[j] = False
        cosine = fused_cosines(ours, [rows[j : j + 1] for rows in ours])[:, 0]
        closer = allowed & (cosine > similarity)
        similarity[closer] = cosine[closer]
        nearest[closer] = j
        value = np.where(allowed, u - weight * similarity, value)
    return order, value, nearest


class IterPert:
    """IterPert: uncertain, but not like what is already there.

    Utility = `iterpert`, the form in which the method is compared with here.

    After Huang et al. 2024, "Sequential optimal experimental design of perturbation screens
    guided by multi-modal priors" (IterPert): prior-knowledge similarity keeps a batch from
    repeating itself or what is known. Their system fuses six prior kernels with the model's own
    kernel (`FusedIterPert`); without `kernels` this class uses one feature source, the knowledge
    embedding of `state.embedding`, and one weight. Cold start: random.

    Parameters
    ----------
    weight
        w in the formula; 1 makes full redundancy cancel full uncertainty.
    kernels
        Kernels of the knowledge folder by name (those that it was built without are left out). The
        similarity is then the mean of theirs and of the model's own: the correlation of two
        candidates' deviations over the ensemble, 0 to what is measured, which is not uncertain.

    Raises
    ------
    pertwise.errors.InputError
        For a negative weight, or kernels without a knowledge folder that has one of them.
    """

    name = "iterpert"
    needs = "uncertainty"

    def __init__(self, weight: float = 1.0, kernels: Sequence[str] | str = ()) -> None:
        if weight < 0:
            raise InputError(f"iterpert needs a weight >= 0, got {weight}")
        self.weight = weight
        self.kernels = (kernels,) if isinstance(kernels, str) else tuple(kernels)
        if self.kernels:
            self.needs = "members"

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Greedy batch of uncertain candidates unlike the acquired and each other."""
        check_n(n)
        if state.uncertainty is None:
            return random_start(state, n, self.name)
        blocks, fused = self._blocks(state)
        u = state.uncertainty.to_numpy(dtype=np.float64)
        order, value, nearest = iterpert(
            u,
            blocks,
            self.weight,
            n,
            tie_order(state.candidates),
        )
        names = (*state.candidates, *state.measured)
        scaled = scale01(u)
        reasons = {}
        word = "mean cosine" if self.kernels else "cosine"
        for j in order:
            like = "nothing alike is acquired"
            if nearest[j] >= 0 and self.weight > 0:
                near = (scaled[j] - value[j]) / self.weight
                like = f"most alike so far: {names[nearest[j]]} ({word} {near:.2f})"
            reasons[j] = f"uncertainty {u[j]:.3g} (scaled {scaled[j]:.2f}); {like}"
        return selection(
            state,
            order,
            value,
            reasons,
            self.name,
            provenance={
                "strategy": self.name,
                "weight": self.weight,
                "features": ", ".join(fused),
            },
        )

    def _blocks(self, state: AcquisitionState) -> tuple[list[Rows], list[str]]:
        """Unit rows of candidates, then measured, and what they are called."""
        if not self.kernels:
            return [need_embedding(state, self.name)], ["knowledge embedding"]
        if state.knowledge is None:
            raise InputError(
                f"strategy {self.name!r} fuses kernels of what is known: give a knowledge folder"
            )
        names = (*state.candidates, *state.measured)
        found = gene_blocks(state.knowledge, names, self.kernels, skip_missing=True)
        blocks: list[Rows] = list(found.blocks)
        fused = list(found.kinds)
        if state.member_predictions is not None:
            own = unit_rows(deviations(state.member_predictions))
            rest = np.zeros((len(state.measured), own.shape[1]), dtype=own.dtype)
            blocks.append(np.concatenate([own, rest]))
            fused.append("the model's own")
        return blocks, fused


class FusedIterPert(IterPert):
    """IterPert with the mean of six prior kernels (`PRIORS`) and the model's own.

    The kernels are those of the knowledge folder nearest to the published ones, not the same:
    their system used other screens and embeddings of models, too. Utility and cold start: see
    `IterPert`.
    """

    name = "iterpert-fused"
    needs = "members"

    def __init__(self, weight: float = 1.0, kernels: Sequence[str] | str = PRIORS) -> None:
        super().__init__(weight, kernels)
