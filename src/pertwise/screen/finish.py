"""From sums to a `Screen`: contrasts, what was set apart, and what is to be said about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise import __version__
from pertwise.errors import InputError
from pertwise.screen.batchsums import Range
from pertwise.screen.core import Screen, make_obs
from pertwise.screen.detected import UNDETECTED
from pertwise.screen.guides import add_guide_columns, guide_column, guide_notes, guide_table
from pertwise.screen.matched_controls import FINISH_ROWS, Reference
from pertwise.screen.passes import normalised_blocks
from pertwise.screen.scan import PseudobulkSettings, Scan
from pertwise.screen.sums import GroupSums, contrast

#: What the sampling variances of a pseudobulk screen mean; kept in its meta.
VARIANCE_FORMULA = (
    "s2 / n + s2_control * sum_b (n_b / n)**2 / m_b; n_b of n cells in batch b, m_b control "
    "cells there, s2 around the batch's control mean"
)


def finish(
    found: Scan,
    settings: PseudobulkSettings,
    ref: Reference,
    load: Callable[[int, int], GroupSums],
    n_empty: int = 0,
    step: int = FINISH_ROWS,
) -> Screen:
    """The screen, from the merged sums of the second pass.

    Parameters
    ----------
    load
        ``load(lo, hi)`` gives the merged sums of the groups with lo <= id < hi; called for
        consecutive ranges of `step` groups, so that not all sums need be in memory.
    """
    context = pd.Index(found.contexts).get_indexer(found.groups["context"])
    kept: list[NDArray[np.int64]] = []
    deltas, variances, counts = [], [], []
    small: list[dict[str, Any]] = []
    for lo in range(0, len(found.groups), step):
        sums = load(lo, min(lo + step, len(found.groups)))
        controlled = ref.control_n[context[sums.groups]] > 0
        enough = sums.n.sum(axis=1) >= max(1, settings.min_cells)
        few = sums.of(controlled & ~enough)
        named = found.groups.iloc[few.groups][["perturbation", "context", "dose"]]
        named = named.assign(n_cells=few.n.sum(axis=1).astype(int))
        small += named.to_dict("records")
        use = controlled & enough
        if not use.any():
            continue
        if not use.all():
            sums = sums.of(use)
        found_here = contrast(
            sums, ref.centres, ref.centre_n, ref.control_variance[context[sums.groups]]
        )
        kept.append(sums.groups)
        deltas.append(found_here.delta.astype(np.float32))
        variances.append(found_here.variance.astype(np.float32))
        counts.append(found_here.n)
    if not kept:
        raise InputError(
            f"no perturbation has {max(1, settings.min_cells)} cells or more besides the control "
            "(--min-cells says how many are needed)"
        )
    groups = found.groups.iloc[np.concatenate(kept)]
    variance = np.concatenate(variances)
    notes = list(ref.notes)
    if n_empty:
        notes.append(f"{n_empty} perturbed cells without any count left out")
    if small:
        some = ", ".join(f"{s['perturbation']} ({s['n_cells']})" for s in small[:5])
        notes.append(
            f"{len(small)} perturbations with fewer than {settings.min_cells} cells set apart, not "
            f"screened (--min-cells): {some}{' ...' if len(small) > 5 else ''}"
        )
    n_cells = np.concatenate(counts)
    if (n_cells == 1).any():
        notes.append(
            f"{int((n_cells == 1).sum())} perturbations have one cell; the variance of the "
            "controls stands in for theirs"
        )
    guides: list[dict[str, Any]] = []
    obs = make_obs(
        groups["perturbation"].tolist(),
        context=groups["context"].tolist(),
        dose=groups["dose"].tolist(),
        n_cells=n_cells.tolist(),
        sampling_variance=variance.sum(axis=1, dtype=np.float64).tolist(),
    )
    if settings.keys.guide != "" and guide_column(found):
        table = guide_table(found, settings, ref.columns, ref.centres, normalised_blocks)
        notes += guide_notes(table)
        obs = add_guide_columns(obs, table)
        # JSON has no NaN.
        guides = table.astype(object).where(table.notna(), None).to_dict("records")
    contexts = tuple(dict.fromkeys(groups["context"]))
    rows = [found.contexts.index(c) for c in contexts]
    return Screen(
        responses=np.concatenate(deltas),
        obs=obs,
        features=tuple(found.features[i] for i in ref.columns),
        control_mean=ref.control_mean[rows].astype(np.float32),
        sampling_variance=variance,
        meta=_meta(found, settings, ref, rows, notes)
        | {
            "set_apart": [
                s | {"dose": None if np.isnan(s["dose"]) else float(s["dose"])} for s in small
            ],
            "min_cells": settings.min_cells,
            **({"guides": guides} if guides else {}),
            **({UNDETECTED: ref.undetected} if ref.undetected else {}),
        },
    )


def _meta(
    found: Scan, settings: PseudobulkSettings, ref: Reference, rows: list[int], notes: list[str]
) -> dict[str, Any]:
    logged = found.verdict.scale != "as-is"
    counted = found.verdict.scale == "counts"
    return {
        "source": ", ".join(Path(str(s)).name if _is_path(s) else "AnnData" for s in found.sources),
        "simulated": found.simulated,
        "unit": "log-normalised expression" if logged else "value as in the file",
        "control": list(found.layout.control),
        "layout": found.layout.describe(),
        "scale": found.verdict.scale,
        "scale_evidence": found.verdict.evidence,
        "target_sum": settings.target_sum if counted else None,
        "n_cells": int(sum(found.lengths)),
        "control_cells": {found.contexts[i]: int(ref.control_n[i]) for i in rows},
        "n_features_in_file": len(found.features),
        "n_hvg": len(ref.columns) if len(ref.columns) < len(found.features) else None,
        "hvg_holdout": sorted(settings.holdout),
        "matched_by": found.layout.batch or "all controls of the context",
        "variance": VARIANCE_FORMULA,
        "notes": notes,
        "pertwise": __version__,
    }


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike))


def sums_of_batches(found: Scan, ref: Reference, sums: Range) -> GroupSums:
    """Sums of the perturbed groups over the chosen features, as the second pass gives them."""
    every = len(ref.columns) == sums.total.shape[1]
    total = sums.total if every else sums.total[:, ref.columns]
    square = sums.square if every else sums.square[:, ref.columns]
    n = np.zeros((len(sums.groups), len(found.blocks)), dtype=np.int64)
    n[np.searchsorted(sums.groups, sums.group), sums.block] = sums.n
    cross = total * ref.centres[sums.block] if ref.with_cross else total[:, :0]
    made = GroupSums(sums.groups, n, sums.by_group(total), square, sums.by_group(cross))
    control = found.groups["is_control"].to_numpy(dtype=bool)[sums.groups]
    return made.of(~control) if control.any() else made
