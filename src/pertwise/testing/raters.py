"""One suite every rater runs through.

Use: ``check_rater(lambda: MyRater(...), names, programs)`` in a test, or parametrise over `CHECKS`
to see each one by name. `names` should be perturbations that the rater knows (at least 6).
"""

import json
from collections.abc import Callable, Sequence

import numpy as np

from pertwise.errors import InputError
from pertwise.knowledge.programs import Program, checked_programs
from pertwise.knowledge.ratings import SCALE
from pertwise.select.base import Repair
from pertwise.select.rater import Marked, Rater

Factory = Callable[[], Rater]

KINDS = {
    "alias",
    "call_failed",
    "case",
    "duplicate",
    "empty",
    "invalid",
    "left_empty",
    "missing",
    "other_scale",
    "out_of_list",
    "out_of_scale",
    "refusal",
    "swapped",
    "truncated",
    "unknown_program",
    "unparsable",
    "unreadable_row",
}


def check_contents(factory: Factory, names: Sequence[str], programs: Sequence[Program]) -> None:
    """Every name and program once, strength last, each mark within its scale or NaN."""
    rater = factory()
    assert isinstance(rater, Rater)
    assert rater.name
    marked = rater.rate(list(names), list(programs), context="K562")
    assert isinstance(marked, Marked)
    assert marked.replicates
    columns = checked_programs(programs)
    for ratings in (*marked.replicates, marked.ratings):
        assert ratings.names == tuple(sorted(names))
        assert ratings.programs == tuple(p.name for p in columns)
        assert ratings.context == "K562"
        assert ratings.source
        for j, program in enumerate(columns):
            given = ratings.marks[:, j][np.isfinite(ratings.marks[:, j])]
            assert ((given >= program.low) & (given <= SCALE)).all(), program.name
        assert not np.isinf(ratings.marks).any()
        assert set(ratings.reasons) <= set(names)
    json.dumps(dict(marked.provenance), allow_nan=False)


def check_statements(factory: Factory, names: Sequence[str], programs: Sequence[Program]) -> None:
    """Repairs are of a known kind and say what was done; an empty mark is stated."""
    marked = factory().rate(list(names), list(programs))
    for repair in marked.repairs:
        assert isinstance(repair, Repair)
        assert repair.kind in KINDS, repair.kind
        assert repair.action.strip()
    empty = {
        n
        for r in marked.replicates
        for n, row in zip(r.names, r.marks, strict=True)
        if np.isnan(row).any()
    }
    stated = {r.item for r in marked.repairs if r.kind == "left_empty"}
    assert stated == empty, "every name with an empty mark is stated as left_empty"


def check_order_invariance(
    factory: Factory, names: Sequence[str], programs: Sequence[Program]
) -> None:
    """The order of the names does not matter, and neither list is changed."""
    given, columns = list(names), list(programs)
    first = factory().rate(given, columns)
    assert (given, columns) == (list(names), list(programs))
    other = factory().rate(given[::-1], columns)
    assert first.ratings.names == other.ratings.names
    np.testing.assert_array_equal(first.ratings.marks, other.ratings.marks)


def check_determinism(factory: Factory, names: Sequence[str], programs: Sequence[Program]) -> None:
    """The same question gets the same marks, also from one object asked twice."""
    rater = factory()
    first = rater.rate(list(names), list(programs)).ratings
    for again in (rater, factory()):
        found = again.rate(list(names), list(programs)).ratings
        np.testing.assert_array_equal(first.marks, found.marks)
        assert dict(first.reasons) == dict(found.reasons)


def check_bad_input(factory: Factory, names: Sequence[str], programs: Sequence[Program]) -> None:
    """No name, a name twice and a program twice are refused, naming what is wrong."""
    for items, columns, named in (
        ([], list(programs), ""),
        ([*names, names[0]], list(programs), names[0]),
        (list(names), [*programs, programs[0]], programs[0].name),
    ):
        told = ""
        try:
            factory().rate(items, columns)
        except InputError as error:
            told = str(error)
        assert told, f"rate() must refuse {len(items)} names and {len(columns)} programs"
        assert named.casefold() in told.casefold(), f"the error must name {named!r}: {told}"


CHECKS = [
    check_contents,
    check_statements,
    check_order_invariance,
    check_determinism,
    check_bad_input,
]


def check_rater(factory: Factory, names: Sequence[str], programs: Sequence[Program]) -> None:
    """Run every check."""
    for check in CHECKS:
        check(factory, names, programs)
