"""Best of n without a GPU: answers scored by reward, as rows for tuning."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pertwise._io import write_text_atomic
from pertwise.errors import InputError
from pertwise.train.answers import Answers
from pertwise.train.grading import Grader
from pertwise.train.rewards import Reward, Scheme, reward
from pertwise.train.tasks import Task


@dataclass(frozen=True)
class Scored:
    """An answer to a task and what it is worth.

    Attributes
    ----------
    task, number, text, reward
        The task, which of its answers (from 0), as given, its reward.
    """

    task: Task
    number: int
    text: str
    reward: Reward


def score_answers(
    tasks: Sequence[Task], answers: Answers, arrays: Grader, scheme: Scheme | None = None
) -> list[Scored]:
    """Every answer with its reward, tasks in order, answers as given.

    Raises
    ------
    pertwise.errors.InputError
        When a task of the split "test" is among them (nothing may learn from it), or tasks and
        arrays do not belong together.
    """
    for task in tasks:
        if task.split != "train":
            raise InputError(f"task {task.id!r} is a test task: rows to train on must not hold it")
    return [
        Scored(task, number, text, reward(task, text, arrays, scheme))
        for task in tasks
        for number, text in enumerate(answers.get(task.id, ()))
    ]


def best_rows(scored: Sequence[Scored], least: float = 0.0) -> list[dict[str, Any]]:
    """Chat rows {messages} of the best answer a task whose reward is above `least`.

    Of equal rewards the first answer counts. This is the form of hosted fine-tuning, and of `sft`.
    """
    best: dict[str, Scored] = {}
    for one in scored:
        if one.task.id not in best or one.reward.total > best[one.task.id].reward.total:
            best[one.task.id] = one
    return [
        {"messages": [*_asked(one.task), _said(one.text)]}
        for one in best.values()
        if one.reward.total > least
    ]


def preference_rows(scored: Sequence[Scored], margin: float = 0.1) -> list[dict[str, Any]]:
    """Rows {prompt, chosen, rejected, margin, task}: the best against the worst answer of a task.

    The conversational form of DPO in trl. Tasks whose best and worst lie closer than `margin` give
    no pair.
    """
    by_task: dict[str, list[Scored]] = {}
    for one in scored:
        by_task.setdefault(one.task.id, []).append(one)
    rows = []
    for key, found in by_task.items():
        best = max(found, key=lambda one: one.reward.total)
        worst = min(found, key=lambda one: one.reward.total)
        apart = best.reward.total - worst.reward.total
        if apart > 0 and apart >= margin:
            rows.append(
                {
                    "task": key, "prompt": _asked(best.task), "chosen": [_said(best.text)],
                    "rejected": [_said(worst.text)], "margin": apart,
                }
            )  # fmt: skip
    return rows


def hosted_preferences(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `preference_rows` as hosted preference tuning reads them (OpenAI's JSONL)."""
    return [
        {
            "input": {"messages": row["prompt"]},
            "preferred_output": row["chosen"],
            "non_preferred_output": row["rejected"],
        }
        for row in rows
    ]


def write_samples(
    folder: str | os.PathLike[str],
    scored: Sequence[Scored],
    *,
    least: float = 0.0,
    margin: float = 0.1,
) -> dict[Path, int]:
    """answers.jsonl, sft.jsonl, preferences.jsonl and preferences_hosted.jsonl, atomically.

    Returns
    -------
    dict of Path to int
        Rows of every file.
    """
    pairs = preference_rows(scored, margin)
    files = {
        "answers": [
            {
                "id": one.task.id, "number": one.number, "answer": one.text,
                "reward": one.reward.total, **one.reward.parts, "why": one.reward.why,
            }
            for one in scored
        ],
        "sft": best_rows(scored, least),
        "preferences": pairs,
        "preferences_hosted": hosted_preferences(pairs),
    }  # fmt: skip
    made = {}
    for name, rows in files.items():
        path = Path(folder) / f"{name}.jsonl"
        write_text_atomic(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
        made[path] = len(rows)
    return made


def _asked(task: Task) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in task.messages]


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
