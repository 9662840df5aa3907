"""`ChatRater`: a language model marks perturbations on programs, every mark checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pertwise.errors import InputError
from pertwise.knowledge.programs import Program, checked_programs
from pertwise.knowledge.ratings import SCALE, Ratings
from pertwise.llm.answers import MarksAnswer, marks_schema
from pertwise.llm.base import Chat, ChatRequest
from pertwise.llm.budget import find_price, prompt_tokens_expected, tokens_expected
from pertwise.llm.converse import converse
from pertwise.llm.loop import run_many
from pertwise.llm.settings import ChatSettings
from pertwise.llm.templates import PromptTemplate, load_prompt
from pertwise.select.base import Repair
from pertwise.select.chat.marks import Sheet
from pertwise.select.chat.selector import seed_for
from pertwise.select.chat.similar import cell_line_text
from pertwise.select.closed_list import Resolver, checked_candidates
from pertwise.select.rater import Marked

#: Most rows of one question: models lose care in longer tables.
MOST_ROWS = 40
#: Share of the answer's tokens that rows may fill.
FILL = 0.9
#: Tokens of a sentence, and of what stands around the rows.
REASON_TOKENS, AROUND = 60, 100


@dataclass(frozen=True)
class Question:
    """Rows of one replicate that are asked together.

    Attributes
    ----------
    names
        In the order shown.
    replicate
        Counts from 0.
    """

    names: tuple[str, ...]
    programs: tuple[Program, ...]
    context: str = ""
    context_text: str = ""
    replicate: int = 0


@dataclass(frozen=True)
class Answered:
    """A question with its marks as far as they are usable; see `Sheet`."""

    question: Question
    sheet: Sheet
    repairs: tuple[Repair, ...]
    talks: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class ChatRater:
    """Shows batches of perturbations and programs, validates, asks again for what lacks.

    Names are shuffled by `seed` (anew for each replicate and context) and cut into batches whose
    answer fits the model's: as many rows as fill `FILL` of its ``max_tokens``, at most `MOST_ROWS`.
    A batch whose answer is cut off all the same is halved. What lacks after `max_reasks` re-asks
    stays empty.

    Attributes
    ----------
    chat
        From `pertwise.llm.open_chat`.
    kind
        What a perturbation is called in the question.
    facts
        Text about a perturbation for the prompt ("" for none).
    resolve
        Names -> approved names, so that aliases are recognised.
    reasons
        Ask for one sentence a row.
    replicates
        Times that everything is asked.
    batch_size
        Rows of a question; None = by the rule above.
    """

    chat: Chat
    prompt: PromptTemplate = field(default_factory=lambda: load_prompt("rate"))
    kind: str = "knock-down"
    facts: Callable[[str], str] | None = None
    resolve: Resolver | None = None
    reasons: bool = False
    replicates: int = 1
    batch_size: int | None = None
    max_reasks: int = 2
    seed: int = 0
    name: str = "rate"

    def __post_init__(self) -> None:
        for what, least in (("replicates", 1), ("batch_size", 1), ("max_reasks", 0)):
            value = getattr(self, what)
            if value is not None and value < least:
                raise InputError(f"{what} = {value}; it must be at least {least}")

    @property
    def source(self) -> str:
        """Rater and model."""
        return f"{self.name} ({getattr(self.chat, 'name', 'chat')})"

    # -- the questions ---------------------------------------------------------------------

    def questions(
        self,
        names: Sequence[str],
        programs: Sequence[Program],
        *,
        context: str = "",
        context_text: str = "",
    ) -> list[Question]:
        """What will be asked: batches of each replicate.

        Raises
        ------
        pertwise.errors.InputError
            If there is nothing to mark, a name or program occurs twice, or a row does not fit.
        """
        pool = sorted(checked_candidates(names, 1))
        columns = checked_programs(programs)
        size = self.batch(pool, columns)
        found = []
        for replicate in range(self.replicates):
            seed = seed_for(self.seed, self.name, context, str(replicate))
            order = np.random.default_rng(seed).permutation(len(pool))
            shown = [pool[i] for i in order]
            found += [
                Question(tuple(shown[i : i + size]), columns, context, context_text, replicate)
                for i in range(0, len(shown), size)
            ]
        return found

    def batch(self, names: Sequence[str], programs: Sequence[Program]) -> int:
        """Rows of a question.

        Raises
        ------
        pertwise.errors.InputError
            If not even one row, or not `batch_size` rows, fit the answer.
        """
        settings = getattr(self.chat, "settings", None) or ChatSettings()
        row = self._row_tokens(max(names, key=len), programs)
        fit = int((FILL * settings.max_tokens - AROUND) / row)
        wanted = self.batch_size or 1
        if fit < wanted:
            raise InputError(
                f"{wanted} rows of {len(programs)} programs need about {wanted * row + AROUND} "
                f"tokens, but an answer has {settings.max_tokens}: give fewer programs or a "
                "smaller batch, or a larger max_tokens of the chat"
            )
        return self.batch_size or min(fit, MOST_ROWS)

    def _row_tokens(self, name: str, programs: Sequence[Program]) -> int:
        row = {"name": name, **{p.key: -1.5 for p in programs}}
        return tokens_expected(json.dumps(row)) + REASON_TOKENS * self.reasons

    def first_requests(self, questions: Sequence[Question]) -> list[ChatRequest]:
        """The first request of each question, for cost estimates and dry runs."""
        return [
            self.chat.request(
                messages,
                json_schema=schema,
                replicate=q.replicate,
                answer_tokens=tokens,
            )
            for q in questions
            for messages, schema, tokens in [self._prepared(q)]
        ]

    def cost_of_100(self, questions: Sequence[Question]) -> str:
        """Tokens, and where the price is known US dollars, of 100 marked rows, in words: about so
        many of the prompt, at most so many of the answer; re-asks come on top."""
        requests = self.first_requests(questions)
        share = 100 / sum(len(q.names) for q in questions)
        prompt = round(share * sum(map(prompt_tokens_expected, requests)))
        answer = round(share * sum(r.answer_tokens or 0 for r in requests))
        address = getattr(self.chat, "address", None)
        settings = getattr(self.chat, "settings", None) or ChatSettings()
        price = None if address is None else find_price(address, settings.prices)
        money = "price unknown" if price is None else f"at most ${price.cost(prompt, answer):.4f}"
        return f"100 {self.kind}s: about {prompt} + at most {answer} tokens, {money}"

    def _prepared(self, question: Question) -> tuple[Any, dict[str, Any], int]:
        """(messages, schema, tokens of the answer) of a question."""
        rows = [
            {"name": n, "facts": "" if self.facts is None else self.facts(n)}
            for n in question.names
        ]
        programs = [
            {
                "key": p.key,
                "name": p.name,
                "definition": p.definition,
                "plus": p.plus,
                "low": f"{p.low:g}",
                "high": f"{SCALE:g}",
            }
            for p in question.programs
        ]
        messages = self.prompt.render(
            kind=self.kind,
            context=question.context,
            context_text=cell_line_text(question.context, question.context_text),
            programs=programs,
            rows=rows,
            reasons=self.reasons,
        )
        limit = getattr(getattr(self.chat, "settings", None), "max_schema_names", 500)
        in_schema = question.names if len(question.names) <= limit else None
        schema = marks_schema(in_schema, [p.key for p in question.programs], reasons=self.reasons)
        longest = max(question.names, key=len)
        tokens = AROUND + len(question.names) * self._row_tokens(longest, question.programs)
        return messages, schema, tokens

    # -- the answers -----------------------------------------------------------------------

    def rate(
        self,
        names: Sequence[str],
        programs: Sequence[Program],
        *,
        context: str = "",
        context_text: str = "",
        at_once: int = 32,
        on_answer: Callable[[Answered], None] | None = None,
    ) -> Marked:
        """Mark every name in every program (strength, where it lacks, is asked too).

        A wrong key, an exhausted budget or an endpoint that is gone stops the rest; what was
        answered is in the chat's ledger, so the same call goes on from there. `on_answer` gets
        every answered question, in order.

        Raises
        ------
        pertwise.errors.InputError
            As `questions`.
        pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
            The run must stop; see `pertwise.llm.converse`.
        """
        asked = self.questions(names, programs, context=context, context_text=context_text)

        def keep(position: int, answer: Answered) -> None:
            if on_answer is not None:
                on_answer(answer)

        answers = run_many(
            [partial(self.answer, q) for q in asked],
            at_once=at_once,
            description=f"asking ({self.name})",
            on_result=keep,
        )
        columns = asked[0].programs
        replicates = tuple(
            self._ratings([a for a in answers if a.question.replicate == r], columns, context)
            for r in range(self.replicates)
        )
        provenance = {
            "rater": self.name,
            "chat": getattr(self.chat, "name", ""),
            "prompt": self.prompt.name,
            "prompt_hash": self.prompt.hash,
            "kind": self.kind,
            "seed": self.seed,
            "replicates": self.replicates,
            "rows_a_question": len(asked[0].names),
            "questions": len(asked),
            **_sums([t for a in answers for t in a.talks]),
        }
        return Marked(replicates, tuple(r for a in answers for r in a.repairs), provenance)

    async def answer(self, question: Question) -> Answered:
        """Ask one question until nothing lacks, at most 1 + `max_reasks` times."""
        sheet = Sheet(question.names, question.programs, self.resolve)
        messages, schema, tokens = self._prepared(question)
        talk = await converse(
            self.chat,
            messages,
            MarksAnswer,
            check=sheet.read,
            wanted=sheet.wanted,
            max_reasks=self.max_reasks,
            json_schema=schema,
            replicate=question.replicate,
            answer_tokens=tokens,
        )
        unread = tuple(Repair(t.kind, "", t.problem) for t in talk.turns if t.answer is None)
        talks: tuple[dict[str, Any], ...] = (talk.provenance(),)
        lacking = sheet.lacking
        if talk.turns[-1].kind == "truncated" and len(lacking) > 1:
            # The same rows again would be cut again.
            half = (len(lacking) + 1) // 2
            for part in (lacking[:half], lacking[half:]):
                rest = await self.answer(
                    Question(
                        tuple(part),
                        question.programs,
                        question.context,
                        question.context_text,
                        question.replicate,
                    )
                )
                for i, name in enumerate(part):
                    sheet.marks[sheet.names.index(name)] = rest.sheet.marks[i]
                sheet.reasons |= rest.sheet.reasons
                unread, talks = (*unread, *rest.repairs), (*talks, *rest.talks)
            return Answered(question, sheet, (*sheet.repairs, *unread), talks)
        sheet.close()
        return Answered(question, sheet, (*sheet.repairs, *unread), talks)

    def _ratings(
        self, answers: Sequence[Answered], programs: Sequence[Program], context: str
    ) -> Ratings:
        return Ratings.from_marks(
            [n for a in answers for n in a.sheet.names],
            [p.name for p in programs],
            np.vstack([a.sheet.marks for a in answers]),
            context=context,
            source=self.source,
            reasons={n: why for a in answers for n, why in a.sheet.reasons.items()},
        )


def _sums(talks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Tokens, cost, re-asks and ledger keys of all conversations."""
    costs = [t["cost_usd"] for t in talks if t["cost_usd"] is not None]
    sums = {k: sum(t[k] for t in talks) for k in ("prompt_tokens", "completion_tokens", "re_asks")}
    return {
        **sums,
        "cost_usd": sum(costs) if costs else None,
        "models": sorted({m for t in talks for m in t["models"]}),
        "degraded": sorted({d for t in talks for d in t["degraded"]}),
        "ledger_keys": [k for t in talks for k in t["ledger_keys"]],
    }
