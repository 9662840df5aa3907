"""What the tables of one or many files of cells say, and how the work on them is cut up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._progress import track
from pertwise.errors import InputError, unknown_name
from pertwise.screen.cells import CellFile, open_cells
from pertwise.screen.grouping import (
    Grouping,
    check_any,
    group_keys,
    group_rows,
    sort_groups,
)
from pertwise.screen.layouts import (
    Keys,
    Layout,
    label_counts,
    no_control,
    parse_label,
    recognise,
    relevant_columns,
    settle,
)
from pertwise.screen.scale import Verdict, decide_scale, judge_values, tag_of


@dataclass(frozen=True)
class PseudobulkSettings:
    """How cells become means.

    Attributes
    ----------
    keys
        Columns and control labels the user insists on.
    scale
        auto, counts, normalised, log1p or as-is (`pertwise.screen.scale`).
    target_sum
        Counts per cell after library-size scaling, before log1p.
    library_key
        Column with library sizes, for files that hold only some of the genes; None sums the
        matrix.
    n_hvg
        Highly variable features to keep; None or 0 keeps all.
    holdout
        Perturbations that must not influence which features are kept. A combination with a
        held-out part is held out as well.
    min_cells
        Groups with fewer cells are set apart: told, listed in ``meta["set_apart"]``, no row.
    drop_empty
        Leave out cells without a perturbation name instead of refusing the file.
    skip_uncontrolled
        Leave out contexts without control cells instead of refusing the file.
    context
        Only the cells of this line or type; the name of the cells of a file that names none.
    layer, feature_key, gene_table
        See `pertwise.screen.cells.open_cells`.
    """

    keys: Keys = field(default_factory=Keys)
    scale: str = "auto"
    target_sum: float = 1e4
    library_key: str | None = None
    n_hvg: int | None = 5000
    holdout: tuple[str, ...] = ()
    min_cells: int = 10
    drop_empty: bool = False
    skip_uncontrolled: bool = False
    context: str | None = None
    layer: str | None = None
    feature_key: str | None = None
    gene_table: str | None = None


@dataclass(frozen=True)
class Scan:
    """What the tables of all files say, before any sum is made.

    Attributes
    ----------
    sources, lengths
        The files and their numbers of cells.
    layout
        Common to all files; its control labels are those of all files together.
    verdict
        Scale of the values, common to all.
    features
        Common to all files.
    groups
        All (perturbation, context, dose) and one control per context; see `Grouping`.
    blocks
        Columns context, batch: every combination that has cells, sorted.
    notes
        Repairs and choices to be shown.
    simulated
        True when any file says that it is simulated.
    """

    sources: tuple[Any, ...]
    lengths: tuple[int, ...]
    layout: Layout
    verdict: Verdict
    features: tuple[str, ...]
    groups: pd.DataFrame
    blocks: pd.DataFrame
    notes: tuple[str, ...] = ()
    simulated: bool = False

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts, sorted."""
        return tuple(dict.fromkeys(self.groups["context"]))


@dataclass(frozen=True)
class Task:
    """Rows start..stop of one source: the unit of parallel work and of resuming."""

    source: int
    start: int
    stop: int


def open_with(source: Any, settings: PseudobulkSettings) -> AbstractContextManager[CellFile]:
    """`open_cells` with the settings' layer, feature key and gene table."""
    return open_cells(
        source,
        layer=settings.layer,
        feature_key=settings.feature_key,
        gene_table=settings.gene_table,
    )


def context_of(uns: Mapping[str, Any]) -> str:
    """The context a file states for all its cells, or ""."""
    for key in ("cell_line", "cell_type", "context"):
        if isinstance(uns.get(key), str):
            return str(uns[key])
    return ""


def scale_tag(file: CellFile) -> Verdict | None:
    """What the file states about the scale of the matrix that is read."""
    if file.layer == "counts":
        return Verdict("counts", "layer 'counts'")
    return tag_of(file.uns) if file.layer == "X" else None


