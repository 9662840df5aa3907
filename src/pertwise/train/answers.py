"""Answers to tasks: from an endpoint, from a file of them, from recorded edits."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pertwise._files import json_lines, open_text, read_json_object, reading
from pertwise._io import write_text_atomic
from pertwise._names import canonical_perturbation
from pertwise.errors import ChatError, InputError, ReplayMissError
from pertwise.llm.base import Chat, ChatRequest, FatalChatError
from pertwise.llm.loop import run_many
from pertwise.train.gold import edit_text
from pertwise.train.tasks import Task

#: Task id -> answers, as they were given.
Answers = Mapping[str, Sequence[str]]


def ask_tasks(chat: Chat, tasks: Sequence[Task], n: int = 1, *, at_once: int = 32) -> Answers:
    """`n` answers a task, asked as the task says and never again: what training would see.

    A call that failed for good is an empty answer.

    Raises
    ------
    pertwise.llm.FatalChatError, pertwise.errors.BudgetError, pertwise.errors.ReplayMissError
        The run must stop; what was answered is in the chat's ledger.
    """
    calls = [partial(_ask, chat, request) for request in task_requests(chat, tasks, n)]
    found = run_many(calls, at_once=at_once, description="answering tasks")
    return {t.id: tuple(found[i * n : (i + 1) * n]) for i, t in enumerate(tasks)}


def task_requests(chat: Chat, tasks: Sequence[Task], n: int = 1) -> list[ChatRequest]:
    """The calls of `ask_tasks`: `n` a task, told apart by their replicate."""
    return [chat.request(t.messages, replicate=i) for t in tasks for i in range(n)]


async def _ask(chat: Chat, request: ChatRequest) -> str:
    try:
        reply = await chat.complete(request)
    except (FatalChatError, ReplayMissError):
        raise
    except ChatError:
        return ""
    return reply.text


def write_answers(path: str | os.PathLike[str], answers: Answers) -> None:
    """JSON lines {id, answer}, atomically; several of one id stand in their order."""
    lines = [
        json.dumps({"id": key, "answer": text}, ensure_ascii=False)
        for key, texts in answers.items()
        for text in texts
    ]
    write_text_atomic(path, "".join(line + "\n" for line in lines))


def read_answers(path: str | os.PathLike[str], tasks: Sequence[Task]) -> Answers:
    """Answers to edit tasks from JSON lines {id, answer}, or from a file of recorded edits.

    Recorded edits are one JSON object with ``folds`` (or ``edits`` directly) of {gene, add,
    remove}; they are put into words as a model would have answered.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and line (or gene) that cannot be read; also when no task is answered.
    """
    file = Path(path)
    lines = file.suffix == ".jsonl" or file.suffixes[-2:] == [".jsonl", ".gz"]
    found = _lines(file) if lines else _recorded(file, tasks)
    if not any(t.id in found for t in tasks):
        raise InputError(f"{file} answers none of the {len(tasks)} tasks; was it made from them?")
    return {t.id: found[t.id] for t in tasks if t.id in found}


def _lines(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with open_text(file, "answers to tasks") as lines:
        for number, row in json_lines(lines, file):
            if not all(isinstance(row.get(k), str) for k in ("id", "answer")):
                raise InputError(f"{file} line {number} is no object with texts 'id' and 'answer'")
            found.setdefault(row["id"], []).append(row["answer"])
    return found


def _recorded(file: Path, tasks: Sequence[Task]) -> dict[str, list[str]]:
    whole = read_json_object(file, "recorded edits")
    texts: dict[str, str] = {}
    with reading(file, "recorded edits"):
        for part in whole.get("folds", [whole]):
            for row in part["edits"]:
                gene = canonical_perturbation(str(row["gene"]))
                if gene in texts:
                    raise InputError(f"{file} edits the neighbours of {gene!r} twice")
                texts[gene] = edit_text(_names(row, "add"), _names(row, "remove"))
    return {t.id: [texts[t.subject]] for t in tasks if t.subject in texts}


def _names(row: Any, side: str) -> list[str]:
    listed = [n["name"] if isinstance(n, Mapping) else n for n in row.get(side) or ()]
    return [canonical_perturbation(str(n)) for n in listed]
