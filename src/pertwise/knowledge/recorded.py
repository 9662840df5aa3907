"""Recorded answers: neighbour lists that a model or a person named earlier, read from a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise._files import json_lines, read_text, reading
from pertwise._names import canonical_perturbation
from pertwise.errors import InputError

_SUBJECTS = ("subject", "gene", "drug")
#: Names, best first, and one text on why.
Answer = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class Recording:
    """A file of recorded neighbour lists.

    Attributes
    ----------
    answers
        key -> (names, best first; one text on why). The key is the subject, or `context_key`. A
        subject that was asked about without a usable answer has no names.
    reasons
        key -> a reason for each name, "" where none was given; only for answers that hold them.
    origin
        What the file says about itself; ``model`` is who answered, where that is stated.
    contexts
        Cells that the answers were asked about, where the lines name them.
    problems
        key -> what was wrong with an answer without names, e.g. ("refusal 3",).
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    reasons: dict[str, tuple[str, ...]] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    contexts: tuple[str, ...] = ()
    problems: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_recorded(path: str | os.PathLike[str]) -> tuple[dict[str, Answer], dict[str, Any]]:
    """Answers and origin of a file of neighbour lists; see `read_recording`."""
    found = read_recording(path)
    return found.answers, found.origin


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Recorded neighbour lists and what the file says about their origin.

    Two layouts are read, plain or gzipped: one JSON object with ``folds``, each holding ``answers``
    (name -> {kNN: [...], reason}) or ``answers`` directly; or JSON lines with ``subject`` (or
    ``drug``/``gene``), ``neighbours`` (or ``kNN``) and optionally ``reason`` (one for the list) or
    ``reasons`` (one for each neighbour). The text of an answer is its ``reason``, else its
    different ``reasons`` in their order, else the ``mechanism`` of the subject. An answer (under
    ``answers`` or ``edits``) with ``graph_neighbours``, ``add`` and ``remove`` is a list of graph
    neighbours that was corrected: what was kept, then what was added. JSON lines with a
    ``cell`` hold for that context only: their key is `context_key`.

    Raises
    ------
    pertwise.errors.InputError
        Names the file (and line) that cannot be read, or a subject answered twice or with another
        number of reasons than neighbours.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    text = read_text(file, "recorded answers")
    if not text.strip():
        raise InputError(f"{file} holds no answer; ask again, or name another file")
    found = Recording()
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    parts = ("folds", "answers", "edits")
    if isinstance(whole, dict) and any(k in whole for k in parts):
        origin = {k: v for k, v in whole.items() if k not in parts}
        with reading(file, "recorded answers"):
            for part in whole.get("folds", [whole]):
                for name, answer in _answers(part):
                    _add(found, file, canonical_perturbation(name), answer)
        return replace(found, origin=origin)
    sources, contexts = set(), set()
    cut = "if the file was cut, get it again or take the line out"
    for number, row in json_lines(text.splitlines(), file, cut):
        subject = next((row[k] for k in _SUBJECTS if k in row), None)
        if subject is None:
            raise InputError(f"{file} line {number} has no subject, gene or drug")
        named = canonical_perturbation(subject)
        _add(found, file, context_key(named, row.get("cell")), row)
        sources.add(str(row.get("source") or ""))
        contexts.add(str(row.get("context") or row.get("cell") or ""))
    said = sorted(s for s in sources if s)
    return replace(
        found,
        origin={"model": ", ".join(said)} if said else {},
        contexts=tuple(sorted(c for c in contexts if c)),
    )


def _answers(part: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(subject, answer) of one fold: ``answers`` or ``edits``, by subject or as a list."""
    held = part["answers"] if "answers" in part else part["edits"]
    if isinstance(held, Mapping):
        return list(held.items())
    return [(next(a[k] for k in _SUBJECTS if k in a), a) for a in held]


def _edited(file: Path, key: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The list that is left when graph neighbours were corrected: kept ones, then those added."""
    shown, added, removed = (
        [n["name"] if isinstance(n, Mapping) else n for n in answer.get(k) or ()]
        for k in ("graph_neighbours", "add", "remove")
    )
    if not all(isinstance(n, str) for n in (*shown, *added, *removed)):
        raise InputError(f"{file}: the edits for {key!r} must be names, or have a 'name' each")
    notes = [n.get("reason") for n in answer.get("add") or () if isinstance(n, Mapping)]
    kept = [n for n in shown if n not in removed]
    names = list(dict.fromkeys([*kept, *added]))
    reason = "; ".join(dict.fromkeys(str(t).rstrip(".;") for t in notes if t))
    return {"neighbours": names, "reason": answer.get("reason") or reason}


def context_key(subject: str, context: str | None) -> str:
    """Key of an answer that holds in one context; the subject itself without a context."""
    return f"{context}\t{subject}" if context else subject


def _add(found: Recording, file: Path, key: str, answer: Mapping[str, Any]) -> None:
    if key in found.answers:
        raise InputError(f"{file} answers {key!r} twice; keep one answer for each subject")
    if "graph_neighbours" in answer:
        answer = _edited(file, key, answer)
    names = answer.get("neighbours", answer.get("kNN"))
    if not isinstance(names, list):
        raise InputError(f"{file}: the answer for {key!r} has no list 'neighbours' or 'kNN'")
    reasons = answer.get("reasons")
    joined = ""
    if reasons:
        if not isinstance(reasons, list) or len(reasons) != len(names):
            raise InputError(
                f"{file}: the answer for {key!r} names {len(names)} neighbours but its 'reasons' "
                "are not a list of as many texts; give one for each, or none"
            )
        found.reasons[key] = tuple(str(r or "") for r in reasons)
        joined = "; ".join(dict.fromkeys(r.rstrip(".;") for r in found.reasons[key] if r))
    reason = answer.get("reason") or joined or answer.get("mechanism") or ""
    found.answers[key] = (tuple(map(canonical_perturbation, names)), str(reason))
    repairs = answer.get("repairs")
    if not names and isinstance(repairs, Mapping):
        found.problems[key] = tuple(f"{kind} {n}" for kind, n in repairs.items())


def list_ranks(answers: Mapping[str, Answer]) -> tuple[list[str], NDArray[np.float64]]:
    """All names of some lists, sorted, and (n, n) the rank of column on the list of row (1 = best).

    0 = not on it; nobody stands on a list of their own.
    """
    names = sorted({*answers, *(x for found, _ in answers.values() for x in found)})
    place = {n: i for i, n in enumerate(names)}
    ranks = np.zeros((len(names), len(names)))
    for subject, (found, _) in answers.items():
        for rank, other in enumerate(found, start=1):
            if other != subject:
                ranks[place[subject], place[other]] = rank
    return names, ranks


def row_shares(w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows scaled to sum 1; rows without any entry stay zero."""
    total = w.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(w, total, out=np.zeros_like(w), where=total > 0))