def other_matrices(file: CellFile) -> str:
    """What else could be read, with the flag: "--layer raw reads .raw (counts)"; or ""."""
    found = [f"--layer {name}" for name in file.layers if name != file.layer]
    raw = file.sample_raw()
    if raw is not None:
        found.insert(0, f"--layer raw reads .raw ({judge_values(raw)[0] or 'scale unclear'})")
    return " or ".join(found)


def scan(sources: Sequence[Any], settings: PseudobulkSettings) -> Scan:
    """Read every file's tables and judge its scale; all files must agree.

    Raises
    ------
    pertwise.errors.InputError
        If files differ in layout, features or scale, or no control cells exist.
    """
    if not sources:
        raise InputError("no file of cells given")
    heads: list[tuple[Any, Layout, Verdict, tuple[str, ...], int]] = []
    notes: dict[str, None] = {}
    counts: list[pd.Series] = []
    simulated = False
    lines: set[str] = set()
    for source in track(sources, "reading tables"):
        with open_with(source, settings) as file:
            columns = relevant_columns(file.table.columns, settings.keys)
            obs = file.table.read(columns)
            layout = recognise(
                obs,
                settings.keys,
                columns=file.table.columns,
                context_name=settings.context or context_of(file.uns),
                partial=len(sources) > 1,
                features=file.features,
                where=str(file.path),
            )
            verdict = decide_scale(
                file.sample(),
                tag=scale_tag(file),
                wanted=settings.scale,
                where=str(file.path),
                others=other_matrices(file),
            )
            heads.append((file.path, layout, verdict, file.features, len(file)))
            _agree(heads[0], heads[-1])
            counts.append(label_counts(obs, layout))
            if layout.context:
                lines |= set(obs[layout.context].dropna().astype(str))
            simulated |= bool(file.uns.get("simulated"))
            notes.update(dict.fromkeys([*file.notes, *layout.notes]))
    control = tuple(dict.fromkeys(label for head in heads for label in head[1].control))
    if not control:
        totals = pd.concat(counts).groupby(level=0, observed=True).sum()
        where = str(heads[0][0]) + (f" and {len(heads) - 1} more" if len(heads) > 1 else "")
        totals = totals.sort_values(ascending=False)
        if settings.keys.control:
            raise unknown_name(
                "control label", settings.keys.control[0], map(str, totals.index), f"in {where}"
            )
        raise no_control(totals, where)
    layout = replace(heads[0][1], control=control)
    if settings.context and layout.context:
        if settings.context not in lines:
            raise unknown_name("context", settings.context, sorted(lines), "in any of the files")
        layout = replace(layout, only=settings.context)
    labels = sorted({str(name) for count in counts for name in count.index})
    for wanted in settings.keys.control:
        if not any(wanted in (label, parse_label(label, layout)[0]) for label in control):
            raise unknown_name("control label", wanted, labels, "in any of the files")
    if len(sources) > 1:
        layout = settle(replace(layout, notes=()), labels, settings.keys, heads[0][3])
        notes.update(dict.fromkeys(layout.notes))
    groups, blocks, n_empty, n_left_out, n_doublets, n_elsewhere = [], [], 0, 0, 0, 0
    for source in sources:
        with open_with(source, settings) as file:
            grouping = group_rows(
                _table(file, layout), layout, drop_empty=settings.drop_empty, where=str(file.path)
            )
            groups.append(grouping.groups)
            blocks.append(_block_table(grouping))
            n_empty += grouping.n_empty
            n_left_out += grouping.n_left_out
            n_doublets += grouping.n_doublets
            n_elsewhere += grouping.n_elsewhere
    where = str(heads[0][0]) + (f" and {len(heads) - 1} more" if len(heads) > 1 else "")
    check_any(pd.concat(groups), where)
    if n_empty:
        notes[f"{n_empty} cells without a perturbation name left out"] = None
    if n_doublets:
        notes[
            f"{n_doublets} cells called doublets in {layout.doublet!r} left out (--keep-doublets)"
        ] = None
    if n_elsewhere:
        notes[f"{n_elsewhere} cells of other contexts than {layout.only!r} left out"] = None
    if n_left_out:
        notes[f"{n_left_out} cells of labels that are no perturbation left out"] = None
    return Scan(
        sources=tuple(sources),
        lengths=tuple(head[4] for head in heads),
        layout=layout,
        verdict=heads[0][2],
        features=heads[0][3],
        groups=sort_groups(pd.concat(groups)),
        blocks=pd.concat(blocks)
        .drop_duplicates()
        .sort_values(["context", "batch"], ignore_index=True),
        notes=tuple(notes),
        simulated=simulated,
    )


