"""Reading an answer: the last complete JSON object of the right shape, outside the reasoning."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

A = TypeVar("A", bound=BaseModel)

_THINK = r"(?:think|thinking|thought|reasoning|scratchpad)"
_CLOSED = re.compile(rf"<{_THINK}\b[^>]*>.*?</{_THINK}>", re.DOTALL | re.IGNORECASE)
_CLOSE = re.compile(rf"</{_THINK}>", re.IGNORECASE)
_OPEN = re.compile(rf"<{_THINK}\b[^>]*>", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(i['’]?m (?:very )?sorry|i apologi[sz]e|i(?: am|['’]m) (?:not able|unable)|"
    r"i (?:can(?:no|['’])?t|cannot|won['’]?t|will not|must decline)|as an ai\b)",
    re.IGNORECASE,
)
#: Longest text searched for JSON; a longer one is searched at its end.
MAX_CHARS = 400_000


class AnswerError(Exception):
    """An answer that cannot be used; `kind` is empty, refusal, truncated or unparsable."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind, self.problem = kind, problem


def visible_text(text: str) -> str:
    """The answer without its reasoning.

    Handles ``<think>...</think>``, a closing tag without an opening one (some chat templates put
    the opening tag into the prompt) and reasoning that never ended (no answer then).
    """
    text = _CLOSED.sub("", text)
    closes = list(_CLOSE.finditer(text))
    if closes:
        text = text[closes[-1].end() :]
    opened = _OPEN.search(text)
    if opened:
        text = text[: opened.start()]
    return text.strip()


def json_values(text: str) -> list[Any]:
    """All complete outermost JSON objects and arrays in `text`, in order.

    Tolerated: prose and code fences around, trailing commas, Python literals, control characters
    in strings.
    """
    return list(_scan(text[-MAX_CHARS:]))


def parse_answer(text: str, model: type[A], finish_reason: str = "stop") -> A:
    """The last JSON value of `text` (also one nested in a wrapper object) that `model` accepts.

    Raises
    ------
    AnswerError
        With a problem statement fit to be sent back to the model.
    """
    visible = visible_text(text)
    if finish_reason == "refusal":
        raise AnswerError("refusal", "you declined to answer")
    if not visible:
        if finish_reason == "length":
            raise AnswerError("truncated", _CUT)
        raise AnswerError("empty", "your answer was empty")
    problem = ""
    for value in reversed(json_values(visible)):
        for shape in _unwrapped(value):
            try:
                return model.model_validate(shape)
            except ValidationError as error:
                problem = problem or _first_problem(error)
    if finish_reason == "length":
        raise AnswerError("truncated", _CUT)
    if not problem and _REFUSAL.search(visible[:400]):
        raise AnswerError("refusal", "you declined to answer")
    if problem:
        raise AnswerError(
            "unparsable",
            f"your answer holds no complete JSON object of the shape asked for ({problem})",
        )
    raise AnswerError("unparsable", "your answer holds no complete JSON object")


_CUT = "your answer was cut off at the token limit before the JSON was complete; be brief"


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where or 'object'}: {first['msg']}"


def _unwrapped(value: Any, depth: int = 0) -> Iterator[Any]:
    """The value itself, then objects inside it, last first."""
    yield value
    if depth < 3:
        inner: list[Any] = []
        if isinstance(value, dict):
            inner = list(value.values())
        elif isinstance(value, list):
            inner = value
        for part in reversed(inner):
            if isinstance(part, dict):
                yield from _unwrapped(part, depth + 1)


def _scan(text: str) -> Iterator[Any]:
    position, steps = 0, 0
    while steps < _MAX_STEPS:
        start = min(
            (i for i in (text.find("{", position), text.find("[", position)) if i >= 0), default=-1
        )
        if start < 0:
            return
        end, used = _matching(text, start, _MAX_STEPS - steps)
        steps += used
        found, value = (False, None) if end is None else _loads(text[start:end])
        if found and end is not None:
            yield value
            position = end
        else:
            # "[note" in prose, or a broken object: look further in.
            position = start + 1


# A string, a bracket, or a quotation mark that never closes.
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[{}\[\]]|"', re.DOTALL)
#: Tokens looked at in all: bounds the time that unbalanced brackets can cost.
_MAX_STEPS = 1_000_000


def _matching(text: str, start: int, most: int) -> tuple[int | None, int]:
    """End (exclusive) of the bracket opened at `start`, ignoring brackets inside strings, and the
    number of tokens looked at."""
    depth = used = 0
    for used, token in enumerate(_TOKEN.finditer(text, start), start=1):
        mark = token.group()
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
            if depth == 0:
                return token.end(), used
        elif mark == '"' or used >= most:
            break
    return None, used + 1


def _loads(text: str) -> tuple[bool, Any]:
    for candidate in (text, _without_trailing_commas(text)):
        try:
            return True, json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False, None
    return isinstance(value, dict | list), value


def _without_trailing_commas(text: str) -> str:
    # Strings are matched first, so that a comma inside one is never touched.
    return re.sub(
        r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])',
        lambda m: m.group(1) or "",
        text,
        flags=re.DOTALL,
    )
