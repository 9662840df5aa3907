"""Plain tables (csv, tsv, parquet) of perturbations x features, long tables, ranked signatures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pertwise._io import csv_cells, text_of_csv
from pertwise.errors import InputError, unknown_name
from pertwise.screen.layouts import PERTURBATION_KEYS
from pertwise.screen.read import MeansTable

_FEATURE_COLUMNS = ("gene", "feature", "symbol", "gene_name", "target", "readout")
_VALUE_COLUMNS = ("value", "delta", "logfc", "log2fc", "lfc", "label", "score", "z", "effect")
#: Columns of a wide table that describe the row although they hold numbers.
_ROW_COLUMNS = frozenset(
    (
        *("dose", "dose_value", "dose_val", "concentration", "conc", "n_cells", "ncells"),
        *("num_cells_filtered", "cell_count", "cell_counts", "sampling_variance"),
        *("mean_sampling_variance", "is_control", "batch", "gem_group", "plate"),
    )
)


def read_table(path: Path, perturbation_key: str | None = None) -> MeansTable:
    """Read a wide, long or ranked table.

    * wide: one row per perturbation; text columns (and known ones such as ``dose``, ``n_cells``)
      describe the row, the numeric columns are features; the perturbation is a recognised column
      or else the first column of text.
    * long: a perturbation column, a ``gene`` (``feature``) column and one value column
      (``value``, ``delta``, ``logfc``, ``label`` ...); pairs that are absent are NaN.
    * ranked: a column of comma-separated genes, best first. Rank r of L becomes 1 - (r - 0.5)/L,
      genes outside the list 0: an ordinal score, no magnitude (``meta["unit"]`` says so).

    Raises
    ------
    pertwise.errors.InputError
        If the table cannot be parsed, a column occurs twice, or a value is not a number.
    """
    table = _load(path)
    if not len(table) or not len(table.columns):
        raise InputError(f"{path} is an empty table")
    key = _perturbation_column(table, perturbation_key, path)
    ranked = _ranked_column(table)
    if ranked is not None:
        return _ranked(table, key, ranked, path)
    long = _long_columns(table, key)
    if long is not None:
        return _long(table, key, *long, path)
    return _wide(table, key, path)


def _load(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            if not isinstance(table.index, pd.RangeIndex):
                table = table.reset_index(names=table.index.name or "perturbation")
            return table
        separator = "," if ".csv" in path.name.lower() else "\t"
        header = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0]
        twice = header[header.duplicated() & header.notna()]
        if len(twice):
            raise InputError(f"{path}: column {twice.iloc[0]!r} occurs twice in the header")
        # Gene and drug names such as "NA" or "NaN" in the first column are for the caller to judge.
        return csv_cells(pd.read_csv(path, sep=separator, low_memory=False), text_of_csv)
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error


def _perturbation_column(table: pd.DataFrame, wanted: str | None, path: Path) -> str:
    if wanted is not None:
        if wanted not in table.columns:
            raise unknown_name("column", wanted, map(str, table.columns), f"in {path}")
        return wanted
    for name in PERTURBATION_KEYS:
        if name in table.columns and not pd.api.types.is_numeric_dtype(table[name]):
            return name
    first = str(table.columns[0])
    if pd.api.types.is_numeric_dtype(table[table.columns[0]]):
        raise InputError(
            f"{path}: the first column {first!r} holds numbers, not perturbation names; name the "
            "column of perturbations with --perturbation-key"
        )
    return first


def _ranked_column(table: pd.DataFrame) -> str | None:
    for name in table.columns:
        if "ranked" in str(name).casefold() and table[name].dtype == object:
            return str(name)
    return None


def _ranked(table: pd.DataFrame, key: str, column: str, path: Path) -> MeansTable:
    lists = [str(v).split(",") for v in table[column]]
    features = sorted({g for genes in lists for g in genes})
    position = {g: i for i, g in enumerate(features)}
    values = np.zeros((len(lists), len(features)))
    for row, genes in enumerate(lists):
        if len(set(genes)) != len(genes):
            raise InputError(
                f"{path}: the ranked list of {str(table[key].iloc[row])!r} names a gene twice"
            )
        score = 1.0 - (np.arange(len(genes)) + 0.5) / len(genes)
        values[row, [position[g] for g in genes]] = score
    obs = _obs(table, key, {column})
    obs = obs[[c for c in obs if not _is_list(obs[c])]]
    longest = max(map(len, lists))
    return MeansTable(
        values=values,
        obs=obs,
        features=tuple(features),
        facts={
            "source": path.name,
            "ranked": True,
            "unit": f"rank score: 1 = first of the {longest} ranked genes, 0 = not among them "
            "(ordinal, no magnitude)",
        },
        notes=("ranked signatures: only the order of the listed genes is known",),
    )


def _is_list(column: pd.Series) -> bool:
    return bool(column.dtype == object and column.astype(str).str.count(",").median() > 3)


def _long_columns(table: pd.DataFrame, key: str) -> tuple[str, str] | None:
    features = [c for c in _FEATURE_COLUMNS if c in table.columns and c != key]
    values = [c for c in table.columns if str(c).casefold() in _VALUE_COLUMNS]
    if len(features) >= 1 and len(values) == 1:
        return features[0], str(values[0])
    return None


def _long(table: pd.DataFrame, key: str, feature: str, value: str, path: Path) -> MeansTable:
    numbers = pd.to_numeric(table[value], errors="coerce")
    bad = numbers.isna() & table[value].notna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(
            f"{path}: row {row + 2}, {value} = {table[value].iloc[row]!r} is no number"
        )
    names = table[key].astype("category")
    genes = table[feature].astype("category")
    pair = names.cat.codes.to_numpy().astype(np.int64) * len(genes.cat.categories) + genes.cat.codes
    if pd.Series(pair).duplicated().any():
        row = int(pd.Series(pair).duplicated().to_numpy().argmax())
        raise InputError(
            f"{path}: {table[key].iloc[row]!r} and {table[feature].iloc[row]!r} occur together "
            "twice"
        )
    values = np.full((len(names.cat.categories), len(genes.cat.categories)), np.nan)
    values[names.cat.codes, genes.cat.codes] = numbers
    obs = pd.DataFrame({key: names.cat.categories.astype(str)})
    obs.index = pd.Index(obs[key], name=None)
    return MeansTable(
        values=values,
        obs=obs,
        features=tuple(map(str, genes.cat.categories)),
        facts={"source": path.name, "unit": f"{value} as in the file"},
        notes=(f"long table: {feature} x {value}; {int(np.isnan(values).sum())} pairs absent",),
    )


def _wide(table: pd.DataFrame, key: str, path: Path) -> MeansTable:
    features = []
    for column in table.columns:
        if column == key or column in _ROW_COLUMNS:
            continue
        values = table[column]
        if pd.api.types.is_bool_dtype(values):
            continue
        if pd.api.types.is_numeric_dtype(values):
            features.append(column)
            continue
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.notna().mean() > 0.5:
            bad = (numbers.isna() & values.notna()).to_numpy()
            row = int(bad.argmax())
            raise InputError(
                f"{path}: {table[key].iloc[row]!r}, column {str(column)!r}: "
                f"{values.iloc[row]!r} is not a number"
            )
    if not features:
        raise InputError(f"{path} has no numeric column that could be a feature")
    return MeansTable(
        values=table[features].to_numpy(dtype=np.float64),
        obs=_obs(table, key, set(map(str, features))),
        features=tuple(map(str, features)),
        facts={"source": path.name},
    )


def _obs(table: pd.DataFrame, key: str, without: set[str]) -> pd.DataFrame:
    obs = table[[c for c in table.columns if str(c) not in without]].copy()
    if key not in PERTURBATION_KEYS:
        obs = obs.rename(columns={key: "perturbation"})
        key = "perturbation"
    obs.index = pd.Index(obs[key].astype(str), name=None)
    return obs
