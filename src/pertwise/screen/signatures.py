"""Ranked signatures (genes in order, no magnitudes) as a `Screen` of normal scores.

Public counterparts: the Open Problems 2023 perturbation-prediction table (``de_train.parquet``:
cell_type, sm_name, SMILES, then one column a gene) and any table of differential statistics per
(cell line, drug) condition of Tahoe-100M. Rank archives (npz) hold one matrix: ``R`` (rank of each
gene, 0 = most up) or ``Q`` (normal scores stored as ``round(32 z)`` in int8, -128 = gene absent),
and ``genes``; a parquet, csv or tsv table of the same length describes the rows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pertwise._files import reading
from pertwise._names import canonical_perturbation
from pertwise._tables import columns_of, read_frame
from pertwise.errors import InputError
from pertwise.screen.core import Screen
from pertwise.screen.flags import read_flags, texts

#: ``Screen.meta["unit"]`` of what is read here; metrics of magnitude are refused for it by name.
RANKED_UNIT = "normal score of rank"
#: Scale and missing value of the int8 normal scores.
INT8_SCALE, INT8_ABSENT = 32.0, -128
_PERTURBATION = ("perturbation", "drug", "sm_name", "compound", "pert_iname", "pert")
_CONTEXT = ("context", "cell_name", "cell_type", "cell_line", "cell_iname", "cell")
_DOSE = ("dose", "dose_uM", "dose_um", "concentration")


def is_ranked(screen: Screen) -> bool:
    """True when the screen holds scores of ranks (normal or linear), which have no magnitude."""
    unit = str(screen.meta.get("unit", ""))
    return bool(screen.meta.get("ranked", False)) or unit.startswith((RANKED_UNIT, "rank score"))


def normal_scores(values: ArrayLike, *, descending: bool = False) -> NDArray[np.float32]:
    """Van der Waerden scores of each row: z = Phi^-1(r / (n + 1)), r = mid-rank among n values.

    Parameters
    ----------
    values
        (n_rows, n_features); NaN = absent, left out of the ranking and NaN in the result.
    descending
        False: the largest value gets the largest score. True: the smallest does, as for ranks
        that count from 0 = most up.

    Returns
    -------
    (n_rows, n_features) float32, mean 0 and variance close to 1 in every row.

    Source: van der Waerden 1952; Conover, Practical Nonparametric Statistics, 3rd ed., 5.10.
    """
    from scipy.stats import norm, rankdata

    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2:
        raise InputError(f"values must be (n_rows, n_features), got shape {data.shape}")
    if descending:
        data = -data
    out = np.full(data.shape, np.nan, dtype=np.float32)
    for i, row in enumerate(data):
        finite = np.isfinite(row)
        ranks = rankdata(row[finite])
        out[i, finite] = norm.ppf(ranks / (len(ranks) + 1))
    return out


def read_signatures(
    matrix: str | os.PathLike[str],
    obs: str | os.PathLike[str] | pd.DataFrame | None = None,
    *,
    where: Mapping[str, Any] | None = None,
    drop: str | None = None,
    effect: str | None = None,
    min_effect: float | None = None,
    dose: float = float("nan"),
    columns: Mapping[str, str] | None = None,
) -> Screen:
    """Read ranked signatures, or a table of statistics that is ranked here, as normal scores.

    Parameters
    ----------
    matrix
        npz archive (see the module), or a parquet/csv/tsv whose numeric columns are genes and whose
        text columns describe the rows (statistics such as sign(logFC) * -log10 p; large = up).
    obs
        Table describing the rows of an npz archive, in the same order. Not used for a table.
    where
        column -> value that a row must have, e.g. ``{"plates": "plate6+plate14"}``: conditions
        whose plates confound the comparison stay out.
    drop
        Boolean column of rows to leave out (e.g. "suspect").
    effect, min_effect
        Column with the effect size (E-distance) and the smallest value that counts as active. The
        column becomes ``obs["effect"]``, to be used as a filter or as a weight.
    dose
        Dose of every row when the table has no dose column (same unit for all).
    columns
        Names of the columns to use: any of "perturbation", "context", "dose".

    Returns
    -------
    Screen
        ``meta["unit"]`` is `RANKED_UNIT`, ``meta["ranked"]`` True; ``meta["dropped"]`` counts
        the rows left out and why. Absent genes are NaN.

    Raises
    ------
    pertwise.errors.InputError
        For a missing file or column, lengths that differ, duplicated conditions, or a filter that
        leaves no row.
    """
    path = Path(matrix)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".npz":
        if obs is None:
            raise InputError(f"{path}: an archive of ranks needs the table that describes its rows")
        values, genes, kind = _read_archive(path)
        table = obs.reset_index(drop=True) if isinstance(obs, pd.DataFrame) else read_frame(obs)
        named = "the given table" if isinstance(obs, pd.DataFrame) else str(obs)
        if len(table) != len(values):
            raise InputError(f"{path} has {len(values)} signatures, but {named} {len(table)} rows")
    else:
        table, values, genes = _split_table(path, columns or {}, effect, where or {})
        kind = "statistics"
    keep, dropped = _row_filter(table, where or {}, drop, effect, min_effect, str(path))
    values, table = values[keep], table[keep].reset_index(drop=True)
    frame, renamed = _screen_obs(table, columns or {}, effect, dose, str(path))
    return Screen(
        responses=_to_scores(values, kind),
        obs=frame,
        features=tuple(genes),
        control_mean=np.full((frame["context"].nunique(), len(genes)), np.nan, dtype=np.float32),
        meta={
            "source": path.name,
            "unit": RANKED_UNIT,
            "ranked": True,
            "where": {k: str(v) for k, v in (where or {}).items()},
            "min_effect": min_effect,
            "dropped": dropped,
            "renamed": renamed,
        },
    )


def _to_scores(values: NDArray[Any], kind: str) -> NDArray[np.float32]:
    if kind == "Q":
        scores = values.astype(np.float32) / np.float32(INT8_SCALE)
        scores[values == INT8_ABSENT] = np.nan
        return scores
    return normal_scores(values, descending=kind == "R")


def _read_archive(path: Path) -> tuple[NDArray[Any], list[str], str]:
    with reading(path, "an npz archive of ranks"), np.load(path, allow_pickle=False) as archive:
        kinds = [k for k in ("R", "Q") if k in archive.files]
        if len(kinds) != 1 or "genes" not in archive.files:
            raise InputError(
                f"{path}: expected the arrays 'genes' and one of 'R' (ranks, 0 = most up) or 'Q' "
                f"(int8 normal scores), found {archive.files}"
            )
        values, genes = archive[kinds[0]], [str(g) for g in archive["genes"]]
    if values.ndim != 2 or values.shape[1] != len(genes):
        raise InputError(f"{path}: {kinds[0]} has shape {values.shape} for {len(genes)} genes")
    return values, genes, kinds[0]


def _split_table(
    path: Path, columns: Mapping[str, str], effect: str | None, where: Mapping[str, Any]
) -> tuple[pd.DataFrame, NDArray[Any], list[str]]:
    """Text and named columns describe the rows; the other numeric columns are genes."""
    frame = read_frame(path)
    described = {*columns.values(), *where, *_PERTURBATION, *_CONTEXT, *_DOSE, effect}
    genes = [
        c
        for c in frame.columns
        if c not in described
        and pd.api.types.is_numeric_dtype(frame[c])
        and not pd.api.types.is_bool_dtype(frame[c])
    ]
    if not genes:
        raise InputError(f"{path}: no numeric column is left that could be a gene")
    values = frame[genes].to_numpy(dtype=np.float64)
    return frame.drop(columns=genes), values, [str(g) for g in genes]


def _row_filter(
    table: pd.DataFrame,
    where: Mapping[str, Any],
    drop: str | None,
    effect: str | None,
    min_effect: float | None,
    named: str,
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Rows to keep, and how many each filter removed (in this order)."""
    needed = [*where, *([drop] if drop else []), *([effect] if effect else [])]
    missing = [c for c in needed if c not in table.columns]
    if missing:
        raise InputError(f"{named}: no column {missing}; there are {columns_of(table)}")
    if min_effect is not None and effect is None:
        raise InputError("min_effect needs the name of the effect-size column (effect=...)")
    keep = np.ones(len(table), dtype=bool)
    dropped: dict[str, int] = {}

    def apply(label: str, good: NDArray[np.bool_]) -> None:
        nonlocal keep
        dropped[label] = int((keep & ~good).sum())
        keep = keep & good

    for column, value in where.items():
        apply(f"{column} != {value}", texts(table[column]) == str(value))
    if drop:
        apply(drop, read_flags(table[drop], named) != 1.0)
    if effect and min_effect is not None:
        sizes = _numbers(table[effect], named)
        apply(f"{effect} < {min_effect:g}", sizes >= min_effect)
    if not keep.any():
        raise InputError(f"{named}: the filters leave no signature ({dropped})")
    return keep, dropped


