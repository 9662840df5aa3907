"""Folds of groups: who is held out together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def group_folds(groups: Sequence[str], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each item: equal groups share a fold; depends on the set of groups and the seed.

    Folds are balanced in the number of groups, not of items.
    """
    distinct = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold = {distinct[g]: i % n_folds for i, g in enumerate(order)}
    return np.array([fold[g] for g in groups], dtype=np.int64)
