"""`Ratings`: marks on a closed scale, perturbations x programs, from a model or a person.

The table is wide and plain, so that anyone can read, edit or fill it in by hand:

    perturbation,context,mitosis,cholesterol,...,strength,mitosis spread,...,reason

A mark is the direction of the program after the perturbation (sign) and how strong and certain that
is (size), from -3 to 3; ``strength`` is the size of the whole response, 0 to 3. An empty cell is a
mark that was not given, which is not the same as 0, "no change".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._io import write_csv_atomic
from pertwise._names import canonical_perturbation
from pertwise._shown import Shown
from pertwise._tables import columns_of, read_frame
from pertwise._text import one_line
from pertwise.errors import InputError

Floats = NDArray[np.float64]
#: Largest size of a mark, and of the strength, which has no sign.
SCALE = 3.0
#: The program that is the size of the whole response, and other names of its column.
STRENGTH = "strength"
_STRENGTHS = (STRENGTH, "str", "overall strength", "overall_strength")
#: What a column of perturbations is called.
SUBJECTS = ("perturbation", "gene", "drug", "compound", "symbol", "name")
_CONTEXTS = ("context", "cell", "cell_line", "cell_type")
_SPREAD = " spread"
_TEXTS = ("reason", "source")
_REPLICATE = "replicate"


@dataclass(frozen=True, repr=False)
class Ratings(Shown):
    """Marks of perturbations in one context.

    Attributes
    ----------
    names
        (n,) perturbations, sorted, without repeats.
    programs
        (p,) what was marked; ``strength`` last, where it was.
    marks
        (n, p) in [-3, 3], strength in [0, 3]; NaN where no mark was given.
    spread
        (n, p) standard deviation over replicates; NaN where there was one only.
    context
        Cells that the question was about; "" where it is not said.
    source
        Who marked: the model, or the file.
    reasons
        perturbation -> why, where it was said.
    """

    names: tuple[str, ...]
    programs: tuple[str, ...]
    marks: Floats
    spread: Floats = field(repr=False)
    context: str = ""
    source: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        shape = (len(self.names), len(self.programs))
        if self.marks.shape != shape or self.spread.shape != shape:
            raise InputError(
                f"marks {self.marks.shape} and spread {self.spread.shape} must be {shape}: "
                "perturbations x programs"
            )

    @classmethod
    def from_marks(
        cls,
        names: Sequence[str],
        programs: Sequence[str],
        marks: Floats,
        *,
        spread: Floats | None = None,
        context: str = "",
        source: str = "",
        reasons: Mapping[str, str] | None = None,
    ) -> Ratings:
        """Sorted and checked: marks in the scale, no name or program twice.

        Raises
        ------
        pertwise.errors.InputError
            Names the perturbation and program of a mark outside the scale.
        """
        values = np.asarray(marks, dtype=np.float64)
        given = np.full_like(values, np.nan) if spread is None else np.asarray(spread, float)
        _check_scale(source or "ratings", names, programs, values)
        for what, said in (("perturbation", names), ("program", programs)):
            twice = [n for n, k in pd.Series(list(said)).value_counts().items() if k > 1]
            if twice:
                raise InputError(f"{source or 'ratings'}: the {what} {twice[0]!r} occurs twice")
        rows = sorted(range(len(names)), key=lambda i: names[i])
        columns = sorted(range(len(programs)), key=lambda j: programs[j] == STRENGTH)
        at = np.ix_(rows, columns)
        return cls(
            tuple(names[i] for i in rows),
            tuple(programs[j] for j in columns),
            values[at],
            given[at],
            context,
            source,
            dict(reasons or {}),
        )

    def take(self, names: Sequence[str]) -> Floats:
        """(n_names, p) marks in the order asked for; NaN for what was not marked."""
        place = {n: i for i, n in enumerate(self.names)}
        out = np.full((len(names), len(self.programs)), np.nan)
        for row, name in enumerate(names):
            if name in place:
                out[row] = self.marks[place[name]]
        return out

    @property
    def strength(self) -> Floats:
        """(n,) size of the whole response: the mark of strength, else the root mean square of the
        others; NaN where none was given."""
        if STRENGTH in self.programs:
            return np.asarray(self.marks[:, self.programs.index(STRENGTH)])
        return np.asarray(np.sqrt(mean_and_spread(np.square(self.marks).T)[0]))

    def of(self, programs: Sequence[str]) -> Ratings:
        """The same marks of some programs only."""
        unknown = [p for p in programs if p not in self.programs]
        if unknown:
            raise InputError(
                f"{self.source}: no program {unknown[0]!r}; there are {', '.join(self.programs)}"
            )
        columns = [self.programs.index(p) for p in programs]
        return Ratings(
            self.names,
            tuple(programs),
            self.marks[:, columns],
            self.spread[:, columns],
            self.context,
            self.source,
            self.reasons,
        )

    def dealt(self, seed: int = 0) -> Ratings:
        """The control: the same profiles dealt to wrong perturbations, each one moved.

        What is left of a gain is not knowledge about perturbations.
        """
        order = np.random.default_rng(seed).permutation(len(self.names))
        rows = np.empty_like(order)
        rows[order] = np.roll(order, 1)
        return Ratings(
            self.names,
            self.programs,
            self.marks[rows],
            self.spread[rows],
            self.context,
            f"{self.source}, dealt to wrong perturbations",
        )

    def fingerprint(self) -> str:
        """Short hash of names, programs, marks and context: goes into records."""
        text = repr((self.names, self.programs, self.context)).encode()
        return hashlib.sha256(text + np.round(self.marks, 6).tobytes()).hexdigest()[:12]

    @property
    def table(self) -> pd.DataFrame:
        """One row a perturbation: perturbation, context, marks, spreads, reason."""
        frame = pd.DataFrame({"perturbation": list(self.names)})
        frame["context"] = self.context
        for j, program in enumerate(self.programs):
            frame[program] = self.marks[:, j]
        for j, program in enumerate(self.programs):
            if np.isfinite(self.spread[:, j]).any():
                frame[program + _SPREAD] = self.spread[:, j]
        if any(self.reasons.values()):
            frame["reason"] = [self.reasons.get(n, "") for n in self.names]
        frame["source"] = self.source
        return frame


def write_ratings(path: str | os.PathLike[str], ratings: Sequence[Ratings]) -> None:
    """Write tables of one or several contexts into one csv, atomically."""
    frame = pd.concat([r.table for r in ratings], ignore_index=True)
    write_csv_atomic(path, frame, index=False, errors="replace")


def read_ratings(path: str | os.PathLike[str]) -> tuple[Ratings, ...]:
    """Marks from a table that `pertwise rate` or a person wrote: one `Ratings` a context.

    The first column that is called perturbation, gene, drug, compound, symbol or name names the
    perturbation. Columns ``context``, ``reason``, ``source`` and ``replicate`` are what they say
    (replicates of a row are averaged), ``PROGRAM spread`` a standard deviation; every other column
    is a program.

    Raises
    ------
    pertwise.errors.InputError
        Names the file, row and column of a mark that is no number or outside the scale, a
        perturbation marked twice, or a table without programs.
    """
    file = Path(path)
    frame = read_frame(file)
    lower = {str(c).strip().casefold(): str(c) for c in frame.columns}
    subject = next((lower[n] for n in SUBJECTS if n in lower), None)
    if subject is None:
        raise InputError(
            f"{file}: no column of perturbations ({', '.join(SUBJECTS)}); there are "
            f"{columns_of(frame)}"
        )
    context = next((lower[n] for n in _CONTEXTS if n in lower and lower[n] != subject), None)
    other = {subject, context, *(lower.get(n) for n in (*_TEXTS, _REPLICATE))}
    programs = [str(c) for c in frame.columns if c not in other and not _is_spread(c, lower)]
    if not programs:
        raise InputError(f"{file}: no column of marks beside {columns_of(frame)}")
    named = [STRENGTH if _strength(p) else p for p in programs]
    if len(set(named)) < len(named):
        raise InputError(f"{file}: two columns are the strength: {columns_of(frame)}")
    missing = frame[subject].isna() | (frame[subject].astype(str).str.strip() == "")
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise InputError(f"{file}, row {row + 2}: no name in the column {subject!r}")
    names = [canonical_perturbation(str(n)) for n in frame[subject]]
    marks = np.column_stack([_numbers(file, frame, p, names) for p in programs])
    _check_scale(str(file), names, named, marks)
    spread = np.column_stack(
        [
            _numbers(file, frame, p + _SPREAD, names)
            if p + _SPREAD in frame
            else np.full(len(names), np.nan)
            for p in programs
        ]
    )
    where = _texts(frame, context)
    reasons, sources = _texts(frame, lower.get("reason")), _texts(frame, lower.get("source"))
    out = []
    for cells in dict.fromkeys(where):
        rows = [i for i, c in enumerate(where) if c == cells]
        found = _averaged(file, rows, names, marks, spread, _REPLICATE in lower)
        said = sorted({sources[i] for i in rows if sources[i]})
        out.append(
            Ratings.from_marks(
                found[0],
                named,
                found[1],
                spread=found[2],
                context=cells,
                source=", ".join(said) or file.name,
                reasons={names[i]: reasons[i] for i in rows if reasons[i]},
            )
        )
    return tuple(out)


def _averaged(
    file: Path,
    rows: Sequence[int],
    names: Sequence[str],
    marks: Floats,
    spread: Floats,
    replicates: bool,
) -> tuple[list[str], Floats, Floats]:
    """Names of some rows with mean and standard deviation of what was marked more than once."""
    groups: dict[str, list[int]] = {}
    for i in rows:
        groups.setdefault(names[i], []).append(i)
    if not replicates:
        twice = next((n for n, g in groups.items() if len(g) > 1), None)
        if twice is not None:
            lines = ", ".join(str(i + 2) for i in groups[twice])
            raise InputError(
                f"{file}: {twice!r} is marked twice (rows {lines}); keep one, or give a column "
                "'replicate' to have them averaged"
            )
    mean = np.full((len(groups), marks.shape[1]), np.nan)
    deviation = mean.copy()
    for row, group in enumerate(groups.values()):
        mean[row], deviation[row] = mean_and_spread(marks[group])
        if len(group) == 1:
            deviation[row] = spread[group[0]]
    return list(groups), mean, deviation


def mean_and_spread(marks: Floats) -> tuple[Floats, Floats]:
    """(r, p) marks of r replicates -> (p,) mean and (p,) standard deviation (n - 1).

    Missing marks are left out: NaN without any, and a NaN spread with fewer than two.
    """
    given = np.isfinite(marks)
    count = given.sum(axis=0)
    total = np.where(given, marks, 0.0).sum(axis=0)
    mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    square = np.where(given, (marks - np.where(count > 0, mean, 0.0)) ** 2, 0.0).sum(axis=0)
    variance = np.divide(square, count - 1, out=np.full(len(count), np.nan), where=count > 1)
    return mean, np.sqrt(variance)


def _strength(name: str) -> bool:
    return name.strip().casefold() in _STRENGTHS


def _is_spread(column: Any, lower: Mapping[str, str]) -> bool:
    text = str(column).casefold()
    return text.endswith(_SPREAD) and text.removesuffix(_SPREAD).strip() in lower


def _texts(frame: pd.DataFrame, column: str | None) -> list[str]:
    if column is None:
        return [""] * len(frame)
    return ["" if pd.isna(v) else str(v).strip() for v in frame[column]]


def _numbers(file: Path, frame: pd.DataFrame, column: str, names: Sequence[str]) -> Floats:
    values = pd.to_numeric(frame[column], errors="coerce")
    text = frame[column].astype(str).str.strip()
    wrong = values.isna() & frame[column].notna() & (text != "")
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{file}, row {row + 2} ({names[row]}): {one_line(text.iloc[row], 40)!r} in the column "
            f"{column!r} is no mark; give a number from -3 to 3, or leave it empty"
        )
    return np.asarray(values, dtype=np.float64)


def _check_scale(where: str, names: Sequence[str], programs: Sequence[str], marks: Floats) -> None:
    low = np.array([0.0 if p == STRENGTH else -SCALE for p in programs])
    wrong = np.argwhere((marks < low) | (marks > SCALE) | np.isinf(marks))
    if len(wrong):
        i, j = wrong[0]
        raise InputError(
            f"{where}: {names[i]}, {programs[j]}: {marks[i, j]:g} is outside the scale "
            f"({low[j]:g} to {SCALE:g})"
        )
