"""Selectors over drug similarities: chemistry, mechanism, targets, their mixture, and hybrids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pertwise.errors import InputError
from pertwise.knowledge.drugs import DrugTable
from pertwise.knowledge.drugs_cells import CellTable
from pertwise.knowledge.drugs_similarity import DrugSimilarity
from pertwise.select.base import Pick, Query, Repair, Selection, Selector
from pertwise.select.closed_list import Resolver, checked_candidates


@dataclass(frozen=True)
class SimilaritySelector:
    """The measured drugs most similar to the query under one kernel.

    Drugs with a similarity of at most `above` are not picked, so that fewer than n may come
    back: "no drug shares its mechanism" is then visible instead of hidden behind a random one. A
    query that the kernel knows nothing about gives an empty selection that says so.
    """

    similarity: DrugSimilarity
    above: float = 0.0

    @property
    def name(self) -> str:
        """Name of the kernel."""
        return self.similarity.name

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """Pick at most `n` of `candidates`, ties broken by name."""
        pool = sorted(c for c in checked_candidates(candidates, n) if c != query.subject)
        subject = query.subject or ""
        if self.similarity.missing([subject]):
            why = Repair("call_failed", subject, f"{self.name}: nothing known about this drug")
            return Selection((), self.name, (why,), fallback=True, provenance={"k_used": 0})
        scores = self.similarity.matrix([subject], pool, pool)[0] if pool else []
        order = sorted(range(len(pool)), key=lambda i: (-scores[i], pool[i]))
        chosen = [i for i in order if scores[i] > self.above][:n]
        picks = tuple(
            Pick(pool[i], f"{self.name} similarity {scores[i]:.2f}", score=float(scores[i]))
            for i in chosen
        )
        repairs: tuple[Repair, ...] = ()
        if len(picks) < min(n, len(pool)):
            text = f"{len(picks)} of {len(pool)} drugs have a {self.name} similarity above "
            repairs = (Repair("too_few", subject, f"{text}{self.above:g}; asked for {n}"),)
        return Selection(
            picks, self.name, repairs, fallback=not picks, provenance={"k_used": len(picks)}
        )


@dataclass(frozen=True)
class HybridSelector:
    """The first selector when its coverage is high enough, else the second, stated.

    Attributes
    ----------
    first, second
        E.g. chat and chemistry.
    min_coverage
        Share of the n asked for that the first must return as valid picks.
    fill
        True: keep what the first gave and fill up with the second; False: take the second alone.
    """

    first: Selector
    second: Selector
    min_coverage: float = 0.5
    fill: bool = True
    name: str = "hybrid"

    def __post_init__(self) -> None:
        if not 0 < self.min_coverage <= 1:
            raise InputError(f"min_coverage must be in (0, 1], got {self.min_coverage}")

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """Pick at most `n` of `candidates`."""
        given = self.first.select(query, candidates, n)
        possible = max(1, min(n, len([c for c in candidates if c != query.subject])))
        coverage = 0.0 if given.fallback else len(given.picks) / possible
        notes = {**given.provenance, "coverage": coverage, "used": self.first.name}
        if coverage >= self.min_coverage:
            return replace(given, provenance={**notes, "k_used": len(given.picks)})
        other = self.second.select(query, candidates, n)
        kept = given.picks if self.fill and not given.fallback else ()
        names = {p.item for p in kept}
        picks = (*kept, *(p for p in other.picks if p.item not in names))[:n]
        used = f"{self.first.name}+{self.second.name}" if kept else self.second.name
        action = f"coverage {coverage:.0%} is below {self.min_coverage:.0%}: used {used}"
        return Selection(
            picks,
            f"{given.source} -> {other.source}",
            (*given.repairs, *other.repairs, Repair("fallback", query.subject or "", action)),
            provenance={**notes, "used": used, "k_used": len(picks)},
            fallback=True,
        )


def drug_resolver(table: DrugTable) -> Resolver:
    """Names -> canonical names of the table, for checking a chat model's picks."""

    def resolve(names: Sequence[str]) -> Mapping[str, str]:
        return table.resolve(names).approved

    return resolve


def drug_facts(table: DrugTable, *, smiles: bool = False) -> Callable[[str], str]:
    """What a prompt says about a query drug: mechanism, targets, approval (SMILES on request)."""

    def facts(name: str) -> str:
        card = table.cards.get(table.resolve([name]).approved.get(name, name))
        if card is None:
            return ""
        parts = [card.mechanism] if card.mechanism else []
        if card.targets:
            parts.append("targets " + ", ".join(card.targets[:8]))
        if card.approved:
            parts.append("approved")
        if smiles and card.structure is not None:
            parts.append(f"SMILES {card.structure.parent}")
        return "; ".join(parts)

    return facts


def cell_query(drug: str, line: str, cells: CellTable | None = None) -> Query:
    """The question "which measured drugs act like `drug` in `line`", with facts about the line."""
    known = cells is not None and cells.resolve(line) is not None
    text = cells.line(line).text() if cells is not None and known else ""
    return Query(subject=drug, context=line, context_text=text)
