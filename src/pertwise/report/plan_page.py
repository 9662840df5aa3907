"""plan.html: the panel as a page a biologist can argue with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pertwise._io import write_text_atomic
from pertwise._together import together
from pertwise.acquire.history import check_not_erased, keep_old, refuse_erasing
from pertwise.acquire.panel import LeftOut, NearMiss, PanelPick, Plan
from pertwise.report.page import input_facts, render_page, version_facts
from pertwise.report.plan_downloads import downloads
from pertwise.report.plan_figures import plan_figures
from pertwise.report.plan_words import glossary
from pertwise.report.style import RELATIONS

_MISSES = {
    "next": "Next in line",
    "uncertain": "Most uncertain, not picked",
    "member": "Members of the pathway, not picked",
}
_LEFT_OUT = {
    "measured": "already measured",
    "excluded": "excluded by --exclude",
    "unknown": "not known to the knowledge folder",
    "duplicate": "the same gene under another name",
    "requirement": "do not meet --require",
}


def write_plan(
    plan: Plan, out: str | os.PathLike[str], name: str = "plan", *, overwrite: bool = False
) -> dict[str, Path]:
    """Write plan.csv, plan.html and plan.json into the folder `out`: all of them or none.

    A plan there that a person has amended is not erased: with `overwrite` its files go into
    history/, and its decisions stand before those of the new plan.

    Raises
    ------
    pertwise.errors.InputError
        When amendments would be lost and `overwrite` is False.
    """
    folder = Path(out)
    if overwrite:
        old = check_not_erased(folder, plan, name)
        if old is not None:
            keep_old(folder, old, name)
            plan = plan.model_copy(update={"decisions": [*old.decisions, *plan.decisions]})
    else:
        refuse_erasing(folder, plan, name)
    paths = {kind: folder / f"{name}.{kind}" for kind in ("csv", "html", "json")}
    with together(folder, name) as stage:
        plan.save_csv(stage / paths["csv"].name)
        page = render_plan(plan, str(paths["json"]))
        write_text_atomic(stage / paths["html"].name, page)
        plan.save_json(stage / paths["json"].name)
    return paths


def render_plan(plan: Plan, plan_file: str = "plan.json") -> str:
    """The whole page as text; every name and reason is escaped."""
    pathway = plan.target.get("pathway")
    has_uncertainty = any(u is not None for u in plan.candidates["uncertainty"])
    misses = [
        (words, [m for m in plan.near_misses if m.kind == kind]) for kind, words in _MISSES.items()
    ]
    figures = plan_figures(plan)
    swap = next((m.gene for m in plan.near_misses), "OTHER")
    return render_page(
        "plan.html.j2",
        title=plan.title,
        simulated=plan.simulated,
        plan=plan,
        pathway=pathway,
        relations=RELATIONS,
        lead=_lead(plan),
        tiles=_tiles(plan),
        glance=_glance(plan),
        reasons_from="were written by the language model and checked against the list"
        if plan.settings.get("strategy") == "llm" and not plan.fallback
        else "are built from the numbers that decided",
        n_candidates=len(plan.candidates["gene"]),
        has_uncertainty=has_uncertainty,
        facts_of=_facts_of(plan),
        coverage_text=_coverage_text(plan),
        figures=figures,
        downloads=downloads(plan),
        glossary=glossary(plan),
        misses=[(words, rows) for words, rows in misses if rows],
        left_out=_left_out(plan.left_out),
        repair_text=_counts(plan),
        facts=_facts(plan),
        record=json.dumps(
            {
                "settings": plan.settings,
                "inputs": plan.inputs,
                "versions": plan.versions,
                "strategy": plan.provenance,
            },
            indent=1,
            ensure_ascii=False,
            default=str,
        ),
        plan_file=plan_file,
        swap=swap,
    )


def _lead(plan: Plan) -> str:
    n = len(plan.candidates["gene"])
    done = len(plan.measured["gene"])
    features = plan.target.get("features")
    text = f"{len(plan.picks)} of {n} candidates, chosen by “{plan.source}”"
    text += f", with {done} perturbations measured" if done else ", with nothing measured yet"
    if plan.context:
        text += f" in {plan.context}"
    if features:
        shown = "; ".join(features[:6]) + (" …" if len(features) > 6 else "")
        text += f". Response that counts: {shown}"
    elif done:
        text += ". Response that counts: all features of the screen"
    return text + "."


def _facts_of(plan: Plan) -> dict[str, list[str]]:
    """Fact -> its value for every pick in words; only facts that a pick has."""
    place = {g: i for i, g in enumerate(plan.candidates["gene"])}
    out = {}
    for name, values in plan.facts.items():
        own = [values[place[p.gene]] if p.gene in place else None for p in plan.picks]
        words = [_word(v) for v in own]
        if any(words):
            out[name] = words
    return out


def _word(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _tiles(plan: Plan) -> list[tuple[str, str]]:
    tiles = [(str(len(plan.picks)), "on the panel")]
    if plan.coverage:
        touched = sum(bool(r.picked or r.related) for r in plan.coverage)
        tiles.append((f"{touched} of {len(plan.coverage)}", "modules touched"))
        members = sum(p.relation == "direct_member" for p in plan.picks)
        tiles.append((str(members), "members of the pathway"))
        tiles.append((str(sum(len(r.open) for r in plan.coverage)), "members still open"))
    ranks = sorted(p.uncertainty_rank for p in plan.picks if p.uncertainty_rank is not None)
    if ranks:
        tiles.append((str(ranks[len(ranks) // 2]), "median uncertainty rank"))
    tiles.append((str(len(plan.candidates["gene"])), "candidates"))
    tiles.append((str(len(plan.measured["gene"])), "measured"))
    if plan.repairs:
        tiles.append((str(len(plan.repairs)), "repair" if len(plan.repairs) == 1 else "repairs"))
    if plan.revision > 1:
        tiles.append((str(plan.revision), "revision"))
    return tiles


def _glance(plan: Plan) -> list[tuple[str, list[PanelPick]]]:
    """Relation -> picks, best related first: the panel in a few lines."""
    groups = [(kind, [p for p in plan.picks if p.relation == kind]) for kind in RELATIONS]
    return [(kind, picks) for kind, picks in groups if picks]


def _coverage_text(plan: Plan) -> str:
    if not plan.coverage:
        return ""
    empty = [r.module for r in plan.coverage if not (r.picked or r.related or r.measured)]
    size = sum(r.size for r in plan.coverage)
    measured = sum(len(r.measured) for r in plan.coverage)
    picked = sum(len(r.picked) for r in plan.coverage)
    text = (
        f"Of {size} members, {measured} are measured and {picked} are on the panel; "
        f"{sum(len(r.open) for r in plan.coverage)} more are candidates and "
        f"{sum(len(r.unavailable) for r in plan.coverage)} are on no list. "
    )
    if empty:
        return text + "Nothing is measured or picked in: " + "; ".join(empty) + "."
    return text + "Every module has at least one gene measured or on the panel."


def _left_out(rows: Sequence[LeftOut]) -> list[tuple[str, str, list[LeftOut]]]:
    groups = []
    for kind, words in _LEFT_OUT.items():
        group = [r for r in rows if r.kind == kind]
        if group:
            groups.append((kind, words, group))
    return groups


def _counts(plan: Plan) -> str:
    counts: dict[str, int] = {}
    for r in plan.repairs:
        counts[r.kind] = counts.get(r.kind, 0) + 1
    return ", ".join(f"{n} × {kind}" for kind, n in sorted(counts.items())) + "."


def _facts(plan: Plan) -> list[tuple[str, str]]:
    facts = [("made", f"{plan.created} (UTC), revision {plan.revision}")]
    more = {}
    for name, entry in plan.inputs.items():
        if name == "candidates" and entry.get("path"):
            more[name] = f": {entry['origin']}"
        elif entry.get("meta", {}).get("source"):
            more[name] = f"; {entry['meta']['source']}"
    facts += input_facts(plan.inputs, **more)
    facts.append(("strategy", plan.source))
    for key in ("model", "endpoint", "prompt", "prompt_hash", "ledger_keys", "cost_usd"):
        if plan.provenance.get(key) is not None:
            facts.append((key.replace("_", " "), str(plan.provenance[key])))
    facts.append(("seed", str(plan.settings.get("seed"))))
    facts.append(version_facts(plan.versions))
    return facts


__all__ = ["LeftOut", "NearMiss", "render_plan", "write_plan"]
