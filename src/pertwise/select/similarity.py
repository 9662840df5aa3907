"""`SimilaritySelector`: what every selector that scores pairs of items by a number shares."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import is_combination, split_combination
from pertwise.errors import InputError
from pertwise.select.base import Pick, Query, Repair, Selection
from pertwise.select.closed_list import checked_candidates

Floats = NDArray[np.float64]
T = TypeVar("T")
#: Combinations such as "A+B" are taken apart at this sign (see `pertwise.screen`).
#: Names of picks -> the facts behind each.
Evidences = Callable[[Sequence[str]], list[tuple[str, ...]]]


def strongest(scores: Floats, n: int, order: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Positions of the at most `n` largest positive scores, best first.

    Parameters
    ----------
    scores
        (n_items,); NaN, zero and negative scores are never chosen.
    order
        (n_items,) rank of each item that decides between equal scores (smaller first), so that the
        answer does not depend on the order of the items; position by default.
    """
    usable = np.flatnonzero(scores > 0)
    if n < len(usable):
        # argpartition may cut through equal scores, so everything at the border is kept until the
        # tie rule has decided.
        border = -np.partition(-scores[usable], n - 1)[n - 1]
        usable = usable[scores[usable] >= border]
    tie = usable if order is None else order[usable]
    return np.asarray(usable[np.lexsort((tie, -scores[usable]))][:n], dtype=np.intp)


def mean_over_parts(
    score: Callable[[Sequence[str], Sequence[str]], Floats],
    subjects: Sequence[str],
    candidates: Sequence[str],
) -> Floats:
    """Scores of combinations "A+B" as the mean over the pairs of their parts.

    A part that both share counts 1, the largest edge weight or cosine: a graph has no edge from a
    gene to itself, and without this "A+X" would be no neighbour of "A+B". `score` knows single
    genes only. Returns (n_subjects, n_candidates).
    """
    if not any(is_combination(name) for name in (*subjects, *candidates)):
        return score(subjects, candidates)
    rows, row_mean = _parts(subjects)
    columns, column_mean = _parts(candidates)
    single = np.array(score(rows, columns), dtype=np.float64)
    place = {name: j for j, name in enumerate(columns)}
    for i, name in enumerate(rows):
        if name in place:
            single[i, place[name]] = 1.0
    return np.asarray(row_mean @ single @ column_mean.T)


def _parts(names: Sequence[str]) -> tuple[list[str], Floats]:
    parts = [split_combination(n) for n in names]
    singles = sorted({p for group in parts for p in group})
    place = {s: i for i, s in enumerate(singles)}
    weights = np.zeros((len(names), len(singles)))
    for i, group in enumerate(parts):
        for p in group:
            weights[i, place[p]] += 1.0 / len(group)
    return singles, weights


