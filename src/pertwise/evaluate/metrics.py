"""Per-perturbation agreement of a predicted with a measured response: one definition each.

Every kernel takes ``truth`` and ``prediction``, both (n_perturbations, n_features) deltas against
the control in the same unit, and an optional boolean ``mask`` of that shape (True = feature counts
for this perturbation), and returns (n_perturbations,) float64. The rules they share:

* NaN in the truth is "not measured" and leaves that feature out.
* NaN in the prediction where the truth was measured makes the score NaN: a method cannot gain by
  not answering.
* A score that is not defined (no feature left, zero variance, zero norm) is NaN here; what NaN
  becomes in a table says `filled`.

Write t_f and p_f for truth and prediction of feature f, F for the set of features that count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pertwise.errors import InputError
from pertwise.parts import part

Floats = NDArray[np.float64]
#: A vector whose variation is below this share of its length is constant up to float32 rounding.
FLAT = 1e-6


#: Rows worked on at once: 256 x 5,000 float64 are 10 MB, small enough for the processor's cache.
ROWS = 256
Declared = TypeVar("Declared")
Kernel = TypeVar("Kernel", bound=Callable[..., Floats])


class MetricFunction(Protocol):
    """What a metric must be: a function, or a class of one's own without settings.

    A class says by plain attributes what `metric` says of a function: ``better`` ("high"),
    ``undefined`` (nan), ``magnitude`` (False).
    """

    def __call__(self, truth: ArrayLike, prediction: ArrayLike) -> Floats:
        """(n,) scores of (n, d) responses; NaN in the truth is "not measured"."""
        ...


def metric(
    column: str,
    about: str,
    better: Literal["high", "low", "one"] = "high",
    undefined: float = float("nan"),
    *,
    magnitude: bool = False,
    rows: bool = True,
    needs: str | tuple[str, ...] = (),
) -> Callable[[Declared], Declared]:
    """Declare a metric: what its column means (`pertwise.evaluate.score.Metric`).

    Parameters
    ----------
    magnitude
        It speaks of how large a response is, which a rank does not know.
    rows
        It compares one row with one row: ``kernel(truth, prediction, mask)``.
    """
    return part(
        label=column,
        about=about,
        needs=needs,
        better=better,
        undefined=undefined,
        magnitude=magnitude,
        rows=rows,
    )


def filled(value: Floats, perfect: Floats, undefined: float) -> tuple[Floats, NDArray[np.bool_]]:
    """The one meaning of a score that is not defined, for genes and drugs alike.

    Parameters
    ----------
    value, perfect
        (n,) scores of the prediction and of the truth itself as a prediction.
    undefined
        What the metric is worth without information.

    Where the *truth* leaves a score undefined (nothing measured, no variance) no method can be
    scored: NaN, left out of every mean, and the same rows for all methods. Where only the
    *prediction* does (a constant has no correlation) it says nothing and gets `undefined`, so that
    a method cannot gain by not answering.

    Returns
    -------
    (n,) scores, and (n,) True where `undefined` was put in.
    """
    bad = np.isnan(value) & ~np.isnan(perfect)
    return np.where(bad, undefined, value), bad


def _in_blocks(kernel: Kernel) -> Kernel:
    """Run a row-by-row kernel over blocks of rows: same numbers, less memory, more cache hits."""

    @functools.wraps(kernel)
    def run(truth: ArrayLike, prediction: ArrayLike, *more: Any, **options: Any) -> Floats:
        t, p = np.asarray(truth), np.asarray(prediction)
        n = len(t) if t.ndim == 2 else 0
        if n <= ROWS or p.shape != t.shape:
            return kernel(t, p, *more, **options)

        def part(value: Any, rows: slice) -> Any:
            # A (d,) reference is shared by all rows; (n, d) arrays go block by block.
            array = None if value is None else np.asarray(value)
            return array[rows] if array is not None and array.ndim == 2 else value

        out = []
        for start in range(0, n, ROWS):
            rows = slice(start, start + ROWS)
            rest = [part(v, rows) for v in more]
            named = {k: part(v, rows) for k, v in options.items()}
            out.append(kernel(t[rows], p[rows], *rest, **named))
        return np.concatenate(out)

    return cast(Kernel, run)


def prepare(
    truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None
) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Float64 copies with zeros where a feature does not count, the mask, and which rows failed.

    Returns
    -------
    t, p
        (n, d) float64; 0 outside the mask and where the prediction is NaN.
    m
        (n, d) bool: the truth is measured and `mask` allows the feature.
    failed
        (n,) bool: the prediction is not finite somewhere inside the mask.

    Raises
    ------
    pertwise.errors.InputError
        If the shapes differ or are not two-dimensional.
    """
    t = np.asarray(truth, dtype=np.float64)
    p = np.asarray(prediction, dtype=np.float64)
    if t.ndim != 2 or t.shape != p.shape:
        raise InputError(
            f"truth has shape {t.shape} and prediction {p.shape}; both must be the same "
            "(n_perturbations, n_features)"
        )
    m = ~np.isnan(t)
    if mask is not None:
        allowed = np.asarray(mask, dtype=bool)
        if allowed.shape != t.shape:
            raise InputError(f"mask has shape {allowed.shape}, the responses {t.shape}")
        m &= allowed
    good = np.isfinite(p)
    failed = (m & ~good).any(axis=1)
    return np.where(m, t, 0.0), np.where(m & good, p, 0.0), m, np.asarray(failed)


