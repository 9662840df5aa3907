"""`RecordedSelector`: neighbour lists that somebody named earlier, read from a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise._files import one_line, read_text, readable
from pertwise.errors import InputError
from pertwise.select.base import Pick, Query, Repair, Selection
from pertwise.select.closed_list import ClosedList, Resolver, checked_candidates
from pertwise.select.similarity import SimilaritySelector

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
    different ``reasons`` in their order, else the ``mechanism`` of the subject. JSON lines with a
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
    text = read_text(file, "a file of recorded answers")
    found = Recording()
    try:
        whole = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        whole = None
    if isinstance(whole, dict) and ("folds" in whole or "answers" in whole):
        origin = {k: v for k, v in whole.items() if k not in ("folds", "answers")}
        with readable(file, "a file of recorded answers"):
            for part in whole.get("folds", [whole]):
                for subject, answer in part["answers"].items():
                    _add(found, file, subject, answer)
        return replace(found, origin=origin)
    sources, contexts = set(), set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(
                f"{file} line {number} is not JSON: {one_line(error)}; if the file was cut, get it "
                "again or take the line out"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{file} line {number} is no JSON object; take it out")
        subject = next((row[k] for k in ("subject", "gene", "drug") if k in row), None)
        if subject is None:
            raise InputError(f"{file} line {number} has no subject, gene or drug")
        _add(found, file, context_key(str(subject), row.get("cell")), row)
        sources.add(str(row.get("source") or ""))
        contexts.add(str(row.get("context") or row.get("cell") or ""))
    said = sorted(s for s in sources if s)
    return replace(
        found,
        origin={"model": ", ".join(said)} if said else {},
        contexts=tuple(sorted(c for c in contexts if c)),
    )


def context_key(subject: str, context: str | None) -> str:
    """Key of an answer that holds in one context; the subject itself without a context."""
    return f"{context}\t{subject}" if context else subject


def _add(found: Recording, file: Path, key: str, answer: Mapping[str, Any]) -> None:
    if key in found.answers:
        raise InputError(f"{file} answers {key!r} twice; keep one answer for each subject")
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
    found.answers[key] = (tuple(map(str, names)), str(reason))
    repairs = answer.get("repairs")
    if not names and isinstance(repairs, Mapping):
        found.problems[key] = tuple(f"{kind} {n}" for kind, n in repairs.items())


class RecordedSelector:
    """Replays recorded neighbour lists, restricted to the candidates at hand.

    The lists are whatever the file holds, for example the answers of a language model given once;
    `source` names them, and nothing here pretends to be a model.

    Parameters
    ----------
    answers
        subject -> (names, best first; reason). Subjects without names are kept apart, in
        `unanswered`: nobody said anything about them.
    source
        Who named them, for tables and pages.
    reasons
        subject -> a reason for each name, where there are such.
    """

    #: Asking costs nothing, so a predictor may ask about training items to tune itself.
    cheap = True

    def __init__(
        self,
        answers: Mapping[str, Answer],
        *,
        source: str,
        reasons: Mapping[str, Sequence[str]] | None = None,
        resolve: Resolver | None = None,
        name: str = "recorded",
    ) -> None:
        self.answers = {key: answer for key, answer in answers.items() if answer[0]}
        self.unanswered = frozenset(answers) - frozenset(self.answers)
        self.reasons = dict(reasons or {})
        self.source = source
        self.name = name
        self._resolve = resolve

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        source: str | None = None,
        resolve: Resolver | None = None,
        name: str = "recorded",
    ) -> RecordedSelector:
        """Read a file of recorded answers (`read_recording`)."""
        found = read_recording(path)
        said = source or str(found.origin.get("model", "")) or Path(path).name
        return cls(
            found.answers,
            source=f"recorded answers: {said}",
            reasons=found.reasons,
            resolve=resolve,
            name=name,
        )

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """The recorded names that are candidates, in their order, at most `n`.

        Raises
        ------
        pertwise.errors.InputError
            If the list is empty or repeats a name, or `n` < 1.
        """
        items = checked_candidates(candidates, n)
        subject = query.subject or ""
        here = context_key(subject, query.context)
        if here not in self.answers and here not in self.unanswered:
            here = subject
        if here not in self.answers:
            said = "no recorded answer for this subject"
            if here in self.unanswered:
                said = "asked about before, without a usable answer"
            missing = Repair("too_few", subject, said)
            return Selection((), self.source, (missing,))
        names, reason = self.answers[here]
        own = self.reasons.get(here, (reason,) * len(names))
        pool = ClosedList(sorted(items), self._resolve, query.subject)
        checked = pool.check(names, n_min=1, n_max=n)
        picks = tuple(
            Pick(item, own[position] or f"named number {position + 1}", 1.0 / (rank + 1))
            for rank, (item, position) in enumerate(
                zip(checked.items, checked.positions, strict=True)
            )
        )
        return Selection(picks, self.source, checked.repairs)


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


class LinkedSelector(SimilaritySelector):
    """Neighbours by everything that a set of neighbour lists says about two items.

    similarity(a, b) = w_ab + w_ba + sum_x v_ax v_xb: b stands on the list of a (w = 1 / rank), a
    on that of b, or b on the list of one that a names (v = w scaled to sum 1 over a list). Lists
    of the candidates count as well as that of the subject, and a name that a list of its own lacks
    is reached through others.

    Parameters
    ----------
    answers
        subject -> (names, best first; reason), e.g. `RecordedSelector.answers`.
    source
        Who named them.
    """

    def __init__(
        self, answers: Mapping[str, Answer], *, source: str, max_neighbours: int = 50
    ) -> None:
        super().__init__(max_neighbours)
        self.source = source
        self.name = "linked lists"
        names, self._ranks = list_ranks(answers)
        self._place = {n: i for i, n in enumerate(names)}
        w = np.divide(1.0, self._ranks, out=np.zeros_like(self._ranks), where=self._ranks > 0)
        v = row_shares(w)
        self._whole = w + w.T + v @ v

    def similarity(self, subjects: Sequence[str], candidates: Sequence[str]) -> NDArray[np.float64]:
        """(n_subjects, n_candidates); 0 for items that no list holds."""
        rows = [self._place.get(s, -1) for s in subjects]
        columns = [self._place.get(c, -1) for c in candidates]
        out = np.zeros((len(rows), len(columns)))
        r, c = np.flatnonzero(np.array(rows) >= 0), np.flatnonzero(np.array(columns) >= 0)
        if len(r) and len(c):
            chosen = np.ix_([rows[i] for i in r], [columns[j] for j in c])
            out[np.ix_(r, c)] = self._whole[chosen]
        return out

    def evidence(self, subject: str, candidate: str) -> tuple[str, ...]:
        """Whether one stands on the list of the other, or only through a third."""
        if subject not in self._place or candidate not in self._place:
            return ()
        a, b = self._place[subject], self._place[candidate]
        facts = []
        if self._ranks[a, b] > 0:
            facts.append(f"named number {self._ranks[a, b]:.0f} for {subject}")
        if self._ranks[b, a] > 0:
            facts.append(f"{subject} named number {self._ranks[b, a]:.0f} for it")
        return tuple(facts) or ("named for a neighbour",)
