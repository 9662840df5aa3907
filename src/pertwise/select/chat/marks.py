"""`Sheet`: the marks of one question, checked answer by answer: pure, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pertwise._text import in_prompt, one_line
from pertwise.knowledge.programs import Program
from pertwise.knowledge.ratings import SCALE, Floats
from pertwise.llm.answers import MarkedRow, MarksAnswer
from pertwise.llm.converse import COMPLETE
from pertwise.select.base import Repair
from pertwise.select.closed_list import ClosedList, Resolver, quoted

#: Where one row in so many is outside the scale, the whole answer is on another one.
OTHER_SCALE = 4
#: Items of each kind that a re-ask names.
SHOWN = 20


class Sheet:
    """An empty table of names x programs that answers fill in.

    A valid mark stays once it is given; a later answer fills in what lacks. A row with a mark
    outside the scale loses all its marks, for the others may be on another scale too, as may a row
    whose strength is below 0: its columns may be swapped. Where that is every fourth row, no row of
    the answer counts. A name that is marked twice counts only if both rows say the same.

    Attributes
    ----------
    marks
        (n_names, n_programs), NaN where nothing usable was said.
    reasons
        name -> sentence.
    repairs
        What was wrong with the answers so far, in order.
    """

    def __init__(
        self,
        names: Sequence[str],
        programs: Sequence[Program],
        resolve: Resolver | None = None,
    ) -> None:
        self.names, self.programs = tuple(names), tuple(programs)
        self.marks: Floats = np.full((len(self.names), len(self.programs)), np.nan)
        self.reasons: dict[str, str] = {}
        self.repairs: list[Repair] = []
        self._list = ClosedList(self.names, resolve)
        self._column = {
            word.strip().casefold(): j
            for j, p in enumerate(self.programs)
            for word in (p.name, in_prompt(p.name), p.key)
        }

    @property
    def lacking(self) -> list[str]:
        """Names with a mark that is not there, in order."""
        return [self.names[i] for i in np.flatnonzero(np.isnan(self.marks).any(axis=1))]

    def wanted(self) -> str:
        """What a re-ask asks for: the rows that lack something."""
        lacking = self.lacking
        if len(lacking) == len(self.names):
            return COMPLETE
        return (
            f"Give these {len(lacking)} rows only, each with all of its marks, as one JSON object "
            f"of the same shape and nothing else: {', '.join(map(in_prompt, lacking))}"
        )

    def read(self, answer: MarksAnswer) -> str:
        """Take over what can be used; the exact problem in words where a row still lacks a mark."""
        before = len(self.repairs)
        self._note("unreadable_row", "", "dropped", times=answer.unreadable)
        found = self._rows(answer)
        doubtful = [n for n, row in found.items() if row is not None and not self._in_scale(n, row)]
        if len(doubtful) * OTHER_SCALE >= len(found) > 1 and doubtful:
            whole = f"{len(doubtful)} of {len(found)} rows are doubtful: all are dropped"
            self._note("other_scale", "", whole)
            doubtful = list(found)
        for name, row in found.items():
            if row is not None and name not in doubtful:
                place = self.names.index(name)
                mine = self.marks[place]
                self.marks[place] = np.where(np.isnan(mine), row[0], mine)
                if row[1]:
                    self.reasons.setdefault(name, one_line(row[1]))
        lacking = self.lacking
        for name in lacking:
            if name not in found:
                self._note("missing", name, "no row for it")
        return self._problem(lacking, self.repairs[before:]) if lacking else ""

    def without_repeats(self, answer: MarksAnswer) -> MarksAnswer:
        """The answer with only the first row of every name that is on the list."""
        seen: set[str | None] = set()
        kept = []
        for row in answer.marks:
            name, _ = self._list.match(row.name)
            if name is None or name not in seen:
                kept.append(row)
            seen.add(name)
        return answer.model_copy(update={"marks": kept})

    def close(self) -> None:
        """State what stays empty after the last answer."""
        for name in self.lacking:
            self._note("left_empty", name, f"no usable mark for {self._lacks(name)}")

    # -- one answer ------------------------------------------------------------------------

    def _rows(self, answer: MarksAnswer) -> dict[str, tuple[Floats, str] | None]:
        """name -> (marks, reason) of its row; None where two rows contradict each other."""
        found: dict[str, tuple[Floats, str] | None] = {}
        for row in answer.marks:
            name, how = self._list.match(row.name)
            if name is None:
                if self._transposed(row):
                    self._note("swapped", quoted(row.name), "dropped: a program as perturbation")
                else:
                    self._note(how, quoted(row.name), "dropped")
                continue
            if how:
                self._note(how, quoted(row.name), f"read as {name}")
            marks = self._numbers(name, row.marks)
            if name not in found:
                found[name] = (marks, row.reason.strip())
                continue
            first = found[name]
            same = first is not None and np.array_equal(first[0], marks, equal_nan=True)
            then = "dropped, it says the same" if same else "dropped with the other: they differ"
            self._note("duplicate", name, then)
            found[name] = first if same else None
        return found

    def _transposed(self, row: MarkedRow) -> bool:
        known = row.name.strip().casefold() in self._column
        return known and any(self._list.match(c)[0] is not None for c in row.marks)

    def _numbers(self, name: str, said: Mapping[str, Any]) -> Floats:
        marks = np.full(len(self.programs), np.nan)
        twice: set[int] = set()
        for column, value in said.items():
            j = self._column.get(column.strip().casefold())
            if j is None:
                self._note("unknown_program", f"{name}, {quoted(column)}", "dropped")
                continue
            mark = _number(value)
            if mark is None:
                if value is not None:
                    what = f"{name}, {self.programs[j].key}"
                    # Of a nested value not even the text is safe to make.
                    plain = isinstance(value, str | float | bool)
                    shown = quoted(str(value)) if plain else f"a {type(value).__name__}"
                    self._note("invalid", what, f"{shown} is no mark")
                continue
            if np.isfinite(marks[j]) and marks[j] != mark:
                self._note("duplicate", f"{name}, {self.programs[j].key}", "dropped: they differ")
                twice.add(j)
            marks[j] = mark
        marks[list(twice)] = np.nan
        given = {self._column.get(c.strip().casefold()) for c, v in said.items() if v is not None}
        mine = self.marks[self.names.index(name)]
        silent = [
            p.key for j, p in enumerate(self.programs) if j not in given and math.isnan(mine[j])
        ]
        if silent:
            self._note("missing", name, f"no mark for {', '.join(silent)}")
        return marks

    def _in_scale(self, name: str, row: tuple[Floats, str]) -> bool:
        fits = True
        for program, mark in zip(self.programs, row[0], strict=True):
            if not program.low <= mark <= SCALE and not math.isnan(mark):
                kind = "swapped" if mark >= -SCALE and mark < 0 else "out_of_scale"
                scale = f"{mark:g} is not within {program.low:g} and {SCALE:g}: the row is dropped"
                self._note(kind, f"{name}, {program.key}", scale)
                fits = False
        return fits

    def _note(self, kind: str, item: str, action: str, times: int = 1) -> None:
        self.repairs += [Repair(kind, item, action)] * times

    # -- in words --------------------------------------------------------------------------

    def _lacks(self, name: str) -> str:
        empty = np.isnan(self.marks[self.names.index(name)])
        keys = [p.key for p, gone in zip(self.programs, empty, strict=True) if gone]
        return "all programs" if empty.all() else ", ".join(keys)

    def _problem(self, lacking: Sequence[str], repairs: Sequence[Repair]) -> str:
        rows = _some([f"{in_prompt(n)} ({self._lacks(n)})" for n in lacking])
        parts = [f"these rows lack marks: {rows}"]
        for kind, words in _WORDS.items():
            items = [r.item for r in repairs if r.kind == kind]
            if kind == "duplicate":
                items = [r.item for r in repairs if r.kind == kind and "differ" in r.action]
            if items:
                parts.append(words + (f": {_some(items)}" if any(items) else ""))
        return "; ".join(parts)


#: Kind of repair -> what a re-ask says of it.
_WORDS = {
    "out_of_scale": f"a mark is outside the scale (at most {SCALE:g} in size)",
    "swapped": "below 0 where the scale begins at 0, or a program in the place of a name, so that "
    "columns or names may be swapped",
    "other_scale": "so many are outside that the whole answer seems to be on another scale",
    "invalid": "no number",
    "duplicate": "marked twice with different marks",
    "out_of_list": "not in the list",
    "unknown_program": "no key of a program",
    "unreadable_row": "some rows hold no name or no keys",
}


def _some(items: Sequence[str]) -> str:
    items = list(dict.fromkeys(items))
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def _number(value: Any) -> float | None:
    """A finite number, also as text ("+1.5", with a minus sign of print); else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = value.replace("\u2212", "-").strip() if isinstance(value, str) else value
    if isinstance(text, str) and (len(text) > 20 or "_" in text):
        return None
    try:
        number = float(text)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
