"""Prompt search by reward: GEPA, reflective prompt evolution (Agrawal et al. 2025, 2507.19457).

What evolves is the system part of the built-in prompt that tasks were made with. It holds no
variable, no list and no form of an answer: these stand in the user part, which no candidate can
reach. A model reads answers to training tasks with their rewards and writes another system part; it
is kept when it does better on these, and ranked on training tasks set aside. Test tasks are asked
once, at the end, for the start and the best.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise._io import optional_import, write_csv_atomic, write_json_atomic, write_text_atomic
from pertwise._progress import tell
from pertwise._text import one_line
from pertwise.errors import BudgetError, ChatError, InputError
from pertwise.evaluate.statistics import compare_methods
from pertwise.llm.base import Chat, ChatRequest, Message
from pertwise.llm.templates import PromptTemplate
from pertwise.train.answers import task_requests
from pertwise.train.grading import Grader
from pertwise.train.prompt_asking import (
    PART,
    REFLECT,
    SHOWN,
    Asking,
    names_held_out,
    start_of,
    template_with,
)
from pertwise.train.rewards import Scheme
from pertwise.train.tasks import Task

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge


@dataclass(frozen=True)
class Search:
    """How prompts are searched for.

    Attributes
    ----------
    calls
        Answers to tasks after which no further candidate is begun. On top come at most one
        reflection for every 2 x `batch` of them, and test tasks twice.
    n_train, n_validation
        Training tasks that candidates learn from, and training tasks set aside that they are ranked
        on (at most half).
    batch
        Tasks a reflection reads.
    seed
        Of everything drawn.
    """

    calls: int = 200
    n_train: int = 40
    n_validation: int = 20
    batch: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n_train, self.n_validation, self.batch) < 1:
            raise InputError(
                "a search needs at least one task to learn from, to rank on and a time"
            )
        if self.calls <= self.n_validation:
            raise InputError(
                f"{self.calls} calls do not reach for one candidate: the start alone is asked "
                f"{self.n_validation} validation tasks; give more calls, or fewer of these"
            )

    def parts(self, tasks: Sequence[Task]) -> tuple[list[Task], list[Task], list[Task]]:
        """Tasks to learn from, to rank on (both of the split "train"), and to score at the end.

        Raises
        ------
        pertwise.errors.InputError
            When there are not two training tasks.
        """
        train = [t for t in tasks if t.split == "train"]
        if len(train) < 2:
            raise InputError("a search needs at least 2 training tasks")
        n = min(self.n_validation, len(train) // 2)
        mixed = [train[i] for i in np.random.default_rng(self.seed).permutation(len(train))]
        return mixed[n : n + self.n_train], mixed[:n], [t for t in tasks if t.split == "test"]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes
    ----------
    prompt
        The template with the system part that is best on the validation tasks: the start, where
        none beats it.
    candidates
        One row a candidate that was kept, the start first: candidate, parent, train (mean reward of
        the n_train training tasks that it was asked), validation (mean reward), characters, best,
        text.
    refused
        ``why`` and ``text`` of every candidate that was asked nothing.
    proposed
        Candidates that were written, whether kept, refused or no better than what they came from.
    scores
        One row a test task: task, start, best (rewards).
    comparison
        One row, best against start on the test tasks, paired; empty where the start is the best.
    ended
        What stopped the search before its end (budget, endpoint); test tasks were not asked then.
    """

    prompt: PromptTemplate
    candidates: pd.DataFrame
    refused: list[dict[str, str]]
    proposed: int
    scores: pd.DataFrame
    comparison: pd.DataFrame
    ended: Exception | None = None

    def words(self) -> list[str]:
        """What was found, for a terminal."""
        start, best = self.candidates.iloc[0], self.candidates[self.candidates["best"]].iloc[0]
        chosen = "no prompt beats it: what is written is the prompt as it was"
        if best["candidate"]:
            chosen = f"best {best['validation']:.3f} (prompt {best['candidate']}; chosen by this, "
            chosen += "so it is too good)"
        said = [
            f"prompts written {self.proposed}, kept {len(self.candidates) - 1}, refused "
            f"{len(self.refused)}",
            f"validation: start {start['validation']:.3f}, {chosen}",
        ]
        reasons = pd.Series([r["why"] for r in self.refused], dtype=str).value_counts()
        said += [f"refused ({n}): {why}" for why, n in reasons.items()]
        if self.ended is not None:
            return [
                *said,
                "ended early: test tasks were not asked, and this is only the best so far",
            ]
        n = len(self.scores)
        if n and len(self.comparison):
            row = self.comparison.iloc[0]
            beyond = "" if row["low"] > 0 or row["high"] < 0 else ": no difference beyond chance"
            said.append(
                f"test ({n} tasks, asked once): start {self.scores['start'].mean():.3f}, best "
                f"{self.scores['best'].mean():.3f}; difference {row['difference']:+.3f} "
                f"[{row['low']:+.3f}, {row['high']:+.3f}], Wilcoxon p = {row['p']:.2g}{beyond}"
            )
        elif n:
            said.append(f"test ({n} tasks, asked once): start {self.scores['start'].mean():.3f}")
        return said

    def write(self, folder: str | os.PathLike[str], **about: Any) -> list[Path]:
        """prompt.j2, candidates.csv, scores.csv and summary.json (with `about`), atomically."""
        out = Path(folder)
        paths = [out / n for n in ("prompt.j2", "candidates.csv", "scores.csv", "summary.json")]
        write_text_atomic(paths[0], self.prompt.text)
        write_csv_atomic(paths[1], self.candidates)
        write_csv_atomic(paths[2], self.scores)
        row = self.comparison.to_dict("records")
        summary = {
            **about,
            "complete": self.ended is None,
            "ended": "" if self.ended is None else one_line(str(self.ended), 300),
            "best": int(self.candidates["best"].to_numpy().argmax()),
            "prompt_hash": self.prompt.hash,
            "test": row[0] if row else None,
            "n_test": len(self.scores),
            "proposed": self.proposed,
            "refused": self.refused,
            "words": self.words(),
        }
        write_json_atomic(paths[3], summary)
        return paths


