"""`Task`: one question of a closed list as a row that can be read without pertwise."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pertwise._files import open_text
from pertwise._io import write_text_atomic
from pertwise._text import one_line
from pertwise.errors import InputError
from pertwise.llm.base import Message

Kind = Literal["edit", "pick", "rate", "acquire"]
Side = Literal["train", "test"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Most names on one list, and characters of all messages of a task: no honest one comes near.
MOST_NAMES, MOST_CHARS = 50_000, 4_000_000


class Task(BaseModel):
    """One question with its closed lists; a line of a tasks file.

    Attributes
    ----------
    id
        Unique in a file: kind, context, subject (or a number), fold.
    messages
        What the judge is asked, from the templates that the live selectors use.
    subject, context
        The perturbation (or "") and the cells.
    shown
        edit: the neighbours to correct; rate: the perturbations to mark; acquire: what is measured.
    allowed
        Closed list of what may be added or picked.
    split
        "train", or "test": about what no training prompt names.
    screen, knowledge
        SHA-256 of the responses (`Screen.digest`) and fingerprint of the knowledge.
    extra
        JSON: most edits, numbers of picks, programs, who made the shown list, hash of the prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    id: str = Field(min_length=1, max_length=400)
    kind: Kind
    messages: tuple[Message, ...] = Field(min_length=1, max_length=16)
    subject: str = Field(default="", max_length=400)
    context: str = Field(default="", max_length=400)
    shown: tuple[str, ...] = Field(default=(), max_length=MOST_NAMES)
    allowed: tuple[str, ...] = Field(default=(), max_length=MOST_NAMES)
    split: Side = "train"
    screen: str = Field(default="", max_length=64)
    knowledge: str = Field(default="", max_length=64)
    extra: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Task:
        if self.messages[-1].role != "user":
            raise ValueError("the last message must be the user's: it is the question")
        if sum(len(m.content) for m in self.messages) > MOST_CHARS:
            raise ValueError(f"the messages hold more than {MOST_CHARS} characters")
        names = [*self.shown, *self.allowed]
        if len(set(names)) != len(names):
            raise ValueError("a name stands twice in shown and allowed")
        if self.subject and self.subject in set(names):
            raise ValueError(f"the subject {self.subject!r} stands in its own list")
        if self.kind in ("edit", "pick") and not self.subject:
            raise ValueError(f"a task of the kind {self.kind!r} needs a subject")
        if self.kind != "rate" and not self.allowed:
            raise ValueError("the closed list 'allowed' is empty")
        if self.kind == "rate" and not self.shown:
            raise ValueError("there is nothing to mark in 'shown'")
        return self

    @property
    def available(self) -> tuple[str, ...]:
        """Everything that a chosen set may hold, and whose mean stands for an empty set."""
        return (*self.shown, *self.allowed)

    def number(self, key: str, default: int) -> int:
        """A whole number >= 0 of `extra`.

        Raises
        ------
        pertwise.errors.InputError
            When it is something else.
        """
        value = self.extra.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f"task {self.id!r}: extra.{key} is no whole number: {value!r}")
        return value


def write_tasks(path: str | os.PathLike[str], tasks: Iterable[Task]) -> None:
    """One JSON line a task, atomically.

    Raises
    ------
    pertwise.errors.InputError
        When two tasks have one id, or the file cannot be written.
    """
    listed = list(tasks)
    _distinct(os.fspath(path), [t.id for t in listed])
    write_text_atomic(path, "".join(t.model_dump_json() + "\n" for t in listed))


def read_tasks(
    path: str | os.PathLike[str], *, split: str | None = None, kinds: Sequence[str] = ()
) -> list[Task]:
    """The tasks of a file (plain or gzipped JSON lines), in order.

    Parameters
    ----------
    split, kinds
        Only these.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and the line that is no task, or the id that occurs twice; also when nothing
        is left.
    """
    file, found = Path(path), []
    with open_text(file, "training tasks") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                found.append(_task(line, f"{file} line {number}"))
    _distinct(str(file), [t.id for t in found])
    kept = [t for t in found if split in (None, t.split) and (not kinds or t.kind in kinds)]
    if not kept:
        there = sorted({f"{t.kind} {t.split}" for t in found})
        raise InputError(
            f"{file} holds no task"
            + (
                f" of this kind; there are {', '.join(there)}"
                if there
                else "; make some with `pertwise train tasks`"
            )
        )
    return kept


def _task(line: str, where: str) -> Task:
    try:
        return Task.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))[:80]
        said = one_line(f"{place}: {first['msg']}" if place else str(first["msg"]), 300)
        raise InputError(
            f"{where} is no task ({said}); take the line out, or make the file anew with "
            "`pertwise train tasks`"
        ) from None


def _distinct(where: str, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise InputError(f"{where}: the task {one_line(name, 80)!r} occurs twice")
        seen.add(name)
