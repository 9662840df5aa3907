"""A stored plan's question, opened again: what a swap costs, and the rest of the panel anew.

Nothing is trained and no screen is read: uncertainties are those of the plan, features and
relations come from the knowledge folder it names.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from pertwise import parts
from pertwise.acquire.amendment import candidate_pick, revised, stored_pathway
from pertwise.acquire.base import AcquisitionState, Target
from pertwise.acquire.decisions import ANEW, refused
from pertwise.acquire.panel import Plan
from pertwise.acquire.state import gene_features, neighbour_weights
from pertwise.acquire.strategies.knowledge import RELATION_SCORE, KnowledgePicker, Weights
from pertwise.acquire.strategies.variance_reduction import Information
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge, Relation
from pertwise.provenance import input_facts
from pertwise.select.base import Selection


@dataclass(frozen=True)
class Question:
    """What a plan was asked, without its panel.

    Attributes
    ----------
    names
        Candidates of the plan, then what is measured; rows of `rows`.
    rows
        (n_names, k) unit-length knowledge features.
    information
        What measuring candidates would tell about all of them, each counting 1 + the score of its
        relation to the target, as in the strategy `knowledge`; see `Information`.
    changed
        Whether the knowledge folder is another than the one the plan was made with.
    """

    knowledge: Knowledge
    names: tuple[str, ...]
    rows: Any
    relations: dict[str, Relation]
    information: Information
    changed: bool

    @classmethod
    def open(
        cls, plan: Plan, knowledge: Knowledge | str | os.PathLike[str] | None = None
    ) -> Question:
        """Read the knowledge folder that the plan names, or the one given.

        Raises
        ------
        pertwise.errors.InputError
            When the folder is not there, or knows none of the candidates.
        """
        recorded = dict(plan.inputs.get("knowledge") or {})
        if knowledge is None:
            knowledge = str(recorded.get("path") or "")
            if not knowledge:
                raise InputError("the plan does not say which knowledge folder it was made with")
        if not isinstance(knowledge, Knowledge):
            knowledge = Knowledge.open(knowledge)
        changed = input_facts(knowledge).get("fingerprint") != recorded.get("fingerprint")
        candidates = plan.candidates["gene"]
        names = (*candidates, *plan.measured["gene"])
        knowledge = knowledge.spelt(names)
        kind = str(plan.settings.get("embedding") or "text")
        rows, blank = gene_features(knowledge, names, kind=kind)
        if len(blank) == len(names):
            raise InputError(f"nothing is known of any candidate in the features {kind!r}")
        pathway = stored_pathway(plan)
        relations = {} if pathway is None else knowledge.relations(names, pathway)
        total = len(candidates)
        weights = np.array(
            [1.0 + (RELATION_SCORE[relations[c].kind] if c in relations else 0.0) for c in names]
        )[:total]
        noise = float(plan.provenance.get("noise") or 0.5)
        information = Information(rows[:total], rows[total:], noise, weights)
        return cls(knowledge, names, rows, relations, information, changed)

    def places(self, genes: Sequence[str]) -> list[int]:
        """Positions of those genes that are candidates; a person may have added others."""
        position = {g: i for i, g in enumerate(self.names)}
        return [position[g] for g in genes if g in position]

    def worth(self, genes: Sequence[str]) -> float:
        """Share of what is unexplained among all candidates that measuring `genes` would take off.

        In [0, 1]; genes that are no candidates add nothing.
        """
        places = self.places(genes)
        return self.information.worth(places) / self.information.left if places else 0.0

    def gains(self, genes: Sequence[str]) -> dict[str, float]:
        """What each candidate would add to a panel of `genes`, as in `worth`."""
        gains = self.information.after(self.places(genes)).gains() / self.information.left
        return dict(zip(self.names, gains.tolist(), strict=False))

    def choose(self, plan: Plan, n: int, *, keep: Collection[str]) -> tuple[Selection, str]:
        """`n` more picks around those of `keep`, by the plan's own strategy where it can.

        Strategies that look at every member of the ensemble, at the screen or at a model's answers
        cannot be asked again from what is stored; `knowledge` then chooses.

        Returns
        -------
        The selection, and the name of who chose.
        """
        banned = {*keep, *refused(plan)}
        rows = {g: i for i, g in enumerate(self.names)}
        total = len(plan.candidates["gene"])
        free = [g for g in self.names[:total] if g not in banned]
        if not free:
            raise InputError("there is no other candidate to choose from")
        kept = [g for g in keep if g in rows]
        measured = [*self.names[total:], *kept]
        u = dict(zip(plan.candidates["gene"], plan.candidates["uncertainty"], strict=True))
        known = [u[g] is not None for g in free]
        names = [*free, *measured]
        state = AcquisitionState(
            candidates=tuple(free),
            measured=tuple(measured),
            rng=np.random.default_rng([int(plan.settings.get("seed") or 0), 20]),
            target=Target(pathway=stored_pathway(plan)),
            knowledge=self.knowledge,
            uncertainty=pd.Series([u[g] for g in free], index=free, dtype=float, name="uncertainty")
            if all(known)
            else None,
            embedding=self.rows[[rows[g] for g in names]],
            pinned=tuple(kept),
            relations=self.relations,
            neighbours=neighbour_weights(self.knowledge, names),
        )
        picker = _picker(plan)
        return picker.choose(state, n), str(picker.name)


def choose_anew(plan: Plan, question: Question, *, by: str, why: str) -> Plan:
    """The next revision of `plan`: pinned picks stay, the other places are chosen again.

    Genes that people took off stay off.

    Raises
    ------
    pertwise.errors.InputError
        Every place is pinned, or no other candidate is left; no name or reason.
    """
    kept = [p for p in plan.picks if p.pinned]
    n = len(plan.picks) - len(kept)
    if not n:
        raise InputError("every pick is pinned: unpin those that may be chosen anew")
    chosen, name = question.choose(plan, n, keep=[p.gene for p in kept])
    cards = question.knowledge.cards([p.item for p in chosen.picks])
    picks = list(kept)
    for pick in chosen.picks:
        made = candidate_pick(plan, pick.item, pick.reason, utility=pick.score)
        card = cards.get(pick.item)
        if card is not None and not made.summary:
            told = {"full_name": made.full_name or card.full_name, "summary": card.summary}
            made = made.model_copy(update=told)
        picks.append(made)
    genes = [p.gene for p in picks]
    return revised(
        plan,
        picks,
        f"{ANEW} around {len(kept)} pinned, by “{name}”",
        by=by,
        why=why,
        added=[g for g in genes if g not in plan.genes],
        dropped=[g for g in plan.genes if g not in genes],
    )


def _picker(plan: Plan) -> Any:
    """The plan's strategy, where what is stored is all it looks at and its settings are known."""
    name = str(plan.settings.get("strategy") or "").replace("_", "-")
    # By built-in names only: a plan file must not bring code with it.
    if (
        name != KnowledgePicker.name
        and name in parts.names("strategy", offered=False)
        and not plan.settings.get("strategy_settings")
        and parts.describe("strategy", name).facts.needs in (("nothing",), ("uncertainty",))
    ):
        return parts.load("strategy", name)
    given = plan.provenance.get("weights")
    known = {f.name for f in fields(Weights)}
    if name != KnowledgePicker.name or not isinstance(given, dict) or not set(given) <= known:
        given = {}
    return KnowledgePicker(weights=Weights(**given))
