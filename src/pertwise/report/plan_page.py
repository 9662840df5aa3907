"""plan.html: the panel as a page a biologist can argue with."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from pertwise._io import write_text_atomic
from pertwise._together import together
from pertwise.acquire.history import check_not_erased, keep_old, refuse_erasing
from pertwise.acquire.panel import LeftOut, NearMiss, Plan
from pertwise.report.page import input_facts, render_page, version_facts
from pertwise.report.style import COLOURS, RELATIONS
from pertwise.report.svg import Chart, log_ticks, stacked_bars

#: More grey points than this make a page slow and say no more.
MAX_POINTS = 2500

_COVERAGE = (
    (COLOURS["orange"], "#1f2430", "members on this panel"),
    ("#f6d690", "#1f2430", "picks that regulate, follow or touch the module"),
    (COLOURS["blue"], "#ffffff", "members already measured"),
    (COLOURS["pale"], "#1f2430", "members still open: candidates, not picked"),
)
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
    map_figure, map_caption = _map(plan)
    figure, caption = _uncertainty(plan) if has_uncertainty else (None, "")
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
        reasons_from="were written by the language model and checked against the list"
        if plan.settings.get("strategy") == "llm" and not plan.fallback
        else "are built from the numbers that decided",
        n_candidates=len(plan.candidates["gene"]),
        has_uncertainty=has_uncertainty,
        facts_of=_facts_of(plan),
        coverage_text=_coverage_text(plan),
        coverage_figure=_coverage(plan),
        coverage_legend=[(fill, words) for fill, _, words in _COVERAGE],
        uncertainty_figure=figure,
        uncertainty_caption=caption,
        map_figure=map_figure,
        map_caption=map_caption,
        map_legend=[
            (COLOURS["orange"], "on this panel"),
            (COLOURS["blue"], "measured"),
            (COLOURS["pale"], "candidate, not picked"),
        ],
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
        tiles.append((str(len(plan.repairs)), "repairs"))
    if plan.revision > 1:
        tiles.append((str(plan.revision), "revision"))
    return tiles


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


def _coverage(plan: Plan) -> Markup:
    rows = []
    for row in plan.coverage:
        parts = (row.picked, row.related, row.measured, row.open)
        rows.append(
            (
                row.module,
                [
                    (len(genes), f"{row.module}: {words}: {', '.join(genes[:40])}")
                    for genes, (_, _, words) in zip(parts, _COVERAGE, strict=True)
                ],
            )
        )
    notes = [
        f"of {r.size} members" + (f", {len(r.unavailable)} on no list" if r.unavailable else "")
        for r in plan.coverage
    ]
    return stacked_bars(
        rows, [(f, ink) for f, ink, _ in _COVERAGE], "Coverage of each module", notes=notes
    )


def _thin(order: Sequence[int], keep: set[int]) -> list[int]:
    """At most `MAX_POINTS` of `order`, evenly, and all of `keep`."""
    step = max(1, -(-len(order) // MAX_POINTS))
    return [j for i, j in enumerate(order) if i % step == 0 or j in keep]


def _uncertainty(plan: Plan) -> tuple[Markup, str]:
    """One lane a relation, uncertainty rank on a logarithmic axis: the top is where it matters."""
    table = plan.candidates
    picked = {p.gene for p in plan.picks}
    ranked = [j for j, r in enumerate(table["uncertainty_rank"]) if r is not None]
    ranked.sort(key=lambda j: table["uncertainty_rank"][j])
    present = {table["relation"][j] for j in ranked}
    lanes = [kind for kind in RELATIONS if kind in present]
    chart = Chart(
        x=(0.85, max(2.0, len(ranked) * 1.1)),
        y=(0.0, float(len(lanes))),
        title="Uncertainty rank of every candidate, by relation to the target",
        x_label="uncertainty rank (1 = the model knows least); below it the ensemble variance u",
        width=1000,
        height=70 + (74 if len(lanes) > 1 else 130) * len(lanes),
        left=150,
        bottom=62,
        log_x=True,
        grid_y=False,
    )
    chart.below = {
        rank: f"u {float(table['uncertainty'][ranked[int(rank) - 1]]):.2g}"
        for rank in log_ticks(1, len(ranked))
    }
    for i, kind in enumerate(lanes):
        words, colour = RELATIONS[kind]
        place = len(lanes) - 1 - i
        chart.lane(place, place + 1, words or "candidates", colour, i % 2 == 0)
    listed = plan.provenance.get("shortlist")
    if isinstance(listed, list) and len(listed) < len(ranked):
        chart.vertical(len(listed) + 0.5, f"shortlist ends at {len(listed)}")
    keep = {j for j in ranked if table["gene"][j] in picked}
    shown = _thin(ranked, keep)
    for j in [j for j in shown if j not in keep] + sorted(keep):
        gene, kind = table["gene"][j], table["relation"][j]
        words, colour = RELATIONS[kind]
        rank, u = table["uncertainty_rank"][j], float(table["uncertainty"][j])
        on = j in keep
        # Spread over the height of the lane, the same way on every run.
        spread = 0.15 + 0.7 * ((rank * 0.618034) % 1.0)
        y = len(lanes) - 1 - lanes.index(kind) + spread
        tip = f"{gene}: rank {rank}, u = {u:.3g}" + (f", {words}" if words else "")
        chart.point(
            rank,
            y,
            COLOURS["orange"] if on else colour,
            tip,
            radius=6 if on else 2.2,
            opacity=1.0 if on else 0.4,
            outline=COLOURS["ink"] if on else "none",
            solid=on,
        )
        if on:
            chart.label(rank, y, gene)
    caption = (
        "Every candidate by uncertainty rank (logarithmic); the height inside a lane means "
        "nothing. Large marks are the panel. Hover for names."
    )
    if len(shown) < len(ranked):
        caption += f" {len(shown)} of {len(ranked)} candidates are drawn."
    return chart.render(), caption


def _map(plan: Plan) -> tuple[Markup | None, str]:
    table = plan.candidates
    placed = [j for j, x in enumerate(table["x"]) if x is not None]
    done = [j for j, x in enumerate(plan.measured["x"]) if x is not None]
    xs = [table["x"][j] for j in placed] + [plan.measured["x"][j] for j in done]
    ys = [table["y"][j] for j in placed] + [plan.measured["y"][j] for j in done]
    if not xs or (max(xs) == min(xs) and max(ys) == min(ys)):
        return None, ""
    pad_x, pad_y = 0.04 * (max(xs) - min(xs)), 0.04 * (max(ys) - min(ys))
    chart = Chart(
        x=(min(xs) - pad_x, max(xs) + pad_x),
        y=(min(ys) - pad_y, max(ys) + pad_y),
        title="Map of genes by their knowledge features",
        width=1000,
        height=560,
        left=10,
        right=10,
        bottom=10,
        axes=False,
    )
    picked = {p.gene: p for p in plan.picks}
    keep = {j for j in placed if table["gene"][j] in picked}
    shown, shown_done = _thin(placed, keep), _thin(done, set())
    for j in shown:
        if j not in keep:
            chart.point(
                table["x"][j], table["y"][j], "#b9bfc9", table["gene"][j], radius=2.4, opacity=0.6
            )
    for j in shown_done:
        chart.point(
            plan.measured["x"][j],
            plan.measured["y"][j],
            COLOURS["blue"],
            f"{plan.measured['gene'][j]} (measured)",
            radius=2.4,
            opacity=0.5,
        )
    for j in sorted(keep):
        pick = picked[table["gene"][j]]
        chart.point(
            table["x"][j],
            table["y"][j],
            COLOURS["orange"],
            f"{pick.rank}. {pick.gene}: {pick.reason}",
            radius=6,
            outline=COLOURS["ink"],
            solid=True,
        )
        chart.label(table["x"][j], table["y"][j], pick.gene)
    kind = plan.settings.get("embedding", "knowledge")
    caption = (
        f"First two principal components of the “{kind}” features of all candidates and measured "
        "genes: near means described alike, not necessarily responding alike."
    )
    if len(shown) + len(shown_done) < len(placed) + len(done):
        caption += f" {len(shown) + len(shown_done)} of {len(placed) + len(done)} genes are drawn."
    return chart.render(), caption


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
