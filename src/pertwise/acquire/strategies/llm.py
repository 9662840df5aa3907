"""A shortlist, then a language model picks among its representatives."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from pertwise.acquire.base import AcquisitionState, Strategy
from pertwise.acquire.common import check_n, order_utilities, uncertainty_ranks
from pertwise.acquire.hubs import without_hubs
from pertwise.acquire.shortlists import NAMES, Shortlist, ShortlistName, make_shortlist
from pertwise.acquire.strategies.knowledge import (
    RELATION_WORDS,
    KnowledgePicker,
    neighbour_matrix,
    relations_of,
)
from pertwise.errors import InputError, unknown_name
from pertwise.parts import part
from pertwise.select.base import Pick, Query, Repair, Selection

if TYPE_CHECKING:
    from pertwise.knowledge.types import Relation
    from pertwise.llm import Chat, ChatRequest
    from pertwise.select.chat.acquire import Show
    from pertwise.select.chat.selector import ChatSelector

#: The prompt of the first paper, which saw no result; with it comes its shortlist.
PAPER = "acquire-paper"
#: How a shortlist was made, as the prompt says it.
WORDS = {
    "information": "representatives by expected error reduction",
    "uncertainty": "the most uncertain",
    "random": "drawn at random",
}
#: What the rows of a prompt tell, in the order in which a long one loses it.
DETAILS = ("all", "short", "names")


@part(needs=("prediction", "chat"), reads="ratings", shortlists=True)
class LlmStrategy:
    """A shortlist, one line a representative, then a language model that sees what was measured.

    The prompt tells the target (marker genes and sign, base rates, what a missing value means), the
    measured responses by feature and module, and per candidate whom it speaks for, its nearest
    measured ones, what the current model predicts, relation, facts and GO terms; the answer is
    checked against the shortlist and re-asked. Declared fallback for places the model leaves open:
    `KnowledgePicker`, which knows the picks already made. Utility = 1 - position / n_candidates in
    the order picks, rest of the shortlist, others.

    Parameters
    ----------
    chat
        From `pertwise.llm.open_chat`, with a ledger: then no exchange is paid twice.
    k
        Length of the shortlist; default by its name (`shortlists.LENGTHS`).
    shortlist
        "information", "uncertainty", "random" or "all" (see `make_shortlist`). Default
        "information", and "uncertainty" for the prompt "acquire-paper", as it was published.
    per_group
        Most of one complex or cluster on the list; None = any number (always for "acquire-paper").
    max_tokens
        Estimated tokens of the prompt; a longer one loses details, then the end of its list, which
        is told in the prompt and as a repair.
    show
        Which annotations the prompt shows (ablations); None = all, without summaries for "acquire".
    prompt
        Built-in template ("acquire", or "acquire-paper" for replication) or the path of your own.
    """

    name = "llm"

    def __init__(
        self,
        chat: Chat,
        k: int | None = None,
        *,
        shortlist: ShortlistName | None = None,
        per_group: int | None = 3,
        max_tokens: int = 20_000,
        show: Show | None = None,
        prompt: str | os.PathLike[str] = "acquire",
        max_reasks: int = 2,
        fallback: Strategy | None = None,
        seed: int = 0,
        replicate: int = 0,
    ) -> None:
        paper = str(prompt) == PAPER
        if k is not None and k < 1:
            raise InputError(f"the shortlist needs k >= 1, got {k}")
        if per_group is not None and per_group < 1:
            raise InputError(f"per_group = {per_group}: at least one of a cluster, or none at all")
        if shortlist is not None and shortlist not in NAMES:
            raise unknown_name("shortlist", shortlist, NAMES)
        self.chat = chat
        self.k = k
        self.shortlist: ShortlistName = shortlist or ("uncertainty" if paper else "information")
        self.per_group = None if paper else per_group
        self.max_tokens = max_tokens
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
        question = self._question(state, n)
        answer = question.selector.select(question.query, question.names, question.n)
        position = {c: j for j, c in enumerate(state.candidates)}
        picked = [position[p.item] for p in answer.picks]
        taken = set(picked)
        rest = [j for j in question.short.order if j not in taken]
        utilities = order_utilities([*picked, *rest], len(state.candidates))
        ranks = uncertainty_ranks(state)
        return replace(
            answer,
            picks=tuple(
                self._dressed(p, float(utilities[position[p.item]]), ranks, question.relations)
                for p in answer.picks
            ),
            repairs=(*question.repairs, *answer.repairs),
            utilities=pd.Series(utilities, index=list(state.candidates), name="utility"),
            provenance={
                **answer.provenance,
                "strategy": self.name,
                "k": len(question.names),
                "shortlist_by": question.short.by,
                "shortlist": question.names,
                "per_group": self.per_group,
                "max_tokens": self.max_tokens,
                "declared_fallback": self.fallback.name,
            },
        )

    def first_request(self, state: AcquisitionState, n: int) -> ChatRequest | None:
        """What would be sent first, for a cost estimate; nothing is sent."""
        check_n(n)
        question = self._question(state, n)
        return question.selector.first_request(question.query, question.names, question.n)

    def _question(self, state: AcquisitionState, n: int) -> _Question:
        """The question that fits into `max_tokens`: first fewer details, then fewer candidates."""
        short = make_shortlist(state, self.shortlist, n, self.k, per_group=self.per_group)
        relations = relations_of(state)
        if str(self.prompt) != PAPER:
            relations = without_hubs(relations, state.knowledge, state.target.pathway)
        names = [state.candidates[j] for j in short.listed]
        if str(self.prompt) == PAPER:
            return self._asked(state, short, relations, names, n, "all")
        full = len(names)
        for details in DETAILS:
            question = self._asked(state, short, relations, names, n, details)
            tokens = _tokens(question)
            # Names alone teach a model little: only who asks for everyone gets nothing but them.
            if tokens <= self.max_tokens or (details == "short" and self.shortlist != "all"):
                break
        while tokens > self.max_tokens and len(names) > n:
            share = 0.95 * self.max_tokens / tokens
            names = names[: max(n, min(int(share * len(names)), len(names) - 1))]
            question = self._asked(state, short, relations, names, n, details)
            tokens = _tokens(question)
        repairs = []
        if details != "all":
            lost = "names only" if details == "names" else "without GO terms and full names"
            repairs.append(f"candidates are listed {lost}")
        if len(names) < full:
            repairs.append(f"the shortlist of {full} was cut to its first {len(names)}")
        if repairs:
            why = f"; the prompt may have {self.max_tokens:,} tokens and has about {tokens:,}"
            told = Repair("shortened", "", "; ".join(repairs) + why)
            question = replace(question, repairs=(told,))
        return question

    def _asked(
        self,
        state: AcquisitionState,
        short: Shortlist,
        relations: Mapping[str, Relation],
        names: list[str],
        n: int,
        details: str,
    ) -> _Question:
        from pertwise.acquire.briefing import brief, measured, with_groups
        from pertwise.select.chat.acquire import Show, acquisition_selector, candidate_facts
        from pertwise.select.chat.selector import knowledge_resolver

        knowledge = state.knowledge
        cards = details == "all" and knowledge is not None
        paper = str(self.prompt) == PAPER
        facts = candidate_facts(
            names,
            cards=knowledge.cards(names) if cards and knowledge is not None else None,
            relations=None if details == "names" else relations if paper else _worded(relations),
            uncertainty=None if details == "names" else state.uncertainty,
        )
        seen = measured(state)
        if not paper and details != "names":
            kept = replace(short, size=len(names))
            facts = with_groups(facts, state, kept, seen)
        total = len(state.candidates)
        how = WORDS.get(short.by, f"by {short.by}")
        cut = f"{len(names)} of {total}, {how}" if len(names) < total else ""
        pinned = set(state.pinned)
        selector = acquisition_selector(
            self.chat,
            facts,
            objective=objective(state, n),
            pathway=state.target.pathway,
            round=state.round,
            acquired=[f"{m} (already on this panel)" if m in pinned else m for m in state.measured],
            briefing=None if paper else brief(state, seen, relations),
            cut="" if paper else cut,
            show=self.show or (None if paper else Show(summary=False)),
            fallback=_KnowsThePanel(state, self.fallback, tuple(names)),
            resolve=None if knowledge is None else knowledge_resolver(knowledge),
            prompt=self.prompt,
            max_reasks=self.max_reasks,
            seed=self.seed,
            replicate=self.replicate,
            name=self.name,
        )
        query = Query(None, state.context, state.context_text)
        return _Question(selector, query, names, min(n, len(names)), short, relations)

    def _dressed(
        self,
        pick: Pick,
        utility: float,
        ranks: Mapping[str, int],
        relations: Mapping[str, Relation],
    ) -> Pick:
        extra: dict[str, Any] = dict(pick.extra)
        if pick.item in ranks:
            extra["uncertainty_rank"] = ranks[pick.item]
        if extra.get("fallback"):
            extra["chosen_by"] = "strategy, fallback"
        relation = relations.get(pick.item)
        evidence = (relation.evidence,) if relation is not None and relation.evidence else ()
        return replace(pick, score=utility, extra=extra, evidence=(*pick.evidence, *evidence))


@dataclass(frozen=True)
class _Question:
    """One question, ready to be sent."""

    selector: ChatSelector
    query: Query
    names: list[str]
    n: int
    short: Shortlist
    relations: Mapping[str, Relation]
    repairs: tuple[Repair, ...] = ()


def _worded(relations: Mapping[str, Relation]) -> dict[str, Relation]:
    """Relations as a reader says them: no line for what is not known, nothing said twice."""
    return {
        name: replace(
            r,
            kind=RELATION_WORDS[r.kind],  # type: ignore[arg-type]
            evidence="" if r.kind == "direct_member" else r.evidence,
        )
        for name, r in relations.items()
        if r.kind != "unknown"
    }


def _tokens(question: _Question) -> int:
    """Estimated tokens of the prompt."""
    from pertwise.llm.budget import prompt_tokens_expected

    request = question.selector.first_request(question.query, question.names, question.n)
    return 0 if request is None else prompt_tokens_expected(request)


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
        prediction=None if state.prediction is None else state.prediction[columns],
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
