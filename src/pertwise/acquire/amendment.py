"""A person changes the panel: coverage is re-checked and the decision recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pertwise.acquire.coverage import module_coverage
from pertwise.acquire.panel import Decision, ModuleCoverage, NearMiss, PanelPick, Plan
from pertwise.errors import InputError, suggest, unknown_name
from pertwise.knowledge.types import Pathway


def amend(
    plan: Plan,
    *,
    replace: Mapping[str, str] | None = None,
    drop: Sequence[str] = (),
    add: Sequence[str] = (),
    by: str,
    why: str,
) -> Plan:
    """A new revision of `plan`: picks swapped, dropped or added, coverage computed again.

    A replacement takes the place of the pick it replaces; additions go to the end. New genes come
    from the candidates of the plan, or from those left out as excluded or unknown (a person may
    overrule that). Names match by spelling, else by case, else by approved symbol.

    Parameters
    ----------
    replace
        Gene on the panel -> gene to put there.
    by, why
        Who decided and the reason; both are required, because the log is for the next reader.

    Raises
    ------
    pertwise.errors.InputError
        Nothing to do, no name or reason, a gene that is not on the panel, is there already, is
        measured, or is on no list.
    """
    replace = dict(replace or {})
    if not (replace or drop or add):
        raise InputError("nothing to amend: give a replacement, a drop or an addition")
    check_said(by, why)
    picks = list(plan.picks)
    added, dropped = [], []
    for old, new in replace.items():
        place = place_of(picks, old)
        gone = picks[place].gene
        # Why the old one went is no reason for the new one: the log of decisions holds it.
        pick = _new_pick(plan, picks, new, by, f"in the place of {gone}")
        dropped.append(gone)
        added.append(pick.gene)
        picks[place] = pick
    for old in drop:
        dropped.append(picks.pop(place_of(picks, old)).gene)
    words = "" if replace or drop else why.strip()
    for new in add:
        picks.append(_new_pick(plan, picks, new, by, words))
        added.append(picks[-1].gene)
    told = [("replaced", replace), ("dropped", drop), ("added", add)]
    action = " and ".join(word for word, some in told if some)
    return revised(plan, picks, action, by=by, why=why, added=added, dropped=dropped)


def revised(
    plan: Plan,
    picks: Sequence[PanelPick],
    action: str,
    *,
    by: str,
    why: str,
    added: Sequence[str] = (),
    dropped: Sequence[str] = (),
    about: Sequence[str] = (),
    near_misses: Sequence[NearMiss] | None = None,
) -> Plan:
    """The next revision of `plan` with this panel: ranks, coverage and log are brought up to date.

    Parameters
    ----------
    near_misses
        Those of the new panel; None = those of `plan` that are still true.

    Raises
    ------
    pertwise.errors.InputError
        No name or reason, or an empty panel.
    """
    check_said(by, why)
    if not picks:
        raise InputError("this would leave an empty panel")
    taken = {p.gene for p in picks}
    gone = set(dropped) - taken
    ranked = [
        p.model_copy(update={"rank": i, "reason": _without(p.reason, gone)})
        for i, p in enumerate(picks, 1)
    ]
    table = {c: list(v) for c, v in plan.candidates.items()}
    table["status"] = ["picked" if g in taken else "not picked" for g in table["gene"]]
    if near_misses is None:
        near_misses = [
            m.model_copy(update={"why": _unlike(m.why, gone)})
            for m in plan.near_misses
            if m.gene not in taken
        ]
    decision = Decision(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        by=by.strip(),
        action=action,
        why=why.strip(),
        added=list(added),
        dropped=list(dropped),
        about=list(about),
        panel_before=plan.picks,
        misses_before=plan.near_misses,
    )
    return plan.model_copy(
        update={
            "revision": plan.revision + 1,
            "picks": ranked,
            "candidates": table,
            "coverage": recheck_coverage(plan, ranked),
            "near_misses": list(near_misses),
            "decisions": [*plan.decisions, decision],
        }
    )


def check_said(by: str, why: str) -> None:
    """Refuse a decision without a name or a reason."""
    if not by.strip():
        raise InputError("say who decides (--by NAME): the plan records it")
    if not why.strip():
        raise InputError("say why (--why TEXT): the plan records it")


def _without(reason: str, gone: Collection[str]) -> str:
    """A reason that names a pick as being on the panel, after that pick was taken off."""
    for gene in gone:
        reason = reason.replace(
            f"most alike: {gene} (also on this panel", f"most alike: {gene} (taken off since"
        )
    return reason


def _unlike(why: str, gone: Collection[str]) -> str:
    """What stood against a candidate, without its likeness to picks that were taken off."""
    clauses = why.split("; ")
    still = [c for c in clauses if not any(c.startswith(f"like the pick {g} (") for g in gone)]
    return "; ".join(still)


def recheck_coverage(plan: Plan, picks: Sequence[PanelPick]) -> list[ModuleCoverage]:
    """Module coverage of another panel, from what the plan itself stores."""
    pathway = stored_pathway(plan)
    if pathway is None:
        return []
    symbols = dict(zip(plan.candidates["gene"], plan.candidates["symbol"], strict=True))
    symbols |= dict(zip(plan.measured["gene"], plan.measured["symbol"], strict=True))
    symbols |= {p.gene: p.symbol or p.gene for p in picks}
    return module_coverage(
        pathway,
        {p.gene: (p.relation, p.module) for p in picks},
        symbols,
        [p.gene for p in picks],
        plan.measured["gene"],
        plan.candidates["gene"],
    )


def stored_pathway(plan: Plan) -> Pathway | None:
    """The target pathway as the plan stores it."""
    stored = plan.target.get("pathway")
    if not stored:
        return None
    return Pathway(
        name=stored["name"],
        members=tuple(stored["members"]),
        modules={m: tuple(g) for m, g in stored["modules"].items()},
    )


def place_of(picks: Sequence[PanelPick], name: str) -> int:
    """Position of a gene on the panel, by spelling, case or approved symbol.

    Raises
    ------
    pertwise.errors.InputError
        When it is not there.
    """
    names = {p.gene: i for i, p in enumerate(picks)}
    symbols = {p.symbol: p.gene for p in picks if p.symbol}
    found = _match(name, names, symbols)
    if found is None:
        raise unknown_name(
            "gene on the panel", name, names, f"(the panel has {len(picks)} genes: see plan show)"
        )
    return names[found]


def _match(name: str, names: Mapping[str, int], symbols: Mapping[str, str]) -> str | None:
    if name in names:
        return name
    folded = {n.casefold(): n for n in names}
    if name.casefold() in folded:
        return folded[name.casefold()]
    return symbols.get(name)


def _new_pick(plan: Plan, picks: Sequence[PanelPick], name: str, by: str, words: str) -> PanelPick:
    """A pick by a person, pinned: a later choice of the rest keeps it. `words` = why or where."""
    table = plan.candidates
    rows = {g: i for i, g in enumerate(table["gene"])}
    symbols = dict(zip(table["symbol"], table["gene"], strict=True))
    found = _match(name, rows, symbols)
    if found is None:
        return _left_out_pick(plan, picks, name, by, words)
    if found in {p.gene for p in picks}:
        raise InputError(f"{found} is on the panel already")
    return candidate_pick(plan, found, _by_hand(by, words), chosen_by=by.strip(), pinned=True)


def candidate_pick(plan: Plan, gene: str, reason: str, **given: Any) -> PanelPick:
    """A pick of a candidate, with all that the plan stores of it; `given` = further fields."""
    table = plan.candidates
    i = table["gene"].index(gene)
    seen = [p for d in plan.decisions for p in d.panel_before] + plan.picks
    old = next((p for p in reversed(seen) if p.gene == gene), None)
    fields = {
        "full_name": _stored(table, "full_name", i) or (old.full_name if old else ""),
        "summary": old.summary if old else "",
        "utility": table["utility"][i],
    }
    return PanelPick(
        rank=0,
        gene=gene,
        symbol=table["symbol"][i],
        ensembl=_stored(table, "ensembl", i),
        hgnc=_stored(table, "hgnc", i),
        entrez=_stored(table, "entrez", i),
        flags=[f for f in _stored(table, "flags", i).split("; ") if f],
        module=table["module"][i],
        relation=table["relation"][i],
        uncertainty=table["uncertainty"][i],
        uncertainty_rank=table["uncertainty_rank"][i],
        reason=reason,
        evidence=[table["evidence"][i]] if table["evidence"][i] else [],
        **(fields | given),
    )


def _by_hand(by: str, words: str, note: str = "") -> str:
    return f"Chosen by {by.strip()}{note}" + (f": {words}" if words else "")


def _stored(table: Mapping[str, Sequence[Any]], column: str, i: int) -> str:
    """A cell of the candidate table; "" in plans made before it had that column."""
    return str(table[column][i] or "") if column in table else ""


def _left_out_pick(
    plan: Plan, picks: Sequence[PanelPick], name: str, by: str, words: str
) -> PanelPick:
    if name in plan.measured["gene"] or name in plan.measured["symbol"]:
        raise InputError(f"{name} is measured already, so it is no candidate for this panel")
    row = next((r for r in plan.left_out if r.gene == name), None)
    if row is None or row.kind in ("measured", "duplicate"):
        if row is not None:
            raise InputError(f"{name} cannot be added: {row.why}")
        near = suggest(name, plan.candidates["gene"])
        raise InputError(
            f"{name} is on no list of this plan"
            + (f"; did you mean {', '.join(near)}?" if near else "")
            + " To consider other genes, plan again with --include"
        )
    if name in {p.gene for p in picks}:
        raise InputError(f"{name} is on the panel already")
    return PanelPick(
        rank=0,
        gene=name,
        symbol=name,
        reason=_by_hand(by, words, f" (it was left out: {row.why})"),
        chosen_by=by.strip(),
        pinned=True,
    )