def estimate_requests(
    chat: Chat, reflecting: Chat, tasks: Sequence[Task], how: Search
) -> tuple[list[ChatRequest], list[ChatRequest]]:
    """Answers and reflections that a search may need at most, for an estimate."""
    train, validation, test = how.parts(tasks)
    pool = [*validation, *train]
    times = -(-how.calls // len(pool)) + 1
    asked = task_requests(chat, pool, times)[: how.calls + len(validation)]
    asked += task_requests(chat, test, 2)
    sample = "\n".join(t.messages[-1].content[:SHOWN] for t in train[: how.batch])
    said = (Message(role="user", content=f"{REFLECT}\n{sample}"),)
    number = how.calls // (2 * min(how.batch, len(train)))
    return asked, [reflecting.request(said, replicate=i) for i in range(number)]


def search_prompt(
    tasks: Sequence[Task],
    arrays: Grader,
    chat: Chat,
    reflecting: Chat | None = None,
    *,
    knowledge: Knowledge | None = None,
    how: Search | None = None,
    scheme: Scheme | None = None,
) -> Found:
    """Search for the system part that earns most; `reflecting` (else `chat`) writes candidates.

    Everything is drawn from the seed and every answer is in the ledgers of the chats: the same
    search over the same ledgers goes on where it was stopped, and asks nothing again.

    Parameters
    ----------
    knowledge
        Spellings of held-out names, which no candidate may hold.

    Raises
    ------
    pertwise.errors.InputError
        As `start_of` and `Search.parts`, or when tasks and arrays do not belong together.
    pertwise.errors.MissingDependencyError
        Without gepa.
    pertwise.errors.ChatError, pertwise.errors.BudgetError
        When the search must stop before the start is scored; later see `Found.ended`.
    """
    gepa = optional_import("gepa", "train", "a search for prompts")
    how = how or Search()
    start, first = start_of(tasks)
    train, validation, test = how.parts(tasks)
    asking = Asking(
        chat,
        reflecting or chat,
        arrays,
        scheme,
        names_held_out(tasks, knowledge, start.text),
        first,
    )
    result = gepa.optimize(
        seed_candidate={PART: first}, trainset=train, valset=validation, adapter=asking,
        reflection_lm=asking.reflect, reflection_prompt_template=REFLECT,
        reflection_minibatch_size=min(how.batch, len(train)), max_metric_calls=how.calls,
        # What ends a search is kept by `asking`: gepa would go on, or lose what was found.
        raise_on_exception=False, stop_callbacks=lambda state: asking.ended is not None,
        seed=how.seed, logger=_Log(), cache_evaluation=True,
    )  # fmt: skip
    if asking.ended is not None and not isinstance(asking.ended, BudgetError | ChatError):
        raise asking.ended
    table = _table(result, asking, train)
    best = str(table.loc[table["best"], "text"].iloc[0])
    scores, comparison = pd.DataFrame(columns=["task", "start", "best"]), pd.DataFrame()
    if asking.ended is None and test:
        try:
            final = {
                name: asking.rewards(test, t) for name, t in (("start", first), ("best", best))
            }
        except (BudgetError, ChatError) as error:
            asking.ended = error
        else:
            scores = pd.DataFrame({k: [r.total for _, r in v] for k, v in final.items()})
            if best != first:
                wide = scores[["best", "start"]]
                comparison = compare_methods(wide, np.random.default_rng(how.seed))
            scores.insert(0, "task", [t.id for t in test])
    prompt = start if best == first else template_with(start, best)
    return Found(prompt, table, asking.refused, asking.proposed, scores, comparison, asking.ended)


def _table(result: Any, asking: Asking, train: Sequence[Task]) -> pd.DataFrame:
    """`Found.candidates` of what gepa kept."""
    rows = []
    for number, candidate in enumerate(result.candidates):
        text = asking.text(candidate)
        seen = asking.seen.get(text, {})
        learnt = [seen[t.id] for t in train if t.id in seen]
        parents = [p for p in result.parents[number] if p is not None]
        rows.append(
            {
                "candidate": number,
                "parent": parents[0] if parents else pd.NA,
                "train": float(np.mean(learnt)) if learnt else np.nan,
                "n_train": len(learnt),
                "validation": float(result.val_aggregate_scores[number]),
                "characters": len(text),
                "best": number == int(result.best_idx),
                "text": text,
            }
        )
    return pd.DataFrame(rows).astype({"parent": "Int64"})


class _Log:
    """What gepa says of a candidate that is kept or went wrong, as progress."""

    def log(self, message: str) -> None:
        if any(word in message for word in ("Accepted", "Exception", "failed")):
            tell(one_line(message.partition("\n")[0], 160))
