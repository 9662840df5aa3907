"""`Rater`: marks on a closed scale, as `Selector` is picks from a closed list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from pertwise.knowledge.agreement import agreement_of
from pertwise.knowledge.programs import Program
from pertwise.knowledge.ratings import Ratings, mean_and_spread
from pertwise.select.base import Repair


@dataclass(frozen=True)
class Marked:
    """Marks of perturbations in one context, and what had to be repaired.

    Attributes
    ----------
    replicates
        The same names and programs once a replicate.
    repairs
        Everything that was corrected, asked again or left empty, in order. Kinds: those of
        `pertwise.select.base.Repair`, and missing, invalid, out_of_scale, swapped, other_scale,
        unknown_program, unreadable_row, left_empty.
    provenance
        JSON-able: settings, ledger keys, prompt hash, counts.
    """

    replicates: tuple[Ratings, ...]
    repairs: tuple[Repair, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def ratings(self) -> Ratings:
        """Mean over replicates, and their spread (NaN of a single one)."""
        first = self.replicates[0]
        if len(self.replicates) == 1:
            return first
        mean, spread = mean_and_spread(np.stack([r.marks.ravel() for r in self.replicates]))
        reasons = {
            n: "; ".join(dict.fromkeys(r.reasons[n] for r in self.replicates if r.reasons.get(n)))
            for n in first.names
        }
        return Ratings.from_marks(
            first.names,
            first.programs,
            mean.reshape(first.marks.shape),
            spread=spread.reshape(first.marks.shape),
            context=first.context,
            source=first.source,
            reasons={n: why for n, why in reasons.items() if why},
        )

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """How far replicates agree; see `pertwise.knowledge.agreement.agreement_of`."""
        return agreement_of(self.replicates)

    def with_columns(self, other: Marked) -> Marked:
        """The same with the columns of `other`, its programs asked anew, in the place of its own.

        The provenance says under ``asked_anew`` how far replicates agreed before and after.
        """
        both = [
            _replaced(mine, new)
            for mine, new in zip(self.replicates, other.replicates, strict=True)
        ]
        before, after = (m.agreement.set_index("program")["spearman"] for m in (self, other))
        told = {p: [_number(before[p]), _number(after[p])] for p in other.replicates[0].programs}
        anew = {"programs": told, **other.provenance}
        provenance = {**self.provenance, "asked_anew": anew}
        return Marked(tuple(both), (*self.repairs, *other.repairs), provenance)

    def repair_counts(self) -> dict[str, int]:
        """How often each kind of repair was needed."""
        return dict(Counter(r.kind for r in self.repairs))


def _replaced(mine: Ratings, new: Ratings) -> Ratings:
    marks = mine.marks.copy()
    marks[:, [mine.programs.index(p) for p in new.programs]] = new.take(mine.names)
    said = {
        n: "; ".join(x for x in (mine.reasons.get(n), new.reasons.get(n)) if x)
        for n in {**mine.reasons, **new.reasons}
    }
    return replace(mine, marks=marks, reasons=said)


def _number(value: float) -> float | None:
    """For JSON, which knows no NaN."""
    return float(value) if np.isfinite(value) else None


@runtime_checkable
class Rater(Protocol):
    """Marks every perturbation in every program, or leaves the mark empty.

    Implementations must return exactly the names (as `Ratings` sorts them) and programs given,
    strength added; marks within each program's scale, NaN where there is no mark; must not change
    with the order of `names`; and must state every repair: `pertwise.testing.check_rater`.
    """

    @property
    def name(self) -> str:
        """Short name for tables; may be a plain attribute."""
        ...

    def rate(
        self,
        names: Sequence[str],
        programs: Sequence[Program],
        *,
        context: str = "",
        context_text: str = "",
    ) -> Marked:
        """Mark `names` in `programs`.

        Raises
        ------
        pertwise.errors.InputError
            If there is nothing to mark, or a name or program occurs twice.
        """
        ...
