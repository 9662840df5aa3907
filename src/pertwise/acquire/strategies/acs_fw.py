"""ACS-FW: the few candidates whose measurement stands for that of the whole pool."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    arg_best,
    by_position,
    check_n,
    random_start,
    tie_order,
)
from pertwise.acquire.strategies.bald import noise_level
from pertwise.select.base import Selection

#: Steps of Frank-Wolfe for each pick at most: a step may choose one that was chosen before.
STEPS = 10


def expected_updates(members: NDArray[Any], noise: float) -> Floats:
    """(n_candidates, n_members * n_features) expected change of the log posterior at each member.

    Pinsler et al. 2019, eq. 5, for Gaussian noise of variance s2 and the members as draws from
    the posterior, feature by feature:

        L_p(m) = 1/2 log(1 + v_p / s2) - ((f_m(p) - mean_m f_m(p))^2 + v_p) / (2 s2)
    """
    m, n, d = members.shape
    centred = np.asarray(members, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    variance = (centred**2).sum(axis=0) / (m - 1)
    found = 0.5 * np.log1p(variance / noise) - (centred**2 + variance) / (2.0 * noise)
    return np.asarray(found.transpose(1, 0, 2).reshape(n, m * d) / np.sqrt(m * d))


def frank_wolfe(vectors: Floats, n: int, ties: NDArray[np.int64]) -> tuple[list[int], Floats]:
    """Sparse non-negative combination of n rows that comes near the sum of all rows.

    Minimises |sum_p L_p - sum_p w_p L_p|^2 over w >= 0 with sum_p w_p |L_p| = sum_p |L_p| (Pinsler
    et al. 2019, algorithm 1). Where `STEPS` n steps give fewer than n rows, those most along
    what is left follow.

    Returns
    -------
    order (n picks as they came in) and (n_candidates,) how far each points along what is left.
    """
    size = np.linalg.norm(vectors, axis=1)
    total, target = float(size.sum()), vectors.sum(axis=0)
    unit = np.divide(vectors, size[:, None], out=np.zeros_like(vectors), where=size[:, None] > 0)
    made = np.zeros_like(target)
    order: list[int] = []
    n = min(n, len(vectors))
    everyone = np.ones(len(vectors), dtype=bool)
    along = unit @ (target - made)
    for _ in range(STEPS * n):
        if len(order) == n or not total > 0:
            break
        j = arg_best(along, ties, everyone)
        step = total * unit[j] - made
        length = float(step @ step)
        if not length > 0:
            break
        share = min(max(float(step @ (target - made)) / length, 0.0), 1.0)
        made = made + share * step
        along = unit @ (target - made)
        if j not in order:
            order.append(j)
    allowed = everyone.copy()
    allowed[order] = False
    while len(order) < n:
        j = arg_best(along, ties, allowed)
        order.append(j)
        allowed[j] = False
    return order, along


class AcsFw:
    """ACS-FW: a batch whose expected update of the model is near that of the whole pool.

    Utility = 1 - position / n_candidates: picks in order, then by how far they point along what
    the batch leaves out.

    After Pinsler et al. 2019, "Bayesian batch active learning as sparse subset approximation"
    (arXiv:1908.02144), with the ensemble's members as draws from the posterior on the target's
    features (`expected_updates`, `frank_wolfe`). Cold start: random.
    """

    name = "acs-fw"
    needs = "members"

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """The batch that stands for the pool."""
        check_n(n)
        if state.member_predictions is None:
            return random_start(state, n, self.name)
        noise, _ = noise_level(state)
        vectors = expected_updates(state.member_predictions, noise)
        order, along = frank_wolfe(vectors, n, tie_order(state.candidates))
        size = np.linalg.norm(vectors, axis=1)
        share = size / max(float(size.sum()), 1e-12)
        reasons = {
            j: f"expected update of the model: {share[j]:.2%} of that of all candidates together; "
            "points where the batch so far does not"
            for j in order
        }
        return by_position(state, vectors, order, along, reasons, self.name)
