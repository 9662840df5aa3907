"""`RecordedSelector`: neighbour lists that somebody named earlier, read from a file."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pertwise.knowledge.recorded import Answer, context_key, list_ranks, read_recording, row_shares
from pertwise.select.base import Pick, Query, Repair, Selection
from pertwise.select.closed_list import ClosedList, Resolver, checked_candidates
from pertwise.select.similarity import SimilaritySelector

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge


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

    def resolving(self, knowledge: Knowledge | None) -> RecordedSelector:
        """The same lists, their names resolved where compounds are known: those who name drugs
        spell them in many ways, genes in one."""
        if knowledge is None or knowledge.drugs is None:
            return self
        out = copy.copy(self)
        out._resolve = knowledge.canonical
        return out

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
