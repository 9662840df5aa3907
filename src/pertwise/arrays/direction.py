"""Direction from one model, size from another; and how far to stretch a prediction.

Squared error is dominated by the strongest responses, so a model fitted to raw responses learns
its directions from them. Fitted to responses divided by the square root of their length, every
perturbation counts more equally and directions get better, while lengths are lost. Both models
share their kernels; the prediction takes its direction from the second, its length from the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Stretch factors tried: about zero, and about the training mean by component.
ABOUT_ZERO = tuple(1.0 + 0.02 * i for i in range(12))
BY_COMPONENT = tuple(0.1 * i for i in range(7))
#: Rows turned at once: what lies between stays in the processor's cache.
ROWS = 64
#: Mean cosine that a stretch may cost.
COSINE_COST = 0.0005
#: Largest factor on one component before the exponent.
LARGEST = 2.5
#: Penalties of `fit_turn`, on the log factors and on the offset in units of a typical response.
TURN_FACTORS, TURN_OFFSET = 0.03, 0.03


def lengths(x: Floats) -> Floats:
    """(n, 1) Euclidean row lengths, NaN entries left out."""
    squares = np.square(x)
    total = squares.sum(axis=1, keepdims=True)
    if not np.isfinite(total).all():
        total = np.nansum(squares, axis=1, keepdims=True)
    return np.asarray(np.sqrt(total))


def half_scaled(y: Floats) -> Floats:
    """(n, d) rows divided by the square root of their length; zero rows stay zero."""
    size = np.sqrt(lengths(y))
    return np.asarray(np.divide(y, size, out=np.zeros_like(y), where=size > 0))


def with_direction(size_from: Floats, direction_from: Floats, share: float = 1.0) -> Floats:
    """(q, d) rows turned towards `direction_from`, at the length of the rows of `size_from`.

    The direction is that of (1 - share) u + share v with u, v the unit rows of the two. A share of
    one half costs hardly any squared error and has most of the gain in cosine.
    """
    out = np.empty_like(size_from)
    for start in range(0, len(out), ROWS):
        rows = slice(start, start + ROWS)
        out[rows] = _turned(size_from[rows], direction_from[rows], share)
    return out


def _turned(size_from: Floats, direction_from: Floats, share: float) -> Floats:
    own, other = lengths(size_from), lengths(direction_from)
    u = np.divide(size_from, own, out=np.zeros_like(size_from), where=own > 0)
    v = np.divide(direction_from, other, out=np.array(u), where=other > 0)
    mixed = (1.0 - share) * u + share * v
    size = lengths(mixed)
    unit = np.divide(mixed, size, out=np.array(u), where=size > 0)
    return np.asarray(own * unit)


def stretch(
    mean: Floats, centre: Floats, axes: Floats, factors: Floats, about_zero: float
) -> Floats:
    """Stretch predictions by component around `centre`, then as a whole around zero.

    Parameters
    ----------
    mean
        (q, d); centre (d,); axes (r, d) orthonormal rows; factors (r,).
    """
    scores = (mean - centre) @ axes.T
    return np.asarray(about_zero * (mean + (scores * (factors - 1.0)) @ axes))


def component_factors(held_out: Floats, truth: Floats, centre: Floats, axes: Floats) -> Floats:
    """(r,) ratio of the spread of the truth to that of the held-out predictions, 1 .. `LARGEST`."""
    t = ((truth - centre) @ axes.T).std(axis=0)
    p = ((held_out - centre) @ axes.T).std(axis=0)
    ratio = np.divide(t, p, out=np.full_like(t, LARGEST), where=p > 0)
    return np.asarray(np.clip(ratio, 1.0, LARGEST))


def choose_stretch(
    held_out: Floats, truth: Floats, centre: Floats, axes: Floats, tolerance: float
) -> tuple[float, float]:
    """(about zero, exponent of the component factors) chosen on held-out training predictions.

    Shrunken predictions have the least squared error but crowd together, so that retrieval (which
    measured response lies nearest?) suffers. Among the stretches whose mean cosine is not below
    that of the unstretched predictions (by more than `COSINE_COST`), and whose squared error is
    within `tolerance` (a share) of the least, the one with the best mean forward L2 retrieval is
    taken. The first component, mostly the overall strength, is never stretched by component: it
    costs the most error.

    Parameters
    ----------
    held_out, truth
        (n, d) without NaN.
    """
    factors = component_factors(held_out, truth, centre, axes)
    tried = []
    for exponent in BY_COMPONENT:
        shaped = stretch(held_out, centre, axes, powered(factors, exponent), 1.0)
        cosine = _cosine(shaped, truth)  # the same at every length
        for zero in ABOUT_ZERO:
            error = float(((zero * shaped - truth) ** 2).sum())
            tried.append((error, cosine, zero, exponent))
    floor = tried[0][1] - COSINE_COST
    straight = [t for t in tried if t[1] >= floor]
    limit = min(t[0] for t in straight) * (1.0 + tolerance)
    allowed = [t for t in straight if t[0] <= limit]

    def retrieval(zero: float, exponent: float) -> float:
        p = stretch(held_out, centre, axes, powered(factors, exponent), zero)
        return _retrieval(p, truth)

    best = max(allowed, key=lambda t: retrieval(t[2], t[3]))
    return best[2], best[3]


def powered(factors: Floats, exponent: float) -> Floats:
    """Component factors to an exponent; the first component stays as it is."""
    out = factors**exponent
    out[:1] = 1.0
    return np.asarray(out)


def _cosine(p: Floats, t: Floats) -> float:
    size = lengths(p)[:, 0] * lengths(t)[:, 0]
    return float(np.divide((p * t).sum(axis=1), size, out=np.zeros(len(p)), where=size > 0).mean())


def _retrieval(p: Floats, t: Floats) -> float:
    """Share of the other measured responses that lie farther from the prediction than its own."""
    d = (p**2).sum(axis=1)[:, None] + (t**2).sum(axis=1)[None] - 2 * p @ t.T
    own = np.diag(d)[:, None]
    n = len(p)
    return float(((d > own).sum() + 0.5 * ((d == own).sum() - n)) / max(n * (n - 1), 1))


@dataclass(frozen=True)
class Turn:
    """A linear map of predictions, made for their direction.

    Attributes
    ----------
    axes
        (r, d) orthonormal rows.
    factors, offset
        (r,) each: scores s become factors * s + offset.
    """

    axes: Floats
    factors: Floats
    offset: Floats

    def apply(self, mean: Floats, share: float) -> Floats:
        """(q, d) rows turned by `share` of the way to their mapped direction, length kept."""
        scores = mean @ self.axes.T
        mapped = mean + ((self.factors - 1.0) * scores + self.offset) @ self.axes
        return with_direction(mean, mapped, share)


def fit_turn(held_out: Floats, truth: Floats, axes: Floats) -> Turn:
    """The map of held-out predictions with the largest mean cosine to the measured responses.

    Maximises mean_i cos(g * p_i + b, t_i) - `TURN_FACTORS` mean(log g)^2 - `TURN_OFFSET` |b|^2 /
    mean |t|^2 over factors g and an offset b, one a component. Least squares gives every response
    a weight by its length; the cosine counts weak responses as much as strong ones.

    Parameters
    ----------
    held_out, truth
        (n, d) without NaN; predictions made without the row itself.
    axes
        (r, d) orthonormal rows; everything is seen in them.
    """
    p, t = held_out @ axes.T, truth @ axes.T
    n, r = p.shape
    size = lengths(t)
    unit = np.divide(t, size, out=np.zeros_like(t), where=size > 0)
    typical = max(float((size**2).mean()), np.finfo(float).tiny)

    def loss(x: Floats) -> tuple[float, Floats]:
        factors, offset = np.exp(x[:r]), x[r:]
        mapped = p * factors + offset
        norm = np.maximum(lengths(mapped), 1e-12)
        cosine = (mapped * unit).sum(axis=1, keepdims=True) / norm
        slope = -(unit / norm - mapped * cosine / norm**2) / n
        value = -float(cosine.mean()) + TURN_FACTORS * float((x[:r] ** 2).mean())
        value += TURN_OFFSET * float(offset @ offset) / typical
        by_factor = (slope * p).sum(axis=0) * factors + 2 * TURN_FACTORS * x[:r] / r
        return value, np.append(by_factor, slope.sum(axis=0) + 2 * TURN_OFFSET * offset / typical)

    from scipy.optimize import minimize  # a fifth of a second, and not for a fit that is kept

    found = minimize(
        loss,
        np.zeros(2 * r),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-2.0, 2.0)] * r + [(None, None)] * r,
        options={"maxiter": 200},
    )
    return Turn(axes, np.exp(found.x[:r]), found.x[r:])
