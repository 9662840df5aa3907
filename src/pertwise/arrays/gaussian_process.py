"""Kernels of genes as arrays: combining, fitting their weights, solving, leaving one out.

Everything here is a pure function of arrays. One kernel is shared by all features of the response:
the model is a Gaussian process per feature, Y_d ~ N(0, c_d (K(w) + s I)), with a scale c_d of its
own, so predicted *means* depend on the weights w and the noise s alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri, dtrtri

from pertwise._process import threads_for
from pertwise.errors import InputError

Floats = NDArray[np.float64]
#: Log weights stay in these bounds, so that no step of the optimiser can overflow.
_LOG_BOUND = 9.0
_LOG_NOISE = (-5.0, 5.0)
#: Kernel weights are learned on at most this many training rows (evenly spaced by name).
MAX_ROWS_FOR_WEIGHTS = 800


def combine(kernels: Floats, weights: Floats) -> Floats:
    """sum_m w_m K_m: (m, a, b), (m,) -> (a, b)."""
    return np.asarray(np.tensordot(weights, kernels, axes=1))


def kernel_axes(gram: Floats, dim: int) -> tuple[Floats, Floats]:
    """Leading kernel principal axes of training rows, and the map for new rows.

    Returns
    -------
    (n, k) scores of the training rows and (n, k) M with scores of new rows = K(new, train) M.
    """
    values, vectors = np.linalg.eigh(gram)
    keep = np.argsort(-values, kind="stable")[:dim]
    keep = keep[values[keep] > 1e-8]
    root = np.sqrt(values[keep])
    axes = vectors[:, keep]
    # The sign of an eigenvector is arbitrary: fix it, so that the same data give the same trees.
    sign = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    axes = axes * sign
    return axes * root, axes / root


@dataclass(frozen=True)
class KernelFit:
    """Weights of the kernels and the noise on the same scale.

    Attributes
    ----------
    weights
        (m,) non-negative, sum 1.
    noise
        Noise variance s in units of the summed kernel.
    objective
        Negative log marginal likelihood per response value, up to a constant.
    """

    weights: Floats
    noise: float
    objective: float


def negative_log_likelihood(
    log_parameters: Floats, kernels: Floats, gram: Floats, width: int
) -> tuple[float, Floats]:
    """Negative log marginal likelihood per value with the common scale profiled out, and gradient.

    With K = sum_m w_m K_m + s I and G = Y Y^T (n x n):
    f = log(tr(K^-1 G) / (n d)) + log|K| / n, the profile likelihood of Y ~ N(0, c K) over c. It
    needs the responses only through G, so its cost does not depend on the number of features, and
    features count as much as they vary (Rasmussen and Williams 2006, eq. 5.8, for one output).

    Parameters
    ----------
    log_parameters
        (m + 1,) log w_1 ... log w_m, log s.
    kernels
        (m, n, n).
    gram
        (n, n) G.
    width
        Number of features d.
    """
    n = len(gram)
    parameters = np.exp(log_parameters)
    k = combine(kernels, parameters[:-1])
    k[np.diag_indices(n)] += parameters[-1]
    factor = cho_factor(k, lower=True, check_finite=False)
    determinant = 2.0 * float(np.log(np.diag(factor[0])).sum())
    # A third of the work of solving for the unit matrix; only the lower half is filled.
    lower, _ = dpotri(factor[0], lower=1)
    inverse = np.tril(lower) + np.tril(lower, -1).T
    half = inverse @ gram
    trace = float(np.trace(half))
    value = np.log(trace / (n * width)) + determinant / n
    slope = inverse / n - half @ inverse / trace
    gradient = np.append(
        np.einsum("mij,ij->m", kernels, slope) * parameters[:-1],
        parameters[-1] * np.trace(slope),
    )
    return value, gradient


def fit_weights(
    kernels: Floats,
    gram: Floats,
    width: int,
    *,
    prior: float = 0.01,
    noise: float = 0.5,
    max_iterations: int = 60,
) -> KernelFit:
    """Weights and noise by maximum marginal likelihood with a prior towards equal weights.

    The penalty prior * sum_m (log w_m - log(1/m))^2 keeps kernels that the data cannot tell apart
    at equal weight (an average) instead of letting one win by chance.
    """
    m = len(kernels)
    if m == 0 or kernels.shape[1:] != gram.shape:
        raise InputError(f"kernels {kernels.shape} do not fit a Gram matrix {gram.shape}")
    equal = np.log(1.0 / m)
    if not np.trace(gram) > 0:
        return KernelFit(np.full(m, 1.0 / m), noise, 0.0)

    def objective(x: Floats) -> tuple[float, Floats]:
        value, gradient = negative_log_likelihood(x, kernels, gram, width)
        away = x[:-1] - equal
        gradient = gradient.copy()
        gradient[:-1] += 2 * prior * away
        return value + prior * float(away @ away), gradient

    from scipy.optimize import minimize  # a fifth of a second, and not for a fit that is kept

    with threads_for(len(gram)):
        found = minimize(
            objective,
            np.append(np.full(m, equal), np.log(noise)),
            jac=True,
            method="L-BFGS-B",
            bounds=[(equal - _LOG_BOUND, equal + _LOG_BOUND)] * m + [_LOG_NOISE],
            options={"maxiter": max_iterations},
        )
    parameters = np.exp(found.x)
    total = float(parameters[:-1].sum())
    return KernelFit(parameters[:-1] / total, float(parameters[-1] / total), float(found.fun))


def leave_one_out(k: Floats, noise: float, y: Floats) -> Floats:
    """(n, d) prediction of every row from all others, in closed form.

    y_i - [K^-1 y]_i / [K^-1]_ii with K = k + noise I (Rasmussen and Williams 2006, eq. 5.12).
    """
    return solved(np.array(k), noise, y)[1]


def solved(k: Floats, noise: float, y: Floats) -> tuple[Floats, Floats]:
    """(n, d) each: coefficients (`solve`) and `leave_one_out` predictions of responses without NaN.

    One factorisation serves both, in the place of `k` (C order), which is lost: at 10,000 rows each
    copy takes 0.8 GB.
    """
    factor = factored(k.T, noise)
    alpha = cho_solve(factor, y, check_finite=False)
    # K^-1 = L^-T L^-1: its diagonal is the squared length of each column of L^-1.
    inverse, _ = dtrtri(factor[0], lower=1, overwrite_c=1)
    diagonal = np.array([inverse[i:, i] @ inverse[i:, i] for i in range(len(k))])
    # LAPACK leaves columns together, everything after goes by rows.
    held_out = np.array(alpha, order="C")
    held_out /= diagonal[:, None]
    return alpha, np.subtract(y, held_out, out=held_out)


def choose_noise(k: Floats, gram: Floats, grid: Floats) -> tuple[float, Floats]:
    """The noise with the least squared leave-one-out error, and the error for every noise tried.

    With K = V diag(e) V^T the errors of all rows and features for one noise cost one (n, n)
    product: sum_i [A G A]_ii / A_ii^2 with A = (K + s I)^-1.
    """
    values, vectors = np.linalg.eigh(k)
    rotated = vectors.T @ gram @ vectors
    errors = np.empty(len(grid))
    for j, noise in enumerate(grid):
        shrink = 1.0 / (np.maximum(values, 0.0) + noise)
        diagonal = (vectors**2) @ shrink
        scaled = vectors * shrink
        residual = np.einsum("ij,jk,ik->i", scaled, rotated, scaled, optimize=True)
        errors[j] = float((residual / diagonal**2).sum())
    return float(grid[int(np.argmin(errors))]), errors


def patterns(measured: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Groups of columns measured in the same rows: (rows, columns) for each pattern."""
    if measured.all():
        yield np.arange(measured.shape[0]), np.arange(measured.shape[1])
        return
    _, group = np.unique(measured.T, axis=0, return_inverse=True)
    group = np.asarray(group).ravel()
    order = np.argsort(group, kind="stable")
    for columns in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        yield np.flatnonzero(measured[:, columns[0]]), columns


def solve(k: Floats, noise: float, y: Floats) -> Floats:
    """(n, d) coefficients A with prediction = K(new, train) A; NaN in y are left out exactly.

    A feature measured in some rows only is solved on those rows; its other coefficients are 0.
    """
    out = np.zeros_like(y)
    for rows, columns in patterns(np.isfinite(y)):
        if not len(rows):
            continue
        whole = len(rows) == len(k)
        block = np.array(k if whole else k[np.ix_(rows, rows)], order="F")
        part = cho_solve(factored(block, noise), y[np.ix_(rows, columns)])
        out[np.ix_(rows, columns)] = part
    return out


def factored(k: Floats, noise: float) -> tuple[Floats, bool]:
    """Cholesky factor of k + noise I in the place of k, which is in Fortran order."""
    k[np.diag_indices(len(k))] += noise
    found: tuple[Floats, bool] = cho_factor(k, lower=True, overwrite_a=True, check_finite=False)
    return found
