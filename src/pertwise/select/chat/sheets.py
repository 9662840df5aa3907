"""`SheetAsker`: what every question answered with a table of marks shares, checks included."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pertwise.errors import InputError
from pertwise.knowledge.programs import Program
from pertwise.knowledge.ratings import SCALE
from pertwise.llm.answers import MarksAnswer, marks_schema
from pertwise.llm.base import Chat, ChatRequest
from pertwise.llm.budget import find_price, prompt_tokens_expected, tokens_expected
from pertwise.llm.converse import converse
from pertwise.llm.loop import run_many
from pertwise.llm.settings import ChatSettings
from pertwise.llm.templates import PromptTemplate
from pertwise.select.base import Repair
from pertwise.select.chat.marks import Sheet
from pertwise.select.chat.similar import cell_line_text
from pertwise.select.closed_list import Resolver

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
    codes
        name -> what it is called in the prompt instead; empty = by its name.
    donors
        name -> whose annotation stands beside it; empty = its own.
    anew
        These programs were asked before, and the answers disagreed.
    """

    names: tuple[str, ...]
    programs: tuple[Program, ...]
    context: str = ""
    context_text: str = ""
    replicate: int = 0
    codes: Mapping[str, str] = field(default_factory=dict, repr=False)
    donors: Mapping[str, str] = field(default_factory=dict, repr=False)
    anew: bool = False

    @property
    def shown(self) -> tuple[str, ...]:
        """The names as the prompt has them."""
        return tuple(self.codes.get(n, n) for n in self.names)


@dataclass(frozen=True)
class Answered:
    """A question with its marks as far as they are usable; see `Sheet`, whose rows are in the
    order of the question's names."""

    question: Question
    sheet: Sheet
    repairs: tuple[Repair, ...]
    talks: tuple[dict[str, Any], ...]

    @property
    def reasons(self) -> dict[str, str]:
        """name -> sentence."""
        said = self.sheet.reasons
        pairs = zip(self.question.names, self.question.shown, strict=True)
        return {name: said[shown] for name, shown in pairs if shown in said}


