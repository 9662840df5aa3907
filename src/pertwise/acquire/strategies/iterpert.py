"""IterPert: uncertain, but not like what is already there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    arg_best,
    check_n,
    need_embedding,
    random_start,
    scale01,
    selection,
    tie_order,
)
from pertwise.errors import InputError
from pertwise.select.base import Selection


def iterpert(
    uncertainty: Floats,
    features: NDArray[Any],
    acquired: NDArray[Any],
    weight: float,
    n: int,
    ties: NDArray[np.int64],
) -> tuple[list[int], Floats, NDArray[np.int64]]:
    """Greedy uncertainty minus weighted maximum similarity.

        a(p | A) = u~(p) - w * max_{q in A} max(0, cos(x_p, x_q))

    with u~ the uncertainty min-max scaled to [0, 1] over the candidates and A the acquired items
    plus those already chosen. a never increases while A grows, so picks come in descending order.

    Parameters
    ----------
    uncertainty
        (n_candidates,) >= 0.
    features, acquired
        (n_candidates, k) and (n_acquired, k), unit rows (a zero row is like nothing).

    Returns
    -------
    order (n picks), a (n_candidates,) when chosen or after the last pick, and for every candidate
    the position of its most similar item (< n_candidates: a candidate; else n_candidates + index
    into `acquired`; -1: none).
    """
    u = scale01(np.asarray(uncertainty, dtype=np.float64))
    total = len(u)
    nearest = np.full(total, -1, dtype=np.int64)
    similarity = np.zeros(total)
    if len(acquired):
        cosines = features @ np.asarray(acquired).T
        best = cosines.argmax(axis=1)
        top = cosines[np.arange(total), best].astype(np.float64)
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
        cosine = (features @ features[j]).astype(np.float64)
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
    kernel; this class uses one feature source, the knowledge embedding of `state.embedding`, and
    one weight. Cold start: random.

    Parameters
    ----------
    weight
        w in the formula; 1 makes full redundancy cancel full uncertainty.
    """

    name = "iterpert"
    needs = "uncertainty"

    def __init__(self, weight: float = 1.0) -> None:
        if weight < 0:
            raise InputError(f"iterpert needs a weight >= 0, got {weight}")
        self.weight = weight

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Greedy batch of uncertain candidates unlike the acquired and each other."""
        check_n(n)
        if state.uncertainty is None:
            return random_start(state, n, self.name)
        embedding = need_embedding(state, self.name)
        total = len(state.candidates)
        u = state.uncertainty.to_numpy(dtype=np.float64)
        order, value, nearest = iterpert(
            u,
            embedding[:total],
            embedding[total:],
            self.weight,
            n,
            tie_order(state.candidates),
        )
        names = (*state.candidates, *state.measured)
        scaled = scale01(u)
        reasons = {}
        for j in order:
            like = "nothing alike is acquired"
            if nearest[j] >= 0 and self.weight > 0:
                near = (scaled[j] - value[j]) / self.weight
                like = f"most alike so far: {names[nearest[j]]} (cosine {near:.2f})"
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
                "features": "knowledge embedding",
            },
        )
