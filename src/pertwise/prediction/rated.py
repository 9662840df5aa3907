"""`Rated`: marks of one or several contexts with their agreement, and the files of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import pandas as pd

from pertwise._files import read_json_object
from pertwise._io import (
    csv_lines,
    sha256_file,
    why_not,
    write_csv_atomic,
    write_json_atomic,
)
from pertwise._shown import Shown
from pertwise._together import finish, together
from pertwise.errors import InputError
from pertwise.knowledge.agreement import low_agreement
from pertwise.knowledge.programs import Program, program_table, write_programs
from pertwise.knowledge.ratings import Ratings, write_ratings
from pertwise.provenance import input_facts, record
from pertwise.select.base import Repair
from pertwise.select.rater import Marked

if TYPE_CHECKING:
    from pertwise.select.chat.sheets import Answered

#: Endings of the files beside the table.
BESIDE = ("replicates.csv", "agreement.csv", "programs.csv", "json")


@dataclass(frozen=True, repr=False)
class Rated(Shown):
    """What a rater said.

    Attributes
    ----------
    marked
        One a context.
    programs
        What was asked, in any context.
    min_agreement
        Rank correlation between replicates below which a program is left out; None: none is.
    notes
        What a person must know.
    inputs
        Files that the questions rest on.
    """

    marked: tuple[Marked, ...]
    programs: tuple[Program, ...]
    min_agreement: float | None = None
    notes: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def left_out(self) -> dict[str, list[str]]:
        """context -> programs on which replicates agree less than `min_agreement`."""
        if self.min_agreement is None:
            return {}
        found = {m.ratings.context: low_agreement(m.agreement, self.min_agreement)
                 for m in self.marked}  # fmt: skip
        return {context: programs for context, programs in found.items() if programs}

    @property
    def asked_anew(self) -> dict[str, dict[str, list[float | None]]]:
        """context -> program -> [agreement before, after] of those that were asked anew."""
        return {
            m.ratings.context: dict(m.provenance["asked_anew"]["programs"])
            for m in self.marked
            if "asked_anew" in m.provenance
        }

    @cached_property
    def ratings(self) -> tuple[Ratings, ...]:
        """One `Ratings` a context, mean over replicates, without the programs left out."""
        return tuple(
            r.of([p for p in r.programs if p not in self.left_out.get(r.context, ())])
            for r in (m.ratings for m in self.marked)
        )

    @property
    def table(self) -> pd.DataFrame:
        """All contexts in one table, as `write` writes it."""
        return pd.concat([r.table for r in self.ratings], ignore_index=True)

    @property
    def agreement(self) -> pd.DataFrame:
        """context, program, n, spearman, mean_absolute_difference; empty with one replicate."""
        tables = [m.agreement.assign(context=m.ratings.context) for m in self.marked]
        found = pd.concat(tables, ignore_index=True)
        return found[["context", *(c for c in found if c != "context")]]

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """Everything that was corrected, asked again or left empty."""
        return tuple(r for m in self.marked for r in m.repairs)

    def repair_counts(self) -> dict[str, int]:
        """How often each kind of repair was needed."""
        return dict(Counter(r.kind for r in self.repairs))

    @property
    def n_marks(self) -> tuple[int, int]:
        """(marks given, marks asked for), replicates counted."""
        every = [r.marks for m in self.marked for r in m.replicates]
        return int(sum(np.isfinite(x).sum() for x in every)), sum(x.size for x in every)

    def write(self, out: str | os.PathLike[str]) -> dict[str, Path]:
        """Write the table, and beside it what it rests on, each atomically.

        OUT.csv has one row a perturbation and context (`read_ratings` reads it);
        OUT.programs.csv the definitions; OUT.json settings, versions, repairs and answers; with
        replicates OUT.replicates.csv the marks of each and OUT.agreement.csv their agreement.

        Raises
        ------
        pertwise.errors.InputError
            As `check_out`; when replicates agree on no program (what each said is written).
        """
        check_out(out)
        path = Path(out)
        ends = BESIDE if len(self.marked[0].replicates) > 1 else BESIDE[2:]
        files = {"table": path, **{end: path.with_suffix(f".{end}") for end in ends}}
        kept = any(r.programs for r in self.ratings)
        with together(path.parent, path.name) as stage:
            here = {what: stage / file.name for what, file in files.items()}
            if "agreement.csv" in here:
                write_csv_atomic(here["replicates.csv"], self.replicates, errors="replace")
                write_csv_atomic(here["agreement.csv"], self.agreement)
            write_programs(here["programs.csv"], self.programs)
            if kept:
                write_ratings(here["table"], self.ratings)
                write_json_atomic(here["json"], self.record(here["table"]))
        if not kept:
            raise InputError(
                f"replicates agree on no program (at least {self.min_agreement:g} is asked for): "
                f"no table is written; what each said is in {files['replicates.csv']}"
            )
        for end in BESIDE[: -len(ends)]:
            # Of an earlier run under this name.
            path.with_suffix(f".{end}").unlink(missing_ok=True)
        return files

    @property
    def replicates(self) -> pd.DataFrame:
        """Long table: the marks of every replicate, which counts from 1."""
        return pd.concat(
            [
                _numbered(r.table, number)
                for m in self.marked
                for number, r in enumerate(m.replicates, start=1)
            ],
            ignore_index=True,
        )

    def record(self, path: Path) -> dict[str, Any]:
        """How the table was made; ``sha256`` is that of the table as written."""
        repairs = [vars(r) for r in self.repairs]
        return record(
            {"min_agreement": self.min_agreement},
            {role: input_facts(given) for role, given in self.inputs.items()},
            sha256=sha256_file(path),
            programs=program_table(self.programs).to_dict("records"),
            contexts=[{"context": m.ratings.context, **m.provenance} for m in self.marked],
            left_out=self.left_out,
            agreement=self.agreement.to_dict("records"),
            marks=dict(zip(("given", "asked"), self.n_marks, strict=True)),
            repair_counts=self.repair_counts(),
            repairs=repairs,
            notes=self.notes,
        )


def _numbered(table: pd.DataFrame, number: int) -> pd.DataFrame:
    table.insert(2, "replicate", number)
    return table


def check_out(out: str | os.PathLike[str]) -> None:
    """Refuse a place where a table would be lost that a person made or changed.

    Raises
    ------
    pertwise.errors.InputError
        When `out` is no .csv, or holds something else than what was written there last.
    """
    path = Path(out)
    if path.suffix.casefold() != ".csv":
        raise InputError(f"{path}: a table of marks is a .csv file; name it so")
    finish(path.parent, path.name)
    if not path.exists():
        return
    beside = path.with_suffix(".json")
    known = read_json_object(beside, "the record of a table") if beside.is_file() else {}
    if known.get("sha256") != sha256_file(path):
        raise InputError(
            f"{path} is not what `pertwise rate` wrote there, or was changed since; name another "
            "place, so that nothing made by hand is lost"
        )


def write_template(
    out: str | os.PathLike[str], names: Mapping[str, Sequence[str]], programs: Mapping[str, Any]
) -> dict[str, Path]:
    """An empty table for a person to fill in, and the definitions of its programs beside it.

    Parameters
    ----------
    names, programs
        context -> perturbations, and programs.

    Raises
    ------
    pertwise.errors.InputError
        When there is a file of that name.
    """
    path = Path(out)
    files = {"table": path, "programs.csv": path.with_suffix(".programs.csv")}
    if path.suffix.casefold() != ".csv":
        raise InputError(f"{path}: a table of marks is a .csv file; name it so")
    there = next((f for f in files.values() if f.exists()), None)
    if there is not None:
        raise InputError(f"{there} is there already; name another place, or delete it")
    path.parent.mkdir(parents=True, exist_ok=True)
    every = list({p.name: p for group in programs.values() for p in group}.values())
    columns = [p.name for p in sorted(every, key=lambda p: not p.signed)]
    frame = pd.concat(
        [pd.DataFrame({"perturbation": list(group), "context": c}) for c, group in names.items()],
        ignore_index=True,
    ).reindex(columns=["perturbation", "context", *columns, "reason"])
    write_csv_atomic(path, frame)
    write_programs(files["programs.csv"], every)
    return files


class PartialTable:
    """OUT.partial.csv: the rows answered so far, while a run goes on; gone when it is done.

    A table with a column ``replicate`` that `read_ratings` reads.
    """

    def __init__(self, out: str | os.PathLike[str], programs: Sequence[Program]) -> None:
        self.path = Path(out).with_suffix(".partial.csv")
        self._columns = ["perturbation", "context", "replicate", *(p.name for p in programs)]
        self._columns += ["reason"]
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def done(self) -> None:
        """The whole table is written: this one goes."""
        self.path.unlink(missing_ok=True)

    def add(self, answer: Answered) -> None:
        """Append the rows of a question."""
        asked, sheet = answer.question, answer.sheet
        frame = pd.DataFrame(sheet.marks, columns=[p.name for p in asked.programs])
        frame["perturbation"], frame["context"] = list(asked.names), asked.context
        frame["replicate"] = asked.replicate + 1
        said = answer.reasons
        frame["reason"] = [said.get(n, "") for n in asked.names]
        first = self._file is None
        try:
            if self._file is None:
                # The file of a run before this one stays until there is an answer to put there.
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("wb", buffering=0)
            self._file.write(csv_lines(frame.reindex(columns=self._columns), header=first))
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {why_not(error)}") from error