@dataclass(frozen=True)
class SheetAsker:
    """Shows rows and columns, validates the marks, asks again for what lacks.

    Rows are cut into batches whose answer fits the model's: as many as fill `FILL` of its
    ``max_tokens``, at most `MOST_ROWS`. A batch whose answer is cut off all the same is halved.
    What lacks after `max_reasks` re-asks stays empty. A subclass says what a prompt shows
    (`values`).

    Attributes
    ----------
    chat
        From `pertwise.llm.open_chat`.
    facts
        Text about a name for the prompt ("" for none).
    resolve
        Names -> approved names, so that aliases are recognised.
    reasons
        Ask for one sentence a row.
    batch_size
        Rows of a question; None = by the rule above.
    species
        Whose cells the question says they are.
    """

    chat: Chat
    prompt: PromptTemplate
    facts: Callable[[str], str] | None = None
    resolve: Resolver | None = None
    reasons: bool = False
    batch_size: int | None = None
    species: str = "human"
    max_reasks: int = 2
    seed: int = 0
    name: str = "marks"

    def __post_init__(self) -> None:
        for what, least in (("replicates", 1), ("batch_size", 1), ("max_reasks", 0)):
            value = getattr(self, what, None)
            if value is not None and value < least:
                raise InputError(f"{what} = {value}; it must be at least {least}")

    @property
    def source(self) -> str:
        """Asker and model."""
        return f"{self.name} ({getattr(self.chat, 'name', 'chat')})"

    # -- the questions ---------------------------------------------------------------------

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

    def values(self, question: Any) -> dict[str, Any]:
        """Variables of the prompt besides `_shared`."""
        raise NotImplementedError

    def _about(self, question: Question, name: str) -> str:
        return "" if self.facts is None else self.facts(question.donors.get(name, name))

    def _shared(self, question: Question) -> dict[str, Any]:
        return {
            "context": question.context,
            "context_text": cell_line_text(question.context, question.context_text),
            "species": self.species,
            "programs": [
                {
                    "key": p.key,
                    "name": p.name,
                    "definition": p.definition,
                    "plus": p.plus,
                    "low": f"{p.low:g}",
                    "high": f"{SCALE:g}",
                }
                for p in question.programs
            ],
            "rows": [
                {"name": shown, "facts": self._about(question, name)}
                for name, shown in zip(question.names, question.shown, strict=True)
            ],
            "reasons": self.reasons,
        }

    def _prepared(self, question: Question) -> tuple[Any, dict[str, Any], int]:
        """(messages, schema, tokens of the answer) of a question."""
        messages = self.prompt.render(**{**self._shared(question), **self.values(question)})
        limit = getattr(getattr(self.chat, "settings", None), "max_schema_names", 500)
        shown = question.shown
        in_schema = shown if len(shown) <= limit else None
        schema = marks_schema(in_schema, [p.key for p in question.programs], reasons=self.reasons)
        tokens = AROUND + len(shown) * self._row_tokens(max(shown, key=len), question.programs)
        return messages, schema, tokens

    def first_requests(self, questions: Sequence[Question]) -> list[ChatRequest]:
        """The first request of each question, for cost estimates and dry runs."""
        return [
            self.chat.request(
                messages, json_schema=schema, replicate=q.replicate, answer_tokens=tokens
            )
            for q in questions
            for messages, schema, tokens in [self._prepared(q)]
        ]

    def cost_of_100(self, questions: Sequence[Question], rows: str = "rows") -> str:
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
        return f"100 {rows}: about {prompt} + at most {answer} tokens, {money}"

    # -- the answers -----------------------------------------------------------------------

    def ask(
        self,
        questions: Sequence[Question],
        *,
        at_once: int = 32,
        on_answer: Callable[[Answered], None] | None = None,
    ) -> list[Answered]:
        """Every answer, in order.

        A wrong key, an exhausted budget or an endpoint that is gone stops the rest; what was
        answered is in the chat's ledger, so the same call goes on from there. `on_answer` gets
        every answered question, in order.

        Raises
        ------
        pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
            The run must stop; see `pertwise.llm.converse`.
        """

        def keep(position: int, answer: Answered) -> None:
            if on_answer is not None:
                on_answer(answer)

        return run_many(
            [partial(self.answer, q) for q in questions],
            at_once=at_once,
            description=f"asking ({self.name})",
            on_result=keep,
        )

    async def answer(self, question: Question) -> Answered:
        """Ask one question until nothing lacks, at most 1 + `max_reasks` times."""
        sheet = Sheet(question.shown, question.programs, None if question.codes else self.resolve)
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
        lacking = [i for i, shown in enumerate(question.shown) if shown in set(sheet.lacking)]
        if talk.turns[-1].kind == "truncated" and len(lacking) > 1:
            # The same rows again would be cut again.
            half = (len(lacking) + 1) // 2
            for part in (lacking[:half], lacking[half:]):
                names = tuple(question.names[i] for i in part)
                rest = await self.answer(replace(question, names=names))
                sheet.marks[part] = rest.sheet.marks
                sheet.reasons |= rest.sheet.reasons
                unread, talks = (*unread, *rest.repairs), (*talks, *rest.talks)
            return Answered(question, sheet, (*sheet.repairs, *unread), talks)
        sheet.close()
        return Answered(question, sheet, (*sheet.repairs, *unread), talks)

    def told(self, answers: Sequence[Answered]) -> dict[str, Any]:
        """JSON-able: who was asked, with which prompt and seed, at which cost."""
        return {
            "rater": self.name,
            "chat": getattr(self.chat, "name", ""),
            "prompt": self.prompt.name,
            "prompt_hash": self.prompt.hash,
            "seed": self.seed,
            "questions": len(answers),
            **_sums([t for a in answers for t in a.talks]),
        }


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
