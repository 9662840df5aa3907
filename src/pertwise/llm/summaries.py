"""One-sentence gene summaries written by a model from a database text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from pertwise.llm.answers import SummaryAnswer, summary_schema, tokens_for
from pertwise.llm.base import Chat
from pertwise.llm.converse import Conversation, converse
from pertwise.llm.loop import run_many
from pertwise.llm.templates import load_prompt

MAX_WORDS = 20


@dataclass(frozen=True)
class Summary:
    """A sentence and whose it is.

    `source` is the model's address, or "text" when no usable answer came and `summary` is the
    beginning of the text itself (`problem` then says why).
    """

    symbol: str
    summary: str
    source: str
    problem: str = ""


def summarise(
    chat: Chat,
    texts: Mapping[str, str],
    *,
    full_names: Mapping[str, str] | None = None,
    max_words: int = MAX_WORDS,
    prompt: str | os.PathLike[str] = "gene_summary",
    max_reasks: int = 2,
    at_once: int = 32,
) -> dict[str, Summary]:
    """Summaries of at most `max_words` words, one per gene, keyed and ordered as `texts`.

    Give the chat a ledger: each gene is then written once and never paid again. A gene whose text
    is empty gets an empty summary without a call.

    Raises
    ------
    pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
    """
    template = load_prompt(prompt)
    names = full_names or {}
    symbols = [s for s in texts if texts[s].strip()]

    def check(answer: SummaryAnswer) -> str:
        n = len(answer.summary.split())
        too_long = f"the summary has {n} words, at most {max_words} are allowed"
        return too_long if n > max_words else ""

    async def one(symbol: str) -> Conversation[SummaryAnswer]:
        messages = template.render(
            symbol=symbol,
            full_name=names.get(symbol, ""),
            text=texts[symbol],
            max_words=max_words,
        )
        return await converse(
            chat,
            messages,
            SummaryAnswer,
            check=check,
            max_reasks=max_reasks,
            json_schema=summary_schema(),
            answer_tokens=tokens_for(max_words // 10),
        )

    talks = run_many(
        [partial(one, s) for s in symbols], at_once=at_once, description="summarising genes"
    )
    source = str(getattr(chat, "name", "chat"))
    found = {s: Summary(s, "", "text", "there is no text to summarise") for s in texts}
    for symbol, talk in zip(symbols, talks, strict=True):
        found[symbol] = _summary(symbol, talk, texts[symbol], source, max_words)
    return found


def _summary(
    symbol: str, talk: Conversation[SummaryAnswer], text: str, source: str, max_words: int
) -> Summary:
    if talk.accepted is not None:
        return Summary(symbol, " ".join(talk.accepted.summary.split()), source)
    words = text.split()
    start = " ".join(words[:max_words])
    return Summary(symbol, start, "text", talk.turns[-1].problem)
