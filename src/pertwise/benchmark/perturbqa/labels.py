"""Label files of PerturbQA, and their training pairs as folds and as a screen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pertwise._files import open_text
from pertwise._tables import columns_of
from pertwise.errors import InputError
from pertwise.screen.core import make_screen

if TYPE_CHECKING:
    from pertwise.screen import Screen

TASKS = ("de", "dir")
COLUMNS = ("pert", "gene", "label", "split")


def read_labels(path: str | os.PathLike[str]) -> pd.DataFrame:
    """One csv (optionally .gz) of labelled pairs: pert, gene, label (0/1), split.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and the first row at fault: missing columns, labels other than 0 and 1, a
        pair listed twice, an empty name.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    # Gene symbols such as NA or NAN must stay text.
    with open_text(file, "a table of pairs") as text:
        table = pd.read_csv(text, dtype={"pert": str, "gene": str}, keep_default_na=False)
    missing = [c for c in COLUMNS if c not in table.columns]
    if missing:
        raise InputError(f"{file} lacks the columns {missing}; it has {columns_of(table)}")
    labels = pd.to_numeric(table["label"], errors="coerce")
    bad = ~labels.isin((0, 1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(f"{file} row {row + 2}: label {str(table['label'][row])!r} is not 0 or 1")
    table["label"] = labels.astype(np.int8)
    for column in ("pert", "gene"):
        empty = table[column].str.strip() == ""
        if empty.any():
            raise InputError(f"{file} row {int(np.flatnonzero(empty)[0]) + 2}: empty {column}")
    twice = table.duplicated(["pert", "gene"])
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        pert, gene = table.loc[row, "pert"], table.loc[row, "gene"]
        raise InputError(f"{file} row {row + 2}: the pair ({pert}, {gene}) is listed twice")
    return table[list(COLUMNS)]


def find_label_files(folder: str | os.PathLike[str]) -> dict[tuple[str, str], Path]:
    """(cell line, task) -> file, for files called ``k562-de.csv`` or ``k562-de.csv.gz``.

    Raises
    ------
    pertwise.errors.InputError
        If the folder does not exist or holds no such file.
    """
    where = Path(folder)
    if not where.is_dir():
        raise InputError(f"{where} is not a folder")
    found = {}
    for path in sorted(where.iterdir()):
        stem = path.name.removesuffix(".gz").removesuffix(".csv")
        line, _, task = stem.rpartition("-")
        if line and task in TASKS and path.name.startswith(f"{stem}.csv"):
            found[(line, task)] = path
    if not found:
        raise InputError(f"{where} holds no file called LINE-de.csv(.gz) or LINE-dir.csv(.gz)")
    return found


def inner_folds(
    train: pd.DataFrame, n_folds: int, rng: np.random.Generator
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Folds over the *knock-downs* of the training split, for tuning: (inner train, inner test).

    All pairs of a knock-down go to one side, as in the published split. The folds depend on the
    names and the seed, not on the order of the rows.
    """
    perts = np.array(sorted(set(train["pert"])), dtype=object)
    if not 2 <= n_folds <= len(perts):
        raise InputError(f"n_folds must be between 2 and {len(perts)} knock-downs, got {n_folds}")
    for part in np.array_split(rng.permutation(perts), n_folds):
        held_out = train["pert"].isin(set(part))
        yield train[~held_out], train[held_out]


def labels_screen(train: pd.DataFrame, task: str, context: str = "") -> Screen:
    """Training labels as a screen, so that any `Predictor` can be fitted to them.

    Rows are knock-downs, features genes; `de` labels stay 0/1, `dir` labels become -1/+1; a pair
    without a label is NaN (not measured).
    """
    perts, genes = pd.Index(sorted(set(train["pert"]))), pd.Index(sorted(set(train["gene"])))
    x = np.full((len(perts), len(genes)), np.nan, dtype=np.float32)
    value = train["label"].to_numpy(dtype=np.float32)
    if task == "dir":
        value = 2 * value - 1
    x[perts.get_indexer(train["pert"]), genes.get_indexer(train["gene"])] = value
    return make_screen(x, list(perts), list(genes), context=context, meta={"unit": f"{task} label"})