def _agree(
    first: tuple[Any, Layout, Verdict, tuple[str, ...], int],
    other: tuple[Any, Layout, Verdict, tuple[str, ...], int],
) -> None:
    """All files of one screen must be read the same way."""
    path, layout, verdict, features, _ = other
    for name in ("kind", "perturbation", "context", "context_name", "dose", "dose_unit", "batch",
                 "doublet", "guide"):  # fmt: skip
        a, b = getattr(first[1], name), getattr(layout, name)
        if a != b:
            raise InputError(
                f"{first[0]} and {path} differ: {name} is {a!r} in the first and {b!r} in the "
                "second; name the columns explicitly, or convert the files to one layout"
            )
    if verdict.scale != first[2].scale:
        raise InputError(
            f"{first[0]} holds {first[2].scale} ({first[2].evidence}), but {path} holds "
            f"{verdict.scale} ({verdict.evidence})"
        )
    if features != first[3]:
        at = next(
            (i for i, (a, b) in enumerate(zip(first[3], features, strict=False)) if a != b),
            min(len(features), len(first[3])),
        )
        shown = [f[at] if at < len(f) else "(none)" for f in (first[3], features)]
        raise InputError(
            f"{first[0]} and {path} have different features: {len(first[3])} and {len(features)}, "
            f"first difference at position {at}: {shown[0]!r} and {shown[1]!r}; all files need the "
            "same features in the same order"
        )


def _table(file: CellFile, layout: Layout, start: int = 0, stop: int | None = None) -> pd.DataFrame:
    """The columns that say which group and batch each row belongs to."""
    wanted = {layout.perturbation, layout.context, layout.dose, layout.batch, layout.doublet,
              "nperts"}  # fmt: skip
    return file.table.read([c for c in file.table.columns if c in wanted], start, stop)


def _block_table(grouping: Grouping) -> pd.DataFrame:
    kept = grouping.codes >= 0
    return pd.DataFrame(
        {
            "context": grouping.groups["context"].to_numpy()[grouping.codes[kept]],
            "batch": grouping.batches[kept],
        }
    ).drop_duplicates()


def plan_tasks(found: Scan, rows_per_task: int | None = None) -> tuple[Task, ...]:
    """Rows of every source cut into even tasks of at most so many; None makes one of each."""
    tasks = []
    for i, n in enumerate(found.lengths):
        step = n if rows_per_task is None else -(-n // max(1, -(-n // rows_per_task)))
        tasks += [Task(i, start, min(start + step, n)) for start in range(0, n, max(step, 1))]
    return tuple(tasks)


@dataclass(frozen=True)
class Codes:
    """Global ids of the rows of one task; -1 = left out."""

    group: NDArray[np.int64]
    block: NDArray[np.int64]


def codes_of(file: CellFile, found: Scan, settings: PseudobulkSettings, task: Task) -> Codes:
    """Which group and block every row of a task belongs to."""
    obs = _table(file, found.layout, task.start, task.stop)
    grouping = group_rows(obs, found.layout, drop_empty=settings.drop_empty, where=str(file.path))
    position = pd.Series(np.arange(len(found.groups)), index=group_keys(found.groups))
    to_global = np.append(position.reindex(group_keys(grouping.groups)).to_numpy(), -1)
    kept = grouping.codes >= 0
    group = np.where(kept, to_global[grouping.codes], -1).astype(np.int64)
    blocks = pd.MultiIndex.from_frame(found.blocks)
    context = found.groups["context"].to_numpy()[group]
    block = blocks.get_indexer(pd.MultiIndex.from_arrays([context, grouping.batches]))
    return Codes(group, np.where(kept, block, -1).astype(np.int64))
