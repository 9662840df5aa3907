"""What people do to a panel besides swapping: pin, remark, sign, undo. All goes into its log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pertwise.acquire.amendment import check_said, place_of, revised
from pertwise.acquire.panel import Decision, Plan
from pertwise.errors import InputError

#: Decisions that change no panel.
REMARK, SIGNED = "remarked", "signed off"
UNDONE, ANEW = "undid: ", "chose anew"


def pin(plan: Plan, genes: Sequence[str], *, by: str, why: str, on: bool = True) -> Plan:
    """`genes` of the panel stay (or no longer stay) when the rest is chosen anew.

    Raises
    ------
    pertwise.errors.InputError
        A gene that is not on the panel, or is pinned (free) already; no name or reason.
    """
    picks = list(plan.picks)
    for gene in genes:
        place = place_of(picks, gene)
        if picks[place].pinned == on:
            raise InputError(f"{picks[place].gene} is {'pinned' if on else 'not pinned'} already")
        picks[place] = picks[place].model_copy(update={"pinned": on})
    if not genes:
        raise InputError("say which genes of the panel")
    return revised(plan, picks, "pinned" if on else "unpinned", by=by, why=why, about=genes)


def remark(plan: Plan, text: str, *, by: str, about: Sequence[str] = ()) -> Plan:
    """A comment on the panel, or on genes of it: it joins the log and changes nothing."""
    picks = [plan.picks[place_of(plan.picks, gene)].gene for gene in about]
    return _noted(plan, REMARK, by, text, picks)


def sign_off(plan: Plan, *, by: str, why: str) -> Plan:
    """A person stands for this panel; any later change makes that past (`signature`)."""
    return _noted(plan, SIGNED, by, why)


def signature(plan: Plan) -> tuple[Decision | None, bool]:
    """The last sign-off, and whether the panel is still the one that was signed."""
    for i, decision in reversed(list(enumerate(plan.decisions))):
        if decision.action == SIGNED:
            later = plan.decisions[i + 1 :]
            return decision, not any(d.panel_before or d.action == "made" for d in later)
    return None, False


def undoable(plan: Plan) -> Decision | None:
    """The change that `undo` takes back: the last one that is not taken back already."""
    open_ones: list[Decision] = []
    for decision in plan.decisions:
        if decision.action == "made":  # planned anew: what was before is another plan's
            open_ones = []
        elif decision.action.startswith(UNDONE) and open_ones:
            open_ones.pop()
        elif decision.panel_before:
            open_ones.append(decision)
    return open_ones[-1] if open_ones else None


def undo(plan: Plan, *, by: str, why: str) -> Plan:
    """A new revision with the panel as it was before the last change; the log keeps both.

    Raises
    ------
    pertwise.errors.InputError
        When there is nothing to take back.
    """
    last = undoable(plan)
    if last is None:
        raise InputError("nothing to undo: the panel is as it was made")
    before = [p.gene for p in last.panel_before]
    return revised(
        plan,
        last.panel_before,
        UNDONE + last.action,
        by=by,
        why=why,
        added=[g for g in before if g not in plan.genes],
        dropped=[g for g in plan.genes if g not in before],
        about=last.about,
        near_misses=last.misses_before,
    )


def refused(plan: Plan) -> tuple[str, ...]:
    """Genes that people took off the panel and nobody put back: no new choice offers them."""
    gone: dict[str, None] = {}
    for decision in plan.decisions:
        # The rest of a panel that is chosen anew is no judgement on the genes that leave.
        if not decision.action.startswith(ANEW):
            gone |= dict.fromkeys(decision.dropped)
        for gene in decision.added:
            gone.pop(gene, None)
    return tuple(gene for gene in gone if gene not in plan.genes)


def _noted(plan: Plan, action: str, by: str, why: str, about: Sequence[str] = ()) -> Plan:
    check_said(by, why)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    note = Decision(when=now, by=by.strip(), action=action, why=why.strip(), about=list(about))
    return plan.model_copy(
        update={"revision": plan.revision + 1, "decisions": [*plan.decisions, note]}
    )
