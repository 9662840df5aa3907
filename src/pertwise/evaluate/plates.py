"""Plates: how far they confound a screen, and responses centred within them."""

from __future__ import annotations

import numpy as np

from pertwise.errors import InputError
from pertwise.screen.core import Screen


def centre_within(screen: Screen, column: str, *, least: int = 3) -> tuple[Screen, int]:
    """Responses minus the mean of their (line, plate) group: what a plate adds to all is removed.

    Groups of fewer than `least` rows cannot tell a plate from a drug and are left out.

    Returns
    -------
    The centred screen (``meta["centred_within"]`` says so) and the number of rows left out.

    Raises
    ------
    pertwise.errors.InputError
        Without that column, or when no group is large enough.
    """
    if column not in screen.obs:
        raise InputError(f"no column {column!r} in the screen; there are {list(screen.obs)}")
    groups = screen.obs.groupby(["context", column], sort=False).indices
    values = np.array(screen.responses, dtype=np.float64)
    keep = np.zeros(len(screen), dtype=bool)
    for rows in groups.values():
        if len(rows) >= least:
            block = values[rows]
            seen = np.isfinite(block)
            mean = np.where(seen, block, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
            values[rows] = block - mean
            keep[rows] = True
    if not keep.any():
        raise InputError(f"no (line, {column}) group has {least} rows; plates cannot be centred")
    out = Screen(
        responses=values.astype(np.float32),
        obs=screen.obs,
        features=screen.features,
        control_mean=np.array(screen.control_mean),
        feature_table=screen.feature_table,
        meta={**screen.meta, "centred_within": ["context", column]},
    )
    return out.take(keep), int((~keep).sum())


def plate_confounding(screen: Screen, column: str) -> dict[str, float]:
    """How alike different drugs are on one plate and on two, in one line.

    Responses are centred on their line; ``within`` and ``between`` are mean correlations of two
    drugs of one line on the same and on different plates. Without confounding they are equal; the
    difference is the size of the plate effect. ``share`` = variance between plates within lines /
    variance within lines.

    Raises
    ------
    pertwise.errors.InputError
        When no line has two plates with two drugs.
    """
    if column not in screen.obs:
        raise InputError(f"no column {column!r} in the screen; there are {list(screen.obs)}")
    within, between, explained, total, expected = [], [], 0.0, 0.0, 0.0
    for rows in screen.obs.groupby("context", sort=False).indices.values():
        plates = screen.obs[column].to_numpy(dtype=object)[rows]
        if len(set(plates)) < 2:
            continue
        block = np.asarray(screen.responses[rows], dtype=np.float64)
        seen = np.isfinite(block)
        mean = np.where(seen, block, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        rest = np.where(seen, block - mean, 0.0)
        total += float((rest**2).sum())
        # Sorted: sums of floats must not depend on the order of a set, which differs between runs.
        for plate in sorted(set(plates)):
            own = rest[plates == plate]
            explained += float(len(own) * (own.mean(axis=0) ** 2).sum())
        # Random groups differ in their means too: by (groups - 1) / (rows - 1) of the variance.
        expected += float((rest**2).sum()) * (len(set(plates)) - 1) / (len(rows) - 1)
        length = np.maximum(np.linalg.norm(rest, axis=1), 1e-12)
        cosines = (rest @ rest.T) / np.outer(length, length)
        same = plates[:, None] == plates[None, :]
        upper = np.triu(np.ones_like(same, dtype=bool), 1)
        within.append(cosines[same & upper])
        between.append(cosines[~same & upper])
    if not within:
        raise InputError(f"no line has two values of {column!r}: nothing can be confounded")
    a, b = np.concatenate(within), np.concatenate(between)
    return {
        "within": float(a.mean()) if len(a) else float("nan"),
        "between": float(b.mean()) if len(b) else float("nan"),
        "share": explained / total if total > 0 else float("nan"),
        "share_by_chance": expected / total if total > 0 else float("nan"),
        "n_within": float(len(a)),
        "n_between": float(len(b)),
    }
