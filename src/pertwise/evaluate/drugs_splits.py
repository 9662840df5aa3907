"""Regimes of drug prediction: who is held out, and the proof that nothing leaks.

Rows are (drug, line, dose) of a screen, named by `Screen.obs.index`. Splits depend on names and
the seed only. One compound under several names (salts, hydrates, stereoisomers) is one group.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._files import read_frame, read_toml, readable
from pertwise.errors import InputError
from pertwise.knowledge.drugs import DrugTable
from pertwise.knowledge.drugs_cells import CellTable
from pertwise.predict.drugs_ridge import HoldOut, group_folds
from pertwise.screen.core import Screen

#: Regime -> what is held out, in words for reports.
REGIMES: Mapping[str, str] = {
    "unseen drug": "closed world: all lines of a fifth of the compounds are held out",
    "unseen line": "closed world: all drugs of a fifth of the lines are held out",
    "open world": "(drug, line) pairs are held out; the drug may be measured in other lines",
    "scaffold": "all compounds of a fifth of the Murcko scaffolds are held out",
    "dose": "the highest dose of every drug is held out",
    "given": "lines and pairs named in a TOML split file are held out",
}
#: What the inner folds of a tuned method hold out in each regime.
INNER: Mapping[str, HoldOut] = {
    "unseen drug": "drug",
    "scaffold": "drug",
    "unseen line": "line",
    "given": "line",
    "open world": "pair",
    "dose": "pair",
}


@dataclass(frozen=True)
class DrugSplit:
    """Training and test rows (names of `Screen.obs.index`), disjoint."""

    regime: str
    seed: int
    fold: int
    train: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, screen: Screen) -> tuple[Screen, Screen]:
        """The training and the test screen."""
        position = {name: i for i, name in enumerate(screen.obs.index)}
        return (
            screen.take(np.array([position[n] for n in self.train], dtype=int)),
            screen.take(np.array([position[n] for n in self.test], dtype=int)),
        )


def make_splits(
    screen: Screen,
    regime: str,
    table: DrugTable,
    *,
    n_folds: int = 5,
    seed: int = 0,
    by_compound: bool = True,
    toml: str | os.PathLike[str] | None = None,
    cells: CellTable | None = None,
) -> list[DrugSplit]:
    """The splits of one regime, checked for leaks.

    Parameters
    ----------
    n_folds
        With fewer lines than that, the unseen-line regime leaves out one line at a time.
    by_compound
        False lets a salt stand on the other side from its base, as the published scores do: only
        to compare with them. The leak check then allows exactly that.

    Raises
    ------
    pertwise.errors.InputError
        For an unknown regime, too few groups for the folds, or a regime the screen cannot have.
    """
    if regime == "given":
        if toml is None:
            raise InputError("the regime 'given' needs a TOML split file (split = ...)")
        splits = [read_toml_split(toml, screen, cells)]
    elif regime == "dose":
        splits = [_dose_split(screen)]
    else:
        groups = _groups(screen, regime, table, by_compound)
        if regime == "unseen line" and len(set(groups)) > 1:
            n_folds = min(n_folds, len(set(groups)))
        if len(set(groups)) < n_folds:
            raise InputError(
                f"regime {regime!r}: {len(set(groups))} groups are too few for {n_folds} folds"
            )
        fold = group_folds(groups, n_folds, seed)
        splits = [_split(screen, regime, seed, f, fold == f) for f in range(n_folds)]
    for split in splits:
        if by_compound or regime in ("unseen line", "given", "dose"):
            check_leaks(split, screen, table)
    return splits


def _groups(screen: Screen, regime: str, table: DrugTable, by_compound: bool) -> list[str]:
    drugs, lines = list(screen.obs["perturbation"]), list(screen.obs["context"])
    if regime == "unseen line":
        return lines
    if regime == "scaffold":
        cards = {d: table.cards.get(d) for d in set(drugs)}
        return [c.scaffold if (c := cards[d]) is not None else f"name:{d}" for d in drugs]
    compounds = table.compounds(drugs) if by_compound else {d: d for d in drugs}
    if regime == "unseen drug":
        return [compounds[d] for d in drugs]
    if regime == "open world":
        return [f"{compounds[d]}\t{c}" for d, c in zip(drugs, lines, strict=True)]
    raise InputError(f"unknown regime {regime!r}; choose from {list(REGIMES)}")


def _split(screen: Screen, regime: str, seed: int, fold: int, held: NDArray[np.bool_]) -> DrugSplit:
    names = screen.obs.index.to_numpy(dtype=object)
    return DrugSplit(regime, seed, fold, tuple(names[~held]), tuple(names[held]))


def _dose_split(screen: Screen) -> DrugSplit:
    """Hold out each (drug, line)'s highest dose where a lower one was measured too."""
    keys = [screen.obs["perturbation"], screen.obs["context"]]
    dose = screen.obs["dose"]
    held = (dose == dose.groupby(keys).transform("max")) & (
        dose.groupby(keys).transform("nunique") > 1
    )
    if not held.any():
        raise InputError("no drug was measured at two doses in one line: no dose to extrapolate to")
    return _split(screen, "dose", 0, 0, held.to_numpy())


