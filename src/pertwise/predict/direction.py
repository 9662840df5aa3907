"""Direction from one model, size from another; and how far to stretch a prediction.

Squared error is dominated by the strongest responses, so a model fitted to raw responses learns
its directions from them. Fitted to responses divided by the square root of their length, every
perturbation counts more equally and directions get better, while lengths are lost. Both models
share their kernels; the prediction takes its direction from the second, its length from the first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Stretch factors tried: about zero, and about the training mean by component.
ABOUT_ZERO = (1.0, 1.05, 1.1, 1.15, 1.2)
BY_COMPONENT = (0.0, 0.15, 0.3, 0.45, 0.6)
#: Largest factor on one component before the exponent.
LARGEST = 2.5


def lengths(x: Floats) -> Floats:
    """(n, 1) Euclidean row lengths, NaN entries left out."""
    return np.asarray(np.sqrt(np.nansum(np.square(x), axis=1, keepdims=True)))


def half_scaled(y: Floats) -> Floats:
    """(n, d) rows divided by the square root of their length; zero rows stay zero."""
    size = np.sqrt(lengths(y))
    return np.asarray(np.divide(y, size, out=np.zeros_like(y), where=size > 0))


def with_direction(size_from: Floats, direction_from: Floats, share: float = 1.0) -> Floats:
    """(q, d) rows turned towards `direction_from`, at the length of the rows of `size_from`.

    The direction is that of (1 - share) u + share v with u, v the unit rows of the two. A share of
    one half costs hardly any squared error and has most of the gain in cosine.
    """
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
    measured response lies nearest?) suffers. Among the stretches whose squared error is within
    `tolerance` (a share) of the least, the one with the largest sum of mean cosine and mean forward
    L2 retrieval is taken. The first component, mostly the overall strength, is never stretched
    by component: it costs the most error.

    Parameters
    ----------
    held_out, truth
        (n, d) without NaN.
    """
    factors = component_factors(held_out, truth, centre, axes)
    tried = []
    for zero in ABOUT_ZERO:
        for exponent in BY_COMPONENT:
            p = stretch(held_out, centre, axes, powered(factors, exponent), zero)
            error = float(((p - truth) ** 2).sum())
            tried.append((error, _cosine(p, truth) + _retrieval(p, truth), zero, exponent))
    limit = min(t[0] for t in tried) * (1.0 + tolerance)
    best = max((t for t in tried if t[0] <= limit), key=lambda t: t[1])
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
