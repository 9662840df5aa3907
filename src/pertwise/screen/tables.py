"""Plain tables (csv, tsv, parquet) of perturbations x features, long tables, ranked signatures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pertwise._tables import check_widths, read_frame
from pertwise.errors import InputError, unknown_name
from pertwise.screen.columns import is_row_column
from pertwise.screen.detables import de_columns, of_contrast
from pertwise.screen.labels import control_kind
from pertwise.screen.layouts import PERTURBATION_KEYS
from pertwise.screen.read import MeansTable

_FEATURE_COLUMNS = ("gene", "feature", "symbol", "gene_name", "target", "readout")
#: What is written where a number was meant.
_NUMBER_LIKE = r"[+\-−]?[\d.,'’]*(?:[eE][+\-]?\d+)?%?|--|#(?:N/A|DIV/0!|VALUE!|REF!|NUM!)"
#: Controls that are no reporter (EGFP, LacZ), which may be measured.
_UNPERTURBED = re.compile("non?target|controls?|ctrls?|ctl|nt|neg|nc|scr|dmso|vehicle|un|mock|safe")
_VALUE_COLUMNS = ("value", "delta", "logfc", "log2fc", "lfc", "label", "score", "z", "effect")


def read_table(path: Path, perturbation_key: str | None = None) -> MeansTable:
    """Read a wide, long or ranked table.

    * wide: one row per perturbation; text columns (and known ones such as ``dose``, ``n_cells``)
      describe the row, the numeric columns are features; the perturbation is a recognised column
      or else the first column of text.
    * long: a perturbation column, a ``gene`` (``feature``) column and one value column
      (``value``, ``delta``, ``logfc``, ``label`` ...); pairs that are absent are NaN.
    * ranked: a column of comma-separated genes, best first. Rank r of L becomes 1 - (r - 0.5)/L,
      genes outside the list 0: an ordinal score, no magnitude (``meta["unit"]`` says so).
    * tables of differential expression of several perturbations (DESeq2, edgeR, limma, scanpy,
      Seurat): pivoted by their log fold change.

    Raises
    ------
    pertwise.errors.InputError
        If the table cannot be parsed, a column occurs twice, or a value is not a number.
    """
    table = read_frame(path)
    if not len(table) or not len(table.columns):
        raise InputError(f"{path} is an empty table")
    said = tuple(table.attrs["notes"])
    found = de_columns(table, perturbation_key, path)
    if found is not None:
        named = {n: of_contrast(n) for n in map(str, table[found.perturbation].dropna().unique())}
        if any(name != label for label, name in named.items()):
            said += ("contrasts with a control, read as what was perturbed",)
            labels = table[found.perturbation].astype(object).map(named, na_action="ignore")
            table = table.assign(**{found.perturbation: labels})
        made = _long(table, found.perturbation, found.feature, found.value, path)
        facts = {**made.facts, "deltas": True, "unit": f"{found.value} of {found.tool}"}
        return replace(made, facts=facts, notes=(*said, f"read as {found.tool}", *made.notes))
    key = _perturbation_column(table, perturbation_key, path)
    ranked = _ranked_column(table, key)
    long = _long_columns(table, key)
    if ranked is not None:
        made = _ranked(table, key, ranked, path)
    elif long is not None:
        made = _long(table, key, *long, path)
    else:
        made = _wide(table, key, path)
    return replace(made, notes=(*said, *made.notes))


def _perturbation_column(table: pd.DataFrame, wanted: str | None, path: Path) -> str:
    if wanted is not None:
        if wanted not in table.columns:
            raise unknown_name("column", wanted, map(str, table.columns), f"in {path}")
        return wanted
    # Beside a drug, the gene is what was measured.
    for name in sorted(PERTURBATION_KEYS, key=lambda k: k == "gene"):
        if name in table.columns and not pd.api.types.is_numeric_dtype(table[name]):
            return name
    first = str(table.columns[0])
    if pd.api.types.is_numeric_dtype(table[table.columns[0]]):
        raise InputError(
            f"{path}: the first column {first!r} holds numbers, not perturbation names; name the "
            "column of perturbations with --perturbation-key"
        )
    return first


def _ranked_column(table: pd.DataFrame, key: str) -> str | None:
    for name in table.columns:
        text = pd.api.types.is_string_dtype(table[name].dtype)
        if text and str(name) != key and "ranked" in str(name).casefold():
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
    text = not pd.api.types.is_numeric_dtype(column)
    return text and bool(column.astype(str).str.count(",").median() > 3)


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
    key = key if key in PERTURBATION_KEYS else "perturbation"
    obs = pd.DataFrame({key: names.cat.categories.astype(str)})
    obs.index = pd.Index(obs[key], name=None)
    return MeansTable(
        values=values,
        obs=obs,
        features=tuple(map(str, genes.cat.categories)),
        # Labels and signs (1, 0, -1) are of changes: there is no control to subtract.
        facts={
            "source": path.name,
            "unit": f"{value} as in the file",
            "deltas": _labels(value, numbers),
        },
        notes=(f"long table: {feature} x {value}; {int(np.isnan(values).sum())} pairs absent",),
    )


def _labels(column: str, numbers: pd.Series) -> bool:
    return column.casefold() == "label" and bool(numbers.dropna().isin((-1, 0, 1)).all())


def _wide(table: pd.DataFrame, key: str, path: Path) -> MeansTable:
    features, about, words = [], [], []
    for column in table.columns:
        if column == key:
            continue
        values = table[column]
        if is_row_column(column):
            about.append(str(column))
            continue
        if pd.api.types.is_bool_dtype(values):
            continue
        if pd.api.types.is_numeric_dtype(values):
            features.append(column)
            continue
        numbers = pd.to_numeric(values, errors="coerce")
        bad = (numbers.isna() & values.notna()).to_numpy()
        if numbers.notna().mean() > 0.5 or _meant_as_numbers(values):
            row = int(bad.argmax())
            raise InputError(
                f"{path}: {table[key].iloc[row]!r}, column {str(column)!r}: "
                f"{values.iloc[row]!r} is not a number (numbers have a decimal point and no mark "
                "of thousands; a gap is an empty field or NA)"
            )
        words.append(str(column))
    if not features:
        raise InputError(f"{path} has no numeric column that could be a feature")
    _refuse_long(table, key, features, path)
    _refuse_turned(table, key, path)
    if path.suffix != ".parquet" and table.iloc[:, -1].isna().any():
        check_widths(path)
    notes = (
        ("columns that describe the row, not features", about),
        ("columns of words, not features", words),
    )
    return MeansTable(
        values=table[features].to_numpy(dtype=np.float64),
        obs=_obs(table, key, set(map(str, features))),
        features=tuple(map(str, features)),
        facts={"source": path.name},
        notes=tuple(f"{what}: {', '.join(found[:20])}" for what, found in notes if found),
    )


def _meant_as_numbers(values: pd.Series) -> bool:
    """Whether all is written as numbers are somewhere: "1,234.5", "0,5", "12%", or as their gap."""
    said = values.dropna().astype(str).str.strip()
    return bool(said.str.fullmatch(_NUMBER_LIKE).all() and said.str.contains(r"\d").any())


def _refuse_turned(table: pd.DataFrame, key: str, path: Path) -> None:
    """A column of values called like a control, and no such row: genes are the rows."""
    columns = [
        str(c)
        for c in table.columns
        if c != key
        and pd.api.types.is_numeric_dtype(table[c])
        and _UNPERTURBED.match(control_kind(str(c)))
        # Zeros and ones mark rows.
        and not (table[c].isin((0, 1)).all() and table[c].any())
    ]
    if not columns or any(control_kind(str(n)) for n in table[key].unique()):
        return
    column = columns[0]
    raise InputError(
        f"{path}: the column {column!r} is called like a control and no row is: if columns are "
        "perturbations and rows are genes, turn the table round (one row for each perturbation); "
        f"if {column!r} is a measured feature, call it otherwise; if it marks the control rows, "
        "call it 'is_control'"
    )


def _refuse_long(table: pd.DataFrame, key: str, features: list[str], path: Path) -> None:
    """A gene a row and several values each: which of them is the response?"""
    for name in (c for c in table.columns if str(c).casefold() in _FEATURE_COLUMNS and c != key):
        pairs = table[[key, name]]
        if pairs.duplicated().any() or table[key].nunique() > len(table) / 2:
            continue
        raise InputError(
            f"{path} is a long table ({key!r} x {name!r}) with {len(features)} columns of values "
            f"({', '.join(map(str, features[:5]))}): keep the one that is the response and name it "
            "'value'"
        )


def _obs(table: pd.DataFrame, key: str, without: set[str]) -> pd.DataFrame:
    obs = table[[c for c in table.columns if str(c) not in without]].copy()
    if key not in PERTURBATION_KEYS:
        obs = obs.rename(columns={key: "perturbation"})
        key = "perturbation"
    obs.index = pd.Index(obs[key].astype(str), name=None)
    return obs
