"""Planning again never erases what a person decided."""

import json

import pytest
from fake_knowledge import FakeKnowledge

from pertwise.acquire import Plan, amend, plan
from pertwise.acquire.guides.choose import WHO
from pertwise.errors import InputError
from pertwise.report import write_plan


def made(seed=0):
    return plan(None, FakeKnowledge(), strategy="random", batch=3, seed=seed)


def test_a_plan_that_nobody_changed_is_written_over(tmp_path):
    write_plan(made(), tmp_path)
    write_plan(made(1), tmp_path)
    assert Plan.load(tmp_path).genes == made(1).genes
    assert not (tmp_path / "history").exists()


def test_amendments_need_overwrite_and_are_kept(tmp_path):
    first = made()
    write_plan(first, tmp_path)
    held = first.amend(drop=[first.genes[0]], by="A. Curie", why="no guides")
    write_plan(held, tmp_path)  # an amendment goes on from what is there
    again = held.amend(drop=[held.genes[0]], by="A. Curie", why="lethal")
    write_plan(again, tmp_path)
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(InputError, match=r"2 amendments \(last: dropped by A\. Curie, 'lethal'\)"):
        write_plan(made(1), tmp_path)
    # an older revision would lose the last decision, too
    with pytest.raises(InputError, match="--overwrite"):
        held.write(tmp_path)
    assert (tmp_path / "plan.json").read_bytes() == before
    made(1).write(tmp_path, overwrite=True)
    (old,) = (tmp_path / "history").glob("*.json")
    assert json.loads(old.read_bytes()) == json.loads(before)
    assert len(list((tmp_path / "history").iterdir())) == 3
    new = Plan.load(tmp_path)
    assert new.genes == made(1).genes
    assert [d.action for d in new.decisions] == ["made", "dropped", "dropped", "made"]
    # nothing was changed by hand since
    write_plan(made(2), tmp_path)


def test_a_change_by_rule_is_made_again_and_not_in_the_way(tmp_path):
    first = made()
    write_plan(amend(first, drop=[first.genes[0]], by=WHO, why="no guide"), tmp_path)
    write_plan(made(1), tmp_path)