def _ratio(numerator: ArrayLike, denominator: ArrayLike, failed: NDArray[np.bool_]) -> Floats:
    """numerator / denominator; NaN where the denominator is 0 or the row failed."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, np.float64)
    out = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=out, where=(bottom > 0) & ~failed)
    return out


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", a, b))


@metric("squared_error", "squared distance, summed over features", "low", magnitude=True)
@_in_blocks
def squared_error(truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Sum over F of (t_f - p_f)^2, scaled to all d features by d / \\|F\\| where some are NaN.

    The squared Euclidean distance of the two responses (in unit^2). For orthonormal components it
    equals the squared distance in expression space. With a `mask`, d is the number of features
    the mask allows.
    """
    t, p, m, failed = prepare(truth, prediction, mask)
    d = m.shape[1] if mask is None else np.asarray(mask, dtype=bool).sum(axis=1)
    return _ratio(_dot(t - p, t - p) * d, m.sum(axis=1), failed)


@metric("mse", "mean squared error", "low", magnitude=True)
@_in_blocks
def mse(truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Mean squared error: (1 / \\|F\\|) * sum over F of (t_f - p_f)^2."""
    t, p, m, failed = prepare(truth, prediction, mask)
    return _ratio(_dot(t - p, t - p), m.sum(axis=1), failed)


@metric("mae", "mean absolute error", "low", magnitude=True)
@_in_blocks
def mae(truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Mean absolute error: (1 / \\|F\\|) * sum over F of \\|t_f - p_f\\|."""
    t, p, m, failed = prepare(truth, prediction, mask)
    return _ratio(np.abs(t - p).sum(axis=1), m.sum(axis=1), failed)


def _centre(x: Floats, m: NDArray[np.bool_], count: NDArray[Any]) -> Floats:
    mean = x.sum(axis=1) / np.maximum(count, 1)
    return np.asarray(np.where(m, x - mean[:, None], 0.0))


def _correlation(
    t: Floats, p: Floats, m: NDArray[np.bool_], failed: NDArray[np.bool_], size_t: Any, size_p: Any
) -> Floats:
    """Pearson over F; `size_*` are the lengths against which "constant" is judged."""
    count = m.sum(axis=1)
    a, b = _centre(t, m, count), _centre(p, m, count)
    norm_a, norm_b = np.sqrt(_dot(a, a)), np.sqrt(_dot(b, b))
    flat = (norm_a <= FLAT * size_t) | (norm_b <= FLAT * size_p) | (count < 2)
    return np.clip(_ratio(_dot(a, b), norm_a * norm_b, failed | flat), -1.0, 1.0)


@metric("pearson_delta", "Pearson of deltas against control", "high", 0.0)
@_in_blocks
def pearson_delta(truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Pearson correlation over F of t and p, both deltas against the *control*.

    r = sum (t_f - mean t)(p_f - mean p) / (\\|\\|t - mean t\\|\\| \\|\\|p - mean p\\|\\|). The
    "Pearson delta" of GEARS (Roohani et al. 2024, Nat. Biotechnol.) and of cell-eval. NaN when
    fewer than two features count or either side is constant.
    """
    t, p, m, failed = prepare(truth, prediction, mask)
    return _correlation(t, p, m, failed, np.sqrt(_dot(t, t)), np.sqrt(_dot(p, p)))


@metric(
    "pearson_reference",
    "Pearson of deltas against the training mean",
    "high",
    0.0,
    needs="reference",
)
@_in_blocks
def pearson_reference(
    truth: ArrayLike, prediction: ArrayLike, reference: ArrayLike, mask: ArrayLike | None = None
) -> Floats:
    """Pearson correlation over F of t - m and p - m, with m the *training mean* response.

    `reference` is (n_features,) or (n_perturbations, n_features). What all perturbations share
    against the control no longer counts, so the training mean itself has no defined score
    (Systema, Vinas Torne et al. 2025, Nat. Biotechnol.: the perturbed centroid as reference).
    Features where the reference is NaN are left out.
    """
    t, p, m, failed = prepare(truth, prediction, mask)
    ref = np.broadcast_to(np.asarray(reference, dtype=np.float64), t.shape)
    m = m & ~np.isnan(ref)
    ref = np.where(m, ref, 0.0)
    t, p = np.where(m, t, 0.0), np.where(m, p, 0.0)
    # Judged against the size before the subtraction: a prediction equal to the reference up to
    # float32 rounding must count as "no difference", not as a correlation of rounding errors.
    size_t, size_p = np.sqrt(_dot(t, t)), np.sqrt(_dot(p, p))
    return _correlation(t - ref, p - ref, m, failed, size_t, size_p)


@metric("cosine", "cosine of deltas against control", "high", 0.0)
@_in_blocks
def cosine(truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Cosine similarity over F: sum t_f p_f / (\\|\\|t\\|\\| \\|\\|p\\|\\|); NaN for a zero vector.

    Unlike Pearson it does not remove each response's own mean over features.
    """
    t, p, _, failed = prepare(truth, prediction, mask)
    norm = np.sqrt(_dot(t, t) * _dot(p, p))
    return np.clip(_ratio(_dot(t, p), norm, failed), -1.0, 1.0)


@metric("direction_accuracy", "share of right signs", "high")
@_in_blocks
def direction_accuracy(
    truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None
) -> Floats:
    """Share of the features of F with t_f != 0 whose predicted sign is right.

    A predicted zero makes no call and counts as wrong, as in cell-eval's direction match. On
    top-k differential features this is the sign accuracy of the papers.
    """
    t, p, _, failed = prepare(truth, prediction, mask)
    changed = t != 0
    return _ratio((changed & (np.sign(t) == np.sign(p))).sum(axis=1), changed.sum(axis=1), failed)


@metric("slope", "slope of truth on prediction", "one", 0.0, magnitude=True)
@_in_blocks
def regression_slope(
    truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None
) -> Floats:
    """Least-squares slope of truth on prediction over F: cov(t, p) / var(p).

    1 = magnitudes are right on average; below 1 the prediction exaggerates; NaN when the
    prediction is constant.
    """
    t, p, m, failed = prepare(truth, prediction, mask)
    count = m.sum(axis=1)
    a, b = _centre(t, m, count), _centre(p, m, count)
    squares = _dot(b, b)
    flat = (np.sqrt(squares) <= FLAT * np.sqrt(_dot(p, p))) | (count < 2)
    return _ratio(_dot(a, b), squares, failed | flat)


@metric("r2", "1 - residual / total sum of squares", "high", magnitude=True)
@_in_blocks
def r_squared(truth: ArrayLike, prediction: ArrayLike, mask: ArrayLike | None = None) -> Floats:
    """Coefficient of determination over F: 1 - sum (t_f - p_f)^2 / sum (t_f - mean t)^2.

    Not the squared correlation: it can be negative, and 0 is what the response's own mean over
    features would reach. NaN when the truth is constant.
    """
    t, p, m, failed = prepare(truth, prediction, mask)
    a = _centre(t, m, m.sum(axis=1))
    total = _dot(a, a)
    flat = np.sqrt(total) <= FLAT * np.sqrt(_dot(t, t))
    return 1.0 - _ratio(_dot(t - p, t - p), total, failed | flat)


def learning_curve_area(x: ArrayLike, y: ArrayLike, *, normalise: bool = True) -> float:
    """Area under a learning curve by the trapezoid rule over the number of acquired perturbations.

    Parameters
    ----------
    x
        (n_points,) number of perturbations acquired so far, strictly increasing.
    y
        (n_points,) metric after each round. NaN anywhere gives NaN: a missing round is not
        interpolated silently.
    normalise
        Divide by x[-1] - x[0], so that the area is the mean height in the unit of `y` and does
        not depend on the number of rounds. A single point then has its own height.

    Raises
    ------
    pertwise.errors.InputError
        If the lengths differ, there is no point, or `x` does not increase.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.ndim != 1 or xs.shape != ys.shape or not xs.size:
        raise InputError(f"a learning curve needs equally many x and y, got {xs.shape}, {ys.shape}")
    if (np.diff(xs) <= 0).any():
        raise InputError(f"the numbers of acquired perturbations must increase, got {xs.tolist()}")
    if xs.size == 1:
        return float(ys[0]) if normalise else 0.0
    area = float(np.trapezoid(ys, xs))
    return area / float(xs[-1] - xs[0]) if normalise else area
