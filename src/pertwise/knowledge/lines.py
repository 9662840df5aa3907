"""Cell-line facts for prompts and for borrowing between related lines: organ, driver mutations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise._shown import Shown
from pertwise._tables import columns_of, read_frame
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.drugs.table import fold_name

#: Column names of the Tahoe-100M cell-line metadata (one row a driver alteration).
_NAME, _ORGAN, _GENE = "cell_name", ("Organ", "organ"), "Driver_Gene_Symbol"
_IDS = ("Cell_ID_Cellosaur", "cellosaurus", "Cell_ID_DepMap")


@dataclass(frozen=True)
class CellLine:
    """One line; `drivers` are (gene, alteration, effect) such as ("KRAS", "p.G12S", "GoF")."""

    name: str
    organ: str = ""
    drivers: tuple[tuple[str, str, str], ...] = ()
    ids: tuple[str, ...] = ()

    def text(self) -> str:
        """One line for a prompt, e.g. "A549: lung; drivers: KRAS p.G12S (GoF), ..."."""
        parts = [self.organ.lower()] if self.organ else []
        if self.drivers:
            shown = [
                " ".join(x for x in (gene, change) if x) + (f" ({effect})" if effect else "")
                for gene, change, effect in self.drivers
            ]
            parts.append("drivers: " + ", ".join(shown))
        return f"{self.name}: {'; '.join(parts)}" if parts else self.name


@dataclass(frozen=True, repr=False)
class CellTable(Shown):
    """Cell lines by name; identifiers (Cellosaurus, DepMap) and spellings resolve to the name."""

    lines: Mapping[str, CellLine]
    _index: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_lines(cls, lines: Sequence[CellLine]) -> CellTable:
        """Index by name, folded name and identifiers."""
        table = {line.name: line for line in lines}
        index: dict[str, str] = {}
        for line in table.values():
            for key in (line.name, *line.ids):
                index.setdefault(fold_name(key), line.name)
        return cls(table, index)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CellTable:
        """Read the Tahoe-100M cell-line metadata (parquet, csv or tsv).

        Raises
        ------
        pertwise.errors.InputError
            If there is no such file or no cell_name column.
        """
        file = Path(path)
        frame = read_frame(file)
        if _NAME not in frame:
            raise InputError(f"{file}: no column {_NAME!r}; there are {columns_of(frame)}")
        organ = next((c for c in _ORGAN if c in frame), None)
        ids = [c for c in _IDS if c in frame]
        lines = []
        for name, rows in frame.groupby(_NAME, sort=False):
            first = rows.iloc[0]
            drivers = dict.fromkeys(_driver(r) for r in rows.to_dict("records") if _text(r, _GENE))
            lines.append(
                CellLine(
                    name=str(name),
                    organ=_text(first, organ) if organ else "",
                    drivers=tuple(drivers),
                    ids=tuple(t for c in ids if (t := _text(first, c))),
                )
            )
        return cls.from_lines(lines)

    def resolve(self, name: str) -> str | None:
        """The table's name for a name or identifier; None when unknown."""
        return self._index.get(fold_name(name))

    def line(self, name: str) -> CellLine:
        """Facts about a line.

        Raises
        ------
        pertwise.errors.UnknownNameError
            With the nearest names.
        """
        found = self.resolve(name)
        if found is None:
            raise unknown_name("cell line", name, self.lines)
        return self.lines[found]

    def similarity(self, rows: Sequence[str], columns: Sequence[str]) -> NDArray[np.float64]:
        """(n_rows, n_columns): half same organ, half Jaccard of driver genes; 1 for the same line.

        A line the table does not know is similar only to itself. Positive semi-definite: a sum of
        an equality kernel and a Jaccard kernel.
        """
        out = np.zeros((len(rows), len(columns)))
        facts = [self.lines.get(self.resolve(n) or "") for n in (*rows, *columns)]
        left, right = facts[: len(rows)], facts[len(rows) :]
        for i, a in enumerate(left):
            for j, b in enumerate(right):
                if rows[i] == columns[j]:
                    out[i, j] = 1.0
                elif a is not None and b is not None:
                    ga, gb = {d[0] for d in a.drivers}, {d[0] for d in b.drivers}
                    shared = len(ga & gb) / len(ga | gb) if ga | gb else 0.0
                    out[i, j] = 0.5 * float(a.organ != "" and a.organ == b.organ) + 0.5 * shared
        return out

    def related(self, name: str, among: Sequence[str], n: int) -> tuple[tuple[str, float], ...]:
        """The `n` of `among` most similar to `name` (ties by name), with the similarity."""
        others = sorted(set(among) - {name})
        scores = self.similarity([name], others)[0]
        order = sorted(range(len(others)), key=lambda i: (-scores[i], others[i]))
        return tuple((others[i], float(scores[i])) for i in order[:n])


def _text(row: Any, column: str) -> str:
    value = row[column]
    return value.strip() if isinstance(value, str) else ""


def _driver(row: Mapping[str, Any]) -> tuple[str, str, str]:
    kind = _text(row, "Driver_VarType") if "Driver_VarType" in row else ""
    column = "Driver_ProtEffect_or_CdnaEffect"
    change = _text(row, column) if column in row else ""
    if not change.startswith("p."):
        change = kind.lower() or change
    effect = _text(row, "Driver_Mech_InferDM") if "Driver_Mech_InferDM" in row else ""
    return _text(row, _GENE), change, effect
