"""What is lost when a model is shown only the first part of a long list: recall of a prefilter.

A list that is too long to show is cut to what a selector ranks first; places it leaves empty are
filled at random (`select.chat.selector.ChatSelector`). The cut is harmless if what would have been
chosen is still there. Two things would: the measured responses that really are nearest, and what a
model named from the whole list, where its answers were recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.select.base import Query, Selector, select_many
from pertwise.select.similarity import SimilaritySelector
from pertwise.select.words import selector_from

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

NEAREST = "nearest responses"
STRONG = "nearest responses, stronger half"
NAMED = "named in recorded answers"
#: Measured responses that count as the right answer.
N_NEAREST = 5
#: Prefilters compared when none is given.
PREFILTERS = (
    "graph:string",
    "embedding:text",
    "embedding:graph",
    "embedding:text+graph",
    "learned",
)
#: Subjects asked about when one prefilter is checked on the side.
MAX_CHECKED = 300


def expected_recall(
    chosen: Sequence[str], wanted: Sequence[str], size: int, n_candidates: int
) -> float:
    """Share of `wanted` that a list of `size` out of `n_candidates` is expected to show.

    The list holds `chosen` (at most `size`) and is filled up at random with others, each of which
    is shown with probability (size - |chosen|) / (n_candidates - |chosen|).
    """
    if not wanted:
        raise InputError("recall of nothing is not defined")
    hits = len(set(wanted) & set(chosen))
    rest = n_candidates - len(chosen)
    chance = min(1.0, max(0, size - len(chosen)) / rest) if rest else 0.0
    return (hits + (len(wanted) - hits) * chance) / len(wanted)


def nearest(responses: NDArray[np.float64], row: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """The `k` rows of (n, d) `responses` nearest to `row`: mean squared difference over what both
    have; rows without a common feature come last, ties by position."""
    square = (responses - row) ** 2
    count = np.isfinite(square).sum(axis=1)
    distance = np.full(len(responses), np.inf)
    np.divide(np.nansum(square, axis=1), count, out=distance, where=count > 0)
    return np.asarray(np.argsort(distance, kind="stable")[:k])


def split_recall(
    words: str,
    train: Screen,
    test: Screen,
    knowledge: Knowledge,
    sizes: Sequence[int],
    answers: Mapping[str, tuple[tuple[str, ...], str]] | None = None,
) -> pd.DataFrame:
    """Recall of one prefilter at every list length, for every held-out perturbation.

    Parameters
    ----------
    words
        A selector in words (`pertwise.select.words`); a learned one is fitted on `train`.
    train, test
        Measured rows of one context; the list of a held-out perturbation is `train`.
    answers
        subject -> (names, reason), as `pertwise.knowledge.recorded.read_recorded` gives.

    Returns
    -------
    prefilter, size, target (`NEAREST`, `STRONG`, `NAMED`), chance (recall of a list drawn at
    random), recall; one row per size, target and held-out perturbation.

    Raises
    ------
    pertwise.errors.InputError
        For a prefilter that is none, or a size below 1.
    """
    if not sizes or min(sizes) < 1:
        raise InputError(f"list lengths must be at least 1, got {list(sizes)}")
    selector = selector_from(words, max_neighbours=max(sizes))(knowledge, train)
    return pd.DataFrame(_scores(words, selector, train, _wanted(train, test, answers), sizes))


def mean_recall(table: pd.DataFrame) -> pd.DataFrame:
    """Means of `split_recall` over held-out perturbations.

    Returns
    -------
    prefilter, size, target, n (held-out perturbations), chance, recall, all_kept (share of
    perturbations of which nothing is expected to be lost).
    """
    keys = ["prefilter", "size", "target"]
    grouped = table.groupby(keys, sort=False)
    out = grouped.agg(
        n=("recall", "size"), chance=("chance", "mean"), recall=("recall", "mean")
    ).reset_index()
    kept = table.assign(kept=table["recall"] > 1 - 1e-9).groupby(keys, sort=False)["kept"].mean()
    return out.assign(all_kept=kept.to_numpy())


def check_prefilter(words: str, size: int, screen: Screen, knowledge: Knowledge) -> dict[str, Any]:
    """Recall of one prefilter among the measured perturbations, each left out in turn.

    At most `MAX_CHECKED` are asked about, evenly spaced by name. A learned prefilter has seen the
    pairs it is checked on.

    Returns
    -------
    prefilter, size, n, chance, recall (of the `N_NEAREST` nearest measured responses).
    """
    measured = screen.only_measured()
    order = np.argsort(np.asarray(measured.perturbations, dtype=object))
    picked = order[:: int(np.ceil(len(order) / MAX_CHECKED))]
    subjects = measured.take(picked)
    selector = selector_from(words, max_neighbours=size)(knowledge, measured)
    wanted = {NEAREST: _nearest_names(measured, subjects)}
    table = pd.DataFrame(_scores(words, selector, measured, wanted, [size]))
    return {
        "prefilter": words,
        "size": size,
        "n": len(table),
        "chance": float(table["chance"].mean()),
        "recall": float(table["recall"].mean()),
    }


def _nearest_names(train: Screen, test: Screen) -> dict[str, list[str]]:
    names = np.asarray(train.obs["perturbation"], dtype=object)
    x = train.responses.astype(np.float64)
    found = {}
    for name, row in zip(test.obs["perturbation"], test.responses.astype(np.float64), strict=True):
        others = names != name
        chosen = names[others][nearest(x[others], row, N_NEAREST)]
        if len(chosen):
            found[str(name)] = [str(c) for c in chosen]
    return found


def _wanted(
    train: Screen, test: Screen, answers: Mapping[str, tuple[tuple[str, ...], str]] | None
) -> dict[str, dict[str, list[str]]]:
    near = _nearest_names(train, test)
    length = np.sqrt(np.nanmean(test.responses.astype(np.float64) ** 2, axis=1))
    strong = set(np.asarray(test.obs["perturbation"])[length > np.median(length)])
    out = {NEAREST: near, STRONG: {k: v for k, v in near.items() if k in strong}}
    if answers is not None:
        there = set(train.perturbations)
        named = {
            str(p): [n for n in answers[p][0] if n in there]
            for p in test.obs["perturbation"]
            if p in answers
        }
        out[NAMED] = {k: v for k, v in named.items() if v}
    return out


def _scores(
    words: str,
    selector: Selector,
    train: Screen,
    wanted: Mapping[str, Mapping[str, Sequence[str]]],
    sizes: Sequence[int],
) -> list[dict[str, object]]:
    # Sorted, as the training rows of a learned prefilter are: its features are then at hand.
    names = sorted(train.perturbations)
    subjects = sorted({s for group in wanted.values() for s in group})
    lists = {s: [n for n in names if n != s] for s in subjects}
    if isinstance(selector, SimilaritySelector):
        found = selector.ranked(subjects, names, max(sizes))
    else:
        context = train.contexts[0] or None
        questions = [(Query(s, context), lists[s]) for s in subjects]
        found = [x.items for x in select_many(selector, questions, max(sizes))]
    chosen = dict(zip(subjects, found, strict=True))
    rows: list[dict[str, object]] = []
    for size in sizes:
        for target, group in wanted.items():
            for subject, right in group.items():
                n = len(lists[subject])
                recall = expected_recall(chosen[subject][:size], right, size, n)
                chance = min(1.0, size / n)
                rows.append(
                    {"prefilter": words, "size": size, "target": target, "chance": chance,
                     "recall": recall}
                )  # fmt: skip
    return rows