def _numbers(column: pd.Series, named: str) -> NDArray[np.float64]:
    numbers = pd.to_numeric(column.astype(object), errors="coerce")
    bad = (numbers.isna() & column.notna()).to_numpy()
    if bad.any():
        raise InputError(
            f"{named}: {column.name} = {column.iloc[int(bad.argmax())]!r} is not a number"
        )
    return np.asarray(numbers, dtype=np.float64)


def _pick(table: pd.DataFrame, given: str | None, known: tuple[str, ...]) -> str | None:
    if given is not None:
        return given if given in table.columns else None
    return next((c for c in known if c in table.columns), None)


def _screen_obs(
    table: pd.DataFrame, columns: Mapping[str, str], effect: str | None, dose: float, named: str
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A valid `Screen.obs`; combinations are spelt canonically, other names as they stand."""
    who = _pick(table, columns.get("perturbation"), _PERTURBATION)
    line = _pick(table, columns.get("context"), _CONTEXT)
    amount = _pick(table, columns.get("dose"), _DOSE)
    if who is None or line is None:
        what = "perturbation (drug)" if who is None else "context (cell line)"
        raise InputError(
            f"{named}: no {what} column among {columns_of(table)}; name it with columns="
        )
    names, renamed = [], {}
    for value in table[who]:
        name = str(value).strip()
        if canonical_perturbation(name) != name:
            renamed[name] = canonical_perturbation(name)
            name = renamed[name]
        names.append(name)
    out = pd.DataFrame({"perturbation": names, "context": texts(table[line])})
    out["dose"] = _numbers(table[amount], named) if amount else dose
    out["n_cells"] = np.nan
    out["sampling_variance"] = np.nan
    if effect:
        out["effect"] = _numbers(table[effect], named)
    for column in table.columns:
        if column in {who, line, amount, effect} or column in out.columns:
            continue
        values = table[column]
        numeric = pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)
        out[str(column).replace("/", "_")] = (
            values.to_numpy() if numeric else values.fillna("").astype(str).to_numpy()
        )
    index = out["perturbation"] + "|" + out["context"]
    if not index.is_unique:
        index = index + "|" + out["dose"].map(lambda v: "" if np.isnan(v) else f"{v:g}")
    if not index.is_unique:
        raise InputError(
            f"{named}: {index[index.duplicated()].iloc[0]!r} (drug|line|dose) has more than one "
            "signature; select one plate group with where=, or average replicates first"
        )
    out.index = pd.Index(index.to_numpy(), name=None)
    return out, renamed
