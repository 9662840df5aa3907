"""`plan`: from a measured screen, knowledge and a target to the next panel, with reasons."""

from __future__ import annotations

import importlib
import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertwise._io import sha256_file
from pertwise.acquire.base import AcquisitionState, Strategy, Target
from pertwise.acquire.candidates import Pool, list_candidates, make_pool
from pertwise.acquire.common import uncertainty_ranks
from pertwise.acquire.coverage import module_coverage, near_misses, nearest_pick, plane
from pertwise.acquire.factory import open_strategy
from pertwise.acquire.inputs import match_features, one_context, open_pathway
from pertwise.acquire.knowledge_picker import relations_of
from pertwise.acquire.panel import (
    Decision,
    PanelPick,
    Plan,
    RepairNote,
    column_table,
)
from pertwise.acquire.state import (
    ensemble_uncertainty,
    gene_features,
    neighbour_weights,
    noise_variance,
)
from pertwise.acquire.stored import StoredUncertainty
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge, Pathway
from pertwise.knowledge.types import Relation
from pertwise.predict.base import Predictor
from pertwise.screen import Screen
from pertwise.select.base import Selection

log = logging.getLogger(__name__)

CANDIDATE_COLUMNS = (
    "gene",
    "symbol",
    "status",
    "relation",
    "module",
    "evidence",
    "uncertainty",
    "uncertainty_rank",
    "utility",
    "x",
    "y",
)


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

    @property
    def n_to_pick(self) -> int:
        """Places left for the strategy after the pinned."""
        return min(self.batch - len(self.pool.pinned), len(self.pool.candidates))


