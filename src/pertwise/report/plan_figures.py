"""The figures of a plan's page, each wide for a desk and narrow for a telephone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pertwise.acquire.panel import Plan
from pertwise.report.style import COLOURS, RELATIONS
from pertwise.report.svg import Chart, log_ticks, stacked_bars

#: More grey points than this make a page slow and say no more.
MAX_POINTS = 2500

#: (fill, ink, words) of the parts of a coverage bar.
COVERAGE = (
    (COLOURS["orange"], "#1f2430", "members on this panel"),
    ("#f6d690", "#1f2430", "picks that regulate, follow or touch the module"),
    (COLOURS["blue"], "#ffffff", "members already measured"),
    (COLOURS["pale"], "#1f2430", "members still open: candidates, not picked"),
)
#: Points that a narrow figure has room for.
_FEW = 600


@dataclass(frozen=True)
class Drawn:
    """One figure of the page: `name` for its file, the same drawn twice, words below it."""

    name: str
    wide: Markup
    narrow: Markup
    caption: str
    legend: tuple[tuple[str, str], ...] = ()


def plan_figures(plan: Plan) -> dict[str, Drawn]:
    """Name -> figure, of those that this plan has the numbers for."""
    found = {}
    if plan.coverage:
        modules_from = plan.target["pathway"]["modules_from"]
        found["coverage"] = Drawn(
            "coverage",
            _coverage(plan),
            _coverage(plan, narrow=True),
            f"Members of each module ({modules_from} modules). Hover a bar for the names.",
            tuple((fill, words) for fill, _, words in COVERAGE),
        )
    if any(u is not None for u in plan.candidates["uncertainty"]):
        wide, caption = _uncertainty(plan)
        found["uncertainty"] = Drawn(
            "uncertainty", wide, _uncertainty(plan, narrow=True)[0], caption
        )
    wide_map, caption = _map(plan)
    narrow_map, _ = _map(plan, narrow=True)
    if wide_map is not None and narrow_map is not None:
        found["map"] = Drawn(
            "map",
            wide_map,
            narrow_map,
            caption,
            (
                (COLOURS["orange"], "on this panel"),
                (COLOURS["blue"], "measured"),
                (COLOURS["pale"], "candidate, not picked"),
            ),
        )
    return found


def _coverage(plan: Plan, *, narrow: bool = False) -> Markup:
    rows = []
    for row in plan.coverage:
        parts = (row.picked, row.related, row.measured, row.open)
        rows.append(
            (
                row.module,
                [
                    (len(genes), f"{row.module}: {words}: {', '.join(genes[:40])}")
                    for genes, (_, _, words) in zip(parts, COVERAGE, strict=True)
                ],
            )
        )
    notes = [
        f"of {r.size}"
        + ("" if narrow else " members")
        + (f", {len(r.unavailable)} on no list" if r.unavailable and not narrow else "")
        for r in plan.coverage
    ]
    return stacked_bars(
        rows,
        [(f, ink) for f, ink, _ in COVERAGE],
        "Coverage of each module",
        width=370 if narrow else 1000,
        notes=notes,
    )


def _thin(order: Sequence[int], keep: set[int], *, narrow: bool) -> list[int]:
    """As many of `order` as a figure has room for, evenly, and all of `keep`."""
    step = max(1, -(-len(order) // (_FEW if narrow else MAX_POINTS)))
    return [j for i, j in enumerate(order) if i % step == 0 or j in keep]


def _uncertainty(plan: Plan, *, narrow: bool = False) -> tuple[Markup, str]:
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
        x_label="uncertainty rank; below it the variance u"
        if narrow
        else "uncertainty rank (1 = the model knows least); below it the ensemble variance u",
        width=370 if narrow else 1000,
        height=70 + (74 if len(lanes) > 1 else 130) * len(lanes),
        left=24 if narrow else 150,
        bottom=62,
        log_x=True,
        grid_y=False,
        log_steps=(1,) if narrow else (1, 2, 5),
    )
    chart.below = {
        rank: f"u {float(table['uncertainty'][ranked[int(rank) - 1]]):.2g}"
        for rank in log_ticks(1, len(ranked), chart.log_steps)
    }
    for i, kind in enumerate(lanes):
        words, colour = RELATIONS[kind]
        place = len(lanes) - 1 - i
        chart.lane(place, place + 1, words or "candidates", colour, i % 2 == 0)
    listed = plan.provenance.get("shortlist")
    if isinstance(listed, list) and len(listed) < len(ranked):
        chart.vertical(len(listed) + 0.5, f"shortlist ends at {len(listed)}")
    keep = {j for j in ranked if table["gene"][j] in picked}
    shown = _thin(ranked, keep, narrow=narrow)
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
    drawn = chart.render()
    return drawn, caption + _unnamed(chart)


def _map(plan: Plan, *, narrow: bool = False) -> tuple[Markup | None, str]:
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
        width=370 if narrow else 1000,
        height=420 if narrow else 560,
        left=10,
        right=10,
        bottom=10,
        axes=False,
    )
    picked = {p.gene: p for p in plan.picks}
    keep = {j for j in placed if table["gene"][j] in picked}
    shown = _thin(placed, keep, narrow=narrow)
    shown_done = _thin(done, set(), narrow=narrow)
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
    drawn = chart.render()
    return drawn, caption + _unnamed(chart)


def _unnamed(chart: Chart) -> str:
    """Said after rendering: names that found no place."""
    n = len(chart.unplaced)
    return f" {n} of the large marks have no room for their name: hover them." if n else ""
