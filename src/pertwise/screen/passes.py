"""The passes over the cells: each task reads some rows of one file and leaves exact sums.

Where the sums of every group in every batch fit into `BATCH_BYTES`, one pass is enough
(`pertwise.screen.batchsums`). Else a first pass sums controls (and, for choosing features, training
cells), and a second one the perturbed cells against the centres that the first found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pertwise.errors import InputError, unknown_name
from pertwise.screen.batchsums import BatchAccumulator, BatchSums
from pertwise.screen.cells import CellFile
from pertwise.screen.matched_controls import Part, Reference, chooses, is_training
from pertwise.screen.scale import TO_NATURAL, Verdict, whole_rows
from pertwise.screen.scan import Codes, PseudobulkSettings, Scan, Task, codes_of, open_with
from pertwise.screen.sums import Accumulator, FloatArray, GroupSums, keep_columns, normalise

#: Memory that the sums of one pass may take; more, and the cells are read twice.
BATCH_BYTES = 400_000_000
#: Takes (raw values, group, block, names the cell of a row) of cells: what sums counts.
Counter = Callable[[sparse.csr_matrix, NDArray[np.int64], NDArray[np.int64], Callable[[int], str]],
                   None]  # fmt: skip

#: Scales whose values are never negative.
NOT_NEGATIVE = ("counts", "normalised")


def one_pass(found: Scan) -> bool:
    """Whether sums by group and batch are small enough to be made in one pass.

    Decided by what the files hold together, so that it is the same however they are cut.
    """
    groups = found.groups["context"].value_counts()
    blocks = found.blocks["context"].value_counts()
    pairs = int((groups * blocks.reindex(groups.index)).sum())
    # Values of unknown size have no bound that 32 bits could be sure of.
    small = 4 * (pairs + len(found.groups)) * len(found.features) <= BATCH_BYTES
    return small and found.verdict.scale != "as-is"


def _library(
    file: CellFile, x: sparse.csr_matrix, start: int, settings: PseudobulkSettings
) -> FloatArray:
    if settings.library_key is None:
        return np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
    if settings.library_key not in file.table.columns:
        raise unknown_name("column", settings.library_key, file.table.columns, f"in {file.path}")
    part = file.table.read([settings.library_key], start, start + x.shape[0])
    return np.asarray(part[settings.library_key], dtype=np.float64)


def normalised_blocks(
    file: CellFile,
    found: Scan,
    settings: PseudobulkSettings,
    task: Task,
    codes: Codes,
    wanted: NDArray[np.bool_],
    counter: Counter | None = None,
) -> Iterator[tuple[sparse.csr_matrix, NDArray[np.int64], NDArray[np.int64]]]:
    """(normalised values, their row numbers within the task, those of empty cells) of wanted rows.

    Cells without any count have no library size, hence no normalised profile: they are left out
    and told. `counter` gets the values of the others before they are normalised.
    """
    counted = found.verdict.scale == "counts"
    wanted = wanted & (codes.group >= 0)
    for start, block in file.blocks(task.start, task.stop, wanted=wanted):
        rows = np.arange(start - task.start, start - task.start + block.shape[0])
        _check_values(block, file, start, found.verdict.scale, settings.scale == "auto")
        _check_mixture(block, file, start, found.verdict)
        library = _library(file, block, start, settings)
        use = wanted[rows]
        empty = use & (library <= 0) if counted else np.zeros(len(rows), dtype=bool)
        none = rows[empty]
        use = use & ~empty
        if not use.all():
            block, library, rows = block[use], library[use], rows[use]
        if counter is not None:
            named = task.start + rows
            counter(block, codes.group[rows], codes.block[rows],
                    lambda i, named=named: f"{file.path}: cell {file.table.name(int(named[i]))!r}")  # type: ignore[misc]  # fmt: skip
        yield normalise(block, found.verdict.scale, library, settings.target_sum), rows, none


def _check_mixture(x: sparse.csr_matrix, file: CellFile, start: int, verdict: Verdict) -> None:
    """Every cell must be of the scale that a sample of them showed."""
    if not verdict.checked or verdict.scale not in ("counts", "log1p", "log2", "log10"):
        return
    if verdict.scale == "counts" and np.array_equal(np.rint(x.data), x.data):
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


def _check_values(
    x: sparse.csr_matrix, file: CellFile, start: int, scale: str, recognised: bool
) -> None:
    # Logarithms of 1 + x are negative only after a correction, which the user must have said.
    logs = recognised and scale in ("log1p", *TO_NATURAL)
    limited = logs or scale in NOT_NEGATIVE
    # A sum is finite only if all are; it may overflow, so the values decide.
    if np.isfinite(x.data.sum()) and (not limited or not (x.data < 0).any()):
        return
    bad = ~np.isfinite(x.data)
    if limited:
        bad |= x.data < 0
    if not bad.any():
        return
    at = int(bad.argmax())
    row = int(np.searchsorted(x.indptr, at, side="right")) - 1
    raise InputError(
        f"{file.path}: cell {file.table.name(start + row)!r} has the value {x.data[at]} for "
        f"{file.features[int(x.indices[at])]!r}; {scale} must be finite"
        + (" and not negative" if limited else "")
        + (f" (insist with --scale {scale} if it was corrected)" if logs else "")
    )


def first_pass(found: Scan, settings: PseudobulkSettings, task: Task) -> Part:
    """Controls by block and, when features are to be chosen, training cells by context."""
    width = len(found.features)
    groups = found.groups
    is_control = groups["is_control"].to_numpy(dtype=bool)
    choose = chooses(settings, width)
    training = is_training(groups, settings.holdout)
    context = pd.Index(found.contexts).get_indexer(groups["context"])
    with open_with(found.sources[task.source], settings) as file:
        codes = codes_of(file, found, settings, task)
        present = np.unique(codes.block[(codes.group >= 0) & is_control[codes.group]])
        controls = Accumulator(present, 1, width)
        lines = np.unique(context[codes.group[codes.group >= 0]]) if choose else np.zeros(0, int)
        trained = Accumulator(lines, 1, width if choose else 0)
        wanted = is_control[codes.group] | (training[codes.group] & choose)
        n_empty = 0
        for x, rows, none in normalised_blocks(file, found, settings, task, codes, wanted):
            n_empty += int(is_control[codes.group[none]].sum())
            group, block = codes.group[rows], codes.block[rows]
            control = is_control[group]
            zero = np.zeros(len(rows), dtype=np.int64)
            if choose:
                trained.add(x, context[group], zero)
            controls.add(x[control], block[control], zero[control])
    return Part(controls.sums(), trained.sums(), n_empty)


def second_pass(
    found: Scan,
    settings: PseudobulkSettings,
    ref: Reference | None,
    task: Task,
    counter: Counter | None = None,
) -> tuple[GroupSums | BatchSums, tuple[int, int]]:
    """Sums of every perturbed group of a task over the chosen features; its empty cells.

    With `ref` None it is the only pass: `BatchSums` of every group, controls too, over all
    features.

    Returns
    -------
    The sums, and (control cells, perturbed cells) without any count; control cells are looked at
    in an only pass, and when there is a `counter`.
    """
    perturbed = ~found.groups["is_control"].to_numpy(dtype=bool)
    n_blocks = len(found.blocks)
    column_of = np.full(len(found.features), -1, dtype=np.int64)
    empty = np.zeros(2, dtype=np.int64)
    with open_with(found.sources[task.source], settings) as file:
        codes = codes_of(file, found, settings, task)
        kept = codes.group >= 0
        accumulator: Accumulator | BatchAccumulator
        if ref is None:
            pairs = np.unique(codes.group[kept] * n_blocks + codes.block[kept])
            accumulator = BatchAccumulator(pairs, n_blocks, len(found.features))
        else:
            column_of[ref.columns] = np.arange(len(ref.columns))
            accumulator = Accumulator(
                np.unique(codes.group[perturbed[codes.group] & kept]),
                n_blocks,
                len(ref.columns),
                ref.centres if ref.with_cross else None,
            )
        wanted = kept if ref is None or counter else perturbed[codes.group]
        for x, rows, none in normalised_blocks(file, found, settings, task, codes, wanted, counter):
            empty += np.bincount(perturbed[codes.group[none]], minlength=2)
            if ref is not None:
                mine = perturbed[codes.group[rows]]
                if not mine.all():
                    x, rows = x[mine], rows[mine]
                x = keep_columns(x, column_of, len(ref.columns))
            accumulator.add(x, codes.group[rows], codes.block[rows])
    return accumulator.sums(), (int(empty[0]), int(empty[1]))