def prepare(
    screen: Screen | str | os.PathLike[str] | None,
    knowledge: Knowledge | str | os.PathLike[str],
    *,
    pathway: Pathway | str | Sequence[str] | None = None,
    features: Sequence[str] = (),
    candidates: str | os.PathLike[str] | Sequence[str] = "all",
    batch: int = 20,
    context: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    pin: Sequence[str] = (),
    keep_unknown: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> Setup:
    """Read and check every input; see `plan` for the meaning of each."""
    if batch < 1:
        raise InputError(f"a panel needs at least one place, got batch {batch}")
    inputs: dict[str, Any] = {}
    if isinstance(screen, str | os.PathLike):
        measured_screen: Screen | None = _read_screen(screen, dict(reading or {}))
        inputs["screen"] = {"path": str(screen)}
        if Path(screen).is_file():
            inputs["screen"]["sha256"] = sha256_file(screen)
    else:
        measured_screen = screen
        if screen is not None:
            inputs["screen"] = {"path": "", "note": "a Screen object given in the call"}
    if not isinstance(knowledge, Knowledge):
        knowledge = Knowledge.open(knowledge)
    inputs["knowledge"] = {"path": str(knowledge.path), "fingerprint": knowledge.fingerprint()}
    given_context = context
    rows = measured_screen
    if rows is not None:
        inputs["screen"] |= {"meta": dict(rows.meta), "rows": len(rows)}
        rows = one_context(rows, context)
        inputs["screen"]["measured"] = int(rows.measured.sum())
        context = rows.contexts[0] if rows.contexts else context
    target = Target(
        pathway=open_pathway(knowledge, pathway),
        features=None if rows is None else match_features(rows, features),
    )
    if rows is None and features:
        raise InputError("target features are features of a screen, and no screen was given")
    names, origin = list_candidates(candidates, rows, knowledge)
    inputs["candidates"] = {"origin": origin}
    if isinstance(candidates, str | os.PathLike) and Path(candidates).is_file():
        inputs["candidates"] |= {"path": str(candidates), "sha256": sha256_file(candidates)}
    pool = make_pool(
        names,
        origin,
        rows,
        knowledge,
        include=include,
        exclude=exclude,
        pin=pin,
        keep_unknown=keep_unknown,
    )
    if len(pool.pinned) > batch:
        raise InputError(f"{len(pool.pinned)} pinned genes do not fit on a panel of {batch}")
    simulated = bool(rows is not None and rows.simulated) or bool(
        "simulated" in str(knowledge.manifest.get("label", "")).casefold()
    )
    return Setup(
        screen=rows,
        knowledge=knowledge,
        target=target,
        pool=pool,
        batch=batch,
        context=given_context or context or "",
        inputs=inputs,
        simulated=simulated,
    )


def plan(
    screen: Screen | str | os.PathLike[str] | None,
    knowledge: Knowledge | str | os.PathLike[str],
    *,
    pathway: Pathway | str | Sequence[str] | None = None,
    features: Sequence[str] = (),
    candidates: str | os.PathLike[str] | Sequence[str] = "all",
    batch: int = 20,
    strategy: str | Strategy = "knowledge",
    strategy_settings: Mapping[str, Any] | None = None,
    context: str | None = None,
    context_text: str = "",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    pin: Sequence[str] = (),
    keep_unknown: bool = False,
    predictor: Predictor | None = None,
    embedding: str = "text",
    seed: int = 0,
    round_number: int | None = None,
    store: str | os.PathLike[str] | None = None,
    by: str = "",
    reading: Mapping[str, Any] | None = None,
) -> Plan:
    """Choose the next panel.

    Parameters
    ----------
    screen
        What is measured: a `Screen`, a file, or None (cold start). Rows with at least one
        measured feature count as acquired. A new screen file with more rows measured is all the
        next round needs.
    knowledge
        A `Knowledge` folder or its path.
    pathway
        Biological target (see `open_pathway`); None = whole response.
    features
        Names or globs of the screen features whose response counts; empty = all.
    candidates
        "all", "screen", "knowledge", a file or names (see `list_candidates`).
    batch
        Places on the panel, pinned genes included.
    strategy
        Name, "module:Class" or an object; `strategy_settings` go to its constructor.
    predictor
        What gives the uncertainty; default: the LLMPert ensemble seeded with `seed`.
    embedding
        Kind of gene features used for similarity and the map.
    store
        Folder that keeps what is dear to compute (the uncertainty), so that a killed run
        continues with exactly the same numbers; None = keep nothing.
    by
        Who asks; goes into the log of decisions.
    reading
        Settings of `read_screen` for a screen given as a file (e.g. ``control``).

    Raises
    ------
    pertwise.errors.InputError
        Anything given that cannot be used; the message names it and says what to do.
    """
    setup = prepare(
        screen,
        knowledge,
        pathway=pathway,
        features=features,
        candidates=candidates,
        batch=batch,
        context=context,
        include=include,
        exclude=exclude,
        pin=pin,
        keep_unknown=keep_unknown,
        reading=reading,
    )
    if isinstance(strategy, str):
        strategy = open_strategy(strategy, **dict(strategy_settings or {}))
    settings: dict[str, Any] = {
        "pathway": None if setup.target.pathway is None else setup.target.pathway.name,
        "features": list(features),
        "candidates": str(candidates)
        if isinstance(candidates, str | os.PathLike)
        else list(candidates),
        "batch": batch,
        "strategy": strategy.name,
        "strategy_settings": {k: repr(v) for k, v in (strategy_settings or {}).items()},
        "context": setup.context,
        "context_text": context_text,
        "include": list(include),
        "exclude": list(exclude),
        "pin": list(pin),
        "keep_unknown": keep_unknown,
        "reading": {k: str(v) for k, v in (reading or {}).items()},
        "embedding": embedding,
        "seed": seed,
    }
    state, notes = make_state(
        setup,
        strategy,
        predictor=predictor,
        embedding=embedding,
        seed=seed,
        context_text=context_text,
        round_number=round_number,
        store=store,
    )
    settings["round"] = state.round if state is not None else round_number
    if state is None:
        chosen = Selection(picks=(), source=strategy.name, utilities=pd.Series(dtype=float))
    else:
        chosen = strategy.choose(state, setup.n_to_pick)
    return _assemble(setup, state, chosen, notes, settings, by)


def make_state(
    setup: Setup,
    strategy: Strategy,
    *,
    predictor: Predictor | None,
    embedding: str,
    seed: int,
    context_text: str = "",
    round_number: int | None = None,
    store: str | os.PathLike[str] | None = None,
    train: bool = True,
) -> tuple[AcquisitionState | None, list[RepairNote]]:
    """The state a strategy sees; None when every place is pinned.

    With `train` False nothing is fitted: the uncertainty is then the stored one, or absent.
    """
    pool = setup.pool
    if setup.n_to_pick < 1:
        return None, []
    notes: list[RepairNote] = []
    names = [*pool.candidates, *pool.measured, *pool.pinned]
    rows, blank = gene_features(setup.knowledge, names, kind=embedding)
    if blank:
        notes.append(
            RepairNote(
                stage="embedding",
                kind="fallback",
                item=f"{len(blank)} names",
                action="no knowledge text: their features are zero, alike to nothing "
                f"({', '.join(blank[:5])}{' ...' if len(blank) > 5 else ''})",
            )
        )
    uncertainty, members = None, None
    cold = setup.screen is None or not pool.measured
    needs = getattr(strategy, "needs", "members")
    if setup.screen is not None and not cold and needs != "nothing":
        stored = StoredUncertainty(
            store,
            setup.inputs,
            setup.target,
            pool.candidates,
            seed,
            {"context": setup.context, "embedding": embedding},
        )
        if predictor is None and needs == "uncertainty":
            uncertainty = stored.load()
        if uncertainty is None and train:
            uncertainty, members, used = ensemble_uncertainty(
                predictor or default_predictor(seed, embedding),
                setup.screen,
                setup.knowledge,
                pool.candidates,
                setup.target.features,
                keep_members=needs == "members",
            )
            notes += _grouped(used)
            if predictor is None:
                stored.save(uncertainty)
    state = AcquisitionState(
        candidates=pool.candidates,
        measured=(*pool.measured, *pool.pinned),
        rng=np.random.default_rng([seed, 20]),
        target=setup.target,
        screen=None if cold else setup.screen,
        knowledge=setup.knowledge,
        uncertainty=uncertainty,
        member_predictions=members,
        embedding=rows,
        round=round_number or (1 if cold else 2),
        context=setup.context,
        context_text=context_text,
        pinned=pool.pinned,
        neighbours=neighbour_weights(setup.knowledge, names),
        noise_variance=None
        if cold or setup.screen is None
        else noise_variance(setup.screen, setup.target.features),
    )
    return replace(state, relations=relations_of(state)), notes


def _grouped(used: Mapping[str, str]) -> list[RepairNote]:
    """One note for all candidates that got the same fallback."""
    by_action: dict[str, list[str]] = {}
    for name, action in used.items():
        by_action.setdefault(action, []).append(name)
    return [
        RepairNote(
            stage="predictor",
            kind="fallback",
            item=names[0] if len(names) == 1 else f"{len(names)} names",
            action=action + f" ({', '.join(names[:5])}{' ...' if len(names) > 5 else ''})",
        )
        for action, names in by_action.items()
    ]


def default_predictor(seed: int, embedding: str) -> Predictor:
    """The LLMPert ensemble with its published settings, on the same gene features."""
    module = importlib.import_module("pertwise.predict.llmpert")
    predictor: Predictor = module.LLMPert(embedding, seed=seed)
    return predictor


def _read_screen(path: str | os.PathLike[str], reading: dict[str, Any]) -> Screen:
    screen: Screen = importlib.import_module("pertwise.screen").read_screen(path, **reading)
    return screen


def _assemble(
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
    if setup.target.pathway is not None:
        relations = dict(
            (state.relations if state is not None else None)
            or setup.knowledge.relations(everyone, setup.target.pathway)
        )
    ranks = uncertainty_ranks(state) if state is not None else {}
    u = None if state is None else state.uncertainty
    utilities = chosen.utilities
    picks = _picks(setup, chosen, relations, ranks, u)
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
        positions = [state.candidates.index(g) for g in genes if g in set(state.candidates)]
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
            }
            for name in sorted(everyone)
        ],
        CANDIDATE_COLUMNS,
    )
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
        warnings=_warnings(setup, state, picks),
        source=chosen.source,
        fallback=chosen.fallback,
        inputs=setup.inputs,
        settings=settings,
        versions=_versions(),
        provenance=dict(chosen.provenance),
        decisions=[Decision(when=now, by=by or "pertwise", action="made", added=genes)],
    )


