"""Shortlists by name: who stands in the question to a language model, and for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise.acquire.base import AcquisitionState
from pertwise.acquire.common import Floats, arg_best, best_first, tie_order
from pertwise.acquire.strategies.adaptive import expected_square, marked_strength
from pertwise.acquire.strategies.knowledge import KnowledgePicker, neighbour_matrix
from pertwise.acquire.strategies.variance_reduction import Information
from pertwise.errors import unknown_name

ShortlistName = Literal["information", "uncertainty", "random", "all"]
NAMES: tuple[ShortlistName, ...] = get_args(ShortlistName)
#: Length of each; None = everyone.
LENGTHS: dict[str, int | None] = {
    "information": 90,
    "uncertainty": 200,
    "random": 200,
    "all": None,
}
#: Two that are at least as similar count as one complex or cluster.
SAME = 0.7
#: A representative speaks for those at least as similar.
SPEAKS = 0.2
#: Longest list with groups: more lines have no room for whom they speak for.
MOST_WITH_GROUPS = 500


@dataclass(frozen=True)
class Shortlist:
    """Candidates to be shown, and what the others are to them.

    Attributes
    ----------
    order
        Positions of all candidates, those of the list first, in its order.
    size
        How many of them are the list.
    by
        How it was made, in words.
    groups
        Position of a listed candidate -> positions of those it speaks for, most similar first.
    nearest
        Position of a listed candidate -> (position in `state.measured`, similarity), best first.
    """

    order: list[int]
    size: int
    by: str
    groups: dict[int, list[int]]
    nearest: dict[int, list[tuple[int, float]]]

    @property
    def listed(self) -> list[int]:
        """Positions of the candidates on the list."""
        return self.order[: self.size]


def make_shortlist(
    state: AcquisitionState,
    by: ShortlistName,
    n: int,
    k: int | None = None,
    *,
    per_group: int | None = 3,
    n_nearest: int = 2,
) -> Shortlist:
    """At least `n` candidates for a question about `n` picks.

    "information": greedy representatives of largest expected error reduction (`Information`), each
    candidate weighed by its expected squared response (`expected_square`). "uncertainty": largest
    u(p). "random": drawn with the state's generator. "all": everyone. Of a complex or cluster (all
    at least `SAME` alike by features or graph) at most `per_group` stand on the list, None = any
    number; where that leaves too few the rest fills up.

    What a list needs and the state lacks is replaced and told in `by`: without features
    "information" is "uncertainty", at a cold start "uncertainty" is the order of `KnowledgePicker`.

    Raises
    ------
    pertwise.errors.InputError
        Unknown name of a shortlist.
    """
    if by not in NAMES:
        raise unknown_name("shortlist", by, NAMES)
    total = len(state.candidates)
    wanted = LENGTHS[by] if k is None else k
    size = total if by == "all" or wanted is None else min(max(wanted, n), total)
    order, told = _order(state, by, n, size, per_group)
    if by != "all" and per_group is not None and told != "information":
        order = _spread(state, order, size, per_group)
    listed = order[:size]
    groups: dict[int, list[int]] = {}
    nearest: dict[int, list[tuple[int, float]]] = {}
    if per_group is not None and size <= MOST_WITH_GROUPS:
        alike = _alike(state, listed)
        groups = _groups(alike[:, :total], listed)
        nearest = _nearest(alike[:, total:], listed, n_nearest)
    return Shortlist(order, size, told, groups, nearest)


def _order(
    state: AcquisitionState, by: ShortlistName, n: int, size: int, per_group: int | None
) -> tuple[list[int], str]:
    """All candidates, best first, and how the order was made."""
    total = len(state.candidates)
    ties = tie_order(state.candidates)
    if by == "all":
        return list(range(total)), by
    if by == "random":
        return [int(j) for j in state.rng.permutation(total)], by
    if by == "information" and state.embedding is not None and state.embedding.any():
        return _informative(state, size, per_group, ties), by
    if state.uncertainty is not None:
        u = state.uncertainty.to_numpy(dtype=np.float64)
        told = by if by == "uncertainty" else "uncertainty (no features of the candidates)"
        return [int(j) for j in best_first(u, ties)], told
    utilities = KnowledgePicker().choose(state, size).utilities
    if utilities is None:  # KnowledgePicker always gives them
        return list(range(total)), "cold start"
    return [int(j) for j in best_first(utilities.to_numpy(), ties)], "cold start"


def _informative(
    state: AcquisitionState, size: int, per_group: int | None, ties: NDArray[np.int64]
) -> list[int]:
    """Greedy representatives, then the others by what is left to gain from them."""
    total = len(state.candidates)
    rows = np.asarray(state.embedding, dtype=np.float64)
    tables = () if state.knowledge is None else state.knowledge.ratings
    weights = expected_square(state, rows, marked_strength(state, tables))[:total]
    information = Information(rows[:total], rows[total:], weights=weights)
    free = np.ones(total, dtype=bool)
    crowded = np.zeros(total, dtype=bool)
    count = np.zeros(total, dtype=np.int64)
    neighbours = neighbour_matrix(state)
    order: list[int] = []
    while len(order) < size:
        open_ = free & ~crowded
        j = arg_best(information.gains(), ties, open_ if open_.any() else free)
        order.append(j)
        free[j] = False
        information.observe(j)
        if per_group is not None:
            count += _row(state, neighbours, j)[:total] >= SAME
            crowded = count >= per_group
    gains = information.gains()
    return [*order, *(int(j) for j in best_first(gains, ties) if free[j])]


def _spread(state: AcquisitionState, order: Sequence[int], size: int, per_group: int) -> list[int]:
    """The same order, with those of a crowded cluster moved behind the others."""
    total = len(state.candidates)
    count = np.zeros(total, dtype=np.int64)
    neighbours = neighbour_matrix(state)
    first: list[int] = []
    for j in order:
        if len(first) == size:
            break
        if count[j] < per_group:
            first.append(j)
            count += _row(state, neighbours, j)[:total] >= SAME
    taken = set(first)
    return [*first, *(j for j in order if j not in taken)]


def _row(state: AcquisitionState, neighbours: csr_matrix | None, j: int) -> Floats:
    """(n_candidates + n_measured,) similarity to candidate `j`: cosine, or weight of an edge."""
    return np.asarray(_alike(state, [j], neighbours)[0])


def _alike(
    state: AcquisitionState, listed: Sequence[int], neighbours: csr_matrix | None = None
) -> Floats:
    """(n_listed, n_candidates + n_measured) similarities."""
    graph = neighbours if neighbours is not None else neighbour_matrix(state)
    n = len(state.candidates) + len(state.measured)
    out = np.zeros((len(listed), n))
    if state.embedding is not None:
        rows = np.asarray(state.embedding, dtype=np.float32)
        out = np.maximum(out, rows[list(listed)] @ rows.T)
    if graph is not None:
        out = np.maximum(out, graph[list(listed)].toarray())
    return np.asarray(out, dtype=np.float64)


def _groups(alike: Floats, listed: Sequence[int]) -> dict[int, list[int]]:
    """Each candidate that is not listed goes to the listed one it is most like."""
    owner = alike.argmax(axis=0)
    best = alike[owner, np.arange(alike.shape[1])]
    taken = set(listed)
    groups: dict[int, list[int]] = {j: [] for j in listed}
    for c in np.lexsort((np.arange(len(best)), -best)):
        if best[c] >= SPEAKS and int(c) not in taken:
            groups[listed[int(owner[c])]].append(int(c))
    return groups


def _nearest(alike: Floats, listed: Sequence[int], n: int) -> dict[int, list[tuple[int, float]]]:
    out = {}
    for row, j in zip(alike, listed, strict=True):
        best = np.argsort(-row, kind="stable")[:n]
        out[j] = [(int(m), float(row[m])) for m in best if row[m] >= SPEAKS]
    return out
