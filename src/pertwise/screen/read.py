"""`read_screen`: any file of means (or, on request, of cells) to a `Screen`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._files import reading
from pertwise.errors import InputError
from pertwise.screen.anndata_file import open_hdf5
from pertwise.screen.cells import check_exists, open_cells
from pertwise.screen.core import OBS_COLUMNS, Screen, make_obs
from pertwise.screen.flags import texts
from pertwise.screen.grouping import Grouping, check_any, group_rows
from pertwise.screen.layouts import (
    Keys,
    Layout,
    label_counts,
    no_control,
    perturbation_labels,
    recognise,
)
from pertwise.screen.scale import MAX_LOG
from pertwise.screen.scan import PseudobulkSettings, context_of

if TYPE_CHECKING:
    from anndata import AnnData

FloatArray = NDArray[np.float64]
Kind = Literal["auto", "cells", "means"]
Values = Literal["auto", "means", "deltas"]
#: More rows than this per perturbation, on average, are cells rather than means.
ROWS_PER_MEAN = 2.0
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")


@dataclass(frozen=True)
class MeansTable:
    """Rows of means with their table, before they become a `Screen`.

    Attributes
    ----------
    values
        (n_rows, n_features) float64.
    obs
        One row per row of values.
    features
        Column names.
    facts
        What the file states as a whole (source, unit, cell_line, note, simulated).
    notes
        Repairs and choices so far.
    """

    values: FloatArray
    obs: pd.DataFrame
    features: tuple[str, ...]
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def read_screen(
    path: str | os.PathLike[str] | AnnData,
    *,
    perturbation_key: str | None = None,
    control: str | Sequence[str] = (),
    context_key: str | None = None,
    context: str | None = None,
    dose_key: str | None = None,
    batch_key: str | None = None,
    n_cells_key: str | None = None,
    feature_key: str | None = None,
    layer: str | None = None,
    kind: Kind = "auto",
    values: Values = "auto",
    duplicates: Literal["refuse", "average"] = "refuse",
    infinite: Literal["refuse", "nan"] = "refuse",
    drop_empty: bool = False,
    labels: str = "auto",
    pseudobulk: bool | PseudobulkSettings = False,
) -> Screen:
    """Read a screen from h5ad, csv, tsv or parquet, recognising who wrote it.

    Recognised: pertwise's own files; h5ad of GEARS (``condition``), scPerturb (``perturbation``),
    Replogle 2022 (``gene``, or bulk files with ``gene_transcript`` row names), Tahoe-100M
    (``drugname_drugconc``), STATE (``target_gene``), drug screens (``drug``); pseudobulked h5ad;
    tables of perturbations x features; long tables (perturbation, gene, value); ranked signatures.

    Parameters
    ----------
    path
        File, or an AnnData in memory.
    perturbation_key, control, context_key, dose_key, batch_key, n_cells_key
        Columns and control label(s) to use instead of those recognised; "" for a column says
        there is none.
    context
        Name of the one context of the file (instead of ``uns["cell_line"]``).
    feature_key, layer
        Where feature names and values come from (h5ad).
    kind
        "cells" or "means" when the number of rows per perturbation is misleading.
    values
        "deltas" when the values are control-subtracted already, "means" to subtract the control
        rows. "auto": deltas when the control rows are all zero, or when there is no control and
        some values are negative; otherwise means.
    duplicates
        "average" rows of the same perturbation, context and dose (weighted by cells when known).
    infinite
        "nan" treats infinite values as not measured (counted) instead of refusing them.
    drop_empty
        Leave out rows without a perturbation name (counted) instead of refusing them.
    labels
        "auto" leaves out cells without a call and controls that are not used, and folds guides to
        their genes when most labels are guides; "genes" folds whatever is a guide; "as-is" takes
        every label as it stands.
    pseudobulk
        Single cells are refused unless this is True or a `PseudobulkSettings`.

    Raises
    ------
    pertwise.errors.InputError
        If the file is missing, not understood, holds cells, has no control, raw counts, repeated
        or empty perturbations or infinite values; the message says what to do.
    """
    given = (control,) if isinstance(control, str) else tuple(control)
    keys = Keys(perturbation_key, given, context_key, dose_key, batch_key, n_cells_key, labels)
    source: Any = path
    where = "the AnnData"
    if isinstance(path, (str, os.PathLike)):
        source = check_exists(path)
        where = str(source)
        if is_table(source):
            from pertwise.screen.tables import read_table

            table = read_table(source, perturbation_key)
            if table.facts.get("ranked") or table.facts.get("deltas"):
                values = "deltas"
            if perturbation_key is not None and perturbation_key not in table.obs.columns:
                keys = replace(keys, perturbation="perturbation")
            return _means(
                table, keys, context, kind, values, duplicates, infinite, drop_empty, where
            )
    own = own_screen(source, insist=perturbation_key is not None)
    if own is not None:
        return own
    if isinstance(pseudobulk, PseudobulkSettings):
        layer, feature_key = layer or pseudobulk.layer, feature_key or pseudobulk.feature_key
    with open_cells(source, layer=layer, feature_key=feature_key, prefer_counts=False) as file:
        name = context if context is not None else context_of(file.uns)
        layout = recognise(file.obs, keys, context_name=name, where=where, features=file.features)
        grouping = group_rows(file.obs, layout, drop_empty=drop_empty, where=where)
        if kind == "cells" or (kind == "auto" and holds_cells(grouping)):
            return _of_cells(
                source,
                file.obs,
                layout,
                grouping,
                keys,
                pseudobulk,
                where,
                layer,
                feature_key,
                drop_empty,
            )
        table = MeansTable(
            values=file.rows(0, len(file)).toarray().astype(np.float64),
            obs=file.obs,
            features=file.features,
            facts=file.uns,
            notes=file.notes,
        )
    return _means(table, keys, context, "means", values, duplicates, infinite, drop_empty, where)


def is_table(path: Path) -> bool:
    """True for csv, tsv and parquet of means (a parquet of gene tokens holds cells)."""
    return path.is_file() and path.name.lower().endswith(TABLE_SUFFIXES)


def holds_cells(grouping: Grouping) -> bool:
    """Whether rows are cells: more than `ROWS_PER_MEAN` rows per perturbation on average."""
    perturbed = np.flatnonzero(~grouping.groups["is_control"].to_numpy(dtype=bool))
    if not len(perturbed):
        return bool((grouping.codes >= 0).sum() > 20)
    rows = np.isin(grouping.codes, perturbed).sum()
    return bool(rows / len(perturbed) > ROWS_PER_MEAN)


def own_screen(source: Any, *, insist: bool = False) -> Screen | None:
    """The screen in a file (or AnnData) that pertwise wrote; None for any other.

    Raises
    ------
    pertwise.errors.InputError
        When it was put together from several outside pertwise (unless the user insists).
    """
    from pertwise.screen.files import CONCATENATED, from_anndata, is_screen_anndata

    if not isinstance(source, Path):
        if is_screen_anndata(source):
            return from_anndata(source)
        if not insist and set(OBS_COLUMNS) <= set(map(str, source.obs.columns)):
            raise InputError(f"the AnnData holds {CONCATENATED}, or name --perturbation-key")
        return None
    import h5py

    if source.is_dir() or not h5py.is_hdf5(source):
        return None
    with open_hdf5(source) as handle:
        if "uns" not in handle or "pertwise" not in handle["uns"]:
            rows = handle.get("obs")
            columns = set(rows.keys()) if isinstance(rows, h5py.Group) else set()
            if not insist and set(OBS_COLUMNS) <= columns:
                raise InputError(f"{source} holds {CONCATENATED}, or name --perturbation-key")
            return None
    import anndata

    with reading(source, "a pertwise screen"):
        return from_anndata(anndata.read_h5ad(source))


def _of_cells(
    source: Any,
    obs: pd.DataFrame,
    layout: Layout,
    grouping: Grouping,
    keys: Keys,
    wanted: bool | PseudobulkSettings,
    where: str,
    layer: str | None,
    feature_key: str | None,
    drop_empty: bool,
) -> Screen:
    n = int((~grouping.groups["is_control"]).sum())
    if not wanted:
        raise InputError(
            f"{where} holds single cells ({len(obs):,} rows for {n:,} perturbations; "
            f"{layout.describe()}), but means are needed. Make them once with: pertwise screen "
            f"pseudobulk {where} OUT.h5ad (or read_screen(..., pseudobulk=True)). If the rows are "
            "replicate means, say kind='means', duplicates='average'"
        )
    from pertwise.screen.pseudobulk import pseudobulk

    settings = (
        wanted
        if isinstance(wanted, PseudobulkSettings)
        else PseudobulkSettings(
            keys=keys, layer=layer, feature_key=feature_key, drop_empty=drop_empty
        )
    )
    return pseudobulk(source, settings)


def _means(
    table: MeansTable,
    keys: Keys,
    context: str | None,
    kind: Kind,
    values: Values,
    duplicates: str,
    infinite: str,
    drop_empty: bool,
    where: str,
) -> Screen:
    name = context if context is not None else context_of(table.facts)
    layout = recognise(table.obs, keys, context_name=name, where=where, features=table.features)
    table = _finite(table, infinite, where)
    if kind == "cells":
        raise InputError(
            f"{where}: cells are read from h5ad, zarr or parquet with: pertwise screen pseudobulk"
        )
    return _from_means(table, layout, values, duplicates, where, drop_empty)


def _finite(table: MeansTable, infinite: str, where: str) -> MeansTable:
    bad = np.isinf(table.values)
    if not bad.any():
        return table
    row, column = (int(i) for i in np.argwhere(bad)[0])
    if infinite != "nan":
        raise InputError(
            f"{where}: {int(bad.sum())} infinite values (first: row "
            f"{str(table.obs.index[row])!r}, feature {table.features[column]!r}); remove them, or "
            "take them as not measured with --infinite nan (infinite='nan')"
        )
    note = f"{int(bad.sum())} infinite values taken as not measured"
    return replace(table, values=np.where(bad, np.nan, table.values), notes=(*table.notes, note))


def _from_means(
    table: MeansTable,
    layout: Layout,
    values: Values,
    duplicates: str,
    where: str,
    drop_empty: bool = False,
) -> Screen:
    grouping = group_rows(table.obs, layout, drop_empty=drop_empty, where=where)
    check_any(grouping.groups, where)
    x, notes = table.values, [*table.notes, *layout.notes]
    if grouping.n_empty:
        notes.append(f"{grouping.n_empty} rows without a perturbation name left out")
    if grouping.n_left_out:
        notes.append(f"{grouping.n_left_out} rows of labels that are no perturbation left out")
    is_control = grouping.groups["is_control"].to_numpy(dtype=bool)
    control_rows = (grouping.codes >= 0) & is_control[grouping.codes]
    taken = _deltas_or_means(x, control_rows, values, table.obs, layout, where, notes)
    counts = _numbers(table.obs, layout.n_cells)
    variance = _numbers(table.obs, layout.variance)

    perturbed = np.flatnonzero(~is_control)
    rows = [np.flatnonzero(grouping.codes == g) for g in perturbed]
    twice = [g for g, r in zip(perturbed, rows, strict=True) if len(r) > 1]
    folded = twice and _only_guides(table.obs, layout, [r for r in rows if len(r) > 1])
    if twice and not folded and duplicates != "average":
        first = grouping.groups.loc[twice[0]]
        raise InputError(
            f"{where}: perturbation {first['perturbation']!r} has "
            f"{int((grouping.codes == twice[0]).sum())} rows with the same context "
            f"{first['context']!r} and dose {first['dose']} ({len(twice)} such perturbations in "
            "all); average them with --duplicates average (duplicates='average'), or tell them "
            "apart with --context-key or --dose-key"
        )
    if twice:
        notes.append(f"{len(twice)} perturbations had several rows, which were averaged")
    # Rows keep the order of the file: the first row of each perturbation gives its place.
    order = np.argsort([r[0] for r in rows], kind="stable") if rows else np.zeros(0, dtype=int)
    merged = [_merge(x, counts, variance, rows[i]) for i in order]
    groups = grouping.groups.iloc[perturbed[order]]
    responses = np.array([m[0] for m in merged]).reshape(len(merged), x.shape[1])
    n_cells = np.array([m[1] for m in merged])
    noise = np.array([m[2] for m in merged])

    contexts = tuple(dict.fromkeys(groups["context"]))
    control_mean = np.full((len(contexts), x.shape[1]), np.nan)
    context_of_row = np.array(contexts, dtype=object)
    for c, name in enumerate(contexts):
        own = control_rows & (grouping.groups["context"].to_numpy()[grouping.codes] == name)
        here = (groups["context"] == name).to_numpy()
        if own.any():
            mean, _, share = _merge(x, counts, variance, np.flatnonzero(own))
            if np.isfinite(share):
                noise[here] += share
            if taken == "means":
                control_mean[c] = mean
                responses[here] -= mean
        elif taken == "means":
            raise InputError(
                f"{where}: context {context_of_row[c]!r} has no control row; add one, or say "
                "--values deltas if the values are control-subtracted already"
            )
    obs = make_obs(
        groups["perturbation"].tolist(),
        context=groups["context"].tolist(),
        dose=groups["dose"].tolist(),
        n_cells=n_cells.tolist(),
        sampling_variance=noise.tolist(),
    )
    first_rows = [int(rows[i][0]) for i in order]
    return Screen(
        responses=responses.astype(np.float32),
        obs=_with_extra(obs, table.obs.iloc[first_rows], layout),
        features=table.features,
        control_mean=control_mean.astype(np.float32),
        meta={
            "source": _text(table.facts.get("source")) or Path(where).name,
            "simulated": bool(table.facts.get("simulated", False)),
            "unit": _text(table.facts.get("unit")) or "value as in the file",
            "control": list(layout.control),
            "layout": layout.describe(),
            "values": taken,
            "note": _text(table.facts.get("note")),
            "notes": notes,
        },
    )


def _only_guides(obs: pd.DataFrame, layout: Layout, rows: list[NDArray[np.int64]]) -> bool:
    """Whether all repeated rows are different guides that were folded to one gene."""
    labels = texts(perturbation_labels(obs, layout))
    return all(len({*labels[r]}) == len(r) and {*labels[r]} & {*layout.rename} for r in rows)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _deltas_or_means(
    x: FloatArray,
    control_rows: NDArray[np.bool_],
    values: Values,
    obs: pd.DataFrame,
    layout: Layout,
    where: str,
    notes: list[str],
) -> Literal["deltas", "means"]:
    finite = x[np.isfinite(x)]
    negative = bool(finite.size and finite.min() < 0)
    if values == "deltas":
        return "deltas"
    if not control_rows.any():
        if values == "means" or not negative:
            error = no_control(label_counts(obs, layout), where)
            raise InputError(
                f"{error}; or, if the values are control-subtracted already, say so with "
                "--values deltas (values='deltas')"
            )
        notes.append(
            "no control row; taken as control-subtracted already because some values are negative"
        )
        return "deltas"
    if values == "auto" and not np.nan_to_num(x[control_rows]).any() and negative:
        return "deltas"
    largest = finite.max() if finite.size else 0.0
    if values == "auto" and not negative and largest > MAX_LOG:
        whole = "whole numbers" if np.array_equal(finite, np.rint(finite)) else "values"
        raise InputError(
            f"{where}: {whole} up to {largest:.6g} look like unnormalised counts; means of "
            "log-normalised expression are expected (log1p of normalised counts stays below "
            f"{MAX_LOG:g}). Normalise first, or insist with --values means (values='means')"
        )
    return "means"


def _numbers(obs: pd.DataFrame, column: str) -> FloatArray:
    if not column:
        return np.full(len(obs), np.nan)
    return np.asarray(pd.to_numeric(obs[column], errors="coerce"), dtype=np.float64)


def _merge(
    x: FloatArray, counts: FloatArray, variance: FloatArray, rows: NDArray[np.int64]
) -> tuple[FloatArray, float, float]:
    """Mean over rows (weighted by cells when all are known), cells, and variance of that mean."""
    if len(rows) == 1:
        return x[rows[0]].copy(), float(counts[rows[0]]), float(variance[rows[0]])
    n = counts[rows]
    weight = n if np.isfinite(n).all() and n.sum() > 0 else np.ones(len(rows))
    known = np.isfinite(x[rows])
    share = weight[:, None] * known
    total = share.sum(axis=0)
    summed = (share * np.nan_to_num(x[rows])).sum(axis=0)
    mean = np.divide(summed, total, out=np.full(x.shape[1], np.nan), where=total > 0)
    part = weight / weight.sum()
    return mean, float(n.sum()), float((part**2 * variance[rows]).sum())


def _with_extra(obs: pd.DataFrame, original: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """The other columns of the file, kept beside the standard ones."""
    used = {layout.perturbation, layout.context, layout.dose, layout.n_cells, "is_control"}
    for column in original.columns:
        if column in used or column in OBS_COLUMNS:
            continue
        values = original[column]
        # HDF5 takes a slash for a group, and "_index" for the names of the rows.
        name = str(column).replace("/", "_")
        if name in obs or name == "_index":
            continue
        if not pd.api.types.is_numeric_dtype(values):
            obs[name] = texts(values)
        else:
            obs[name] = values.to_numpy()
    return obs
