"""From cells to a `Screen`: normalise, choose features, subtract matched controls, count noise.

Two passes over the cells, each in blocks of bounded size: the first sums the controls of every
batch (and, for choosing features, the training cells of every context); the second sums every
group of perturbed cells over the chosen features. Both give `GroupSums`, so files of any number
are handled by merging (`pertwise.screen.shards` runs the same tasks in parallel and resumes them).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pertwise import __version__
from pertwise._names import canonical_perturbation, split_combination
from pertwise._progress import track
from pertwise.errors import InputError, unknown_name
from pertwise.screen.cells import CellFile
from pertwise.screen.core import Screen, make_obs
from pertwise.screen.detected import UNDETECTED, undetected_limit
from pertwise.screen.guides import add_guide_columns, guide_column, guide_notes, guide_table
from pertwise.screen.scale import Verdict, whole_rows
from pertwise.screen.scan import (
    Codes,
    PseudobulkSettings,
    Scan,
    Task,
    codes_of,
    open_with,
    plan_tasks,
    scan,
)
from pertwise.screen.sums import (
    Accumulator,
    FloatArray,
    GroupSums,
    contrast,
    keep_columns,
    normalise,
    select_variable,
    within_variance,
)

if TYPE_CHECKING:
    from anndata import AnnData

#: Rows of the result that are finished at a time: bounds the float64 work space.
FINISH_ROWS = 512
#: What the sampling variances of a pseudobulk screen mean; kept in its meta.
VARIANCE_FORMULA = (
    "s2 / n + s2_control * sum_b (n_b / n)**2 / m_b; n_b of n cells in batch b, m_b control "
    "cells there, s2 around the batch's control mean"
)


@dataclass(frozen=True)
class Part:
    """Result of one task of the first pass: controls by block, training cells by context."""

    controls: GroupSums
    training: GroupSums
    n_empty: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(
            self.controls + other.controls,
            self.training + other.training,
            self.n_empty + other.n_empty,
        )


@dataclass(frozen=True)
class Reference:
    """What the first pass found: the matched controls and the chosen features.

    Attributes
    ----------
    columns
        (d,) positions of the chosen features.
    centres, centre_n
        (n_blocks, d) control means and (n_blocks,) cells behind them; blocks without controls
        hold those of their whole context.
    control_mean, control_variance, control_n
        (n_contexts, d), (n_contexts, d), (n_contexts,); variance within blocks; NaN and 0 for a
        context without controls.
    with_cross
        Whether some context has several blocks, so that the second pass needs cross sums.
    undetected
        Context -> genes that are no chosen feature and whose control mean is below
        `undetected_limit`.
    notes
        Repairs and choices to be shown.
    """

    columns: NDArray[np.int64]
    centres: FloatArray
    centre_n: NDArray[np.int64]
    control_mean: FloatArray
    control_variance: FloatArray
    control_n: NDArray[np.int64]
    with_cross: bool
    undetected: dict[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _library(
    file: CellFile, x: sparse.csr_matrix, start: int, settings: PseudobulkSettings
) -> FloatArray:
    if settings.library_key is None:
        return np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
    if settings.library_key not in file.table.columns:
        raise unknown_name("column", settings.library_key, file.table.columns, f"in {file.path}")
    part = file.table.read([settings.library_key], start, start + x.shape[0])
    return np.asarray(part[settings.library_key], dtype=np.float64)


def _blocks(
    file: CellFile,
    found: Scan,
    settings: PseudobulkSettings,
    task: Task,
    codes: Codes,
    wanted: NDArray[np.bool_],
) -> Iterator[tuple[sparse.csr_matrix, NDArray[np.int64], int]]:
    """(normalised values, their row numbers within the task, empty cells) of the wanted rows.

    Cells without any count have no library size, hence no normalised profile: they are left out
    and counted.
    """
    counted = found.verdict.scale == "counts"
    for start, block in file.blocks(task.start, task.stop):
        rows = np.arange(start - task.start, start - task.start + block.shape[0])
        _check_values(block, file, start, found.verdict.scale)
        _check_mixture(block, file, start, found.verdict)
        library = _library(file, block, start, settings)
        use = wanted[rows] & (codes.group[rows] >= 0)
        empty = use & (library <= 0) if counted else np.zeros(len(rows), dtype=bool)
        use &= ~empty
        if not use.all():
            block, library, rows = block[use], library[use], rows[use]
        x = normalise(block, found.verdict.scale, library, settings.target_sum)
        yield x, rows, int(empty.sum())


def _check_mixture(x: sparse.csr_matrix, file: CellFile, start: int, verdict: Verdict) -> None:
    """Every cell must be of the scale that a sample of them showed."""
    if not verdict.checked or verdict.scale not in ("counts", "log1p", "log2", "log10"):
        return
    counted, other = whole_rows(x)
    odd = other if verdict.scale == "counts" else counted
    if odd.any():
        kind = "values that are not whole" if verdict.scale == "counts" else "whole numbers only"
        raise InputError(
            f"{file.path}: cell {file.table.name(start + int(odd.argmax()))!r} holds {kind}, but "
            f"the file was taken for {verdict.scale} ({verdict.evidence}); counts and other values "
            f"are mixed. Separate them, or insist with --scale {verdict.scale}"
        )


def _check_values(x: sparse.csr_matrix, file: CellFile, start: int, scale: str) -> None:
    bad = ~np.isfinite(x.data)
    if scale in ("counts", "normalised"):
        bad |= x.data < 0
    if not bad.any():
        return
    at = int(bad.argmax())
    row = int(np.searchsorted(x.indptr, at, side="right")) - 1
    raise InputError(
        f"{file.path}: cell {file.table.name(start + row)!r} has the value {x.data[at]} for "
        f"{file.features[int(x.indices[at])]!r}; {scale} must be finite"
        + (" and not negative" if scale in ("counts", "normalised") else "")
    )


def first_pass(found: Scan, settings: PseudobulkSettings, task: Task) -> Part:
    """Controls by block and, when features are to be chosen, training cells by context."""
    width = len(found.features)
    groups = found.groups
    is_control = groups["is_control"].to_numpy(dtype=bool)
    choose = _chooses(settings, width)
    training = _is_training(groups, settings.holdout)
    context = pd.Index(found.contexts).get_indexer(groups["context"])
    with open_with(found.sources[task.source], settings) as file:
        codes = codes_of(file, found, settings, task)
        present = np.unique(codes.block[(codes.group >= 0) & is_control[codes.group]])
        controls = Accumulator(present, 1, width)
        lines = np.unique(context[codes.group[codes.group >= 0]]) if choose else np.zeros(0, int)
        trained = Accumulator(lines, 1, width if choose else 0)
        wanted = is_control[codes.group] | (training[codes.group] & choose)
        n_empty = 0
        for x, rows, empty in _blocks(file, found, settings, task, codes, wanted):
            n_empty += empty
            group, block = codes.group[rows], codes.block[rows]
            control = is_control[group]
            zero = np.zeros(len(rows), dtype=np.int64)
            if choose:
                trained.add(x, context[group], zero)
            controls.add(x[control], block[control], zero[control])
    return Part(controls.sums(), trained.sums(), n_empty)


def _chooses(settings: PseudobulkSettings, width: int) -> bool:
    return bool(settings.n_hvg) and int(settings.n_hvg or 0) < width


def _is_training(groups: pd.DataFrame, holdout: Sequence[str]) -> NDArray[np.bool_]:
    """Groups that may influence the choice of features: no part of them is held out."""
    names = {canonical_perturbation(h) for h in holdout}
    parts = {part for name in names for part in split_combination(name)}
    held = [
        name in names or any(p in parts for p in split_combination(name) if name)
        for name in groups["perturbation"]
    ]
    return ~np.array(held, dtype=bool)


def reference(found: Scan, settings: PseudobulkSettings, part: Part) -> Reference:
    """Choose features and work out the matched controls from the merged first pass.

    Raises
    ------
    pertwise.errors.InputError
        If a context has no control cells (unless they are to be skipped), or a held-out name
        does not occur.
    """
    known = {p for name in found.groups["perturbation"] for p in (name, *split_combination(name))}
    for name in settings.holdout:
        if canonical_perturbation(name) not in known:
            raise unknown_name("held-out perturbation", name, known - {""})
    notes = list(found.notes)
    width = len(found.features)
    columns = np.arange(width)
    if _chooses(settings, width):
        mean, variance = _pooled(part.training)
        columns = select_variable(mean, variance, int(settings.n_hvg or 0))
    context_of_block = pd.Index(found.contexts).get_indexer(found.blocks["context"])
    n_blocks, n_contexts, d = len(found.blocks), len(found.contexts), len(columns)
    n = np.zeros(n_blocks, dtype=np.int64)
    total, square = np.zeros((n_blocks, d)), np.zeros((n_blocks, d))
    n[part.controls.groups] = part.controls.n[:, 0]
    total[part.controls.groups] = part.controls.total[:, columns]
    square[part.controls.groups] = part.controls.square[:, columns]
    control_n = np.zeros(n_contexts, dtype=np.int64)
    control_mean = np.full((n_contexts, d), np.nan)
    control_variance = np.full((n_contexts, d), np.nan)
    centres, centre_n = np.zeros((n_blocks, d)), n.copy()
    for c, name in enumerate(found.contexts):
        blocks = np.flatnonzero(context_of_block == c)
        control_n[c] = n[blocks].sum()
        if control_n[c] == 0:
            if not settings.skip_uncontrolled:
                raise InputError(
                    f"context {name!r} has no control cells (control labels "
                    f"{', '.join(map(repr, found.layout.control))}); add them, choose another "
                    "label with --control, or leave such contexts out with --skip-uncontrolled"
                )
            notes.append(f"context {name!r} has no control cells and was left out")
            continue
        control_mean[c] = total[blocks].sum(axis=0) / control_n[c]
        with_own = blocks[n[blocks] > 0]
        without = blocks[n[blocks] == 0]
        centres[with_own] = total[with_own] / n[with_own, None]
        spread = square[with_own].sum(axis=0) - (n[with_own, None] * centres[with_own] ** 2).sum(0)
        degrees = control_n[c] - len(with_own)
        if degrees < 1:
            raise InputError(
                f"context {name!r} has {control_n[c]} control cells in {len(with_own)} batches: "
                'too few to know their variance; use --batch-key "" for no batches'
            )
        control_variance[c] = np.maximum(spread, 0.0) / degrees
        centres[without] = control_mean[c]
        centre_n[without] = control_n[c]
        if len(without):
            lost = found.blocks["batch"].iloc[without]
            notes.append(
                f"context {name!r}: {len(without)} of {len(blocks)} batches have no control cells "
                f"(first: {lost.iloc[0]!r}); their cells are compared with all controls of the "
                "context"
            )
    undetected = _undetected(found, settings, part, columns) if _chooses(settings, width) else {}
    if part.n_empty:
        notes.append(f"{part.n_empty} cells without any count left out")
    return Reference(
        columns=columns,
        centres=centres,
        centre_n=centre_n,
        control_mean=control_mean,
        control_variance=control_variance,
        control_n=control_n,
        with_cross=bool(np.bincount(context_of_block).max() > 1),
        undetected=undetected,
        notes=tuple(notes),
    )


def _undetected(
    found: Scan, settings: PseudobulkSettings, part: Part, columns: NDArray[np.int64]
) -> dict[str, list[str]]:
    """See `Reference.undetected`; {} for values that are no log-normalised expression."""
    if found.verdict.scale == "as-is":
        return {}
    counted = found.verdict.scale == "counts"
    limit = undetected_limit(settings.target_sum if counted else None)
    context = pd.Index(found.contexts).get_indexer(found.blocks["context"])[part.controls.groups]
    rest = np.setdiff1d(np.arange(len(found.features)), columns)
    out = {}
    for c, name in enumerate(found.contexts):
        rows = context == c
        n = part.controls.n[rows].sum()
        if n:
            mean = part.controls.total[rows].sum(axis=0)[rest] / n
            out[name] = [found.features[i] for i in rest[mean <= limit]]
    return out


def _pooled(sums: GroupSums) -> tuple[FloatArray, FloatArray]:
    """Mean and within-context variance over all contexts, weighted by cells."""
    n = sums.n.sum(axis=1).astype(np.float64)
    mean, variance = within_variance(sums)
    degrees = np.maximum(n - 1, 0)[:, None]
    pooled = (np.nan_to_num(variance) * degrees).sum(axis=0) / max(degrees.sum(), 1.0)
    return np.average(mean, axis=0, weights=n), pooled


def second_pass(
    found: Scan, settings: PseudobulkSettings, ref: Reference, task: Task
) -> tuple[GroupSums, int]:
    """Sums of every perturbed group of a task over the chosen features; and its empty cells."""
    column_of = np.full(len(found.features), -1, dtype=np.int64)
    column_of[ref.columns] = np.arange(len(ref.columns))
    perturbed = ~found.groups["is_control"].to_numpy(dtype=bool)
    with open_with(found.sources[task.source], settings) as file:
        codes = codes_of(file, found, settings, task)
        wanted = perturbed[codes.group] & (codes.group >= 0)
        accumulator = Accumulator(
            np.unique(codes.group[wanted]),
            len(found.blocks),
            len(ref.columns),
            ref.centres if ref.with_cross else None,
        )
        n_empty = 0
        for x, rows, empty in _blocks(file, found, settings, task, codes, wanted):
            n_empty += empty
            kept = keep_columns(x, column_of, len(ref.columns))
            accumulator.add(kept, codes.group[rows], codes.block[rows])
    return accumulator.sums(), n_empty


def finish(
    found: Scan,
    settings: PseudobulkSettings,
    ref: Reference,
    load: Callable[[int, int], GroupSums],
    n_empty: int = 0,
) -> Screen:
    """The screen, from the merged sums of the second pass.

    Parameters
    ----------
    load
        ``load(lo, hi)`` gives the merged sums of the groups with lo <= id < hi; called for
        consecutive ranges, so that not all sums need be in memory.
    """
    context = pd.Index(found.contexts).get_indexer(found.groups["context"])
    kept: list[NDArray[np.int64]] = []
    deltas, variances, counts = [], [], []
    small: list[dict[str, Any]] = []
    for lo in range(0, len(found.groups), FINISH_ROWS):
        sums = load(lo, min(lo + FINISH_ROWS, len(found.groups)))
        controlled = ref.control_n[context[sums.groups]] > 0
        enough = sums.n.sum(axis=1) >= max(1, settings.min_cells)
        few = sums.of(controlled & ~enough)
        named = found.groups.iloc[few.groups][["perturbation", "context", "dose"]]
        named = named.assign(n_cells=few.n.sum(axis=1).astype(int))
        small += named.to_dict("records")
        use = controlled & enough
        if not use.any():
            continue
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
        table = guide_table(found, settings, ref.columns, ref.centres, _blocks)
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


def pseudobulk(
    sources: str | os.PathLike[str] | AnnData | Sequence[str | os.PathLike[str]],
    settings: PseudobulkSettings | None = None,
) -> Screen:
    """Cells to a `Screen`, in this process.

    Library-size normalisation to ``target_sum`` and log1p (unless the data are logs already);
    highly variable features from training perturbations and controls; means minus the mean of
    matched controls (same batch when there is one, else same context); cells and sampling variance
    of every mean (`VARIANCE_FORMULA`, derived in `pertwise.screen.sums.contrast`).

    Parameters
    ----------
    sources
        A file (h5ad, zarr, parquet), several files of one experiment, or an AnnData.
    settings
        Defaults to `PseudobulkSettings()`.

    Raises
    ------
    pertwise.errors.InputError
        If no control is found, the scale cannot be told, names are empty, or values are not
        finite.
    """
    settings = settings or PseudobulkSettings()
    listed = list(sources) if isinstance(sources, (list, tuple)) else [sources]
    found = scan(listed, settings)
    tasks = plan_tasks(found)
    parts = [first_pass(found, settings, t) for t in track(tasks, "controls")]
    ref = reference(found, settings, sum_parts(parts))
    results = [second_pass(found, settings, ref, t) for t in track(tasks, "perturbations")]
    sums = [s for s, _ in results]

    def load(lo: int, hi: int) -> GroupSums:
        return merge(s.between(lo, hi) for s in sums)

    return finish(found, settings, ref, load, sum(n for _, n in results))


def sum_parts(parts: Iterable[Part]) -> Part:
    """Merge the results of the first pass."""
    return reduce(lambda a, b: a + b, parts)


def merge(sums: Iterable[GroupSums]) -> GroupSums:
    """Merge group sums; exact, so the order does not matter."""
    return reduce(lambda a, b: a + b, sums)
