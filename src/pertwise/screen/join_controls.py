"""Controls of several experiments: kept apart, averaged, compared; and the meta of the whole."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.screen.core import Screen
from pertwise.screen.detected import UNDETECTED

Floats = NDArray[np.float32]
#: Entries of the meta that are tables.
LONG = (UNDETECTED, "guides", "set_apart")
#: What must be the same in all screens, as far as they state it, and what it is called.
SAME = {"unit": "unit", "target_sum": "counts a cell was scaled to"}


def _cells_of(screen: Screen, context: str) -> float:
    counted = screen.meta.get("control_cells")
    return float(counted.get(context, np.nan)) if isinstance(counted, dict) else np.nan


def joined_controls(
    parts: dict[str, Screen], contexts: tuple[str, ...]
) -> tuple[Floats, dict[str, int]]:
    """(n_contexts, d) control means weighted by cells (equally where not stated); and the cells."""
    means, cells = [], {}
    for context in contexts:
        rows, weights = [], []
        for part in parts.values():
            if context in part.contexts:
                rows.append(part.control_mean[part.contexts.index(context)].astype(float))
                weights.append(_cells_of(part, context))
        known = bool(np.isfinite(weights).all())
        w = np.array(weights if known else [1.0] * len(rows))[:, None]
        y = np.array(rows)
        w = np.where(np.isfinite(y), w, 0.0)
        total = w.sum(axis=0)
        mean = np.divide((w * np.nan_to_num(y)).sum(axis=0), total,
                         out=np.full(y.shape[1], np.nan), where=total > 0)  # fmt: skip
        means.append(mean)
        if known:
            cells[context] = int(sum(weights))
    return np.array(means, dtype=np.float32), cells


def joined_table(parts: dict[str, Screen], names: list[str], told: bool) -> pd.DataFrame:
    """The columns of all tables, first come first kept, and the controls of each experiment."""
    table = pd.DataFrame(index=pd.Index(names))
    for name, part in parts.items():
        for column in part.feature_table.columns.difference(table.columns, sort=False):
            table[column] = part.feature_table[column]
        if told:
            for context, mean in zip(part.contexts, part.control_mean, strict=True):
                label = f"control_mean[{name}{'|' + context if context else ''}]"
                if label not in table and np.isfinite(mean).any():
                    table[label] = mean
    for column in table.columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            table[column] = (
                table[column].astype(object).where(table[column].notna(), "").astype(str)
            )
    return table if table.shape[1] else pd.DataFrame()


def batch_effects(parts: dict[str, Screen]) -> list[dict[str, Any]]:
    """Differences between the controls of one context in two experiments, pair by pair."""
    found = []
    for (a, one), (b, two) in itertools.combinations(parts.items(), 2):
        for context in one.contexts:
            if context not in two.contexts:
                continue
            x = one.control_mean[one.contexts.index(context)].astype(float)
            y = two.control_mean[two.contexts.index(context)].astype(float)
            both = np.isfinite(x) & np.isfinite(y)
            if both.sum() < 3:
                continue
            shift = (y - x)[both]
            size = float(np.sqrt(np.mean(shift**2)))
            effects = np.concatenate(
                [one.responses[:, both].ravel(), two.responses[:, both].ravel()]
            )
            typical = float(np.sqrt(np.nanmean(effects.astype(float) ** 2)))
            worst = np.flatnonzero(both)[np.argsort(-np.abs(shift))[:3]]
            most = {one.features[j]: float(y[j] - x[j]) for j in worst}
            entry: dict[str, Any] = {
                "experiments": [a, b],
                "context": context,
                "features": int(both.sum()),
                "rms": size,
                "mean": float(shift.mean()),
                "rms_responses": typical,
                "correlation": float(np.corrcoef(x[both], y[both])[0, 1])
                if x[both].std() > 0 and y[both].std() > 0
                else None,
                "most": most,
            }
            ratio = size / typical if typical > 0 else float("inf")
            entry["note"] = (
                f"controls of {context or 'the cells'} differ between {a} and {b} by {size:.3g} "
                f"(root mean square of {int(both.sum())} features), {ratio:.1f} times a response; "
                f"most in {', '.join(most)}. Each row is compared with the controls of "
                "its own experiment, which takes such a shift out"
            )
            found.append(entry)
    return found


def joined_meta(
    screens: dict[str, Screen],
    cells: dict[str, int],
    effects: list[dict[str, Any]],
    notes: list[str],
    told: bool,
) -> dict[str, Any]:
    first = next(iter(screens.values()))
    meta = {
        **first.meta,
        "source": ", ".join(str(s.meta.get("source", "")) for s in screens.values()),
        "simulated": any(s.simulated for s in screens.values()),
    }
    if not told:
        return meta
    for key in SAME:
        stated = [s.meta[key] for s in screens.values() if s.meta.get(key) is not None]
        meta |= {key: stated[0]} if stated else {}
    own = [*(n for s in screens.values() for n in s.meta.get("notes", ())), *notes]
    meta |= {"notes": list(dict.fromkeys(own)), "batch_effect": effects}
    meta["experiments"] = {}
    for name, screen in screens.items():
        before = screen.meta.get("experiments")
        meta["experiments"] |= before if isinstance(before, dict) else {
            name: {k: v for k, v in screen.meta.items() if k not in LONG}
        }  # fmt: skip
    meta["control_cells"] = cells
    meta["n_cells"] = sum(int(s.meta.get("n_cells") or 0) for s in screens.values())
    held = {h for s in screens.values() for h in s.meta.get("hvg_holdout") or ()}
    meta["hvg_holdout"] = sorted(held)
    lists = [x for s in screens.values() if isinstance(x := s.meta.get(UNDETECTED), dict)]
    meta.pop(UNDETECTED, None)
    for key in ("guides", "set_apart"):
        kept = [r for s in screens.values() for r in s.meta.get(key) or ()]
        meta |= {key: kept} if kept else {}
    if len(lists) == len(screens):
        meta[UNDETECTED] = {
            c: sorted(set.intersection(*(set(x[c]) for x in lists if c in x)))
            for c in dict.fromkeys(c for x in lists for c in x)
        }
    return meta