def check_leaks(split: DrugSplit, screen: Screen, table: DrugTable) -> None:
    """Raise when something held out is also trained on, under any of its names.

    Unseen drug, scaffold: no compound on both sides. Unseen line, given: no held-out (compound,
    line). Open world: no (compound, line) pair. Dose: no (drug, line, dose) row.

    Raises
    ------
    pertwise.errors.InputError
        Names the first compound that leaks with the names it has on either side.
    """
    shared = set(split.train) & set(split.test)
    if shared:
        raise InputError(f"row {sorted(shared)[0]!r} is in both training and test")
    if split.regime == "dose":
        return
    compounds = table.compounds(screen.perturbations)
    obs = screen.obs.assign(compound=screen.obs["perturbation"].map(compounds))
    by_drug = split.regime in ("unseen drug", "scaffold")
    columns = ["compound"] if by_drug else ["compound", "context"]
    train, test = obs.loc[list(split.train)], obs.loc[list(split.test)]
    seen = set(train[columns].itertuples(index=False, name=None))
    for row in test[columns].drop_duplicates().itertuples(index=False, name=None):
        if row in seen:
            left = sorted(set(train.loc[train["compound"] == row[0], "perturbation"]))
            right = sorted(set(test.loc[test["compound"] == row[0], "perturbation"]))
            raise InputError(
                f"{split.regime}: one compound is on both sides: {left} in training, {right} held "
                "out; group by parent compound (DrugTable.compounds)"
            )


def read_toml_split(
    path: str | os.PathLike[str], screen: Screen, cells: CellTable | None = None
) -> DrugSplit:
    """Tahoe/STATE split files: ``[zeroshot] "dataset.LINE" = "test"`` and ``[fewshot]`` lists.

    Lines may be Cellosaurus identifiers, which `cells` (or a ``cellosaurus`` column of the screen)
    turns into names; perturbations may be written as ``[('Drug', 5.0, 'uM')]``. "val" rows count
    as test.

    Raises
    ------
    pertwise.errors.InputError
        If the file is not TOML, has neither section, or names no line of the screen.
    """
    file = Path(path)
    data = read_toml(file)
    zero, few = data.get("zeroshot", {}), data.get("fewshot", {})
    if not zero and not few:
        raise InputError(f"{file}: neither [zeroshot] nor [fewshot] holds anything out")
    obs = screen.obs
    held = np.zeros(len(obs), dtype=bool)
    unknown = []
    for key, part in zero.items():
        line = _line_name(key, screen, cells)
        if line is None:
            unknown.append(key)
        elif str(part) in ("test", "val"):
            held |= (obs["context"] == line).to_numpy()
    for key, parts in few.items():
        line = _line_name(key, screen, cells)
        if line is None:
            unknown.append(key)
            continue
        for part in ("test", "val"):
            wanted = [parse_condition(p) for p in parts.get(part, [])]
            for drug, dose in wanted:
                rows = (obs["context"] == line) & (obs["perturbation"] == drug)
                held |= (rows if np.isnan(dose) else rows & (obs["dose"] == dose)).to_numpy()
    if not held.any():
        raise InputError(
            f"{file}: none of its lines ({[*zero, *few][:5]}) holds a row; the screen has lines "
            f"{list(screen.contexts)[:5]} (identifiers need a table of cell lines)"
        )
    if held.all():
        raise InputError(f"{file}: holds out every row; nothing is left to train on")
    return _split(screen, "given", 0, 0, held)


