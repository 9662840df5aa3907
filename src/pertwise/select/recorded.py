"""`RecordedSelector`: neighbour lists that somebody named earlier, read from a file."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.select.base import Pick, Query, Repair, Selection
from pertwise.select.closed_list import ClosedList, Resolver, checked_candidates
from pertwise.select.similarity import SimilaritySelector

Answer = tuple[tuple[str, ...], str]


def read_recorded(path: str | os.PathLike[str]) -> tuple[dict[str, Answer], dict[str, Any]]:
    """Recorded neighbour lists and what the file says about their origin.

    Two layouts are read, plain or gzipped: one JSON object with ``folds``, each holding ``answers``
    (name -> {kNN: [...], reason}) or ``answers`` directly; or JSON lines with ``subject`` (or
    ``drug``/``gene``), ``neighbours`` (or ``kNN``) and optionally ``reason``. A ``mechanism`` of
    the subject stands in for a missing reason. JSON lines with a ``cell`` hold for that context
    only: their key is `context_key`.

    Raises
    ------
    pertwise.errors.InputError
        Names the file (and line) that cannot be read, or a subject answered twice.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    raw = file.read_bytes()
    try:
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    answers: dict[str, Answer] = {}
    origin: dict[str, Any] = {}
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = None
    if isinstance(whole, dict) and ("folds" in whole or "answers" in whole):
        origin = {k: v for k, v in whole.items() if k not in ("folds", "answers")}
        for part in whole.get("folds", [whole]):
            for subject, answer in part["answers"].items():
                _add(answers, file, subject, answer)
        return answers, origin
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{file} line {number} is not JSON: {error}") from error
        subject = next((row[k] for k in ("subject", "gene", "drug") if k in row), None)
        if subject is None:
            raise InputError(f"{file} line {number} has no subject, gene or drug")
        _add(answers, file, context_key(str(subject), row.get("cell")), row)
    return answers, origin


def context_key(subject: str, context: str | None) -> str:
    """Key of an answer that holds in one context; the subject itself without a context."""
    return f"{context}\t{subject}" if context else subject


def _add(answers: dict[str, Answer], file: Path, subject: str, answer: Mapping[str, Any]) -> None:
    if subject in answers:
        raise InputError(f"{file} answers {subject!r} twice; keep one answer for each subject")
    found = answer.get("neighbours", answer.get("kNN"))
    if not isinstance(found, list):
        raise InputError(f"{file}: the answer for {subject!r} has no list 'neighbours' or 'kNN'")
    reason = answer.get("reason") or answer.get("mechanism") or ""
    answers[subject] = (tuple(map(str, found)), str(reason))


class RecordedSelector:
    """Replays recorded neighbour lists, restricted to the candidates at hand.

    The lists are whatever the file holds, for example the answers of a language model given once;
    `source` names them, and nothing here pretends to be a model.

    Parameters
    ----------
    answers
        subject -> (names, best first; reason).
    source
        Who named them, for tables and pages.
    """

    #: Asking costs nothing, so a predictor may ask about training items to tune itself.
    cheap = True

    def __init__(
        self,
        answers: Mapping[str, Answer],
        *,
        source: str,
        resolve: Resolver | None = None,
        name: str = "recorded",
    ) -> None:
        self.answers = dict(answers)
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
        """Read a file of recorded answers (`read_recorded`)."""
        answers, origin = read_recorded(path)
        said = source or str(origin.get("model", "")) or Path(path).name
        return cls(answers, source=f"recorded answers: {said}", resolve=resolve, name=name)

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
        if here not in self.answers:
            here = subject
        if here not in self.answers:
            missing = Repair("too_few", subject, "no recorded answer for this subject")
            return Selection((), self.source, (missing,))
        names, reason = self.answers[here]
        pool = ClosedList(sorted(items), self._resolve, query.subject)
        checked = pool.check(names, n_min=1, n_max=n)
        picks = tuple(
            Pick(item, reason or f"named number {position + 1}", 1.0 / (rank + 1))
            for rank, (item, position) in enumerate(
                zip(checked.items, checked.positions, strict=True)
            )
        )
        return Selection(picks, self.source, checked.repairs)


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
        names = sorted({*answers, *(x for found, _ in answers.values() for x in found)})
        self._place = {n: i for i, n in enumerate(names)}
        w = np.zeros((len(names), len(names)))
        for subject, (found, _) in answers.items():
            for rank, other in enumerate(found, start=1):
                if other != subject:
                    w[self._place[subject], self._place[other]] = 1.0 / rank
        total = w.sum(axis=1, keepdims=True)
        v = np.divide(w, total, out=np.zeros_like(w), where=total > 0)
        self._direct, self._whole = w, w + w.T + v @ v

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
        if self._direct[a, b] > 0:
            facts.append(f"named number {round(1 / self._direct[a, b])} for {subject}")
        if self._direct[b, a] > 0:
            facts.append(f"{subject} named number {round(1 / self._direct[b, a])} for it")
        return tuple(facts) or ("named for a neighbour",)
