"""`EditSelector`: the neighbours another selector gives, corrected by a language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pertwise.llm.answers import EditAnswer, edit_schema, tokens_for
from pertwise.llm.base import Chat, ChatRequest
from pertwise.llm.converse import converse
from pertwise.llm.loop import run_many, run_sync
from pertwise.llm.templates import PromptTemplate, load_prompt
from pertwise.select.base import Pick, Query, Repair, Selection, Selector
from pertwise.select.chat.selector import ask_selector, seed_for
from pertwise.select.chat.similar import cell_line_text
from pertwise.select.closed_list import ClosedList, Resolver, checked_candidates, quoted


@dataclass(frozen=True)
class EditQuestion:
    """What is asked: the request, the neighbours shown and the closed list they stand in.

    Attributes
    ----------
    before
        The neighbours shown.
    pool
        Everything that can be chosen, the neighbours included.
    offered
        Possible additions, in the order shown.
    """

    request: ChatRequest
    before: Selection
    pool: ClosedList
    offered: tuple[str, ...]
    schema: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Edited:
    """A neighbour list after an answer.

    Attributes
    ----------
    picks
        What is left, with what was added.
    added, removed
        Possible edits that count, as they stand in the list.
    repairs
        What was ignored or read otherwise.
    """

    picks: tuple[Pick, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    repairs: tuple[Repair, ...]


@dataclass(frozen=True)
class EditSelector:
    """Graph neighbours, then additions and removals proposed by a chat model.

    Impossible edits (removing what is no neighbour, adding what is not measured, is a neighbour
    already, or is the query) are ignored and counted as repairs of kind "impossible_edit". When
    everything is removed the selection is empty and says so (kind "empty_set"); the predictor
    then uses the training mean. When the model gives no usable answer the neighbours stay
    unedited and the selection is marked as fallback.

    Attributes
    ----------
    base
        Selector whose picks are edited (a graph selector).
    max_edits
        Most additions, and most removals, that count.
    facts
        Text about the query gene for the prompt.
    max_candidates, prefilter
        Longest list of possible additions to show, and what ranks it; the cut is recorded.
    """

    base: Selector
    chat: Chat
    prompt: PromptTemplate = field(default_factory=lambda: load_prompt("edit"))
    max_edits: int = 5
    facts: Callable[[str], str] | None = None
    resolve: Resolver | None = None
    max_reasks: int = 1
    max_candidates: int | None = None
    prefilter: Selector | None = None
    seed: int = 0
    replicate: int = 0
    name: str = "edit"

    @property
    def source(self) -> str:
        """Selectors and model."""
        return f"{self.base.name} + {self.name} ({getattr(self.chat, 'name', 'chat')})"

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """At most `n` neighbours after editing."""
        return run_sync(self.aselect(query, candidates, n))

    def select_many(
        self, questions: Sequence[tuple[Query, Sequence[str]]], n: int, *, at_once: int = 32
    ) -> list[Selection]:
        """One selection a question, in order, with bounded concurrency and progress."""
        calls = [lambda q=q, c=c: self.aselect(q, c, n) for q, c in questions]
        return run_many(calls, at_once=at_once, description=f"asking ({self.name})")

    async def aselect(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """At most `n` neighbours after editing.

        Raises
        ------
        pertwise.errors.InputError
            If `candidates` is empty or holds duplicates, or `n` < 1.
        pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
            The run must stop; see `pertwise.llm.converse`.
        """
        pool = ClosedList(sorted(checked_candidates(candidates, n)), self.resolve, query.subject)
        if not pool.items:
            nothing = Repair("query_itself", str(query.subject), "the only candidate is the query")
            return Selection((), self.source, (nothing,), fallback=True)
        asked = await self._question(query, pool, n)
        before, provenance = asked.before, asked.provenance
        talk = await converse(
            self.chat,
            asked.request.messages,
            EditAnswer,
            max_reasks=self.max_reasks,
            json_schema=asked.schema,
            replicate=self.replicate,
            answer_tokens=tokens_for(2 * self.max_edits),
        )
        provenance.update(talk.provenance())
        repairs = [
            *before.repairs,
            *(Repair(t.kind, "", t.problem) for t in talk.turns if t.kind),
        ]
        if talk.accepted is None:
            repairs.append(Repair("fallback", "", f"{self.base.name} neighbours left unedited"))
            return Selection(
                before.picks, self.source, tuple(repairs), None, provenance, fallback=True
            )
        done = edited(talk.accepted, before.picks, pool, self.max_edits, n)
        picks = done.picks
        repairs.extend(done.repairs)
        if not picks:
            repairs.append(Repair("empty_set", "", "no neighbour left: use the training mean"))
        kept = set(before.items)
        provenance["added"] = [p.item for p in picks if p.item not in kept]
        provenance["removed"] = sorted(kept - {p.item for p in picks})
        return Selection(picks, self.source, tuple(repairs), None, provenance)

    def question(self, query: Query, candidates: Sequence[str], n: int) -> EditQuestion | None:
        """What would be asked first, nothing sent; None when the query is the only candidate."""
        pool = ClosedList(sorted(checked_candidates(candidates, n)), self.resolve, query.subject)
        return run_sync(self._question(query, pool, n)) if pool.items else None

    async def _question(self, query: Query, pool: ClosedList, n: int) -> EditQuestion:
        before = await ask_selector(self.base, query, pool.items, n)
        neighbours = set(before.items)
        others = [c for c in pool.items if c not in neighbours]
        seed = seed_for(self.seed, self.name, query.subject, query.context)
        rng = np.random.default_rng(seed)
        cut = ""
        if self.max_candidates is not None and len(others) > self.max_candidates:
            n_all, limit = len(others), self.max_candidates
            if self.prefilter is not None:
                first = await ask_selector(self.prefilter, query, others, limit)
                others = sorted(first.items)
                cut = f"{len(others)} of {n_all}, preselected by {self.prefilter.name}"
            else:
                others = sorted(others[i] for i in rng.permutation(n_all)[:limit])
                cut = f"{limit} of {n_all}, drawn at random"
        offered = tuple(others[i] for i in rng.permutation(len(others)))
        subject = query.subject or ""
        messages = self.prompt.render(
            subject=subject,
            subject_facts=self.facts(subject) if self.facts is not None else "",
            context=query.context or "",
            context_text=cell_line_text(query.context or "", query.context_text),
            neighbours=[{"name": p.item, "evidence": "; ".join(p.evidence)} for p in before.picks],
            candidates=offered,
            max_edits=self.max_edits,
            cut=cut,
        )
        limit = getattr(getattr(self.chat, "settings", None), "max_schema_names", 500)
        schema = edit_schema(others if len(others) <= limit else None, before.items)
        request = self.chat.request(messages, json_schema=schema, replicate=self.replicate)
        provenance = {
            "selector": self.name,
            "base": self.base.name,
            "chat": getattr(self.chat, "name", ""),
            "prompt": self.prompt.name,
            "prompt_hash": self.prompt.hash,
            "shuffle_seed": seed,
            "n_neighbours": len(before.picks),
            "n_candidates": len(pool.items),
            "n_shown": len(others),
            "cut": cut,
            "same_as_query": list(pool.excluded),
            "replicate": self.replicate,
        }
        return EditQuestion(request, before, pool, offered, schema, provenance)


def edited(
    answer: EditAnswer, before: Sequence[Pick], pool: ClosedList, max_edits: int, n: int
) -> Edited:
    """The neighbours `before` with the possible edits of an answer made: pure.

    At most `max_edits` additions and as many removals count, at most `n` neighbours are left.
    """
    repairs: list[Repair] = []
    neighbours = {p.item for p in before}
    removed: dict[str, str] = {}
    for edit in answer.remove:
        entry, how = pool.match(edit.name)
        if entry is None or entry not in neighbours or entry in removed:
            why = how if entry is None else "not a neighbour, or removed already"
            repairs.append(Repair("impossible_edit", quoted(edit.name), f"removal ignored: {why}"))
        elif len(removed) >= max_edits:
            repairs.append(Repair("too_many", quoted(edit.name), "removal ignored: too many"))
        else:
            if how:
                repairs.append(Repair(how, quoted(edit.name), f"read as {entry}"))
            removed[entry] = edit.reason
    added: dict[str, Pick] = {}
    for edit in answer.add:
        entry, how = pool.match(edit.name)
        if entry is None or entry in neighbours or entry in added:
            why = how if entry is None else "a neighbour already"
            repairs.append(Repair("impossible_edit", quoted(edit.name), f"addition ignored: {why}"))
        elif len(added) >= max_edits:
            repairs.append(Repair("too_many", quoted(edit.name), "addition ignored: too many"))
        else:
            if how:
                repairs.append(Repair(how, quoted(edit.name), f"read as {entry}"))
            reason = edit.reason.strip() or "the model gave no reason"
            added[entry] = Pick(entry, reason, extra={"edit": "added"})
    kept = [p for p in before if p.item not in removed]
    room = max(0, n - len(added))
    # An addition is a judgement about this gene; the weakest graph edge gives way to it.
    for pick in kept[room:]:
        repairs.append(Repair("too_many", pick.item, "weakest neighbour made room"))
    picks = (*kept[:room], *list(added.values())[:n])
    return Edited(picks, tuple(added), tuple(removed), tuple(repairs))
