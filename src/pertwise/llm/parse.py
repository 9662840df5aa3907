"""Reading an answer: the last JSON object with the keys asked for, outside the reasoning.

What cannot be told from a draft, or from a list of what the model rejected, is no answer: the
model is asked again, which costs less than a wrong list.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pertwise._text import clean_text, one_line
from pertwise.llm.reasoning import split_reasoning, thinks_aloud

A = TypeVar("A", bound=BaseModel)

_REFUSAL = re.compile(
    r"\b(i['’]?m (?:very )?sorry|i apologi[sz]e|i(?: am|['’]m) (?:not able|unable)|"
    r"i (?:can(?:no|['’])?t|cannot|won['’]?t|will not|must decline)|as an ai\b)",
    re.IGNORECASE,
)
#: Longest text searched for JSON; no honest answer comes near.
MAX_CHARS = 400_000
#: Keys under which a whole answer may be wrapped, the most final first.
_WRAPPERS = (
    "final_answer",
    "final",
    "answer",
    "result",
    "response",
    "output",
    "selection",
    "arguments",
    "parameters",
    "data",
    "json",
)


class AnswerError(Exception):
    """An answer that cannot be used; `kind` is empty, refusal, truncated or unparsable."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind, self.problem = kind, problem


def json_values(text: str) -> list[Any]:
    """All complete outermost JSON objects and arrays in `text`, up to one that breaks off.

    Tolerated: prose and code fences around, comments, trailing commas, Python literals, control
    characters in strings.
    """
    return [r.value for r in _regions(text[:MAX_CHARS]) if r.readable]


def parse_answer(text: str, model: type[A], finish_reason: str = "stop") -> A:
    """The last JSON object of `text` that has the keys of `model` (its `KEYS`), read as `model`.

    It may stand in an object under a key such as "answer" or "final". None is accepted when it is
    introduced or taken back as rejected or a draft, when a later object with these keys cannot be
    read or says something else without being called final, when JSON breaks off anywhere, when
    reasoning without marks goes on after it, or when the text was cut (``finish_reason`` "length")
    after it. A list without a key is accepted only if it is the whole text.

    Raises
    ------
    AnswerError
        With a problem statement fit to be sent back to the model.
    """
    visible, unfinished = split_reasoning(text)
    if finish_reason == "refusal":
        raise AnswerError("refusal", "you declined to answer")
    if not visible:
        if finish_reason == "length":
            raise AnswerError("truncated", _CUT)
        raise AnswerError("empty", "your answer was empty")
    problem = "it is far too long" if len(visible) > MAX_CHARS else ""
    problem = "your reasoning went on after it" if unfinished else problem
    value = None
    if not problem:
        value, problem = _only_value(visible, model, finish_reason == "length")
    if value is not None:
        try:
            return model.model_validate(_cleaned(value))
        except ValidationError as error:
            problem = _first_problem(error)
        except RecursionError:
            problem = "it is nested too deeply"
    if finish_reason == "length":
        raise AnswerError("truncated", _CUT)
    if not problem and _REFUSAL.search(visible[:400]):
        raise AnswerError("refusal", "you declined to answer")
    text = "your answer holds no complete JSON object"
    raise AnswerError(
        "unparsable", f"{text} of the shape asked for ({problem})" if problem else text
    )


_CUT = "your answer was cut off at the token limit before the JSON was complete; be brief"


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return one_line(f"{where[:60] or 'object'}: {first['msg']}", 200)


