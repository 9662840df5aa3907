"""Rows of several experiments that are the same perturbation: do they agree, and what counts?"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Duplicates = Literal["refuse", "average", "first", "last"]
#: What makes two rows the same.
KEY = ("perturbation", "context", "dose")


def agreement_of(obs: pd.DataFrame, responses: Floats) -> dict[str, Any]:
    """How many keys occur repeatedly, and the median correlation of their first two rows."""
    found = []
    groups = obs.reset_index(drop=True).groupby(list(KEY), dropna=False, sort=False).indices
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    for rows in repeated:
        a, b = responses[rows[0]].astype(float), responses[rows[1]].astype(float)
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() > 2 and a[both].std() > 0 and b[both].std() > 0:
            found.append(float(np.corrcoef(a[both], b[both])[0, 1]))
    return {"rows": len(repeated), "r": float(np.median(found)) if found else None}


def settle(
    obs: pd.DataFrame, responses: Floats, variance: Floats | None, how: Duplicates
) -> tuple[pd.DataFrame, Floats, Floats | None]:
    """One row for each key, in the order of first appearance."""
    groups = obs.reset_index(drop=True).groupby(list(KEY), dropna=False, sort=False).indices
    kept: list[int] = []
    values: list[NDArray[Any]] = []
    noise: list[Any] = []
    cells: list[float] = []
    sources: list[Any] = []
    n = obs["n_cells"].to_numpy(dtype=float)
    for rows in sorted(groups.values(), key=lambda r: int(r[0])):
        if how != "average" or len(rows) == 1:
            row = int(rows[-1] if how == "last" else rows[0])
            values.append(responses[row])
            noise.append(None if variance is None else variance[row])
            cells.append(n[row])
            sources.append(None)
        else:
            y = responses[rows].astype(float)
            v = np.full_like(y, np.nan) if variance is None else variance[rows].astype(float)
            weight = np.ones_like(y) if np.isnan(n[rows]).any() else np.repeat(
                n[rows][:, None], y.shape[1], axis=1)  # fmt: skip
            exact = np.isfinite(v).all(axis=0) & (v > 0).all(axis=0)
            weight[:, exact] = 1.0 / v[:, exact]
            weight = np.where(np.isfinite(y), weight, 0.0)
            total = weight.sum(axis=0)
            share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
            values.append(np.where(total > 0, (share * np.nan_to_num(y)).sum(axis=0), np.nan))
            # Of a feature that one experiment has, its variance; a gap in v stays a gap.
            mixed = (share**2 * np.where(share > 0, v, 0.0)).sum(axis=0)
            noise.append(np.where(total > 0, mixed, np.nan))
            cells.append(n[rows].sum())
            row = int(rows[0])
            sources.append(rows)
        kept.append(row)
    out = obs.iloc[kept].copy()
    out["n_cells"] = cells
    if "experiment" in out:
        names = obs["experiment"].to_numpy()
        out["experiment"] = [
            e if rows is None else " + ".join(dict.fromkeys(map(str, names[rows])))
            for e, rows in zip(out["experiment"], sources, strict=True)
        ]
    new = None if variance is None else np.array(noise, dtype=np.float32)
    return out, np.array(values, dtype=np.float32), new
