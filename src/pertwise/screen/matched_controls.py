"""What the perturbed cells are compared with: matched controls, over the chosen features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import canonical_perturbation, split_combination
from pertwise.errors import InputError, unknown_name
from pertwise.screen.batchsums import Range
from pertwise.screen.detected import undetected_limit
from pertwise.screen.scan import PseudobulkSettings, Scan
from pertwise.screen.sums import FloatArray, GroupSums, select_variable, within_variance

#: Rows of the result that are finished at a time: bounds the float64 work space.
FINISH_ROWS = 128
#: Values of sums by batch that are at work at a time.
WORK_VALUES = 4_000_000


@dataclass(frozen=True)
class Part:
    """Controls by block, training cells by context: what the first pass finds, or the only one."""

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
    if chooses(settings, width):
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
    undetected = _undetected(found, settings, part, columns) if chooses(settings, width) else {}
    if part.n_empty:
        notes.append(f"{part.n_empty} control cells without any count left out")
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


def chooses(settings: PseudobulkSettings, width: int) -> bool:
    return bool(settings.n_hvg) and int(settings.n_hvg or 0) < width


def is_training(groups: pd.DataFrame, holdout: Sequence[str]) -> NDArray[np.bool_]:
    """Groups that may influence the choice of features: no part of them is held out."""
    names = {canonical_perturbation(h) for h in holdout}
    parts = {part for name in names for part in split_combination(name)}
    held = [
        name in names or any(p in parts for p in split_combination(name) if name)
        for name in groups["perturbation"]
    ]
    return ~np.array(held, dtype=bool)


def rows_at_once(found: Scan, by_batch: bool = True) -> int:
    """Groups whose sums (by batch) are looked at together: bounds the memory at work."""
    if not by_batch:
        return FINISH_ROWS
    most = int(found.blocks["context"].value_counts().max())
    return max(1, min(FINISH_ROWS, WORK_VALUES // (most * len(found.features))))


def part_of_batches(
    found: Scan, settings: PseudobulkSettings, load: Callable[[int, int], Range], n_empty: int
) -> Part:
    """What the first pass would have found, from the sums of an only pass.

    Parameters
    ----------
    load
        ``load(lo, hi)`` gives the merged sums of the groups with lo <= id < hi.
    """
    width, n_blocks, n_contexts = len(found.features), len(found.blocks), len(found.contexts)
    is_control = found.groups["is_control"].to_numpy(dtype=bool)
    choose = chooses(settings, width)
    training = is_training(found.groups, settings.holdout)
    context = pd.Index(found.contexts).get_indexer(found.groups["context"])
    n = np.zeros((n_blocks, 1), dtype=np.int64)
    total, square = np.zeros((n_blocks, width)), np.zeros((n_blocks, width))
    wide = width if choose else 0
    trained_n = np.zeros((n_contexts, 1), dtype=np.int64)
    trained, trained_square = np.zeros((n_contexts, wide)), np.zeros((n_contexts, wide))
    step = rows_at_once(found)
    for lo in range(0, len(found.groups), step) if choose else np.flatnonzero(is_control):
        sums = load(int(lo), int(lo) + (step if choose else 1))
        mine = is_control[sums.group]
        n[sums.block[mine], 0] = sums.n[mine]
        total[sums.block[mine]] = sums.total[mine]
        for i in np.flatnonzero(is_control[sums.groups]):
            # Squares are added up over the blocks of a context, so they may stand at one of them.
            square[sums.block[np.searchsorted(sums.group, sums.groups[i])]] = sums.square[i]
        if choose:
            use = training[sums.groups]
            at = context[sums.groups[use]]
            np.add.at(trained_n[:, 0], at, sums.by_group(sums.n)[use])
            np.add.at(trained, at, sums.by_group(sums.total)[use])
            np.add.at(trained_square, at, sums.square[use])
    here, lines = n[:, 0] > 0, trained_n[:, 0] > 0
    controls = GroupSums(np.arange(n_blocks), n, total, square, total[:, :0]).of(here)
    training_sums = GroupSums(
        np.arange(n_contexts), trained_n, trained, trained_square, trained[:, :0]
    )
    return Part(controls, training_sums.of(lines), n_empty)
