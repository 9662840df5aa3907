"""Adaptive choice without a model: learn most about those whose response will be large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import Floats, check_n, need_embedding, selection, tie_order
from pertwise.acquire.strategies.variance_reduction import Information, greedy_reduction
from pertwise.arrays.gaussian_process import choose_noise, leave_one_out
from pertwise.errors import InputError
from pertwise.kernels.ratings import WIDTHS, mark_kernels
from pertwise.knowledge.ratings import Ratings, mean_and_spread
from pertwise.parts import part
from pertwise.select.base import Selection

#: Noise of the squared responses tried, in units of the kernel.
NOISES = np.geomspace(0.3, 30.0, 9)
#: No candidate's expected squared response is below this share of the mean one.
FLOOR = 0.2


@part(needs="nothing", reads="ratings")
class Adaptive:
    """`variance_reduction` that cares for candidates as much as they are expected to respond.

    With S measured, the batch is the greedy one of largest

        gain(p | S) = sum_u w_u k(u, p | S)^2 / (k(p, p | S) + s2),

    where w_u = E[y_u^2] is the expected squared response of candidate u in the target's features:
    a Gaussian process on the squared responses measured so far, under the same kernel as the gain,
    around a mean that marks of strength raise. An error on a candidate that will hardly respond
    costs little, whoever predicts it; before anything is measured the marks alone decide, and
    without marks all candidates count alike.

    Parameters
    ----------
    noise
        s2, noise relative to the prior variance of one perturbation.
    marks
        Use the ratings that the knowledge holds: for the strength, and in the kernel if `share`.
    share
        Part of the kernel that the marks make, in [0, 1]. 0 by default: on other programs and seeds
        than those reported, marks in the kernel of the choice cost more than they gave.
    power
        w_u = E[y_u^2]^power: 0 = `variance_reduction`, 1 = the squared error itself.
    """

    name = "adaptive"

    def __init__(
        self, noise: float = 0.5, marks: bool = True, share: float = 0.0, power: float = 1.0
    ) -> None:
        if not noise > 0:
            raise InputError(f"noise must be > 0, got {noise}")
        if not 0.0 <= share <= 1.0:
            raise InputError(f"share must be between 0 and 1, got {share}")
        if not power >= 0:
            raise InputError(f"power must be >= 0, got {power}")
        self.noise, self.marks, self.share, self.power = noise, marks, share, power

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """The batch that is expected to take most off the squared error in the target."""
        check_n(n)
        total = len(state.candidates)
        features = self._features(state)
        expected = expected_square(state, features, marked_strength(state, self._ratings(state)))
        weights = expected[:total] ** self.power
        information = Information(features[:total], features[total:], self.noise, weights)
        steps = greedy_reduction(information, n, tie_order(state.candidates))
        reasons = steps.reasons(
            state.candidates,
            lambda j: f"expected response {expected[j] ** 0.5:.2f} (mean of all 1)",
        )
        return selection(
            state,
            steps.order,
            steps.gain,
            reasons,
            self.name,
            extra={j: {"expected_square": round(float(expected[j]), 4)} for j in steps.order},
            provenance={
                "strategy": self.name,
                "noise": self.noise,
                "share": self.share,
                "power": self.power,
                "marks": [r.source for r in self._ratings(state)],
            },
        )

    def _ratings(self, state: AcquisitionState) -> tuple[Ratings, ...]:
        if not self.marks or state.knowledge is None:
            return ()
        return state.knowledge.ratings

    def _features(self, state: AcquisitionState) -> Floats:
        """(n_candidates + n_measured, k) rows of length <= 1: knowledge, and marks beside it."""
        rows = np.asarray(need_embedding(state, self.name), dtype=np.float64)
        tables = self._ratings(state)
        if not tables or self.share == 0:
            return rows
        names = (*state.candidates, *state.measured)
        # Direction and one length scale: every column costs at each observation.
        made = [
            m.rows(kind, names).toarray()
            for m in mark_kernels(state.knowledge, tables)
            for kind in (m.kinds[0], m.kinds[1 + WIDTHS.index(1.0)])
        ]
        scale = np.sqrt(self.share / len(made))
        return np.hstack([np.sqrt(1.0 - self.share) * rows, *(scale * x for x in made)])


def marked_strength(state: AcquisitionState, tables: Sequence[Ratings]) -> Floats | None:
    """(n_candidates + n_measured,) squared mark of strength, mean 1; None without marks.

    Several tables are averaged, those for these cells where there are any; what nobody marked gets
    the mean.
    """
    names = (*state.candidates, *state.measured)
    here = [r for r in tables if r.context == state.context]
    found = [m.strength(names) for m in mark_kernels(state.knowledge, tuple(here) or tuple(tables))]
    if not found:
        return None
    mean, _ = mean_and_spread(np.array(found))
    if not np.isfinite(mean).any():
        return None
    square = np.where(np.isfinite(mean), mean, np.nanmean(mean)) ** 2
    return np.asarray(square / max(float(square.mean()), 1e-9))


def expected_square(
    state: AcquisitionState, features: Floats, strength: Floats | None = None
) -> Floats:
    """(n_candidates + n_measured,) expected squared response in the target, mean 1.

    Squared responses s_i = mean_f y_if^2 of what is measured, divided by their mean b, are
    explained by a + c x strength_i (least squares, a and c not negative, pulled to half and half)
    and a Gaussian process with kernel `features` `features`^T on the rest, its noise by
    leave-one-out error; where that predicts worse than the mean, the mean stands.
    """
    total = len(state.candidates)
    prior = np.ones(len(features)) if strength is None else 0.5 + 0.5 * strength
    if state.screen is None or not len(state.measured):
        return np.asarray(prior / prior.mean())
    screen = state.screen
    targets = set(screen.features if state.target.features is None else state.target.features)
    columns = [i for i, f in enumerate(screen.features) if f in targets]
    place = {n: i for i, n in enumerate(screen.perturbations)}
    known = np.array([n in place for n in state.measured])
    if not known.any():
        return np.asarray(prior / prior.mean())
    rows = [place[n] for n in state.measured if n in place]
    y = np.asarray(screen.responses, dtype=np.float64)[np.ix_(rows, columns)]
    given = np.isfinite(y)
    count = given.sum(axis=1)
    square = np.where(given, y, 0.0) ** 2
    s = np.divide(square.sum(axis=1), count, out=np.full(len(y), np.nan), where=count > 0)
    use = np.isfinite(s)
    where = total + np.flatnonzero(known)[use]
    s = s[use]
    if len(s) < 3 or not s.mean() > 0:
        return np.asarray(prior / prior.mean())
    s = s / s.mean()
    mean = _explained(prior if strength is None else strength, s, where)
    rest = s - mean[where]
    k = features[where] @ features[where].T
    noise, _ = choose_noise(k, np.outer(rest, rest), NOISES)
    left_out = leave_one_out(k, noise, rest[:, None])[:, 0]
    out = mean
    if ((rest - left_out) ** 2).sum() < (rest**2).sum():
        system = k + noise * np.eye(len(s))
        out = mean + features @ (features[where].T @ np.linalg.solve(system, rest))
    out = np.maximum(out, FLOOR * out.mean())
    return np.asarray(out / out.mean())


def _explained(strength: Floats, s: Floats, where: np.ndarray) -> Floats:
    """a + c x strength for all rows; a, c >= 0 by least squares pulled to a = c = 1 / 2.

    The pull counts as ten measurements: the first few decide little.
    """
    from scipy.optimize import nnls

    design = np.stack([np.ones_like(strength), strength], axis=1)
    pull = np.sqrt(10.0) * np.eye(2)
    found, _ = nnls(np.vstack([design[where], pull]), np.append(s, np.diag(pull) * 0.5))
    return np.asarray(design @ found)
