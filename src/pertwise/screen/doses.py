"""Doses of rows, and the unit that they share."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.screen.flags import GAP

if TYPE_CHECKING:
    from pertwise.screen.layouts import Layout

#: Columns that name the unit of doses.
UNIT_KEYS = (
    "dose_unit", "dose_units", "dose_value_unit", "dose_val_unit", "pert_dose_unit", "conc_unit",
    "conc_units", "concentration_unit", "concentration_units",
)  # fmt: skip


def fold_unit(unit: str) -> str:
    """One spelling of a unit: "µM", "μM" and "uM" are "um"."""
    return unicodedata.normalize("NFKC", unit).strip().casefold().replace("μ", "u")


def dose_unit(obs: pd.DataFrame, dose: str, perturbed: NDArray[np.bool_], where: str) -> str:
    """The unit of all doses that are given, "" when no column says.

    Parameters
    ----------
    dose
        Name of the column of doses, "" for none.
    perturbed
        (n_rows,) rows that count: controls may state any unit.

    Raises
    ------
    pertwise.errors.InputError
        If there are several: 1 uM and 500 nM would be compared as 1 and 500.
    """
    column = next((c for c in UNIT_KEYS if c in obs.columns), "") if dose else ""
    if not column:
        return ""
    given = obs.loc[perturbed & obs[dose].notna().to_numpy(), column]
    units = {fold_unit(u): u for u in map(str, given.dropna().unique())}
    units = {folded: unit for folded, unit in units.items() if folded not in GAP}
    if len(units) > 1:
        raise InputError(
            f"{where}: doses of {dose!r} are in different units ({column!r}: "
            f"{', '.join(sorted(units.values()))}), and numbers alone would be compared; give all "
            'in one unit, or choose another column with --dose-key ("" for none)'
        )
    return next(iter(units.values()), "")


def read_doses(
    obs: pd.DataFrame, layout: Layout, perturbed: NDArray[np.bool_], where: str
) -> NDArray[np.float64]:
    """(n_rows,) doses as numbers, NaN where none is given.

    Raises
    ------
    pertwise.errors.InputError
        For a dose that is no number, or negative in a row of `perturbed`.
    """
    if not layout.dose:
        return np.full(len(obs), np.nan)
    column = obs[layout.dose]
    numbers = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=float)
    bad = np.isnan(numbers) & column.notna().to_numpy() & (column.astype(str) != "nan").to_numpy()
    other = 'choose another column with --dose-key, or --dose-key "" for none'
    if bad.any():
        raise InputError(
            f"{where}: dose {str(column.iloc[int(bad.argmax())])!r} in column {layout.dose!r} is "
            f"not a number; write all doses as numbers in one unit, or {other}"
        )
    below = perturbed & (numbers < 0)
    if below.any():
        raise InputError(
            f"{where}: dose {numbers[below][0]:g} in column {layout.dose!r} is negative; give "
            f"concentrations (10^x if these are logarithms), or {other}"
        )
    return np.asarray(numbers)
