"""Columns that say yes or no, in every way people write that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.errors import InputError

_YES = {"true", "t", "yes", "y", "1", "1.0"}
_NO = {"false", "f", "no", "n", "0", "0.0"}
GAP = {"", "nan", "none", "<na>", "na", "null"}


def texts(column: pd.Series) -> NDArray[Any]:
    """(n,) every value as text; a gap is "nan", "None" or "<NA>" in every version of pandas."""
    codes, values = pd.factorize(column.astype(object), use_na_sentinel=False)
    named = np.array([str(v) for v in values], dtype=object)
    return named[codes] if len(named) else named


#: What a caller of doublets writes for several cells, and for one or no call.
_SEVERAL = _YES | {"doublet", "doublets", "dbl", "multiplet", "multiplets", "multi"}
_ONE = _NO | GAP | {"singlet", "singlets", "sng", "single", "negative", "amb", "ambiguous"}


def doublet_flags(column: pd.Series, where: str) -> NDArray[np.bool_]:
    """(n_rows,) which rows a caller of doublets says are more than one cell; a gap says nothing.

    Raises
    ------
    pertwise.errors.InputError
        For a value that is neither.
    """
    said = texts(column)
    folded = {v: str(v).strip().casefold() for v in set(said)}
    for value, word in folded.items():
        if word not in _SEVERAL and word not in _ONE:
            raise InputError(
                f"{where}: {value!r} in the column of doublets {column.name!r} is neither a "
                "doublet nor a singlet; mend it, or do not look at it (--keep-doublets)"
            )
    return np.array([folded[v] in _SEVERAL for v in said], dtype=bool)


def read_flags(column: pd.Series, where: str) -> NDArray[np.float64]:
    """(n,) 1 for yes, 0 for no, NaN for a gap: booleans, 1/0, or text in any letter case.

    Raises
    ------
    pertwise.errors.InputError
        Names the file, the column and the first value that says neither.
    """
    values, codes = np.unique(texts(column), return_inverse=True)
    meaning = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        text = str(value).strip().casefold()
        if text in _YES or text in _NO:
            meaning[i] = float(text in _YES)
        elif text not in GAP:
            raise InputError(
                f"{where}: column {column.name!r} holds {value!r}, which is neither yes nor no; "
                "write true/false, yes/no or 1/0"
            )
    return np.asarray(meaning[codes])


def control_flags(
    column: pd.Series, labels: pd.Series, where: str, *, partial: bool = False
) -> tuple[str, ...]:
    """Labels that the rows of a yes-or-no column mark as controls; a gap marks nothing.

    With `partial`, the rows are some of many and may all be controls.

    Raises
    ------
    pertwise.errors.InputError
        If a label is marked in some rows and denied in others, or all labels are marked.
    """
    flags = read_flags(column, where)
    known = labels.notna().to_numpy() & ~np.isnan(flags)
    share = pd.Series(flags[known]).groupby(labels.to_numpy(dtype=object)[known]).mean()
    mixed = share.index[(share > 0) & (share < 1)]
    if len(mixed):
        raise InputError(
            f"{where}: column {column.name!r} marks some rows of {mixed[0]!r} as controls and "
            "others not; correct it, or name the control with --control"
        )
    marked = tuple(map(str, share.index[share == 1]))
    if marked and not partial and len(marked) == labels.nunique():
        raise InputError(
            f"{where}: column {column.name!r} marks every row as a control; correct it, or name "
            "the control with --control"
        )
    return marked