def _picks(
    setup: Setup,
    chosen: Selection,
    relations: Mapping[str, Relation],
    ranks: Mapping[str, int],
    u: pd.Series | None,
) -> list[PanelPick]:
    names = [*setup.pool.pinned, *chosen.items]
    cards = setup.knowledge.cards([n for n in names if "+" not in n]) if names else {}
    by_name = {p.item: p for p in chosen.picks}
    picks = []
    for rank, name in enumerate(names, 1):
        pick = by_name.get(name)
        relation = relations.get(name)
        card = cards.get(name)
        evidence = list(pick.evidence) if pick else []
        if relation and relation.evidence and relation.evidence not in evidence:
            evidence.insert(0, relation.evidence)
        picks.append(
            PanelPick(
                rank=rank,
                gene=name,
                symbol=setup.pool.symbols[name],
                full_name=card.full_name if card else "",
                summary=card.summary if card else "",
                module=relation.module if relation else "",
                relation=relation.kind if relation else "",
                uncertainty_rank=ranks.get(name),
                uncertainty=None if u is None or name not in u.index else float(u[name]),
                utility=None if pick is None else pick.score,
                reason=pick.reason if pick else "Pinned by the person who planned",
                evidence=evidence,
                chosen_by="pin" if pick is None else str(pick.extra.get("chosen_by", "strategy")),
            )
        )
    return picks


def _warnings(
    setup: Setup, state: AcquisitionState | None, picks: Sequence[PanelPick]
) -> list[str]:
    found = []
    unknown = [row for row in setup.pool.left_out if row.kind == "unknown"]
    if unknown:
        some = ", ".join(r.gene for r in unknown[:5])
        found.append(
            f"{len(unknown)} candidates are not known to the knowledge folder and were left out "
            f"({some}{' ...' if len(unknown) > 5 else ''}); --keep-unknown keeps them"
        )
    if setup.pool.unknown:
        found.append(
            f"{len(setup.pool.unknown)} candidates without any knowledge were kept: "
            f"{', '.join(setup.pool.unknown[:5])}"
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


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("pertwise", "numpy", "pandas", "scipy", "scikit-learn", "anndata", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
