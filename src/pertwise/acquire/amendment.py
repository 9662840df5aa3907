"""A person changes the panel: coverage is re-checked and the decision recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pertwise.acquire.coverage import module_coverage
from pertwise.acquire.panel import Decision, ModuleCoverage, PanelPick, Plan
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
    if not by.strip():
        raise InputError("say who decides (--by NAME): the plan records it")
    if not why.strip():
        raise InputError("say why (--why TEXT): the plan records it")
    picks = list(plan.picks)
    added, dropped = [], []
    for old, new in replace.items():
        place = _place(plan, picks, old)
        pick = _new_pick(plan, picks, new, by, why)
        dropped.append(picks[place].gene)
        added.append(pick.gene)
        picks[place] = pick
    for old in drop:
        dropped.append(picks.pop(_place(plan, picks, old)).gene)
    for new in add:
        picks.append(_new_pick(plan, picks, new, by, why))
        added.append(picks[-1].gene)
    if not picks:
        raise InputError("this would leave an empty panel")
    picks = [p.model_copy(update={"rank": i}) for i, p in enumerate(picks, 1)]
    table = {c: list(v) for c, v in plan.candidates.items()}
    taken = {p.gene for p in picks}
    table["status"] = ["picked" if g in taken else "not picked" for g in table["gene"]]
    words = []
    if replace:
        words.append("replaced")
    if drop:
        words.append("dropped")
    if add:
        words.append("added")
    decision = Decision(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        by=by.strip(),
        action=" and ".join(words),
        why=why.strip(),
        added=added,
        dropped=dropped,
        panel_before=plan.picks,
    )
    return plan.model_copy(
        update={
            "revision": plan.revision + 1,
            "picks": picks,
            "candidates": table,
            "coverage": recheck_coverage(plan, picks),
            "near_misses": [m for m in plan.near_misses if m.gene not in taken],
            "decisions": [*plan.decisions, decision],
        }
    )


def recheck_coverage(plan: Plan, picks: Sequence[PanelPick]) -> list[ModuleCoverage]:
    """Module coverage of another panel, from what the plan itself stores."""
    stored = plan.target.get("pathway")
    if not stored:
        return []
    pathway = Pathway(
        name=stored["name"],
        members=tuple(stored["members"]),
        modules={m: tuple(g) for m, g in stored["modules"].items()},
    )
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


def _place(plan: Plan, picks: Sequence[PanelPick], name: str) -> int:
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


def _new_pick(plan: Plan, picks: Sequence[PanelPick], name: str, by: str, why: str) -> PanelPick:
    table = plan.candidates
    rows = {g: i for i, g in enumerate(table["gene"])}
    symbols = dict(zip(table["symbol"], table["gene"], strict=True))
    found = _match(name, rows, symbols)
    if found is None:
        return _left_out_pick(plan, picks, name, by, why)
    if found in {p.gene for p in picks}:
        raise InputError(f"{found} is on the panel already")
    i = rows[found]
    before = [p for d in plan.decisions for p in d.panel_before if p.gene == found]
    old = before[-1] if before else None
    return PanelPick(
        rank=0,
        gene=found,
        symbol=table["symbol"][i],
        full_name=_stored(table, "full_name", i) or (old.full_name if old else ""),
        ensembl=_stored(table, "ensembl", i),
        hgnc=_stored(table, "hgnc", i),
        entrez=_stored(table, "entrez", i),
        flags=[f for f in _stored(table, "flags", i).split("; ") if f],
        summary=old.summary if old else "",
        module=table["module"][i],
        relation=table["relation"][i],
        uncertainty=table["uncertainty"][i],
        uncertainty_rank=table["uncertainty_rank"][i],
        utility=table["utility"][i],
        reason=f"Chosen by {by.strip()}: {why.strip()}",
        evidence=[table["evidence"][i]] if table["evidence"][i] else [],
        chosen_by=by.strip(),
    )


def _stored(table: Mapping[str, Sequence[Any]], column: str, i: int) -> str:
    """A cell of the candidate table; "" in plans made before it had that column."""
    return str(table[column][i] or "") if column in table else ""


def _left_out_pick(
    plan: Plan, picks: Sequence[PanelPick], name: str, by: str, why: str
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
        reason=f"Chosen by {by.strip()} (it was left out: {row.why}): {why.strip()}",
        chosen_by=by.strip(),
    )
