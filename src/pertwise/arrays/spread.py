"""Error bars that follow the error: which predictions are likely to be far off?

Held-out errors of the training perturbations are the data. The expected squared error of a new
perturbation is modelled by two things known before its measurement: how large the errors of
similar measured perturbations were, and how large the predicted response is (strong responses are
missed by more). A conformal factor then makes the stated intervals cover what they claim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pertwise.arrays.aggregate import calibration_scale

Floats = NDArray[np.float64]
#: Pseudo-weight of the overall error in the local average, in units of the mean total weight of
#: the training rows.
PRIOR = 0.25
_TINY = 1e-12


def local_error(similarity: Floats, squared_error: Floats, prior: float) -> Floats:
    """(q,) similarity-weighted mean squared error of the measured perturbations.

    (sum_j w_ij e_j + c e) / (sum_j w_ij + c) with w = max(similarity, 0)^2, e the mean error and
    pseudo-weight c = `prior`: a perturbation unlike everything measured gets the mean.

    Parameters
    ----------
    similarity
        (q, n); for training rows the diagonal must be 0 (no row vouches for itself).
    squared_error
        (n,) mean squared held-out error of each training row.
    """
    weights = np.maximum(similarity, 0.0) ** 2
    total = weights.sum(axis=1)
    return np.asarray((weights @ squared_error + prior * squared_error.mean()) / (total + prior))


@dataclass(frozen=True)
class ErrorModel:
    """log squared error = a + b log(local error) + c log(predicted size).

    Attributes
    ----------
    coefficients
        (3,) a, b, c.
    features
        (d,) squared error of each feature relative to the mean over features.
    squared_error
        (n,) held-out mean squared error of the training rows (also the "nearest failures").
    prior
        Pseudo-weight of the mean error (`local_error`).
    scale
        Conformal factor on the spread.
    size_floor
        Added to the predicted squared size, so that a zero prediction has a logarithm.
    """

    coefficients: Floats
    features: Floats
    squared_error: Floats
    prior: float
    scale: float
    size_floor: float

    def spread(self, similarity: Floats, mean: Floats) -> Floats:
        """(q, d) standard deviation of the observed response around `mean`."""
        local = local_error(similarity, self.squared_error, self.prior)
        squared = self._expected(local, (mean**2).mean(axis=1))
        return np.asarray(self.scale * np.sqrt(squared[:, None] * self.features))

    def _expected(self, local: Floats, squared_size: Floats) -> Floats:
        size = squared_size + self.size_floor
        rows = np.stack([np.ones(len(size)), np.log(local + _TINY), np.log(size)], axis=1)
        # No extrapolation beyond what was seen in training.
        low, high = self.squared_error.min() + _TINY, self.squared_error.max() + _TINY
        return np.asarray(np.clip(np.exp(rows @ self.coefficients), low, high))


def fit_error_model(similarity: Floats, held_out: Floats, truth: Floats) -> ErrorModel:
    """Learn from held-out predictions of the training perturbations.

    Parameters
    ----------
    similarity
        (n, n) between training rows; the diagonal is ignored.
    held_out
        (n, d) predictions made without the row itself.
    truth
        (n, d) measured responses, NaN where not measured.
    """
    error = held_out - truth
    known = np.isfinite(error)
    squares = np.square(error if known.all() else np.where(known, error, 0.0))
    per_row = squares.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    predicted = held_out**2
    floor, sizes = 0.05 * float(predicted.mean()) + _TINY, predicted.mean(axis=1)
    del predicted
    off = np.array(similarity, dtype=np.float64)
    np.fill_diagonal(off, 0.0)
    prior = max(PRIOR * float((np.maximum(off, 0.0) ** 2).sum(axis=1).mean()), _TINY)
    local = local_error(off, per_row, prior)
    rows = np.stack([np.ones(len(local)), np.log(local + _TINY), np.log(sizes + floor)], axis=1)
    target = np.log(per_row + _TINY)
    if len(target) >= 10 and np.isfinite(target).all():
        # A little ridge on the slopes: with few rows the overall error is the best guess.
        centre = rows[:, 1:].mean(axis=0)
        x = rows[:, 1:] - centre
        slopes = np.linalg.solve(x.T @ x + 2.0 * np.eye(2), x.T @ (target - target.mean()))
        coefficients = np.append(target.mean() - centre @ slopes, slopes)
    else:
        coefficients = np.array([np.log(per_row.mean() + _TINY), 0.0, 0.0])
    feature = squares.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    mean_feature = float(feature.mean())
    relative = feature / mean_feature if mean_feature > 0 else np.ones_like(feature)
    model = ErrorModel(coefficients, relative, per_row, prior, 1.0, floor)
    raw = model._expected(local, sizes)[:, None] * relative
    scale = calibration_scale(error, np.sqrt(raw, out=raw))
    return ErrorModel(coefficients, relative, per_row, prior, scale, floor)
