"""BAIT: the batch after whose measurement least uncertainty is left, forward and backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    arg_best,
    by_position,
    check_n,
    deviations,
    random_start,
    tie_order,
)
from pertwise.acquire.strategies.bald import noise_level
from pertwise.select.base import Selection

#: Wider deviations are sketched to that many columns by Gaussian random projection, as in
#: Holzmueller et al. 2023; a pick then costs O(n_candidates * WIDTH).
WIDTH = 512


def sketched(phi: Floats, rng: np.random.Generator, width: int = WIDTH) -> Floats:
    """(n, <= width) rows whose products are those of the (n, w) rows, on average."""
    if phi.shape[1] <= width:
        return phi
    return np.asarray(phi @ rng.standard_normal((phi.shape[1], width)) / np.sqrt(width))


class LeftOver:
    """Sum of the posterior variances of all candidates while some of them are measured.

    With A = (I + sum_{j in S} phi_j phi_j^T / s2)^-1 and M = sum_u phi_u phi_u^T that is
    tr(A M); measuring j takes phi_j^T A M A phi_j / (s2 + phi_j^T A phi_j) off it, forgetting j
    adds the same over s2 - phi_j^T A phi_j. Both are kept for all candidates by rank-one updates.

    Parameters
    ----------
    phi
        (n, k) rows with phi_p . phi_q = covariance of p and q.
    noise
        s2 > 0.
    """

    def __init__(self, phi: Floats, noise: float) -> None:
        self.phi, self.noise = phi, noise
        self.a = np.eye(phi.shape[1])
        moment = phi.T @ phi
        self.ama = moment.copy()
        self.variance = np.einsum("ij,ij->i", phi, phi)
        self.effect = np.einsum("ij,ij->i", phi @ moment, phi)

    def gain(self) -> Floats:
        """(n,) what measuring each would take off."""
        return np.asarray(self.effect / (self.noise + np.maximum(self.variance, 0.0)))

    def loss(self, j: int) -> float:
        """What forgetting j, which is measured, would add."""
        return float(self.effect[j] / max(self.noise - self.variance[j], 1e-12))

    def measure(self, j: int, sign: float = 1.0) -> None:
        """Take j in (or, with sign -1, out again)."""
        v = self.a @ self.phi[j]
        total = self.noise + sign * self.variance[j]
        v = v / np.sqrt(max(total, 1e-12))
        # ama = A M A and the moment in the span that counts: A' = A - s v v^T.
        amv = self.ama @ self.phi[j] / np.sqrt(max(total, 1e-12))
        vmv = float(self.effect[j]) / max(total, 1e-12)
        along, across = self.phi @ v, self.phi @ amv
        self.variance = self.variance - sign * along**2
        self.effect = self.effect - sign * 2.0 * along * across + along**2 * vmv
        self.a -= sign * np.outer(v, v)
        cross = np.outer(v, amv)
        self.ama += -sign * (cross + cross.T) + vmv * np.outer(v, v)


def forward_backward(left: LeftOver, n: int, ties: NDArray[np.int64]) -> tuple[list[int], Floats]:
    """Greedy forward to 2 n candidates, then greedy backward to n (Ash et al. 2021, BAIT).

    `left`, with nothing measured, has the batch measured afterwards.

    Returns
    -------
    order (n picks, in the order they came in) and (n_candidates,) what each would still take off.
    """
    total = len(left.phi)
    allowed = np.ones(total, dtype=bool)
    order: list[int] = []
    n = min(n, total)
    for _ in range(min(2 * n, total)):
        j = arg_best(left.gain(), ties, allowed)
        order.append(j)
        allowed[j] = False
        left.measure(j)
    while len(order) > n:
        # Of equal losses the one that came in last goes.
        out = min(reversed(order), key=left.loss)
        order.remove(out)
        left.measure(out, -1.0)
    return order, np.where(allowed, left.gain(), 0.0)


class Bait:
    """BAIT: least uncertainty left over all candidates, greedily forward, then backward.

    Utility = 1 - position / n_candidates: picks in order, then by what they would still take off.

    After Ash et al. 2021, "Gone fishing: neural active learning with Fisher embeddings"
    (arXiv:2106.09675): minimise tr((sum_S V V^T + I)^-1 sum_U V V^T). For regression with Gaussian
    noise V V^T is a row of features over the noise (Holzmueller et al. 2023); the features here
    are the ensemble's deviations on the target's features. Cold start: random.
    """

    name = "bait"
    needs = "members"

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Forward-backward batch in the space of disagreement vectors."""
        check_n(n)
        if state.member_predictions is None:
            return random_start(state, n, self.name)
        noise, _ = noise_level(state)
        phi = sketched(deviations(state.member_predictions), state.rng)
        left = LeftOver(phi, noise)
        share = left.gain() / max(float(left.variance.sum()), 1e-12)
        order, rest = forward_backward(left, n, tie_order(state.candidates))
        reasons = {
            j: f"alone it would take {share[j]:.1%} off the variance of all candidates; kept when "
            "the batch was thinned out"
            for j in order
        }
        return by_position(state, phi, order, rest, reasons, self.name)
