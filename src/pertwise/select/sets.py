"""Intersection, union and difference of two selectors' picks."""

from __future__ import annotations

from collections.abc import Sequence

from pertwise.errors import unknown_name
from pertwise.select.base import Pick, Query, Repair, Selection, Selector, select_many
from pertwise.select.closed_list import checked_candidates

OPERATIONS = ("intersection", "union", "difference")


class SetSelector:
    """Combines the picks of two selectors.

    Picks are ranked by the sum of 1 / rank over the selectors that named them (reciprocal rank
    fusion without an offset), so what both name early comes first; ties by name.

    Parameters
    ----------
    operation
        "intersection" (named by both), "union", or "difference" (named by the first only).
    each
        How many picks each of the two is asked for; the result is cut to `n` afterwards.
    """

    def __init__(
        self, first: Selector, second: Selector, operation: str = "intersection", each: int = 20
    ) -> None:
        if operation not in OPERATIONS:
            raise unknown_name("set operation", operation, OPERATIONS)
        self.first, self.second, self.operation, self.each = first, second, operation, each
        sign = {"intersection": "and", "union": "or", "difference": "without"}[operation]
        self.name = f"{first.name} {sign} {second.name}"

    @property
    def cheap(self) -> bool:
        """Whether asking costs nothing: only if that holds for both."""
        return bool(getattr(self.first, "cheap", False) and getattr(self.second, "cheap", False))

    @property
    def sees_answers(self) -> bool:
        """Whether one of the two is an oracle."""
        return any(getattr(s, "sees_answers", False) for s in (self.first, self.second))

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """At most `n` of the combined picks; empty when the two have nothing in common."""
        return self.select_many([(query, candidates)], n)[0]

    def select_many(
        self, questions: Sequence[tuple[Query, Sequence[str]]], n: int
    ) -> list[Selection]:
        """One selection a question; each of the two is asked about all of them at once."""
        checked = [(query, checked_candidates(candidates, n)) for query, candidates in questions]
        asked = max(n, self.each)
        both = zip(
            checked,
            select_many(self.first, checked, asked),
            select_many(self.second, checked, asked),
            strict=True,
        )
        return [self._combined(query, one, two, n) for (query, _), one, two in both]

    def _combined(self, query: Query, one: Selection, two: Selection, n: int) -> Selection:
        a, b = set(one.items), set(two.items)
        keep = {"intersection": a & b, "union": a | b, "difference": a - b}[self.operation]
        found: dict[str, list[tuple[str, Pick, int]]] = {}
        for selector, selection in ((self.first, one), (self.second, two)):
            for rank, pick in enumerate(selection.picks, start=1):
                found.setdefault(pick.item, []).append((selector.name, pick, rank))
        picks = []
        for item in keep:
            named = found[item]
            score = sum(1.0 / rank for _, _, rank in named)
            reason = " | ".join(f"{who} #{rank}: {pick.reason}" for who, pick, rank in named)
            facts = tuple(f for _, pick, _ in named for f in pick.evidence)
            picks.append(Pick(item, reason, score, facts))
        picks.sort(key=lambda p: (-(p.score or 0.0), p.item))
        repairs = [*one.repairs, *two.repairs]
        if not picks:
            repairs.append(Repair("too_few", str(query.subject), f"empty {self.operation}"))
        return Selection(
            tuple(picks[:n]),
            self.name,
            tuple(repairs),
            provenance={
                "n_first": len(a),
                "n_second": len(b),
                "n_both": len(a & b),
                "first": dict(one.provenance),
                "second": dict(two.provenance),
            },
            fallback=one.fallback or two.fallback,
        )