class SimilaritySelector:
    """Chooses the most similar candidates; a subclass says how similar (`similarity`).

    Candidates with no positive similarity are never picked: an empty selection says that nothing
    is known about the subject, and the predictor then states its fallback.

    Parameters
    ----------
    max_neighbours
        Picks are limited to this many, whatever `select` is asked for.
    weighted
        False gives every pick the score 1 (they are still chosen by weight).
    """

    name: str = "similarity"
    #: Asking costs nothing, so a predictor may ask about training items to tune itself.
    cheap: bool = True

    def __init__(self, max_neighbours: int = 20, weighted: bool = True) -> None:
        if max_neighbours < 1:
            raise InputError(f"max_neighbours must be at least 1, got {max_neighbours}")
        self.max_neighbours = max_neighbours
        self.weighted = weighted

    def similarity(self, subjects: Sequence[str], candidates: Sequence[str]) -> Floats:
        """(n_subjects, n_candidates), larger = more alike; not positive = unrelated."""
        raise NotImplementedError

    def at_once(self, n_candidates: int) -> int:
        """Subjects whose similarity is computed together (a limit of memory)."""
        return sys.maxsize

    def evidence(self, subject: str, candidate: str) -> tuple[str, ...]:
        """Short facts behind one pick; none by default."""
        return ()

    def settings(self) -> Mapping[str, Any]:
        """JSON-able settings for the provenance of a selection."""
        return {"max_neighbours": self.max_neighbours, "weighted": self.weighted}

    def evidences(self, subject: str, candidates: Sequence[str]) -> list[tuple[str, ...]]:
        """`evidence` of several picks of one subject."""
        return [self.evidence(subject, c) for c in candidates]

    def ranked(
        self, subjects: Sequence[str], candidates: Sequence[str], n: int
    ) -> list[tuple[str, ...]]:
        """The picks of several subjects from one list, without reasons; fast.

        A subject that is a candidate is never its own pick.
        """
        found = self.ranked_rows(subjects, candidates, n)
        return [tuple(candidates[i] for i in rows) for rows, _ in found]

    def ranked_rows(
        self, subjects: Sequence[str], candidates: Sequence[str], n: int
    ) -> list[tuple[NDArray[np.intp], Floats]]:
        """The same as positions in the list, with the score of each pick (1 if not weighted)."""
        place = {c: j for j, c in enumerate(candidates)}
        order = name_order(candidates)
        found = []
        for some in _runs(subjects, self.at_once(len(candidates))):
            scores = np.array(self.similarity(some, candidates), dtype=np.float64)
            for subject, row in zip(some, scores, strict=True):
                if subject in place:
                    row[place[subject]] = np.nan
                rows = strongest(row, min(n, self.max_neighbours), order)
                found.append((rows, row[rows] if self.weighted else np.ones(len(rows))))
        return found

    def select(self, query: Query, candidates: Sequence[str], n: int) -> Selection:
        """The at most `n` candidates most similar to `query.subject`.

        Raises
        ------
        pertwise.errors.InputError
            If the list is empty or repeats a name, `n` < 1, or the query has no subject.
        """
        items = checked_candidates(candidates, n)
        return self._selection(query, items, None, n)

    def select_many(
        self, questions: Sequence[tuple[Query, Sequence[str]]], n: int
    ) -> list[Selection]:
        """One selection a question; similarities are computed for `at_once` of them together."""
        checked = [(query, checked_candidates(candidates, n)) for query, candidates in questions]
        every = sorted({c for _, items in checked for c in items})
        place = {c: j for j, c in enumerate(every)}
        found = []
        for some in _runs(checked, self.at_once(len(every))):
            scores, reasons = self._similar([_subject(q, self.name) for q, _ in some], every)
            for i, (query, items) in enumerate(some):
                row = scores[i, [place[c] for c in items]]
                found.append(self._selection(query, items, row, n, reasons(i)))
        return found

    def _similar(
        self, subjects: Sequence[str], candidates: Sequence[str]
    ) -> tuple[Floats, Callable[[int], Evidences]]:
        """`similarity`, and for the i-th subject what gives the evidence of its picks."""
        scores = self.similarity(subjects, candidates)
        return scores, lambda i: lambda picks: self.evidences(subjects[i], picks)

    def _selection(
        self,
        query: Query,
        items: tuple[str, ...],
        scores: Floats | None,
        n: int,
        reasons: Evidences | None = None,
    ) -> Selection:
        subject = _subject(query, self.name)
        if scores is None:
            scores = self.similarity([subject], items)[0]
        scores = scores.astype(np.float64)
        repairs = []
        if subject in items:
            scores[items.index(subject)] = np.nan
            repairs.append(Repair("query_itself", subject, "left out of the candidates"))
        chosen = strongest(scores, min(n, self.max_neighbours), name_order(items))
        picks = []
        named = [items[i] for i in chosen]
        evidences = self.evidences(subject, named) if reasons is None else reasons(named)
        for i, facts in zip(chosen, evidences, strict=True):
            reason = "; ".join(facts) or f"{self.name} {scores[i]:.3f}"
            score = float(scores[i]) if self.weighted else 1.0
            picks.append(Pick(items[i], reason, score, facts))
        if not picks:
            repairs.append(Repair("too_few", subject, f"{self.name} knows no related candidate"))
        return Selection(
            tuple(picks),
            self.name,
            tuple(repairs),
            pd.Series(np.nan_to_num(scores), index=list(items)),
            dict(self.settings()),
        )


def _runs(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Runs of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _subject(query: Query, name: str) -> str:
    if query.subject is None:
        raise InputError(f"the selector {name!r} needs a subject to find neighbours of")
    return query.subject


def name_order(names: Sequence[str]) -> NDArray[np.intp]:
    """Rank of each name in alphabetical order: the tie rule of every numeric selector."""
    order = np.empty(len(names), dtype=np.intp)
    order[np.argsort(np.asarray(names, dtype=object))] = np.arange(len(names))
    return order
