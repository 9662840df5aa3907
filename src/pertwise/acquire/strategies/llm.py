"""Two stages: the most uncertain candidates, then a language model picks among them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from pertwise.acquire.base import AcquisitionState, Strategy
from pertwise.acquire.common import (
    best_first,
    check_n,
    order_utilities,
    tie_order,
    uncertainty_ranks,
)
from pertwise.acquire.strategies.knowledge import KnowledgePicker, neighbour_matrix, relations_of
from pertwise.errors import InputError
from pertwise.parts import part
from pertwise.select.base import Pick, Query, Selection

if TYPE_CHECKING:
    from pertwise.llm import Chat, ChatRequest
    from pertwise.select.chat.acquire import Show
    from pertwise.select.chat.selector import ChatSelector


@part(needs=("uncertainty", "chat"), shortlists=True)
class LlmStrategy:
    """Shortlist of the `k` most uncertain candidates, then the chat selector.

    The prompt shows each candidate with its uncertainty rank and score, GO terms, relation to the
    target and summary, and the modules of the pathway; the answer is checked against the
    shortlist and re-asked. Cold start: no uncertainty is shown, and a list longer than `k` is
    cut by the order of `KnowledgePicker`. Declared fallback for places the model leaves open:
    `KnowledgePicker`, which knows the picks already made. Utility = 1 - position / n_candidates in
    the order picks, rest of the shortlist as `KnowledgePicker` orders it, others by uncertainty.

    Parameters
    ----------
    chat
        From `pertwise.llm.open_chat`, with a ledger: then no exchange is paid twice.
    shortlist
        "uncertainty" (top k by u), or "random" (k drawn at random: the ablation).
    show
        Which annotations the prompt shows (ablations); None = all.
    prompt
        Built-in template or the path of your own.
    """

    name = "llm"

    def __init__(
        self,
        chat: Chat,
        k: int = 200,
        *,
        shortlist: Literal["uncertainty", "random"] = "uncertainty",
        show: Show | None = None,
        prompt: str | os.PathLike[str] = "acquire",
        max_reasks: int = 2,
        fallback: Strategy | None = None,
        seed: int = 0,
        replicate: int = 0,
    ) -> None:
        if k < 1:
            raise InputError(f"the shortlist needs k >= 1, got {k}")
        self.chat = chat
        self.k = k
        self.shortlist = shortlist
        self.show = show
        self.prompt = prompt
        self.max_reasks = max_reasks
        self.fallback = fallback or KnowledgePicker()
        self.seed = seed
        self.replicate = replicate

    def choose(self, state: AcquisitionState, n: int) -> Selection:
        """Ask for `n` picks of the shortlist.

        Raises
        ------
        pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
            The run must stop; what was answered is in the ledger.
        """
        check_n(n)
        order = self._order(state, n)
        listed = order[: max(self.k, n)]
        names = [state.candidates[j] for j in listed]
        selector, query = self._selector(state, names, n)
        answer = selector.select(query, names, min(n, len(names)))
        position = {c: j for j, c in enumerate(state.candidates)}
        picked = [position[p.item] for p in answer.picks]
        taken = set(picked)
        rest = [int(j) for j in order if int(j) not in taken]
        utilities = order_utilities([*picked, *rest], len(state.candidates))
        ranks = uncertainty_ranks(state)
        return replace(
            answer,
            picks=tuple(
                self._dressed(p, float(utilities[position[p.item]]), ranks, state)
                for p in answer.picks
            ),
            utilities=pd.Series(utilities, index=list(state.candidates), name="utility"),
            provenance={
                **answer.provenance,
                "strategy": self.name,
                "k": self.k,
                "shortlist_by": self.shortlist if state.uncertainty is not None else "cold start",
                "shortlist": names,
                "declared_fallback": self.fallback.name,
            },
        )

    def first_request(self, state: AcquisitionState, n: int) -> ChatRequest | None:
        """What would be sent first, for a cost estimate; nothing is sent."""
        check_n(n)
        names = [state.candidates[j] for j in self._order(state, n)[: max(self.k, n)]]
        selector, query = self._selector(state, names, n)
        return selector.first_request(query, names, min(n, len(names)))

    def _order(self, state: AcquisitionState, n: int) -> list[int]:
        """All candidates, those for the shortlist first."""
        total = len(state.candidates)
        if self.shortlist == "random":
            return [int(j) for j in state.rng.permutation(total)]
        if state.uncertainty is not None:
            u = state.uncertainty.to_numpy(dtype=np.float64)
            return [int(j) for j in best_first(u, tie_order(state.candidates))]
        utilities = KnowledgePicker().choose(state, min(max(self.k, n), total)).utilities
        if utilities is None:  # KnowledgePicker always gives them
            return list(range(total))
        return [int(j) for j in best_first(utilities.to_numpy(), tie_order(state.candidates))]

    def _selector(
        self, state: AcquisitionState, names: Sequence[str], n: int
    ) -> tuple[ChatSelector, Query]:
        from pertwise.select.chat.acquire import acquisition_selector, candidate_facts
        from pertwise.select.chat.selector import knowledge_resolver

        knowledge = state.knowledge
        facts = candidate_facts(
            names,
            cards=None if knowledge is None else knowledge.cards(names),
            relations=relations_of(state),
            uncertainty=state.uncertainty,
        )
        pinned = set(state.pinned)
        selector = acquisition_selector(
            self.chat,
            facts,
            objective=objective(state, n),
            pathway=state.target.pathway,
            round=state.round,
            acquired=[f"{m} (already on this panel)" if m in pinned else m for m in state.measured],
            show=self.show,
            fallback=_KnowsThePanel(state, self.fallback, tuple(names)),
            resolve=None if knowledge is None else knowledge_resolver(knowledge),
            prompt=self.prompt,
            max_reasks=self.max_reasks,
            seed=self.seed,
            replicate=self.replicate,
            name=self.name,
        )
        return selector, Query(None, state.context, state.context_text)

    def _dressed(
        self, pick: Pick, utility: float, ranks: dict[str, int], state: AcquisitionState
    ) -> Pick:
        extra: dict[str, Any] = dict(pick.extra)
        if pick.item in ranks:
            extra["uncertainty_rank"] = ranks[pick.item]
        if extra.get("fallback"):
            extra["chosen_by"] = "strategy, fallback"
        relation = (state.relations or {}).get(pick.item)
        evidence = (relation.evidence,) if relation is not None and relation.evidence else ()
        return replace(pick, score=utility, extra=extra, evidence=(*pick.evidence, *evidence))


def objective(state: AcquisitionState, n: int) -> str:
    """What the panel is for, in words a model and a person both understand."""
    text = f"Choose {n} perturbations to measure next, so that the response of"
    if state.target.features is not None:
        shown = ", ".join(state.target.features[:12])
        more = len(state.target.features) - 12
        text += f" these features: {shown}" + (f" and {more} more" if more > 0 else "")
    else:
        text += " all measured features"
    text += " to unmeasured perturbations can be predicted better"
    if state.target.pathway is not None:
        text += f"; the biology of interest is {state.target.pathway.name}"
    return text + "."


def narrow(state: AcquisitionState, names: Sequence[str], panel: Sequence[str]) -> AcquisitionState:
    """The state with `names` as candidates and `panel` (former candidates) as pinned."""
    keep = sorted(names)
    position = {c: j for j, c in enumerate(state.candidates)}
    total = len(state.candidates)
    columns = [position[c] for c in keep]
    rows = [*columns, *range(total, total + len(state.measured)), *(position[p] for p in panel)]
    neighbours = neighbour_matrix(state)
    return replace(
        state,
        candidates=tuple(keep),
        measured=(*state.measured, *panel),
        pinned=(*state.pinned, *panel),
        uncertainty=None if state.uncertainty is None else state.uncertainty.loc[keep],
        member_predictions=None
        if state.member_predictions is None
        else state.member_predictions[:, columns],
        embedding=None if state.embedding is None else state.embedding[rows],
        neighbours=None if neighbours is None else neighbours[rows][:, rows],
    )


@dataclass(frozen=True)
class _KnowsThePanel:
    """A strategy as the declared fallback of a selector: what is no candidate any more was
    picked by the model, so the filling complements it."""

    state: AcquisitionState
    strategy: Strategy
    shortlist: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.strategy.name

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        left = set(candidates)
        panel = [c for c in self.shortlist if c not in left]
        return self.strategy.choose(narrow(self.state, candidates, panel), n)
