"""What people do to a panel: pins, remarks, signatures, undo; and the rest chosen anew."""

import numpy as np
import pytest
from acquire.test_planning import KNOWLEDGE, make_plan

from pertwise.acquire import Plan, amend
from pertwise.acquire.decisions import pin, refused, remark, sign_off, signature, undo, undoable
from pertwise.acquire.reopened import Question, choose_anew
from pertwise.acquire.strategies.variance_reduction import Information
from pertwise.errors import InputError


def free(made, n=1):
    return [g for g in made.candidates["gene"] if g not in made.genes][:n]


def test_why_one_gene_went_is_not_told_as_the_reason_for_another():
    made = make_plan()
    changed = amend(
        made, replace={made.genes[1]: free(made)[0]}, by="Ada", why="its guides do not work"
    )
    assert "guides" not in changed.picks[1].reason
    assert changed.picks[1].reason == f"Chosen by Ada: in the place of {made.genes[1]}"
    assert changed.decisions[-1].why == "its guides do not work"
    added = amend(made, add=free(made), by="Ada", why="we have the line")
    assert added.picks[-1].reason == "Chosen by Ada: we have the line"


def test_reasons_do_not_name_a_pick_that_left_as_being_there():
    made = make_plan()
    gone, left = made.genes[0], made.picks[1]
    left.reason = f"Alike; most alike: {gone} (also on this panel, similarity 0.50). Score 1"
    made.near_misses[0].why = f"position 7 for 6 places; like the pick {gone} (similarity 0.40)"
    changed = amend(made, drop=[gone], by="Ada", why="no")
    assert f"{gone} (taken off since, similarity 0.50)" in changed.picks[0].reason
    assert changed.near_misses[0].why == "position 7 for 6 places"
    assert "also on this panel" in left.reason, "the old plan is untouched"


def test_undo_takes_back_one_change_after_another_and_keeps_the_log():
    made = make_plan()
    first = amend(made, drop=[made.genes[0]], by="Ada", why="a")
    second = pin(first, [first.genes[1]], by="Ada", why="b")
    noted = remark(second, "looks fine", by="Bob", about=[first.genes[0]])
    once = undo(noted, by="Bob", why="c")
    assert not any(p.pinned for p in once.picks)
    assert once.genes == first.genes
    twice = undo(once, by="Bob", why="d")
    assert twice.picks == made.picks
    assert twice.near_misses == made.near_misses
    assert twice.coverage == made.coverage
    assert [d.by for d in twice.decisions[1:]] == ["Ada", "Ada", "Bob", "Bob", "Bob"]
    assert undoable(twice) is None
    with pytest.raises(InputError, match="nothing to undo"):
        undo(twice, by="Bob", why="e")


def test_a_signature_holds_until_the_panel_changes():
    made = make_plan()
    assert signature(made) == (None, False)
    signed = remark(sign_off(made, by="Ada", why="ordered"), "thanks", by="Bob")
    assert signature(signed)[0].by == "Ada"
    assert signature(signed)[1]
    assert not signature(amend(signed, drop=[made.genes[0]], by="Bob", why="x"))[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: pin(p, ["NOPE"], by="A", why="w"), "unknown gene on the panel"),
        (lambda p: pin(p, [p.genes[0]], by="A", why="w", on=False), "is not pinned already"),
        (lambda p: pin(p, [p.genes[0]], by="", why="w"), "say who"),
        (lambda p: remark(p, " ", by="A"), "say why"),
        (lambda p: sign_off(p, by="A", why=""), "say why"),
    ],
)
def test_decisions_need_a_gene_a_name_and_a_reason(change, message):
    with pytest.raises(InputError, match=message):
        change(make_plan(batch=2))


def test_plans_of_before_pins_are_read(tmp_path):
    made = make_plan(batch=2)
    value = made.model_dump()
    for pick in value["picks"]:
        del pick["pinned"]
    for decision in value["decisions"]:
        del decision["about"], decision["misses_before"]
    assert Plan.model_validate(value).genes == made.genes


# -- expected information ------------------------------------------------------------------------


def brute(x, measured, members, noise, weights):
    """sum_u w_u (var before - var after) from full covariance matrices."""

    def variance(rows):
        k = x @ x.T
        s = x @ rows.T
        return np.diag(k - s @ np.linalg.inv(rows @ rows.T + noise * np.eye(len(rows))) @ s.T)

    return weights @ (variance(measured) - variance(np.vstack([measured, x[members]])))


def test_worth_of_a_panel_is_what_measuring_all_of_it_takes_off():
    rng = np.random.default_rng(1)
    x, measured = rng.normal(size=(30, 5)), rng.normal(size=(4, 5))
    weights = rng.uniform(1, 2, size=30)
    information = Information(x, measured, 0.7, weights)
    members = [3, 11, 12]
    assert information.worth(members) == pytest.approx(
        brute(x, measured, members, 0.7, weights), rel=1e-9
    )
    later = information.after(members)
    assert information.left - later.left == pytest.approx(information.worth(members), rel=1e-9)
    assert information.worth([*members, 5]) - information.worth(members) == pytest.approx(
        later.gains()[5], rel=1e-9
    )


def test_a_gene_of_which_nothing_is_known_tells_about_no_other():
    x = np.eye(6)[[0, 0, 1, 1, 2]]
    x = np.vstack([x, np.zeros(6)])
    information = Information(x, np.zeros((0, 6)))
    assert list(information.informed_by(5)) == [], "not the first names of the alphabet"
    assert list(information.informed_by(0)) == [1]


def test_the_rest_is_chosen_anew_around_pins_and_without_what_people_took_off():
    made = make_plan()
    question = Question.open(made, KNOWLEDGE)
    off = made.genes[0]
    new = free(made)[0]
    changed = amend(made, replace={off: new}, by="Ada", why="no guides")
    assert refused(changed) == (off,)
    again = choose_anew(changed, question, by="Ada", why="the rest should follow")
    assert again.genes[0] == new, "what a person put there is pinned"
    assert len(again.genes) == len(made.genes)
    assert off not in again.genes
    assert again.revision == 3
    assert again.decisions[-1].action.startswith("chose anew around 1 pinned")
    assert undo(again, by="Ada", why="x").genes == changed.genes
    everything = pin(made, made.genes, by="Ada", why="x")
    with pytest.raises(InputError, match="every pick is pinned"):
        choose_anew(everything, question, by="Ada", why="x")


def test_with_nothing_pinned_the_same_panel_is_chosen():
    made = make_plan()
    again = choose_anew(made, Question.open(made, KNOWLEDGE), by="A", why="w")
    assert again.genes == made.genes


def test_a_plan_file_cannot_bring_code_as_its_strategy(tmp_path):
    trap = tmp_path / "trap.py"
    trap.write_text("raise SystemExit('run')")
    made = make_plan()
    made.settings["strategy"] = f"{trap}:Strategy"
    again = choose_anew(made, Question.open(made, KNOWLEDGE), by="A", why="w")
    assert again.genes
