"""Means over rows with values that were not measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def masked_mean(values: NDArray[Any]) -> NDArray[np.float64]:
    """(n, d) -> (d,) mean over rows of the finite entries; 0 (no change) where none is finite."""
    data = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(data)
    count = finite.sum(axis=0)
    total = np.where(finite, data, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, count, out=np.zeros_like(total), where=count > 0))
