"""A plan as what the review page shows: plain values, no markup."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pertwise.acquire.decisions import signature, undoable
from pertwise.acquire.panel import Plan
from pertwise.acquire.reopened import Question
from pertwise.report.style import RELATIONS

_NOT_SHOWN = {"panel_before", "misses_before"}


def plan_view(plan: Plan, question: Question | None) -> dict[str, Any]:
    """Panel, coverage, log, signature and, with a question, what every pick teaches.

    ``teaches`` of a pick is the share of what is unexplained that is lost without it.
    """
    picks = [p.model_dump() for p in plan.picks]
    information: dict[str, Any] = {}
    if question is not None:
        genes = list(plan.genes)
        panel = question.worth(genes)
        for pick in picks:
            rest = [g for g in genes if g != pick["gene"]]
            pick["teaches"] = max(panel - question.worth(rest), 0.0)
        information = {"state": "ready", "panel": panel, "changed": question.changed}
    signed, current = signature(plan)
    last = undoable(plan)
    pathway = plan.target.get("pathway")
    shown: dict[str, Any] = plain(
        {
            "title": plan.title,
            "revision": plan.revision,
            "simulated": plan.simulated,
            "pathway": pathway["name"] if pathway else "",
            "relations": {kind: words for kind, (words, _) in RELATIONS.items()},
            "n_candidates": len(plan.candidates["gene"]),
            "n_measured": len(plan.measured["gene"]),
            "picks": picks,
            "coverage": [
                {
                    "module": r.module,
                    "size": r.size,
                    "picked": r.picked,
                    "related": r.related,
                    "measured": len(r.measured),
                    "open": len(r.open),
                }
                for r in plan.coverage
            ],
            "warnings": plan.warnings,
            "decisions": [d.model_dump(exclude=_NOT_SHOWN) for d in plan.decisions],
            "undo": last and last.model_dump(exclude=_NOT_SHOWN),
            "signed": signed and {**signed.model_dump(exclude=_NOT_SHOWN), "current": current},
            "information": information,
        }
    )
    return shown


def found_candidates(
    plan: Plan, question: Question | None, words: str, instead: str, order: str, n: int
) -> dict[str, Any]:
    """At most `n` candidates that are not on the panel and match all `words`, best first.

    ``adds`` = what the candidate would add to the panel (without `instead`), as a share of what is
    unexplained. What was left out and may be overruled comes last, where words ask for it.

    Parameters
    ----------
    order
        "information", "uncertainty", "utility" or "name"; what is not known falls back to utility.
    """
    table = plan.candidates
    adds: Mapping[str, float] = {}
    if question is not None:
        adds = question.gains([g for g in plan.genes if g != instead])
    why = {m.gene: m.why for m in plan.near_misses}
    asked = words.casefold().split()
    taken = set(plan.genes)
    rows = []
    for i, gene in enumerate(table["gene"]):
        if gene in taken:
            continue
        row = {
            key: table[key][i]
            for key in ("gene", "symbol", "relation", "module", "uncertainty_rank", "utility")
        }
        kind = RELATIONS.get(row["relation"], ("", ""))[0]
        text = f"{gene} {row['symbol']} {kind} {row['module']}".casefold()
        if all(w in text for w in asked):
            rows.append({**row, "adds": adds.get(gene), "why": why.get(gene, "")})
    keys = {
        "information": lambda r: -(r["adds"] or 0.0),
        "uncertainty": lambda r: r["uncertainty_rank"] or math.inf,
        "name": lambda r: r["gene"].casefold(),
        "utility": lambda r: -(r["utility"] or 0.0),
    }
    chosen = order if order in keys and (order != "information" or adds) else "utility"
    rows.sort(key=keys[chosen])
    overruled = [
        {"gene": r.gene, "why": f"was left out: {r.why}"}
        for r in plan.left_out
        if asked and r.kind not in ("measured", "duplicate") and r.gene not in taken
        if all(w in r.gene.casefold() for w in asked)
    ]
    result: dict[str, Any] = plain(
        {"total": len(rows) + len(overruled), "rows": [*rows, *overruled][:n]}
    )
    return result


def coverage_changes(before: Plan, after: Plan) -> list[dict[str, Any]]:
    """Modules whose picks a change would alter: what is on the panel there, before and after."""
    old = {r.module: r for r in before.coverage}
    found: list[dict[str, Any]] = []
    for row in after.coverage:
        then = old.get(row.module)
        was = [*then.picked, *then.related] if then else []
        now = [*row.picked, *row.related]
        if was != now:
            empty = not now and not row.measured
            found.append({"module": row.module, "before": was, "after": now, "empty": empty})
    return found


def plain(value: Any) -> Any:
    """JSON without NaN: a number that is none becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
