"""Cells to groups of one perturbation, context and dose, and the order of their rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import COMBINATION, canonical_perturbation
from pertwise.errors import InputError
from pertwise.screen.doses import read_doses
from pertwise.screen.flags import doublet_flags, texts
from pertwise.screen.labels import control_kind
from pertwise.screen.layouts import Layout, parse_label, perturbation_labels


@dataclass(frozen=True)
class Grouping:
    """Which group every row (cell or mean) belongs to.

    Attributes
    ----------
    codes
        (n_rows,) index into `groups`; -1 = row left out (no perturbation name, or a label that
        `Layout.left_out` lists).
    groups
        Columns perturbation, context, dose, is_control; sorted by context, then control first,
        then perturbation and dose, so that row order in the file does not matter. One control
        group per context, with perturbation "".
    batches
        (n_rows,) batch labels ("" when there is no batch column).
    n_empty, n_left_out, n_doublets, n_elsewhere
        Rows left out for want of a name; rows of `Layout.left_out`; rows of `Layout.doublet`; rows
        of other contexts than `Layout.only`.
    """

    codes: NDArray[np.int64]
    groups: pd.DataFrame
    batches: NDArray[Any]
    n_empty: int = 0
    n_left_out: int = 0
    n_doublets: int = 0
    n_elsewhere: int = 0


def group_rows(
    obs: pd.DataFrame, layout: Layout, *, drop_empty: bool = False, where: str = "the file"
) -> Grouping:
    """Assign every row to its (perturbation, context, dose), or to the control of its context.

    Raises
    ------
    pertwise.errors.InputError
        If names are empty (and `drop_empty` is False), or contexts are missing, or doses are not
        numbers.
    """
    labels = perturbation_labels(obs, layout)
    # A missing value that went through text comes out as "nan"; no gene or drug is called that.
    empty_label = {c: not str(c).strip() or str(c) == "nan" for c in labels.cat.categories}
    empty = (labels.isna() | labels.map(empty_label).eq(True)).to_numpy()
    if empty.any() and not drop_empty:
        first = obs.index[int(empty.argmax())]
        raise InputError(
            f"{where}: {int(empty.sum())} rows have an empty perturbation name in "
            f"{layout.perturbation or 'the row names'!r} (first: row {str(first)!r}); name them, "
            "or leave them out with --drop-empty (drop_empty=True)"
        )
    frame = pd.DataFrame({"label": labels.cat.codes.to_numpy()})
    skipped = [empty_label[c] or str(c) in layout.left_out for c in labels.cat.categories]
    parsed = [
        ("", float("nan")) if label in layout.control or skip else parse_label(str(label), layout)
        for label, skip in zip(labels.cat.categories, skipped, strict=True)
    ]
    # The last entry is that of rows without a label, whose code is -1.
    parsed.append(("", float("nan")))
    skipped.append(True)
    is_control = np.array([*(c in layout.control for c in labels.cat.categories), False])
    code = frame["label"].to_numpy()
    names = np.array([name for name, _ in parsed], dtype=object)
    frame["perturbation"] = names[code]
    unnamed = np.array(skipped, dtype=bool)[code] | empty
    doublets = np.zeros(len(obs), dtype=bool)
    if layout.doublet and layout.doublet in obs:
        doublets = doublet_flags(obs[layout.doublet], where) & ~unnamed
    context = _contexts(obs, layout, where)
    elsewhere = np.zeros(len(obs), dtype=bool)
    if layout.only:
        elsewhere = (np.asarray(context) != layout.only) & ~unnamed & ~doublets
    gone = unnamed | doublets | elsewhere
    # "ctrl+ctrl" and the like parse to no gene at all: those are controls too.
    frame["is_control"] = (is_control[code] | (frame["perturbation"] == "").to_numpy()) & ~gone
    if layout.kind == "scperturb" and "nperts" in obs.columns:
        frame["perturbation"] = _split_combinations(frame["perturbation"], obs["nperts"])
    frame["context"] = context
    stated = np.array([dose for _, dose in parsed])[code]
    frame["dose"] = (
        read_doses(obs, layout, ~frame["is_control"].to_numpy() & ~gone, where)
        if np.isnan(stated).all()
        else stated
    )
    frame.loc[frame["is_control"], "perturbation"] = ""
    frame.loc[frame["is_control"], "dose"] = np.nan
    kept = ~gone
    groups = sort_groups(frame.loc[kept])
    key = group_keys(groups)
    position = pd.Series(np.arange(len(groups)), index=key)
    codes = np.full(len(frame), -1, dtype=np.int64)
    codes[kept] = position.reindex(group_keys(frame.loc[kept])).to_numpy()
    batches = texts(obs[layout.batch]) if layout.batch else np.full(len(obs), "")
    counts = (empty, unnamed & ~empty, doublets, elsewhere)
    return Grouping(codes, groups, batches, *(int(c.sum()) for c in counts))


def check_any(groups: pd.DataFrame, where: str) -> None:
    """Raise when nothing is left to work with.

    Raises
    ------
    pertwise.errors.InputError
        If there is no group.
    """
    if groups.empty:
        raise InputError(
            f"{where}: no row has the name of a perturbation (labels that mean no call are left "
            "out; --labels as-is keeps them)"
        )


def sort_groups(frame: pd.DataFrame) -> pd.DataFrame:
    """Distinct groups in the order of `Grouping.groups`."""
    columns = ["context", "is_control", "perturbation", "dose"]
    return (
        frame[columns]
        .drop_duplicates()
        .sort_values(columns, ascending=[True, False, True, True], na_position="first")
        .reset_index(drop=True)
    )


def group_keys(frame: pd.DataFrame) -> pd.MultiIndex:
    """What identifies a group; no dose is written as -inf, because NaN never equals NaN."""
    return pd.MultiIndex.from_arrays(
        [
            frame["context"],
            frame["is_control"],
            frame["perturbation"],
            frame["dose"].fillna(-np.inf),
        ]
    )


def _split_combinations(names: pd.Series, n_perturbations: pd.Series) -> list[str]:
    """ScPerturb writes "A_B" with nperts = 2; split where the number of parts agrees."""
    pairs = pd.DataFrame({"name": names.to_numpy(), "n": n_perturbations.to_numpy()})
    known: dict[tuple[str, Any], str] = {}
    for name, n in pairs.drop_duplicates().itertuples(index=False):
        parts = str(name).split("_")
        combined = pd.notna(n) and int(n) > 1 and len(parts) == int(n)
        kept = [p for p in parts if not control_kind(p)]
        known[name, n] = canonical_perturbation(COMBINATION.join(kept)) if combined else name
    return [known[key] for key in pairs.itertuples(index=False, name=None)]


def _contexts(obs: pd.DataFrame, layout: Layout, where: str) -> Any:
    if not layout.context:
        return layout.context_name
    column = obs[layout.context]
    if column.isna().any():
        first = obs.index[int(column.isna().to_numpy().argmax())]
        raise InputError(
            f"{where}: context column {layout.context!r} is empty in {int(column.isna().sum())} "
            f"rows (first: {str(first)!r}); fill it, or choose another with --context-key"
        )
    return column.astype(str).to_numpy()
