"""`plan`: from a measured screen, knowledge and a target to the next panel, with reasons."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise import parts
from pertwise._io import installed
from pertwise.acquire.assemble import Setup, assemble
from pertwise.acquire.base import AcquisitionState, Strategy, Target
from pertwise.acquire.candidates import list_candidates, make_pool
from pertwise.acquire.exhaustion import HandOver
from pertwise.acquire.facts import required
from pertwise.acquire.inputs import match_features, one_context, open_pathway
from pertwise.acquire.panel import (
    STOOD_IN,
    Plan,
    RepairNote,
)
from pertwise.acquire.state import (
    COMPOUNDS,
    MOST_PREDICTED,
    Disagreement,
    choose_embedding,
    ensemble_uncertainty,
    gene_features,
    neighbour_weights,
    noise_variance,
)
from pertwise.acquire.stored import StoredUncertainty
from pertwise.acquire.strategies.knowledge import relations_of
from pertwise.errors import InputError, unknown_name
from pertwise.kernels.known import compound_features
from pertwise.knowledge import Knowledge, Pathway
from pertwise.knowledge.facts import FactTable, joined, read_facts
from pertwise.models.base import Predictor
from pertwise.provenance import input_facts
from pertwise.screen import Screen, read_screen
from pertwise.screen.join_controls import LONG
from pertwise.select.base import Selection

if TYPE_CHECKING:
    from anndata import AnnData

#: Settings of the networks whose disagreement is the uncertainty. The ranks of two seeds of the
#: published ones agree to 0.36 (Spearman, 19,372 candidates on 1,949 knock-downs); the quick ones
#: agree with them to 0.30 and 0.24 and cost a tenth. "ridge" are no networks (`BaggedRidge`).
ENSEMBLES: dict[str, dict[str, Any]] = {
    "quick": {"hidden": (256, 128, 64), "epochs": 60, "learning_rate": 2e-3},
    "published": {},
    "ridge": {"members": 10},
}
#: What stands in for the quick networks where torch is not installed, and what is said of it.
STAND_IN = "ridge"
NO_TORCH = (
    "torch is not installed (or does not load): the uncertainty is the disagreement of 10 ridge "
    "regressions on bootstrap samples; pip install 'pertwise[torch]' adds the networks (--ensemble "
    "quick, published)"
)
#: Tables of facts: files, or tables that were read.
FactFiles = str | os.PathLike[str] | FactTable | Sequence[str | os.PathLike[str] | FactTable]


def prepare(
    screen: Screen | str | os.PathLike[str] | AnnData | None,
    knowledge: Knowledge | str | os.PathLike[str],
    *,
    pathway: Pathway | str | Sequence[str] | None = None,
    features: Sequence[str] = (),
    candidates: str | os.PathLike[str] | Sequence[str] = "auto",
    batch: int = 20,
    context: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    pin: Sequence[str] = (),
    keep_unknown: bool = False,
    reading: Mapping[str, Any] | None = None,
    facts: FactFiles = (),
    require: Sequence[str] | str = (),
) -> Setup:
    """Read and check every input; see `plan` for the meaning of each."""
    if batch < 1:
        raise InputError(f"a panel needs at least one place, got batch {batch}")
    inputs: dict[str, Any] = {}
    measured_screen: Screen | None = None
    if isinstance(screen, Screen):
        measured_screen = screen
    elif screen is not None:
        measured_screen = read_screen(screen, **dict(reading or {}))
    if isinstance(screen, str | os.PathLike):
        inputs["screen"] = input_facts(screen)
    elif screen is not None:
        kind = "a Screen" if isinstance(screen, Screen) else "an AnnData"
        inputs["screen"] = {"path": "", "note": f"{kind} object given in the call"}
    if not isinstance(knowledge, Knowledge):
        knowledge = Knowledge.open(knowledge)
    inputs["knowledge"] = input_facts(knowledge)
    given_context = context
    rows = measured_screen
    if rows is not None:
        meta = {k: v for k, v in rows.meta.items() if k not in LONG}
        inputs["screen"] |= {"meta": meta, "rows": len(rows)}
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
    if rows is not None:
        knowledge = knowledge.spelt(rows.perturbations)
    inputs["candidates"] = {"origin": origin}
    if isinstance(candidates, str | os.PathLike) and Path(candidates).is_file():
        inputs["candidates"] |= input_facts(candidates)
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
    tables = [facts] if isinstance(facts, str | os.PathLike | FactTable) else list(facts)
    known = joined([t if isinstance(t, FactTable) else read_facts(t) for t in tables])
    for i, table in enumerate(t for t in tables if not isinstance(t, FactTable)):
        inputs[f"facts {i + 1}" if i else "facts"] = input_facts(table)
    conditions = (require,) if isinstance(require, str) else tuple(require)
    pool, told = required(pool, conditions, rows, knowledge, target.features, known)
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
        facts=known,
        told=told,
    )


def plan(
    screen: Screen | str | os.PathLike[str] | AnnData | None,
    knowledge: Knowledge | str | os.PathLike[str],
    *,
    pathway: Pathway | str | Sequence[str] | None = None,
    features: Sequence[str] = (),
    candidates: str | os.PathLike[str] | Sequence[str] = "auto",
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
    ensemble: str = "quick",
    embedding: str = "auto",
    seed: int = 0,
    round_number: int | None = None,
    store: str | os.PathLike[str] | None = None,
    by: str = "",
    reading: Mapping[str, Any] | None = None,
    facts: FactFiles = (),
    require: Sequence[str] | str = (),
    rounds_left: int | None = None,
    hand_over: str | None = None,
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
        "auto", "all", "screen", "targetable", "knowledge", a file or names (see
        `list_candidates`).
    batch
        Places on the panel, pinned genes included.
    strategy
        Name, "module:Class" or an object; `strategy_settings` go to its constructor.
    predictor
        What gives the uncertainty; default: the LLMPert ensemble seeded with `seed`.
    ensemble
        Size of that ensemble's networks: a key of `ENSEMBLES`.
    embedding
        Kind of gene features used for similarity, information and the map; "auto" = graph, GO and
        Reactome joined, as far as the folder has them (`choose_embedding`).
    store
        Folder that keeps what is dear to compute (the uncertainty), so that a killed run
        continues with exactly the same numbers; None = keep nothing.
    by
        Who asks; goes into the log of decisions.
    reading
        Settings of `read_screen` for a screen given as a file (e.g. ``control``).
    facts, require
        Tables of facts about perturbations (`read_facts`), shown in the prompt and on the page, and
        conditions on them that a candidate must meet (`parse_conditions`).
    rounds_left
        Rounds after this one, for a strategy that looks ahead.
    hand_over
        Strategy that chooses when the pool is exhausted (`exhaustion.HandOver`); None =
        never.

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
        facts=facts,
        require=require,
    )
    picker: Strategy = (
        parts.load("strategy", strategy, **dict(strategy_settings or {}))
        if isinstance(strategy, str)
        else strategy
    )
    if hand_over is not None:
        picker = HandOver(picker, hand_over)
    embedding = choose_embedding(setup.knowledge, embedding)
    settings: dict[str, Any] = {
        "pathway": None if setup.target.pathway is None else setup.target.pathway.name,
        "features": list(features),
        "candidates": str(candidates)
        if isinstance(candidates, str | os.PathLike)
        else list(candidates),
        "batch": batch,
        "strategy": picker.name,
        "strategy_settings": {k: repr(v) for k, v in (strategy_settings or {}).items()},
        "context": setup.context,
        "context_text": context_text,
        "include": list(include),
        "exclude": list(exclude),
        "pin": list(pin),
        "keep_unknown": keep_unknown,
        "reading": {k: str(v) for k, v in (reading or {}).items()},
        "embedding": embedding,
        "ensemble": ensemble if predictor is None else "given",
        "seed": seed,
    }
    state, notes = make_state(
        setup,
        picker,
        predictor=predictor,
        ensemble=ensemble,
        embedding=embedding,
        seed=seed,
        context_text=context_text,
        round_number=round_number,
        store=store,
        rounds_left=rounds_left,
    )
    if any(n.kind == STOOD_IN for n in notes):
        settings["ensemble"] = STAND_IN
    asked = [require] if isinstance(require, str) else list(require)
    more = {"require": asked, "hand_over": hand_over, "rounds_left": rounds_left}
    settings |= {k: v for k, v in more.items() if v not in (None, [])}
    settings["round"] = state.round if state is not None else round_number
    if state is None:
        chosen = Selection(picks=(), source=picker.name, utilities=pd.Series(dtype=float))
    else:
        chosen = picker.choose(state, setup.n_to_pick)
    return assemble(setup, state, chosen, notes, settings, by)


def make_state(
    setup: Setup,
    strategy: Strategy,
    *,
    predictor: Predictor | None,
    embedding: str,
    seed: int,
    ensemble: str = "quick",
    context_text: str = "",
    round_number: int | None = None,
    store: str | os.PathLike[str] | None = None,
    train: bool = True,
    rounds_left: int | None = None,
) -> tuple[AcquisitionState | None, list[RepairNote]]:
    """The state a strategy sees; None when every place is pinned.

    With `train` False nothing is fitted: the uncertainty is then the stored one, or absent.
    """
    pool = setup.pool
    if ensemble not in ENSEMBLES:
        raise unknown_name("ensemble", ensemble, ENSEMBLES)
    if setup.n_to_pick < 1:
        return None, []
    notes: list[RepairNote] = []
    embedding = choose_embedding(setup.knowledge, embedding)
    names = [*pool.candidates, *pool.measured, *pool.pinned]
    rows, blank = gene_features(setup.knowledge, names, kind=embedding)
    if blank:
        notes.append(
            RepairNote(
                stage="embedding",
                kind="fallback",
                item=f"{len(blank)} names",
                action=f"nothing known in {embedding!r}: their features are zero, alike to nothing "
                f"({', '.join(blank[:5])}{' ...' if len(blank) > 5 else ''})",
            )
        )
    found: Disagreement | None = None
    cold = setup.screen is None or not pool.measured
    needs = looks_at(strategy)
    if setup.screen is not None and not cold and needs != "nothing":
        n_shown = len(setup.target.features or setup.screen.features)
        shown = n_shown if needs == "prediction" and n_shown <= MOST_PREDICTED else None

        def kept(of: str) -> StoredUncertainty:
            how = {"context": setup.context, "embedding": embedding, "ensemble": ENSEMBLES[of]}
            return StoredUncertainty(store, setup.inputs, setup.target, pool.candidates, seed, how)

        stored = kept(ensemble)
        if predictor is None and needs != "members":
            found = stored.load(shown)
        # Whether torch loads is asked last: finding out takes longer than reading what is stored.
        if found is None and predictor is None and settled_ensemble(ensemble) != ensemble:
            item = f"ensemble {ensemble!r}"
            notes.append(RepairNote(stage="predictor", kind=STOOD_IN, item=item, action=NO_TORCH))
            ensemble, stored = STAND_IN, kept(STAND_IN)
            found = stored.load(shown) if needs != "members" else None
        if found is None and train:
            found = ensemble_uncertainty(
                predictor or default_predictor(seed, _inputs(embedding, setup.knowledge), ensemble),
                setup.screen,
                setup.knowledge,
                pool.candidates,
                setup.target.features,
                keep=needs,
            )
            notes += _grouped(found.used)
            if predictor is None:
                stored.save(found)
    state = AcquisitionState(
        candidates=pool.candidates,
        measured=(*pool.measured, *pool.pinned),
        rng=np.random.default_rng([seed, 20]),
        target=setup.target,
        screen=None if cold else setup.screen,
        knowledge=setup.knowledge,
        uncertainty=None if found is None else found.uncertainty,
        member_predictions=None if found is None else found.members,
        prediction=None if found is None else found.mean,
        rounds_left=rounds_left,
        facts=setup.facts,
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


def looks_at(strategy: Strategy) -> str:
    """What of the model a strategy looks at: "nothing", "uncertainty", "prediction" (and the
    uncertainty) or "members" (if unsaid)."""
    told = parts.facts(strategy).needs
    return next((w for w in ("nothing", "uncertainty", "prediction") if w in told), "members")


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


def default_predictor(
    seed: int, embedding: str | Mapping[str, Any], ensemble: str = "quick"
) -> Predictor:
    """The ensemble on the same features, with the settings of `ENSEMBLES`."""
    from pertwise.models.llmpert.bagged import BaggedRidge
    from pertwise.models.llmpert.predictor import LLMPert

    kind = BaggedRidge if ensemble == STAND_IN else LLMPert
    predictor: Predictor = kind(embedding, seed=seed, **ENSEMBLES[ensemble])
    return predictor


def settled_ensemble(ensemble: str) -> str:
    """The ensemble that is used: `STAND_IN` for the default one where torch is not installed."""
    return STAND_IN if ensemble == "quick" and not installed("torch") else ensemble


def _inputs(embedding: str, knowledge: Knowledge) -> str | Mapping[str, Any]:
    """What the default predictor sees: a kind of embedding, or the features of compounds."""
    if embedding != COMPOUNDS or knowledge.drugs is None:
        return embedding
    names = list(knowledge.drugs.cards)
    return dict(zip(names, compound_features(knowledge, names), strict=True))
