"""Numbers, tables and pages are those that were recorded: to the last bit on the same machine.

`builders.py` says how each is made, `record.py` records anew and tells what changed. With
PERTWISE_GOLDEN=summary only the summaries are compared, as on another machine: for a change that is
meant to round differently.
"""

import math
import os

import pytest
from golden import builders, digest
from golden.running import built, read, world_in

KNOWN, WHERE = read()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with world_in(tmp_path_factory.mktemp("golden")) as made:
        yield made


@pytest.fixture(scope="module")
def exact():
    """Whether this is the machine that the digests were recorded on."""
    return digest.machine() == WHERE and os.environ.get("PERTWISE_GOLDEN") != "summary"


@pytest.mark.parametrize("name", builders.CASES)
def test_golden(name, world, exact):
    assert name in KNOWN, "not recorded yet: python tests/golden/record.py"
    fresh = digest.record(built(name, world))
    tolerance = math.inf if name in builders.CHOOSING else digest.TOLERANCE
    changed = digest.differences(KNOWN[name], fresh, exact=exact, tolerance=tolerance)
    assert not changed, "\n".join(changed[:20])


def test_nothing_recorded_is_forgotten(world):
    """Every part that can be named has a golden, and every golden a builder."""
    assert set(KNOWN) <= set(builders.CASES)
    assert set(builders.CASES) >= builders.CHOOSING
    assert not builders.uncovered_predictors()
    assert not builders.uncovered_selectors()
    assert not builders.uncovered_strategies()
    assert not builders.uncovered_metrics()
    assert not builders.uncovered_drugs(world)
