"""One suite every selector runs through.

Use: ``check_selector(lambda: MySelector(...), candidates, query)`` in a test, or parametrise over
`CHECKS` to see each one by name. `candidates` should be names the selector knows (at least 8);
`query.subject` may or may not be among them.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from pertwise.errors import InputError
from pertwise.select import Pick, Query, Repair, Selection, Selector

Factory = Callable[[], Selector]

KINDS = {
    "alias",
    "call_failed",
    "case",
    "duplicate",
    "empty",
    "empty_set",
    "fallback",
    "impossible_edit",
    "no_reason",
    "out_of_list",
    "query_itself",
    "refusal",
    "too_few",
    "too_many",
    "truncated",
    "unparsable",
}


def check_contents(factory: Factory, candidates: Sequence[str], query: Query) -> None:
    """Only candidates, no duplicates, not the query, at most n; a reason for each."""
    selector = factory()
    assert isinstance(selector, Selector)
    assert isinstance(selector.name, str)
    assert selector.name
    for n in (1, 3, len(candidates) + 5):
        chosen = selector.select(query, list(candidates), n)
        assert isinstance(chosen, Selection)
        assert len(chosen.picks) <= n
        assert set(chosen.items) <= set(candidates)
        assert len(set(chosen.items)) == len(chosen.items)
        assert query.subject not in chosen.items
        assert chosen.source
        for pick in chosen.picks:
            assert isinstance(pick, Pick)
            assert pick.reason.strip(), f"{pick.item} has no reason"
            assert pick.score is None or np.isfinite(pick.score)
            json.dumps(dict(pick.extra), allow_nan=False)
        json.dumps(dict(chosen.provenance), allow_nan=False)


def check_query_among_candidates(factory: Factory, candidates: Sequence[str], query: Query) -> None:
    """A query that is itself on the list is never returned."""
    if query.subject is None:
        return
    pool = sorted({*candidates, query.subject})
    assert query.subject not in factory().select(query, pool, len(pool)).items


def check_only_the_query(factory: Factory, candidates: Sequence[str], query: Query) -> None:
    """A list holding nothing but the query gives an empty selection that says why."""
    if query.subject is None:
        return
    chosen = factory().select(query, [query.subject], 3)
    assert chosen.items == ()


def check_statements(factory: Factory, candidates: Sequence[str], query: Query) -> None:
    """Repairs are of a known kind and say what was done; scores do not increase with rank."""
    chosen = factory().select(query, list(candidates), 5)
    for repair in chosen.repairs:
        assert isinstance(repair, Repair)
        assert repair.kind in KINDS
        assert repair.action.strip()
    assert sum(chosen.repair_counts().values()) == len(chosen.repairs)
    if chosen.utilities is not None:
        assert isinstance(chosen.utilities, pd.Series)
        assert set(chosen.utilities.index) == set(candidates) - {query.subject} or set(
            chosen.utilities.index
        ) == set(candidates)


def check_order_invariance(factory: Factory, candidates: Sequence[str], query: Query) -> None:
    """The order of the list does not matter, and the list is not changed."""
    given = list(candidates)
    first = factory().select(query, given, 4)
    assert given == list(candidates)
    assert factory().select(query, given[::-1], 4).items == first.items


def check_determinism(factory: Factory, candidates: Sequence[str], query: Query) -> None:
    """The same question gets the same answer, also from one object asked twice."""
    selector = factory()
    first = selector.select(query, list(candidates), 4)
    other = factory().select(query, list(candidates), 4)
    again = selector.select(query, list(candidates), 4)
    assert first.items == again.items == other.items
    assert [p.reason for p in first.picks] == [p.reason for p in other.picks]


def check_bad_input(factory: Factory, candidates: Sequence[str], query: Query) -> None:
    """Empty or repeating lists and n < 1 are refused, naming what is wrong."""
    selector = factory()
    repeated = next(c for c in candidates if c != query.subject)
    for items, n, named in (
        ([], 3, ""),
        ([*candidates, repeated], 3, repeated),
        (list(candidates), 0, "0"),
    ):
        told = ""
        try:
            selector.select(query, items, n)
        except InputError as error:
            told = str(error)
        assert told, f"select() must refuse a list of {len(items)} and n = {n}"
        assert named in told, f"the error must name {named!r}: {told}"


CHECKS = [
    check_contents,
    check_query_among_candidates,
    check_only_the_query,
    check_statements,
    check_order_invariance,
    check_determinism,
    check_bad_input,
]


def check_selector(factory: Factory, candidates: Sequence[str], query: Query) -> None:
    """Run every check."""
    for check in CHECKS:
        check(factory, candidates, query)