def _line_name(key: str, screen: Screen, cells: CellTable | None) -> str | None:
    """A line of the screen for "dataset.LINE", a plain name or an identifier."""
    for name in (key, key.partition(".")[2]):
        if name in screen.contexts:
            return name
        if name and "cellosaurus" in screen.obs:
            rows = screen.obs.loc[screen.obs["cellosaurus"] == name, "context"]
            if len(rows):
                return str(rows.iloc[0])
        known = cells.resolve(name) if cells is not None and name else None
        if known in screen.contexts:
            return known
    return None


def parse_condition(text: str) -> tuple[str, float]:
    """``[('Drug', 5.0, 'uM')]`` -> ("Drug", 5.0); a plain name has dose NaN."""
    if text.startswith("[("):
        try:
            parsed: Any = ast.literal_eval(text)
            return str(parsed[0][0]).strip(), float(parsed[0][1])
        except (ValueError, SyntaxError, IndexError, TypeError) as error:
            raise InputError(
                f"condition {text!r} is not of the form [('Drug', dose, unit)]"
            ) from error
    return text.strip(), float("nan")


def read_effect_table(path: str | os.PathLike[str]) -> Screen:
    """A lines x conditions table of effect sizes (E-distance) as a screen of log2 values.

    Columns ``[('Drug', dose, 'uM')]``, rows cell lines (public counterpart: the E-distances to
    same-plate controls of Tahoe-100M). Perturbation = drug, dose = dose, features = lines; zero or
    negative distances (no effect beyond sampling) take the smallest positive one of their line.

    Raises
    ------
    pertwise.errors.InputError
        If a column is no condition or there is no number.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    frame = read_frame(file, "a table of effect sizes", sep="\t", index_col=0)
    conditions = [parse_condition(str(c)) for c in frame.columns]
    bad = [c for c, (_, dose) in zip(frame.columns, conditions, strict=True) if np.isnan(dose)]
    if bad:
        raise InputError(f"{file}: column {bad[0]!r} is not of the form [('Drug', dose, unit)]")
    with readable(file, "a table of numbers"):
        values = frame.to_numpy(dtype=np.float64)
    positive = np.where(values > 0, values, np.nan)
    if not np.isfinite(positive).any(axis=1).all():
        raise InputError(f"{file}: a line has no positive effect size")
    floor = np.nanmin(positive, axis=1, keepdims=True)
    logs = np.log2(np.where(np.isfinite(values), np.maximum(values, floor), np.nan)).T
    table = pd.DataFrame(conditions, columns=["perturbation", "dose"]).assign(
        context="all lines", n_cells=np.nan, sampling_variance=np.nan
    )
    table = table[["perturbation", "context", "dose", "n_cells", "sampling_variance"]]
    table.index = pd.Index([f"{p}|{d:g}" for p, d in conditions])
    return Screen(
        responses=logs.astype(np.float32),
        obs=table,
        features=tuple(map(str, frame.index)),
        control_mean=np.full((1, len(frame)), np.nan, dtype=np.float32),
        meta={"source": file.name, "unit": "log2 energy distance to same-plate controls"},
    )


def duplicate_drugs(screen: Screen, table: DrugTable) -> Sequence[str]:
    """Drugs of the screen that share their compound with another name."""
    return [name for group in table.duplicates(screen.perturbations) for name in group]
