"""`ChatSelector`: a language model picks from a closed list, every pick checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pertwise._io import sha256_text
from pertwise.errors import InputError
from pertwise.llm.answers import PicksAnswer, picks_schema, tokens_for
from pertwise.llm.base import Chat, ChatRequest
from pertwise.llm.converse import Conversation, converse
from pertwise.llm.loop import run_many, run_sync
from pertwise.llm.templates import PromptTemplate
from pertwise.select.base import Pick, Query, Repair, Selection, Selector
from pertwise.select.closed_list import Checked, ClosedList, Resolver, checked_candidates

#: (query, shown candidates, n_min, n_max, masking function) -> variables of the prompt template.
#: The masking function replaces names in any text by their anonymous codes (identity otherwise).
PromptValues = Callable[[Query, tuple[str, ...], int, int, Callable[[str], str]], Mapping[str, Any]]


def seed_for(seed: int, *parts: str | None) -> int:
    """A seed for one question, from the run's seed and what identifies the question.

    Independent of the order in which questions are asked and equal on every machine.
    """
    text = json.dumps([seed, *parts])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


#: Stands in a pick whose reason the model left out.
NO_REASON = "the model gave no reason"


async def ask_selector(
    selector: Selector, query: Query, candidates: Sequence[str], n: int
) -> Selection:
    """Ask any selector from asynchronous code; a chat selector is awaited, not blocked on."""
    asynchronous = getattr(selector, "aselect", None)
    if asynchronous is not None:
        chosen: Selection = await asynchronous(query, candidates, n)
        return chosen
    return selector.select(query, candidates, n)


@dataclass(frozen=True)
class RandomSelector:
    """Seeded random picks; the same question gets the same picks, in any candidate order."""

    seed: int = 0
    name: str = "random"

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """Pick `n` at random without replacement."""
        pool = sorted(c for c in checked_candidates(candidates, n) if c != query.subject)
        seed = seed_for(self.seed, "random", query.subject, query.context)
        order = np.random.default_rng(seed).permutation(len(pool))[:n]
        picks = tuple(Pick(pool[i], f"drawn at random (seed {self.seed})") for i in order)
        return Selection(picks, self.name, provenance={"seed": self.seed})


@dataclass(frozen=True)
class ChatSelector:
    """Shows a closed list to a chat model, validates, re-asks, falls back as declared.

    Attributes
    ----------
    chat
        From `pertwise.llm.open_chat`.
    prompt
        Template; `values` supplies its variables.
    n_min
        Fewest valid picks worth having, given the most asked for: ``n_min(n_max)``.
    k_max
        Most picks the prompt asks for, whatever `n` is; None = n.
    on_short
        When too few valid picks are left after all re-asks: "fill" up with the fallback, or
        "keep" what there is (the fallback is then used only when nothing is left).
    fallback
        A selector, or None: an empty selection, which a predictor answers by its own declared
        fallback (the training mean).
    max_reasks
        How often the exact problem is sent back.
    max_candidates, prefilter
        Longest list to show (None = all). A longer one is cut to what `prefilter` ranks first
        (places it leaves empty are filled at random); the cut is recorded in the provenance.
    resolve
        Names -> approved names, so that aliases of listed genes are recognised.
    require_reasons
        Ask again when picks come without a reason of their own.
    anonymise
        Show codes (G0001 ...) instead of names.
    seed
        Of the candidate order in the prompt, recorded.
    """

    chat: Chat
    prompt: PromptTemplate
    values: PromptValues
    name: str = "chat"
    n_min: Callable[[int], int] = field(default=lambda n: n)
    k_max: int | None = None
    on_short: Literal["fill", "keep"] = "keep"
    fallback: Selector | None = None
    max_reasks: int = 2
    max_candidates: int | None = None
    prefilter: Selector | None = None
    resolve: Resolver | None = None
    require_reasons: bool = False
    anonymise: bool = False
    module_field: bool = False
    seed: int = 0
    replicate: int = 0

    def __post_init__(self) -> None:
        if self.max_candidates is not None and self.max_candidates < 1:
            raise InputError(f"max_candidates = {self.max_candidates}; it must be at least 1")
        if self.max_reasks < 0:
            raise InputError(f"max_reasks = {self.max_reasks}; it must be at least 0")

    @property
    def source(self) -> str:
        """Selector and model."""
        return f"{self.name} ({getattr(self.chat, 'name', 'chat')})"

    # -- asking ----------------------------------------------------------------------------

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """Pick at most `n` of `candidates` (synchronous; see `aselect`)."""
        return run_sync(self.aselect(query, candidates, n))

    def select_many(
        self,
        questions: Sequence[tuple[Query, Sequence[str]]],
        n: int,
        *,
        at_once: int = 32,
        on_answer: Callable[[int, Selection], None] | None = None,
    ) -> list[Selection]:
        """One selection a question, in order, with bounded concurrency and progress.

        A wrong key, an exhausted budget or an endpoint that is gone stops the rest; what was
        answered is in the chat's ledger, so the same call goes on from there. `on_answer` gets
        the position and selection of each question as they come, in order.
        """
        calls = [lambda q=q, c=c: self.aselect(q, c, n) for q, c in questions]
        return run_many(
            calls, at_once=at_once, description=f"asking ({self.name})", on_result=on_answer
        )

    async def aselect(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """Pick at most `n` of `candidates`.

        Raises
        ------
        pertwise.errors.InputError
            If `candidates` is empty or holds duplicates, or `n` < 1.
        pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
            The run must stop; see `pertwise.llm.converse`.
        """
        ask = await self._prepare(query, candidates, n)
        if ask is None:
            only = "the only candidate is the query itself"
            return Selection(
                (), self.source, (Repair("query_itself", str(query.subject), only),), fallback=True
            )
        talk = await converse(
            self.chat,
            ask.request.messages,
            PicksAnswer,
            check=lambda answer: self._check(answer, ask)[1],
            max_reasks=self.max_reasks,
            json_schema=ask.schema,
            replicate=self.replicate,
            answer_tokens=tokens_for(ask.n_max),
        )
        return await self._selection(query, candidates, ask, talk)

    def first_request(self, query: Query, candidates: Sequence[str], n: int) -> ChatRequest | None:
        """The first request of a question, for cost estimates and dry runs."""
        ask = self.question(query, candidates, n)
        return None if ask is None else ask.request

    def question(self, query: Query, candidates: Sequence[str], n: int) -> Ask | None:
        """What would be asked first, nothing sent; None when the query is the only candidate."""
        return run_sync(self._prepare(query, candidates, n))

    # -- the question ----------------------------------------------------------------------

    async def _prepare(self, query: Query, candidates: Sequence[str], n: int) -> Ask | None:
        # Sorted first: the prompt must depend on the set and the seed, not on the given order.
        pool = sorted(checked_candidates(candidates, n))
        resolve = None if self.anonymise else self.resolve
        excluded = ClosedList(pool, self.resolve, query.subject).excluded
        same = set(excluded)
        allowed = [c for c in pool if c not in same]
        if not allowed:
            return None
        seed = seed_for(self.seed, self.name, query.subject, query.context)
        rng = np.random.default_rng(seed)
        kept, cut = await self._cut(query, allowed, rng)
        shown = tuple(kept[i] for i in rng.permutation(len(kept)))
        codes = {}
        if self.anonymise:
            width = max(4, len(str(len(shown))))
            codes = {name: f"G{i:0{width}d}" for i, name in enumerate(shown, start=1)}
        n_max = min(n, len(shown), self.k_max or n)
        n_min = max(1, min(self.n_min(n_max), n_max))
        names = tuple(codes.get(c, c) for c in shown)
        messages = self.prompt.render(
            **{
                "subject": query.subject,
                "context": query.context or "",
                "context_text": query.context_text,
                "n": n_max,
                "n_min": n_min,
                "n_max": n_max,
                "candidates": names,
                "cut": cut,
                **self.values(query, shown, n_min, n_max, masker(codes)),
            }
        )
        limit = getattr(getattr(self.chat, "settings", None), "max_schema_names", 500)
        in_schema = len(names) <= limit
        schema = picks_schema(sorted(names) if in_schema else None, module=self.module_field)
        return Ask(
            request=self.chat.request(
                messages,
                json_schema=schema,
                replicate=self.replicate,
                answer_tokens=tokens_for(n_max),
            ),
            schema=schema,
            closed=ClosedList(names, resolve, None if codes else query.subject),
            names={codes.get(c, c): c for c in shown},
            n_min=n_min,
            n_max=n_max,
            provenance={
                "selector": self.name,
                "chat": getattr(self.chat, "name", ""),
                "prompt": self.prompt.name,
                "prompt_hash": self.prompt.hash,
                "shuffle_seed": seed,
                "shown_order_hash": sha256_text("\n".join(shown))[:16],
                "n_candidates": len(pool),
                "n_shown": len(shown),
                "cut": cut,
                "same_as_query": list(excluded),
                "list_in_schema": in_schema,
                "anonymised": self.anonymise,
                **({"codes": {code: name for name, code in codes.items()}} if codes else {}),
                "n_min": n_min,
                "n_max": n_max,
                "replicate": self.replicate,
            },
        )

    async def _cut(
        self, query: Query, allowed: list[str], rng: np.random.Generator
    ) -> tuple[list[str], str]:
        limit = self.max_candidates
        if limit is None or len(allowed) <= limit:
            return allowed, ""
        if self.prefilter is None:
            raise InputError(
                f"{len(allowed)} candidates, but at most {limit} may be shown: give a prefilter "
                "(any selector) or raise max_candidates"
            )
        first = list((await ask_selector(self.prefilter, query, allowed, limit)).items)
        rest = sorted(set(allowed) - set(first))
        extra = [rest[i] for i in rng.permutation(len(rest))[: limit - len(first)]]
        cut = f"{limit} of {len(allowed)}: {len(first)} preselected by {self.prefilter.name}"
        if extra:
            cut += f", {len(extra)} drawn at random"
        return sorted(first + extra), cut

    # -- the answer ------------------------------------------------------------------------

    def _check(self, answer: PicksAnswer, ask: Ask) -> tuple[Checked, str]:
        checked = ask.closed.check([p.name for p in answer.picks], n_min=ask.n_min, n_max=ask.n_max)
        problem = checked.problem
        if not problem and self.require_reasons:
            lacking = _without_own_reason(answer, checked)
            if lacking:
                problem = f"these picks have no reason of their own: {', '.join(lacking[:20])}"
        return checked, problem

    async def _selection(
        self,
        query: Query,
        candidates: Sequence[str],
        ask: Ask,
        talk: Conversation[PicksAnswer],
    ) -> Selection:
        repairs = self._repairs(ask, talk)
        picks: dict[str, Pick] = {}
        n_proposed = 0
        # The last answer speaks first; earlier ones only fill places it left empty.
        for age, answer in enumerate(reversed(talk.answers)):
            checked, _ = self._check(answer, ask)
            if age == 0:
                n_proposed = len(answer.picks)
            lacking = set(_without_own_reason(answer, checked))
            for item, position in zip(checked.items, checked.positions, strict=True):
                name = ask.names[item]
                if name in picks or len(picks) >= ask.n_max:
                    continue
                stated = answer.picks[position]
                reason = stated.reason.strip()
                if self.require_reasons and item in lacking:
                    repairs.append(Repair("no_reason", name, "kept without a reason of its own"))
                extra: dict[str, Any] = {"stated_rank": position + 1}
                if stated.module:
                    extra["module"] = stated.module
                picks[name] = Pick(name, reason or NO_REASON, extra=extra)
        from_model = len(picks)
        fallback = False
        if from_model < ask.n_min:
            if talk.turns[-1].kind != "rejected":
                few = f"{from_model} valid picks of at least {ask.n_min}"
                repairs.append(Repair("too_few", "", few))
            if from_model == 0 or self.on_short == "fill":
                fallback = True
                picks, repair = await self._fill(query, candidates, ask, picks)
                repairs.append(repair)
        provenance = {
            **ask.provenance,
            **talk.provenance(),
            "n_proposed": n_proposed,
            "k_used": from_model,
        }
        return Selection(
            tuple(picks.values()), self.source, tuple(repairs), None, provenance, fallback
        )

    def _repairs(self, ask: Ask, talk: Conversation[PicksAnswer]) -> list[Repair]:
        """What was wrong in every answer, those that were asked again included."""
        repairs: list[Repair] = []
        for turn in talk.turns:
            if turn.answer is None:
                repairs.append(Repair(turn.kind, "", turn.problem))
                continue
            checked, _ = self._check(turn.answer, ask)
            if turn.answer.bare:
                repairs.append(Repair("bare_list", "", "a list without its key, read as the picks"))
            repairs.extend(checked.repairs)
            if turn.kind == "rejected":
                kind = "too_few" if checked.problem else "no_reason"
                then = "" if turn is talk.turns[-1] else "; asked again"
                repairs.append(Repair(kind, "", turn.problem + then))
        return repairs

    async def _fill(
        self, query: Query, candidates: Sequence[str], ask: Ask, picks: dict[str, Pick]
    ) -> tuple[dict[str, Pick], Repair]:
        if self.fallback is None:
            return picks, Repair("fallback", "", "no picks; none declared to replace them")
        gone = {*picks, *ask.provenance["same_as_query"]}
        rest = [c for c in candidates if c not in gone]
        wanted = ask.n_max - len(picks)
        filled = dict(picks)
        if rest:
            chosen = await ask_selector(self.fallback, query, rest, wanted)
            for pick in chosen.picks:
                filled[pick.item] = Pick(
                    pick.item,
                    f"fallback {self.fallback.name}: {pick.reason}",
                    pick.score,
                    pick.evidence,
                    {**pick.extra, "fallback": True},
                )
        n_new = len(filled) - len(picks)
        return filled, Repair("fallback", "", f"{n_new} picks from {self.fallback.name}")


@dataclass(frozen=True)
class Ask:
    """One prepared question."""

    request: ChatRequest
    schema: dict[str, Any]
    closed: ClosedList
    #: shown name -> candidate
    names: Mapping[str, str]
    n_min: int
    n_max: int
    provenance: dict[str, Any]


def _without_own_reason(answer: PicksAnswer, checked: Checked) -> list[str]:
    """Picks whose reason is missing or shared word for word with another pick."""
    reasons = [answer.picks[p].reason.strip().casefold() for p in checked.positions]
    return [
        item
        for item, reason in zip(checked.items, reasons, strict=True)
        if not reason or reasons.count(reason) > 1
    ]


def masker(codes: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces every whole-word name of `codes` in a text by its code."""
    if not codes:
        return lambda text: text
    import re

    names = sorted(codes, key=lambda c: (-len(c), c))
    pattern = re.compile(
        r"(?<![A-Za-z0-9])(" + "|".join(map(re.escape, names)) + r")(?![A-Za-z0-9])"
    )
    return lambda text: pattern.sub(lambda m: codes[m.group(1)], text)


def knowledge_resolver(knowledge: Any) -> Resolver:
    """Alias resolver from an opened `Knowledge`; remembers what it has looked up."""
    seen: dict[str, str | None] = {}

    def resolve(names: Sequence[str]) -> dict[str, str]:
        # A bare number in an answer is a rank, not the Entrez id of a gene.
        seen.update({n: None for n in names if n.isdigit()})
        new = [n for n in names if n not in seen]
        if new:
            known = knowledge.canonical(new)
            seen.update({n: known.get(n) for n in new})
        return {n: a for n in names if (a := seen[n]) is not None}

    return resolve
