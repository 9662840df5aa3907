"""Expected error reduction: the batch after which knowledge leaves least unexplained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import (
    Floats,
    arg_best,
    check_n,
    need_embedding,
    selection,
    tie_order,
)
from pertwise.errors import InputError
from pertwise.parts import part
from pertwise.select.base import Selection


@dataclass(frozen=True)
class ReductionSteps:
    """What `greedy_reduction` did.

    Attributes
    ----------
    order
        Picks, best first.
    gain
        (n_candidates,) expected reduction when chosen, or still to be had after the last pick.
    informed
        Per pick, positions of the population members (itself excluded) it informs most.
    """

    order: list[int]
    gain: Floats
    informed: list[NDArray[np.int64]]

    def reasons(self, names: Sequence[str], why: Callable[[int], str]) -> dict[int, str]:
        """Pick -> why it was chosen, and whom it informs."""
        out = {}
        for j, near in zip(self.order, self.informed, strict=True):
            informed = ", ".join(names[i] for i in near)
            out[j] = f"{why(j)}; informs {informed} most" if informed else why(j)
        return out


class Information:
    """Posterior covariance over a population, and what measuring each member would take off it.

    Gaussian process with prior covariance K = X X^T of unit-length knowledge features and
    measurement noise s2 (in units of the prior variance of one perturbation). With S acquired,

        k(p, q | S) = K_pq - K_pS (K_SS + s2 I)^-1 K_Sq
        gain(p | S) = sum_u w_u k(u, p | S)^2 / (k(p, p | S) + s2)

    is exactly what measuring p takes off sum_u w_u var(u | S): the *expected error reduction* of
    Gaussian-process regression (A-optimal design; Cohn, Ghahramani & Jordan 1996, "Active learning
    with statistical models"). It depends on what is measured, not on the values. It prefers a
    typical member of a large group of related, still unmeasured genes; an outlier informs only
    itself.

    Parameters
    ----------
    features, measured
        (n, k) and (n_measured, k), rows of length 1 (or 0: nothing known).
    noise
        s2 > 0.
    weights
        (n,) importance of each member's error; None = all 1.

    With k columns of features everything is kept in them: posterior covariance X A X^T with
    A = (I + S^T S / s2)^-1 (Woodbury), so memory is O(n k) and one observation O(n k). A list of
    20,000 genes therefore needs no (n, n) array, which would be 3 GB.

    Raises
    ------
    pertwise.errors.InputError
        When `noise` is not positive.
    """

    def __init__(
        self,
        features: NDArray[Any],
        measured: NDArray[Any],
        noise: float = 0.5,
        weights: Floats | None = None,
    ) -> None:
        if not noise > 0:
            raise InputError(f"noise must be > 0, got {noise}")
        x = np.asarray(features, dtype=np.float64)
        self.noise = noise
        self.weights = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
        self._x = x
        inner: Floats = np.eye(x.shape[1])
        if len(measured):
            s = np.asarray(measured, dtype=np.float64)
            inverse = np.linalg.inv(inner + s.T @ s / noise)
            inner = np.asarray((inverse + inverse.T) / 2, dtype=np.float64)
        self._inner = inner
        self._moment = x.T @ (self.weights[:, None] * x)
        projected = x @ inner
        self._variance: Floats = np.einsum("ij,ij->i", projected, x)
        # sum_u w_u k(u, p)^2 = x_p A (X^T W X) A x_p
        self._told: Floats = np.einsum("ij,ij->i", projected @ self._moment, projected)

    @property
    def covariance(self) -> Floats:
        """(n, n) posterior covariance; made on request, for small populations."""
        full: Floats = self._x @ self._inner @ self._x.T
        return full

    def column(self, j: int) -> Floats:
        """(n,) posterior covariance with member `j`."""
        values: Floats = self._x @ (self._inner @ self._x[j])
        return values

    def gains(self) -> Floats:
        """(n,) gain of each member, given all observed so far."""
        gains: Floats = np.maximum(self._told, 0.0) / (np.maximum(self._variance, 0.0) + self.noise)
        return gains

    def informed_by(self, j: int, n: int = 3) -> NDArray[np.int64]:
        """The at most `n` other members whose variance observing `j` would reduce most.

        None for a member of which nothing is known: it is alike to nothing.
        """
        share = self.weights * self.column(j) ** 2
        least = max(float(share[j]), np.finfo(float).tiny) * 1e-10
        share[j] = -1.0
        first = np.argsort(-share, kind="stable")[:n]
        return first[share[first] > least].astype(np.int64)

    def worth(self, members: Sequence[int]) -> float:
        """What measuring all of `members` would take off sum_u w_u var(u): their gains in a row,
        in any order. O(m k^2)."""
        rows = self._x[list(members)] @ self._inner
        noisy = rows @ self._x[list(members)].T + self.noise * np.eye(len(rows))
        return float(np.trace(np.linalg.solve(noisy, rows @ self._moment @ rows.T)))

    @property
    def left(self) -> float:
        """sum_u w_u var(u): what is still unexplained of the whole population."""
        return float(self.weights @ np.maximum(self._variance, 0.0))

    def after(self, members: Sequence[int]) -> Information:
        """A copy that has observed `members`."""
        made = copy.copy(self)
        made._inner, made._told = self._inner.copy(), self._told.copy()
        made._variance = self._variance.copy()
        for j in members:
            made.observe(j)
        return made

    def observe(self, j: int) -> None:
        """Condition on a measurement of member `j`: a rank-one change of everything kept."""
        a = self._inner @ self._x[j]
        column = self._x @ a
        c = 1.0 / (max(column[j], 0.0) + self.noise)
        pulled = self._moment @ a
        cross = self._x @ (self._inner @ pulled)
        self._told += c * column * (c * float(a @ pulled) * column - 2.0 * cross)
        self._variance -= c * column**2
        self._inner -= c * np.outer(a, a)


def greedy_reduction(
    information: Information, n: int, ties: NDArray[np.int64], n_informed: int = 3
) -> ReductionSteps:
    """Greedy batch of largest expected error reduction, each pick given those before it.

    `information` is used up. Complexity: O(n_candidates k^2 + n n_candidates k).
    """
    total = len(information.weights)
    allowed = np.ones(total, dtype=bool)
    gain = information.gains()
    order: list[int] = []
    informed: list[NDArray[np.int64]] = []
    kept = gain.copy()
    for _ in range(min(n, total)):
        j = arg_best(gain, ties, allowed)
        order.append(j)
        kept[j] = gain[j]
        allowed[j] = False
        informed.append(information.informed_by(j, n_informed))
        information.observe(j)
        gain = information.gains()
    kept[allowed] = gain[allowed]
    return ReductionSteps(order, kept, informed)


@part(label="variance_reduction", needs="nothing", target_free=True)
class VarianceReduction:
    """Expected error reduction: the batch after which knowledge leaves least unexplained.

    Utility = `greedy_reduction` gain when chosen (for the rest: after the whole batch).

    Feature source: the knowledge embedding; uses neither responses nor a target. Works cold.

    Parameters
    ----------
    noise
        s2, noise relative to the prior variance of one perturbation.
    """

    name = "variance_reduction"

    def __init__(self, noise: float = 0.5) -> None:
        if not noise > 0:
            raise InputError(f"noise must be > 0, got {noise}")
        self.noise = noise

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """The batch that is expected to teach most about all candidates."""
        check_n(n)
        embedding = need_embedding(state, self.name)
        total = len(state.candidates)
        information = Information(embedding[:total], embedding[total:], self.noise)
        steps = greedy_reduction(information, n, tie_order(state.candidates))
        reasons = steps.reasons(
            state.candidates,
            lambda j: (
                f"expected to take {steps.gain[j]:.2f} candidates' worth of variance off the list"
            ),
        )
        return selection(
            state,
            steps.order,
            steps.gain,
            reasons,
            self.name,
            provenance={
                "strategy": self.name,
                "features": "knowledge embedding",
                "noise": self.noise,
            },
        )
