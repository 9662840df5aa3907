"""`Kernel`: who is alike, for genes, compounds, named lists and anything of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@runtime_checkable
class Kernel(Protocol):
    """A positive semi-definite similarity of perturbations, which may depend on a pool."""

    @property
    def name(self) -> str:
        """What tables and reasons call it."""
        ...

    def between(self, rows: Sequence[str], others: Sequence[str], pool: Sequence[str]) -> Floats:
        """(n_rows, n_others) similarity, 1 for a perturbation with itself.

        `pool` are the measured (training) perturbations: a kernel built from picks of a closed
        list reads nothing outside it. One that does not depend on it may say so with an attribute
        ``reads_pool = False``: it is then made once for all inner folds.
        """
        ...

    def missing(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names this kernel knows nothing about (similar to themselves only)."""
        ...


def same_names(rows: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """(n_rows, n_others) True where the name is the same."""
    left, right = np.asarray(rows, dtype=object), np.asarray(others, dtype=object)
    return np.asarray(left[:, None] == right[None, :], dtype=bool)
