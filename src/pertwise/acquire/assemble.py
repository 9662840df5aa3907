"""From a selection to a `Plan`: the tables, the coverage, the record of how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from pertwise._names import is_combination
from pertwise.acquire.base import AcquisitionState, Target
from pertwise.acquire.candidates import Pool
from pertwise.acquire.common import uncertainty_ranks
from pertwise.acquire.coverage import module_coverage, near_misses, nearest_pick, plane
from pertwise.acquire.design import design
from pertwise.acquire.exhaustion import EXHAUSTED, advantage
from pertwise.acquire.facts import essential_genes, known_facts
from pertwise.acquire.hubs import without_hubs
from pertwise.acquire.panel import (
    CANDIDATE_COLUMNS,
    Decision,
    PanelPick,
    Plan,
    RepairNote,
    column_table,
)
from pertwise.acquire.targets import Targets, describe_targets
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge
from pertwise.knowledge.facts import FactTable
from pertwise.knowledge.types import Relation
from pertwise.provenance import versions
from pertwise.screen import Screen
from pertwise.select.base import Pick, Selection


@dataclass(frozen=True)
class Setup:
    """Everything resolved and checked, before anything is trained, asked or paid."""

    screen: Screen | None
    knowledge: Knowledge
    target: Target
    pool: Pool
    batch: int
    context: str
    inputs: dict[str, Any]
    simulated: bool
    facts: FactTable | None = None
    #: What the conditions on facts left out.
    told: tuple[str, ...] = ()

    @property
    def n_to_pick(self) -> int:
        """Places left for the strategy after the pinned."""
        return min(self.batch - len(self.pool.pinned), len(self.pool.candidates))


def assemble(
    setup: Setup,
    state: AcquisitionState | None,
    chosen: Selection,
    notes: list[RepairNote],
    settings: dict[str, Any],
    by: str,
) -> Plan:
    pool = setup.pool
    everyone = [*pool.candidates, *pool.pinned]
    relations: dict[str, Relation] = {}
    stored: dict[str, Relation] = {}
    if setup.target.pathway is not None:
        stored = dict(
            (state.relations if state is not None else None)
            or setup.knowledge.relations(everyone, setup.target.pathway)
        )
        relations = without_hubs(stored, setup.knowledge, setup.target.pathway)
    ranks = uncertainty_ranks(state) if state is not None else {}
    u = None if state is None else state.uncertainty
    utilities = chosen.utilities
    targets = describe_targets(
        {n: pool.symbols[n] for n in everyone},
        setup.screen,
        setup.knowledge,
        essential_genes(setup.facts, setup.knowledge),
    )
    about = targets.table.to_dict("index")
    picks = _picks(setup, chosen, relations, stored, ranks, u, targets)
    genes = [p.gene for p in picks]
    where: dict[str, tuple[float | None, float | None]] = dict.fromkeys(
        [*everyone, *pool.measured], (None, None)
    )
    if state is not None and state.embedding is not None:
        map_rows = plane(state.embedding).round(4)
        where = {
            n: (float(x), float(y))
            for n, (x, y) in zip((*state.candidates, *state.measured), map_rows, strict=True)
        }
    misses = []
    if state is not None and utilities is not None and len(utilities):
        at = {c: j for j, c in enumerate(state.candidates)}
        positions = [at[g] for g in genes if g in at]
        shortlist = chosen.provenance.get("shortlist")
        misses = near_misses(
            state.candidates,
            utilities.to_numpy(dtype=float),
            None if u is None else u.to_numpy(dtype=float),
            relations,
            [state.candidates[j] for j in positions],
            shortlist if isinstance(shortlist, list) else None,
            None
            if state.embedding is None
            else nearest_pick(
                state.embedding[: len(state.candidates)], positions, state.neighbours
            ),
        )
    taken = set(genes)
    table = column_table(
        [
            {
                "gene": name,
                "symbol": pool.symbols[name],
                "status": "picked" if name in taken else "not picked",
                "relation": relations[name].kind if name in relations else "",
                "module": relations[name].module if name in relations else "",
                "evidence": relations[name].evidence if name in relations else "",
                "uncertainty": None if u is None or name not in u.index else float(u[name]),
                "uncertainty_rank": ranks.get(name),
                "utility": None
                if utilities is None or name not in utilities.index
                else float(utilities[name]),
                "x": where[name][0],
                "y": where[name][1],
                **about[name],
                "flags": "; ".join(targets.flags.get(name, ())),
            }
            for name in sorted(everyone)
        ],
        CANDIDATE_COLUMNS,
    )
    facts = known_facts(
        sorted(everyone),
        setup.screen,
        setup.knowledge,
        setup.target.features,
        setup.facts,
        pool.symbols,
    )
    for name in facts.columns:
        column = str(name) if name not in table else f"{name} (facts)"
        # JSON has no NaN.
        table[column] = [None if v is None or v != v else v for v in facts[name]]
    coverage = module_coverage(
        setup.target.pathway,
        {n: (r.kind, r.module) for n, r in relations.items()},
        pool.symbols,
        genes,
        pool.measured,
        everyone,
    )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    aim = setup.target.pathway.name if setup.target.pathway else "the whole response"
    pathway = setup.target.pathway
    return Plan(
        title=f"Next {len(picks)} perturbations for {aim}"
        + (f" in {setup.context}" if setup.context else ""),
        created=now,
        simulated=setup.simulated,
        context=setup.context,
        target={
            "pathway": None
            if pathway is None
            else {
                "name": pathway.name,
                "description": pathway.description,
                "source": pathway.source,
                "modules_from": pathway.modules_from,
                "members": list(pathway.members),
                "modules": {m: list(g) for m, g in pathway.modules.items()},
            },
            "features": None if setup.target.features is None else list(setup.target.features),
        },
        picks=picks,
        candidates=table,
        measured=column_table(
            [
                {"gene": m, "symbol": pool.symbols[m], "x": where[m][0], "y": where[m][1]}
                for m in pool.measured
            ],
            ("gene", "symbol", "x", "y"),
        ),
        coverage=coverage,
        near_misses=misses,
        left_out=list(pool.left_out),
        repairs=[
            *pool.repairs,
            *notes,
            *(
                RepairNote(stage="picker", kind=r.kind, item=r.item, action=r.action)
                for r in chosen.repairs
            ),
        ],
        warnings=[
            *_warnings(setup, state, picks),
            *targets.summary(genes, "of the panel:"),
        ],
        source=chosen.source,
        fallback=chosen.fallback,
        inputs=setup.inputs,
        settings=settings,
        versions=versions(),
        provenance=dict(chosen.provenance),
        design=_advice(setup),
        decisions=[Decision(when=now, by=by or "pertwise", action="made", added=genes)],
    )


def _advice(setup: Setup) -> dict[str, Any]:
    """What the screen says about cells and controls of this panel; {} where it states no noise."""
    if setup.screen is None or not setup.pool.measured:
        return {}
    try:
        advice = design(
            setup.screen, features=setup.target.features or (), perturbations=setup.batch
        )
    except InputError:
        return {}
    return advice.to_json()


def _picks(
    setup: Setup,
    chosen: Selection,
    relations: Mapping[str, Relation],
    stored: Mapping[str, Relation],
    ranks: Mapping[str, int],
    u: pd.Series | None,
    targets: Targets,
) -> list[PanelPick]:
    names = [*setup.pool.pinned, *chosen.items]
    cards = setup.knowledge.cards([n for n in names if not is_combination(n)]) if names else {}
    by_name = {p.item: p for p in chosen.picks}
    picks = []
    for rank, name in enumerate(names, 1):
        pick = by_name.get(name)
        relation = relations.get(name)
        card = cards.get(name)
        evidence = list(pick.evidence) if pick else []
        if relation and relation.evidence:
            # What the picker saw of it is the beginning of what is told now.
            rest = [e for e in evidence if not relation.evidence.startswith(e)]
            evidence = [relation.evidence, *rest]
        picks.append(
            PanelPick(
                rank=rank,
                gene=name,
                symbol=setup.pool.symbols[name],
                full_name=str(targets.table["full_name"][name]) or (card.full_name if card else ""),
                **{c: str(targets.table[c][name]) for c in ("ensembl", "hgnc", "entrez")},
                flags=list(targets.flags.get(name, ())),
                summary=card.summary if card else "",
                module=_module(relation, stored.get(name), pick),
                relation=relation.kind if relation else "",
                uncertainty_rank=ranks.get(name),
                uncertainty=None if u is None or name not in u.index else float(u[name]),
                utility=None if pick is None else pick.score,
                reason=pick.reason if pick else "Pinned by the person who planned",
                evidence=evidence,
                chosen_by="pin" if pick is None else str(pick.extra.get("chosen_by", "strategy")),
                pinned=pick is None,
            )
        )
    return picks


def _module(relation: Relation | None, stored: Relation | None, pick: Pick | None) -> str:
    """The module the knowledge tables say; else what the picker said, marked as what it is.

    `stored` is the relation before `without_hubs`: a module that it names, and a picker repeats, is
    that of a hub; any other one is the word of a chat model.
    """
    if relation is not None and relation.module:
        return relation.module
    stated = str(pick.extra.get("module", "")) if pick is not None else ""
    if stored is not None and stated == stored.module:
        return f"{stated} (links by chance)" if stated else ""
    return f"{stated} (says the model)" if stated else ""


def _warnings(
    setup: Setup, state: AcquisitionState | None, picks: Sequence[PanelPick]
) -> list[str]:
    found = list(setup.pool.notes)
    unknown = [row for row in setup.pool.left_out if row.kind == "unknown"]
    if unknown:
        some = ", ".join(r.gene for r in unknown[:5])
        found.append(
            f"{len(unknown)} candidates are not known to the knowledge folder and were left out "
            f"({some}{' ...' if len(unknown) > 5 else ''}); --keep-unknown keeps them"
        )
    pathway = setup.target.pathway
    if pathway is not None:
        symbols = {setup.pool.symbols[n] for n in (*setup.pool.candidates, *setup.pool.pinned)}
        if not symbols & set(pathway.members):
            found.append(
                f"none of the {len(pathway.members)} members of {pathway.name} is a candidate: the "
                "panel can reach the pathway only through regulators, targets and partners"
            )
    if setup.pool.unknown:
        found.append(
            f"{len(setup.pool.unknown)} candidates without any knowledge were kept: "
            f"{', '.join(setup.pool.unknown[:5])}"
        )
    found += setup.told
    left = None
    if state is not None and setup.pool.measured:
        left = advantage(state, setup.n_to_pick)
    if left is not None and left < EXHAUSTED:
        found.append(
            "the pool is exhausted: "
            + (
                "every candidate that is left is on this panel"
                if setup.n_to_pick >= len(setup.pool.candidates)
                else f"the best panel is expected to tell only {left:.2f} times what a random one "
                "does, so the choice hardly matters (--hand-over random says so openly); a larger "
                "list or another question pays more"
            )
        )
    if len(picks) < setup.batch:
        found.append(f"only {len(picks)} candidates for {setup.batch} places")
    if state is not None and state.uncertainty is None:
        if not setup.pool.measured:
            found.append("cold start: nothing is measured, so the panel rests on knowledge alone")
    elif state is not None and len(setup.pool.measured) < 20:
        found.append(
            f"only {len(setup.pool.measured)} perturbations are measured: the uncertainty rests "
            "on little"
        )
    screen_derived = [
        str(name)
        for name, entry in dict(setup.knowledge.manifest.get("tables", {})).items()
        if isinstance(entry, Mapping) and entry.get("from_screen")
    ]
    if screen_derived:
        found.append(
            "some knowledge was itself derived from perturbation screens: "
            + ", ".join(screen_derived)
        )
    return found