def _cleaned(value: Any) -> Any:
    """The value with `clean_text` on every string: escapes in JSON hide what the wire did not."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list | tuple):
        return [_cleaned(v) for v in value]
    if isinstance(value, dict):
        return {clean_text(str(k)): _cleaned(v) for k, v in value.items()}
    return value


# -- which of the values is the answer ---------------------------------------------------------


def _only_value(text: str, model: type[BaseModel], cut: bool) -> tuple[Any, str]:
    """(the answer's value or None, what is wrong when it is None)."""
    keys: tuple[str, ...] = getattr(model, "KEYS", tuple(model.model_fields))
    own = re.compile(r"\b(?:" + "|".join(map(re.escape, keys)) + r")\b[\"'”’]?\s{0,20}:")
    found: tuple[Any, int] | None = None
    problem, before, lists = "", 0, []
    for region in _regions(text):
        label, before = text[before : region.start][-200:], region.end
        if not region.readable:
            if region.torn:
                return None, ""
            if own.search(text, region.start, region.end):
                found, problem = None, "it is not valid JSON"
            continue
        shape = _with_keys(region.value, keys)
        if shape is None:
            lists += [region] if isinstance(region.value, list) else []
        elif _disowned(label):
            problem = problem or "what it holds is called a draft or rejected"
        else:
            # A later object speaks for the model even when it turns out to be unusable, if the
            # words before it say so.
            if found is None or found[0] == shape or _replaces(label, text):
                found, problem = (shape, region.end), ""
            else:
                return None, "it holds two different answers"
    if found is None and len(lists) == 1 and not cut and not problem:
        outside = text[: lists[0].start] + text[lists[0].end :]
        return (lists[0].value, "") if not _bare(outside) else (None, "")
    if found is None:
        return None, problem
    rest = _bare(text[found[1] :])
    if cut and rest:
        return None, ""
    if thinks_aloud(text) and re.search(r"[^\W\d_]", rest):
        return None, "your reasoning went on after it"
    if _TAKEN_BACK.search(rest[:300]):
        return None, "you took back what you answered"
    return found[0], ""


def _replaces(label: str, text: str) -> bool:
    return thinks_aloud(text) or bool(_FINAL.search(label) or _TAKEN_BACK.search(label))


def _with_keys(value: Any, keys: tuple[str, ...], depth: int = 0) -> dict[str, Any] | None:
    """The object that has an own key, looked for under wrapping keys only."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        # [{"name": ...}] is a list of one pick, not an answer in brackets.
        return _with_keys(value[0], keys[:1], depth + 1)
    if not isinstance(value, dict) or depth > 4:
        return None
    if keys[0] in value:
        return value
    for name in _WRAPPERS:
        inner = _with_keys(value.get(name), keys, depth + 1)
        if inner is not None:
            return inner
    return value if any(k in value for k in keys) else None


_NOT_MEANT = re.compile(
    r"\b(?:reject|exclud|discard|dismiss|eliminat|omit|avoid|scrap|ignor|skip|drop|discount)\w*|"
    r"\b(?:un(?:like(?:ly)?|related|suitable)|drafts?|least|less (?:likely|similar|related|close)|"
    r"weak(?:er|est)?|worst|wrong|bad|poor|inferior|dissimilar|runners?[- ]up|"
    r"considered|tentative(?:ly)?|maybe|perhaps|example|instead of|rather than|rul(?:e|ed|ing) out|"
    r"left out|leav(?:e|ing) out|previous(?:ly)?|earlier|"
    r"first (?:idea|attempt|thought|guess|try)|initial(?:ly)?|(?:not|n['’]t) (?:be )?"
    r"(?:chosen|choose|pick(?:ed)?|selected?|use|these|those|take|"
    r"(?:as )?(?:similar|related|relevant|likely|close)))\b",
    re.IGNORECASE,
)
_MEANT = re.compile(r"\b(?:final\w*|corrected|revised|instead|answer)\b", re.IGNORECASE)
#: Words before an answer that replaces the one above it.
_FINAL = re.compile(
    _MEANT.pattern
    + r"|\b(?:response|update[ds]?|improved|better|on reflection|actually|refined)\b",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|scratch that|on second thoughts?|correction|hmm+|let me (?:re|correct|fix)\w*|"
    r"i (?:reject|retract)|no, (?:those|these|that)|(?:those|these) are (?:wrong|not right)|"
    r"that(?:['’]s| is) (?:wrong|not right))\b",
    re.IGNORECASE,
)
_FENCE = re.compile(
    r"```[a-z]{0,10}|<\|?/?[a-z_ ]{1,30}\|?>|\[/?[A-Z_ ]{1,24}\]|[*#_`]", re.IGNORECASE
)


def _bare(text: str) -> str:
    """Text without code fences and tags."""
    return _FENCE.sub("", text).strip()


def _disowned(label: str) -> bool:
    """Whether the words right before a value call it rejected or a draft."""
    clauses = [c for c in re.split(r"[.!?;\n]", _bare(label)) if re.search(r"[^\W\d_]", c)]
    clause = clauses[-1] if clauses else ""
    bad = [m.end() for m in _NOT_MEANT.finditer(clause)]
    good = [m.end() for m in _MEANT.finditer(clause)]
    return bool(bad) and (not good or good[-1] <= bad[-1])


# -- where the values are ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Region:
    """An outermost bracket with what it holds; `torn`: where it ends is unknown."""

    start: int
    end: int
    readable: bool
    value: Any = None
    torn: bool = False


#: What begins like JSON and not like a bracket in prose.
_JSON_LIKE = re.compile(r"\{\s*(?:[\"'“}]|/[/*]|\w{1,40}\s*:|$)|\[\s*(?:[\[{\"'“\]]|/[/*]|$)")
#: Characters looked at in all, as a multiple of the text: bounds what unbalanced brackets can cost.
_MAX_PASSES = 8


def _regions(text: str) -> Iterator[_Region]:
    """Brackets that are JSON or meant to be, in order. Nothing inside a broken one is looked at:
    there, a list that the model rejects looks like the one it gives."""
    position, left = 0, _MAX_PASSES * (len(text) + 1000)
    while True:
        start = min(
            (i for i in (text.find("{", position), text.find("[", position)) if i >= 0), default=-1
        )
        if start < 0:
            return
        end = _closing(text, start)
        left -= (end or len(text)) - start
        like = _JSON_LIKE.match(text, start) is not None
        if left < 0 or (end is None and like):
            yield _Region(start, len(text), False, torn=True)
            return
        found, value = (False, None) if end is None else _loads(text[start:end], like)
        if end is not None and (found or like):
            # After a stray quotation mark the bracket found is not the one meant.
            torn = not found and text[end : end + 200].lstrip()[:1] in set(',]}:"')
            yield _Region(start, end, found, value, torn)
            position = end
        else:
            position = start + 1


# A string, a bracket, or a quotation mark that never closes.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[{}\[\]]|"', re.DOTALL)


def _closing(text: str, start: int) -> int | None:
    """End (exclusive) of the bracket opened at `start`, ignoring brackets inside strings."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        mark = token.group()
        if mark in "{[":
            depth += 1
        elif mark in "}]":
            depth -= 1
            if depth == 0:
                return token.end()
        elif mark == '"':
            break
    return None


class _Twice(Exception):
    """An object has one key with two values."""


def _loads(text: str, generous: bool) -> tuple[bool, Any]:
    """(whether it can be read, value); with `generous` also other notations than JSON."""
    for candidate in (text, _without_extras(text)) if generous else (text,):
        try:
            return True, json.loads(candidate, strict=False, object_pairs_hook=_object)
        except (ValueError, RecursionError):
            continue
        except _Twice:
            return False, None
    if not generous or len(text) > MAX_CHARS // 4:
        return False, None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False, None
    return isinstance(value, dict | list), value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs) and any(found[k] != v for k, v in pairs):
        raise _Twice
    return found


#: A string, or a comment, which may run to the end.
_COMMENT = re.compile(
    r'("(?:[^"\\]++|\\.)*+")|//[^\n]*+|/\*(?:[^*]++|\*(?!/))*+(?:\*/)?', re.DOTALL
)
_COMMA = re.compile(r'("(?:[^"\\]++|\\.)*+")|,(?=\s*[}\]])', re.DOTALL)


def _without_extras(text: str) -> str:
    # Strings are matched first, so that nothing inside one is ever touched.
    for extra in (_COMMENT, _COMMA):
        text = extra.sub(lambda m: m.group(1) or "", text)
    return text
