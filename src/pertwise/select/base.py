"""The picks-from-a-closed-list vocabulary shared by prediction, acquisition and judging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from pertwise._shown import Shown


@dataclass(frozen=True)
class Pick:
    """One chosen item.

    Attributes
    ----------
    item
        The name exactly as it stands in the candidate list.
    reason
        Why this item; never empty. For a numeric selector, the numbers that decided.
    score
        Selector's own score, larger is better; None where it has none.
    evidence
        Short machine-made facts, e.g. ``("STRING PIK3CA-AKT1 992",)``.
    extra
        JSON-able fields of one selector (module, relation, uncertainty rank ...).
    """

    item: str
    reason: str
    score: float | None = None
    evidence: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Repair:
    """One thing the picker did wrong and what was done about it.

    `kind` is one of: alias, case, duplicate, out_of_list, query_itself, too_few, too_many,
    no_reason, bare_list, empty, truncated, unparsable, refusal, call_failed, impossible_edit,
    empty_set, fallback.
    """

    kind: str
    item: str
    action: str


@dataclass(frozen=True, repr=False)
class Selection(Shown):
    """Ordered picks from a closed list, with their reasons and what had to be repaired.

    Attributes
    ----------
    picks
        Best first, no duplicates, all in the candidate list.
    source
        Who picked: selector name, and the model for a chat selector.
    repairs
        Everything that was corrected, in order; empty when nothing was.
    utilities
        Series over *all* candidates (larger is better) where the selector scores every one.
    provenance
        JSON-able: settings, ledger keys, prompt hash, counts.
    fallback
        True when the picks (or some) come from the declared fallback, not from the picker.
    """

    picks: tuple[Pick, ...]
    source: str
    repairs: tuple[Repair, ...] = ()
    utilities: pd.Series | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    fallback: bool = False

    @property
    def items(self) -> tuple[str, ...]:
        """The chosen names, best first."""
        return tuple(p.item for p in self.picks)

    def repair_counts(self) -> dict[str, int]:
        """How often each kind of repair was needed."""
        counts: dict[str, int] = {}
        for repair in self.repairs:
            counts[repair.kind] = counts.get(repair.kind, 0) + 1
        return counts


def usable(fallback: bool, provenance: Mapping[str, Any]) -> bool:
    """Whether any of a selection is the picker's own, from its `fallback` and `provenance`."""
    return not fallback or bool(provenance.get("k_used"))


@dataclass(frozen=True, repr=False)
class Query(Shown):
    """What is asked of a selector.

    Attributes
    ----------
    subject
        The perturbation (gene, drug) that neighbours are wanted for; None when the question is
        about the list as a whole (acquisition).
    context
        Cell line or cell type name, e.g. "K562".
    context_text
        Free text about the context shown to a chat selector.
    """

    subject: str | None = None
    context: str | None = None
    context_text: str = ""


@runtime_checkable
class Selector(Protocol):
    """Chooses at most `n` items of a closed list.

    Implementations must return only items of `candidates`, without duplicates and without
    `query.subject`; must not change with the order of `candidates` unless they say so; and must
    state every repair. `tests/select/conformance.py` checks this for each of them.
    """

    @property
    def name(self) -> str:
        """Short name for tables; may be a plain attribute."""
        ...

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """Pick at most `n` of `candidates`.

        Raises
        ------
        pertwise.errors.InputError
            If `candidates` is empty or holds duplicates, or `n` < 1.
        """
        ...


def select_many(
    selector: Selector, questions: Sequence[tuple[Query, Sequence[str]]], n: int
) -> list[Selection]:
    """One selection a question, in order; all at once where the selector offers it.

    A question without candidates gets an empty selection.
    """
    usable = [(q, c) for q, c in questions if len(c)]
    many = getattr(selector, "select_many", None)
    found = iter(
        [selector.select(q, c, n) for q, c in usable] if many is None else list(many(usable, n))
    )
    return [next(found) if len(c) else Selection((), selector.name) for _, c in questions]
