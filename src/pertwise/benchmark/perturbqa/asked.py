"""A chat model as scorer of PerturbQA: closed questions, marks as scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise.benchmark.perturbqa.evidence import DEEP, Retrieval
from pertwise.benchmark.perturbqa.labels import labels_screen
from pertwise.errors import InputError
from pertwise.evaluate.metrics import Floats
from pertwise.llm.templates import load_prompt
from pertwise.select.chat.pairs import ChatPairs, PairQuestion
from pertwise.select.chat.selector import knowledge_resolver
from pertwise.select.chat.sheets import Answered
from pertwise.select.words import selector_from

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat

#: Who is alike, unless another selector is named.
NEIGHBOURS = "kernel:string,go"


@dataclass
class ChatScorer:
    """A scorer that asks a chat model; see `pertwise.select.chat.pairs.COLUMNS` for the scale.

    A pair without a usable mark has no score (NaN), so that the frequency of its gene stands in and
    the coverage shows it.

    Attributes
    ----------
    chat
        From `pertwise.llm.open_chat`.
    line, task
        The cells, and "de" or "dir".
    knowledge
        Facts, aliases, and who is alike by `neighbours` (a selector in words).
    answers
        Of the last call.
    """

    chat: Chat
    line: str
    task: str
    knowledge: Knowledge | None = None
    neighbours: str = NEIGHBOURS
    prompt: str = "perturbqa"
    seed: int = 0
    answers: list[Answered] = field(default_factory=list, repr=False)

    @property
    def asker(self) -> ChatPairs:
        """What puts the questions."""
        known = self.knowledge
        return ChatPairs(
            self.chat,
            prompt=load_prompt(self.prompt),
            facts=None if known is None else known.facts,
            resolve=None if known is None else knowledge_resolver(known),
            seed=self.seed,
            task=self.task,
        )

    def questions(self, train: pd.DataFrame, pairs: pd.DataFrame) -> list[PairQuestion]:
        """What is asked of the pairs, with what `train` holds around them."""
        selector = None
        if self.knowledge is not None:
            build = selector_from(self.neighbours, max_neighbours=DEEP)
            selector = build(self.knowledge, labels_screen(train, self.task, self.line))
        genes = {str(p): list(part["gene"]) for p, part in pairs.groupby("pert", sort=True)}
        evidence = Retrieval(train, self.task, selector).find(pairs)
        return self.asker.questions(genes, evidence, context=self.line.upper())

    def __call__(self, train: pd.DataFrame, pairs: pd.DataFrame) -> Floats:
        """The marks, in the order of the pairs; NaN where there is none."""
        self.answers = self.asker.ask(self.questions(train, pairs))
        marks = self.marks().set_index(["pert", "gene"])["mark"]
        at = pd.MultiIndex.from_frame(pairs[["pert", "gene"]])
        return np.asarray(marks.reindex(at), dtype=np.float64)

    def marks(self) -> pd.DataFrame:
        """pert, gene, mark of every pair of the last call."""
        columns: list[tuple[str, str, float]] = []
        for answer in self.answers:
            asked = answer.question
            subject = asked.subject if isinstance(asked, PairQuestion) else ""
            columns += [
                (subject, gene, float(mark))
                for gene, mark in zip(asked.names, answer.sheet.marks[:, 0], strict=True)
            ]
        return pd.DataFrame(columns, columns=["pert", "gene", "mark"])

    def repairs(self) -> pd.DataFrame:
        """pert, kind, item, action of everything that was wrong in the last call."""
        rows = [
            (getattr(a.question, "subject", ""), r.kind, r.item, r.action)
            for a in self.answers
            for r in a.repairs
        ]
        return pd.DataFrame(rows, columns=["pert", "kind", "item", "action"])

    def asked(self) -> pd.DataFrame:
        """One row: questions, pairs, marks, re-asks, tokens and cost of the last call."""
        told = self.asker.told(self.answers)
        marks = self.marks()["mark"]
        row: dict[str, Any] = {"questions": told["questions"], "pairs": len(marks)}
        row["marks"] = int(marks.notna().sum())
        row |= {k: told[k] for k in ("re_asks", "prompt_tokens", "completion_tokens", "cost_usd")}
        return pd.DataFrame([row])


def check_neighbours(words: str, knowledge: Knowledge | None) -> None:
    """Refuse a selector that does not exist, or that would not be used.

    Raises
    ------
    pertwise.errors.InputError
        Without knowledge, or as `selector_from`.
    """
    if knowledge is None and words != NEIGHBOURS:
        raise InputError(f"neighbours = {words!r} needs a knowledge folder (--knowledge DIR)")
    selector_from(words)


def estimate(scorers: Sequence[tuple[ChatScorer, pd.DataFrame, pd.DataFrame]]) -> str:
    """What asking every (scorer, train, pairs) would cost, in words; nothing is sent."""
    requests, whole = [], []
    for scorer, train, pairs in scorers:
        asked = scorer.questions(train, pairs)
        requests += scorer.asker.first_requests(asked)
        whole += asked
    scorer = scorers[0][0]
    told = scorer.chat.estimate(requests)  # type: ignore[attr-defined]
    return f"{told}\n{scorer.asker.cost_of_100(whole, 'pairs')}"
