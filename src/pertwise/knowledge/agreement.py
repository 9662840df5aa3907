"""How far two sets of marks agree, program by program."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.knowledge.ratings import Ratings

#: Perturbations that both must have marked before a correlation says anything.
LEAST = 3


def agreement(a: Ratings, b: Ratings) -> pd.DataFrame:
    """Agreement of two sets of marks over the perturbations and programs that both hold.

    Returns
    -------
    One row a shared program, in the order of `a`: ``program``, ``n`` (perturbations that both
    marked), ``spearman`` (rank correlation, ties share their mean rank; 0 where one of the two gave
    all the same mark, NaN where both did or n < `LEAST`), ``mean_difference`` (b - a) and
    ``mean_absolute_difference``.

    Raises
    ------
    pertwise.errors.InputError
        When they share no program or no perturbation.
    """
    programs = [p for p in a.programs if p in b.programs]
    shared = set(a.names) & set(b.names)
    names = [n for n in a.names if n in shared]
    if not programs or not names:
        what, one, other = (
            ("perturbation", a.names, b.names) if programs else ("program", a.programs, b.programs)
        )
        raise InputError(
            f"{a.source or 'the first'} and {b.source or 'the second'} share no {what}: "
            f"{', '.join(one[:5])} ... and {', '.join(other[:5])} ..."
        )
    left, right = a.of(programs).take(names), b.of(programs).take(names)
    rows = []
    for j, program in enumerate(programs):
        both = np.isfinite(left[:, j]) & np.isfinite(right[:, j])
        x, y = left[both, j], right[both, j]
        apart = (float((y - x).mean()), float(np.abs(y - x).mean())) if len(x) else (np.nan,) * 2
        rows.append((program, len(x), _spearman(x, y), *apart))
    columns = ["program", "n", "spearman", "mean_difference", "mean_absolute_difference"]
    return pd.DataFrame(rows, columns=columns)


def agreement_of(replicates: Sequence[Ratings]) -> pd.DataFrame:
    """Means of `agreement` over all pairs of replicates, in the order of the programs.

    One row a program: ``program``, ``n`` (fewest perturbations of a pair), ``spearman`` (mean over
    the pairs that have one) and ``mean_absolute_difference``; no row with a single replicate.
    """
    columns = ["program", "n", "spearman", "mean_absolute_difference"]
    tables = [agreement(a, b) for a, b in itertools.combinations(replicates, 2)]
    if not tables:
        return pd.DataFrame(columns=columns)
    by = pd.concat(tables).groupby("program", sort=False)
    found = by[columns[2:]].mean().assign(n=by["n"].min()).reset_index()
    return found[columns]


def low_agreement(table: pd.DataFrame, least: float) -> list[str]:
    """Programs of `agreement_of` whose correlation is below `least`; without one none is."""
    return list(table.loc[table["spearman"] < least, "program"])


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if len(x) < LEAST:
        return float("nan")
    varied = np.ptp(x) > 0, np.ptp(y) > 0
    if not all(varied):
        return 0.0 if any(varied) else float("nan")
    from scipy import stats

    return float(stats.spearmanr(x, y).statistic)
