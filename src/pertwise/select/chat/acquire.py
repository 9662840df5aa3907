"""The acquisition prompt: which candidates to measure next, with or without uncertainty."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from pertwise.knowledge.types import GeneCard, Pathway, Relation
from pertwise.llm.base import Chat
from pertwise.llm.templates import load_prompt
from pertwise.select.base import Query, Selector
from pertwise.select.chat.selector import ChatSelector, RandomSelector, masker
from pertwise.select.chat.similar import cell_line_text
from pertwise.select.closed_list import Resolver


@dataclass(frozen=True)
class CandidateFacts:
    """One row of the candidate table; empty fields are not shown.

    `uncertainty_rank` counts from 1 = most uncertain among all candidates, also those not shown.
    `speaks_for`: other candidates this one stands for, most similar first, `n_speaks_for` in all.
    `nearest`: measured ones most like it, each with its responses; `prediction`: what the model
    expects of it and its group; `facts`: what else is known, in words.
    """

    name: str
    full_name: str = ""
    uncertainty_rank: int | None = None
    uncertainty: float | None = None
    go: tuple[str, ...] = ()
    relation: str = ""
    evidence: str = ""
    module: str = ""
    summary: str = ""
    speaks_for: tuple[str, ...] = ()
    n_speaks_for: int = 0
    nearest: tuple[str, ...] = ()
    prediction: str = ""
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetFeature:
    """One feature of the target as the prompt describes it.

    `label` is its short name in the rows; `plus` says which genes rise or fall where it is above 0;
    `base` how often and how strongly it moved so far; `extremes` who moved it most.
    """

    label: str
    name: str
    definition: str = ""
    plus: str = ""
    base: str = ""
    extremes: str = ""


@dataclass(frozen=True)
class Briefing:
    """What was measured and what it is measured for.

    `meaning`: what a value and a missing one mean; `modules`: a line each with measured genes;
    `more_features`: how many of the target are not listed; `rounds_left`: None = not known.
    """

    features: tuple[TargetFeature, ...] = ()
    more_features: int = 0
    meaning: str = ""
    modules: tuple[str, ...] = ()
    rounds_left: int | None = None


@dataclass(frozen=True)
class Show:
    """What the prompt shows: switches for ablations."""

    uncertainty: bool = True
    go: bool = True
    relation: bool = True
    summary: bool = True
    anonymise: bool = False


def candidate_facts(
    candidates: Sequence[str],
    *,
    cards: Mapping[str, GeneCard] | None = None,
    relations: Mapping[str, Relation] | None = None,
    uncertainty: pd.Series | None = None,
    n_go: int = 4,
) -> dict[str, CandidateFacts]:
    """Facts of every candidate from gene cards, relations and u(p); ties share the better rank."""
    ranks = None
    if uncertainty is not None:
        ranks = uncertainty.rank(ascending=False, method="min").astype(int)
    facts = {}
    for name in candidates:
        row = CandidateFacts(name)
        card = (cards or {}).get(name)
        if card is not None:
            row = replace(
                row,
                full_name=card.full_name,
                summary=card.summary,
                go=tuple(term.name for term in card.go[:n_go]),
            )
        relation = (relations or {}).get(name)
        if relation is not None:
            row = replace(
                row,
                relation=relation.kind,
                evidence=relation.evidence,
                module=relation.module,
            )
        if uncertainty is not None and ranks is not None:
            row = replace(
                row, uncertainty_rank=int(ranks[name]), uncertainty=float(uncertainty[name])
            )
        facts[name] = row
    return facts


def acquisition_selector(
    chat: Chat,
    facts: Mapping[str, CandidateFacts],
    *,
    objective: str,
    pathway: Pathway | None = None,
    round: int = 1,
    acquired: Sequence[str] = (),
    briefing: Briefing | None = None,
    cut: str = "",
    show: Show | None = None,
    n_modules_min: int | None = None,
    module_members_shown: int = 8,
    fallback: Selector | None = None,
    resolve: Resolver | None = None,
    max_candidates: int | None = None,
    prefilter: Selector | None = None,
    prompt: str | os.PathLike[str] = "acquire",
    max_reasks: int = 2,
    seed: int = 0,
    replicate: int = 0,
    name: str = "llm",
) -> ChatSelector:
    """Chat selector of the next batch; call it with `Query(None, context, context_text)`.

    At a cold start give facts without uncertainty: the prompt then asks for expected effect,
    relevance and diversity instead. Always returns exactly min(n, candidates) picks: what the
    model leaves open is filled by `fallback` (default: seeded random) and marked.

    Parameters
    ----------
    facts
        Row of the table for each candidate (see `candidate_facts`).
    objective
        One or two sentences: what the panel is for.
    briefing, cut
        What was measured and for what; how the list shown was cut from all candidates, in words.
    n_modules_min
        Modules the panel should touch; default: half of them, at least 2, at most n.
    show
        Ablation switches. With `anonymise` all gene names in lists and texts become codes.
    """
    what = show or Show()

    def values(
        query: Query,
        shown: tuple[str, ...],
        n_min: int,
        n_max: int,
        mask: Callable[[str], str],
    ) -> dict[str, Any]:
        measured = {g: f"M{i:04d}" for i, g in enumerate(sorted(acquired), start=1)}
        hide = masker(measured) if what.anonymise else masker({})

        def say(text: str) -> str:
            return hide(mask(text))

        rows = [_masked(facts.get(c, CandidateFacts(c)), say, what.anonymise) for c in shown]
        has_uncertainty = what.uncertainty and any(r.uncertainty_rank is not None for r in rows)
        n_modules = len(pathway.modules) if pathway is not None else 0
        wanted = n_modules_min if n_modules_min is not None else max(2, (n_modules + 1) // 2)
        return {
            "context_text": cell_line_text(query.context or "", query.context_text),
            "objective": say(objective),
            "round": round,
            "acquired": [say(a) for a in acquired],
            "pathway": None if pathway is None else _pathway(pathway, say, module_members_shown),
            "rows": rows,
            "briefing": _said(briefing or Briefing(), say),
            **({"cut": cut} if cut else {}),
            "show": {
                "uncertainty": has_uncertainty,
                "go": what.go,
                "relation": what.relation,
                "summary": what.summary,
            },
            "n_modules_min": min(wanted, n_modules, n_max),
        }

    return ChatSelector(
        chat,
        load_prompt(prompt),
        values,
        name=name,
        on_short="fill",
        fallback=fallback or RandomSelector(seed),
        max_reasks=max_reasks,
        max_candidates=max_candidates,
        prefilter=prefilter,
        resolve=resolve,
        require_reasons=True,
        anonymise=what.anonymise,
        module_field=True,
        seed=seed,
        replicate=replicate,
    )


def _masked(row: CandidateFacts, say: Callable[[str], str], anonymise: bool) -> CandidateFacts:
    if not anonymise:
        return row
    return replace(
        row,
        name=say(row.name),
        # A full name gives the gene away, so it is not shown at all.
        full_name="",
        go=tuple(map(say, row.go)),
        evidence=say(row.evidence),
        summary=say(row.summary),
        # Those it speaks for have no code: their number is told.
        speaks_for=(),
        nearest=tuple(map(say, row.nearest)),
        prediction=say(row.prediction),
        facts=tuple(map(say, row.facts)),
    )


def _said(briefing: Briefing, say: Callable[[str], str]) -> Briefing:
    """The briefing with names masked where they are; its genes of the target stay."""
    return replace(
        briefing,
        modules=tuple(map(say, briefing.modules)),
        features=tuple(replace(f, extremes=say(f.extremes)) for f in briefing.features),
    )


def _pathway(pathway: Pathway, say: Callable[[str], str], n_members: int) -> dict[str, Any]:
    return {
        "name": pathway.name,
        "description": say(pathway.description),
        "modules": {
            module: [say(m) for m in members[:n_members]]
            for module, members in pathway.modules.items()
        },
    }
