"""Ask, check, and ask again in the same conversation naming the exact problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from pertwise.errors import ChatError, ReplayMissError
from pertwise.llm.base import Chat, ChatReply, FatalChatError, Message
from pertwise.llm.parse import AnswerError, parse_answer
from pertwise.llm.reasoning import visible_text

A = TypeVar("A", bound=BaseModel)
#: Most characters of an answer that are sent back with a re-ask.
MAX_QUOTED = 20_000
#: What a re-ask asks for, unless the caller wants less.
COMPLETE = "Give the complete corrected answer again, as one JSON object and nothing else."


@dataclass(frozen=True)
class Turn(Generic[A]):
    """One question and what came of it.

    `kind` is "" when the answer was accepted; else call_failed, empty, refusal, truncated,
    unparsable, or rejected (parsed, but the check found a problem).
    """

    reply: ChatReply | None
    answer: A | None
    kind: str
    problem: str


@dataclass(frozen=True)
class Conversation(Generic[A]):
    """All turns; `accepted` is the answer that passed the check, or None."""

    turns: tuple[Turn[A], ...]

    @property
    def accepted(self) -> A | None:
        """The answer that passed the check, or None."""
        last = self.turns[-1]
        return last.answer if last.kind == "" else None

    @property
    def answers(self) -> tuple[A, ...]:
        """Every answer that could be read, in order."""
        return tuple(t.answer for t in self.turns if t.answer is not None)

    @property
    def replies(self) -> tuple[ChatReply, ...]:
        """Every reply of the endpoint, in order."""
        return tuple(t.reply for t in self.turns if t.reply is not None)

    def provenance(self) -> dict[str, Any]:
        """JSON-able record: ledger keys, models, tokens, cost, what went wrong when."""
        costs = [r.cost_usd for r in self.replies if r.cost_usd is not None]
        return {
            "ledger_keys": [r.request_key for r in self.replies],
            "models": sorted({r.model for r in self.replies if r.model}),
            "prompt_tokens": sum(r.prompt_tokens for r in self.replies),
            "completion_tokens": sum(r.completion_tokens for r in self.replies),
            "cost_usd": sum(costs) if costs else None,
            "re_asks": len(self.turns) - 1,
            "problems": [t.problem for t in self.turns if t.kind],
            "degraded": sorted({d for r in self.replies for d in r.degraded}),
        }


async def converse(
    chat: Chat,
    messages: tuple[Message, ...],
    model: type[A],
    *,
    check: Callable[[A], str] = lambda _: "",
    wanted: Callable[[], str] = lambda: COMPLETE,
    max_reasks: int = 2,
    json_schema: dict[str, Any] | None = None,
    replicate: int = 0,
    answer_tokens: int | None = None,
    **settings: Any,
) -> Conversation[A]:
    """Ask, at most 1 + `max_reasks` times, until an answer parses and `check` returns "".

    `answer_tokens` is what an answer amply needs; no more is asked for unless the model thinks.
    `wanted` ends a re-ask: what is to be given, after what `check` has seen.
    A call that failed for good ends the conversation (turn kind "call_failed"); it is not raised,
    so that the caller can keep what was said before and use its declared fallback.

    Raises
    ------
    pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
        These must stop the run instead of being papered over by a fallback.
    """
    if answer_tokens is not None:
        settings["answer_tokens"] = answer_tokens
    turns: list[Turn[A]] = []
    said = list(messages)
    for _ in range(1 + max_reasks):
        request = chat.request(
            tuple(said), json_schema=json_schema, replicate=replicate, **settings
        )
        try:
            reply = await chat.complete(request)
        except (FatalChatError, ReplayMissError):
            raise
        except ChatError as error:
            turns.append(Turn(None, None, "call_failed", str(error)))
            break
        answer: A | None = None
        try:
            answer = parse_answer(reply.text, model, reply.finish_reason)
            problem = check(answer)
            kind = "rejected" if problem else ""
        except AnswerError as error:
            problem, kind = error.problem, error.kind
        turns.append(Turn(reply, answer, kind, problem))
        if not kind:
            break
        # Only the visible part is sent back: reasoning would fill the context, and Anthropic
        # refuses empty text.
        seen = visible_text(reply.text)[:MAX_QUOTED] or "(no answer)"
        said.append(Message(role="assistant", content=seen))
        said.append(Message(role="user", content=re_ask(kind, problem, wanted())))
    return Conversation(tuple(turns))


def re_ask(kind: str, problem: str, wanted: str = COMPLETE) -> str:
    """The follow-up question naming the exact problem."""
    if kind == "refusal":
        lead = (
            "You declined. This is a question about published molecular biology in cultured cell "
            "lines; an uncertain answer is welcome."
        )
    else:
        lead = f"That answer cannot be used: {problem.rstrip('.')}."
    return f"{lead} {wanted}"
