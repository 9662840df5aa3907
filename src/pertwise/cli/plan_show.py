"""Plans in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pertwise.cli.door import console

if TYPE_CHECKING:
    from pertwise.acquire import Plan
    from pertwise.acquire.assemble import Setup


def show_plan(plan: Plan) -> None:
    """The panel in the terminal."""
    from rich.markup import escape
    from rich.table import Table

    from pertwise.acquire.panel import STOOD_IN

    out = console()
    if plan.simulated:
        out.print("[black on yellow] SIMULATED DATA [/] nothing here is real biology")
    out.print(f"[bold]{escape(plan.title)}[/]  (revision {plan.revision})")
    table = Table(show_lines=False, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("gene", style="bold")
    has_pathway = bool(plan.coverage)
    if has_pathway:
        table.add_column("relation")
        table.add_column("module")
    table.add_column("u rank", justify="right")
    table.add_column("why", ratio=1)
    for p in plan.picks:
        row = [str(p.rank), escape(p.gene)]
        if has_pathway:
            row += [p.relation.replace("_", " "), escape(p.module)]
        row.append("-" if p.uncertainty_rank is None else str(p.uncertainty_rank))
        row.append(
            escape(
                p.reason.split(". Score ")[0]
                + ("" if p.chosen_by == "strategy" else f" [{p.chosen_by}]")
            )
        )
        table.add_row(*row)
    out.print(table)
    for r in plan.coverage:
        out.print(
            f"  {escape(r.module)}: {len(r.picked)} picked, {len(r.related)} related, "
            f"{len(r.measured)} measured, {len(r.open)} open of {r.size}",
            highlight=False,
        )
    _show_notes([*_reading(plan.inputs), *plan.warnings])
    counts: dict[str, int] = {}
    for note in plan.repairs:
        if note.kind == STOOD_IN:
            out.print(f"[yellow]note[/] {escape(note.action)}")
            continue
        counts[note.kind] = counts.get(note.kind, 0) + 1
    if counts:
        text = ", ".join(f"{n} {k}" for k, n in sorted(counts.items()))
        out.print(f"[yellow]repairs[/] {text}")
    if plan.fallback:
        out.print("[yellow]fallback[/] some picks do not come from the picker asked for")
    left: dict[str, int] = {}
    for row_out in plan.left_out:
        left[row_out.kind] = left.get(row_out.kind, 0) + 1
    if left:
        out.print("left out: " + ", ".join(f"{n} {k}" for k, n in left.items()))


def show_changes(before: Plan, after: Plan) -> None:
    """What an amendment did to the coverage."""
    from rich.markup import escape

    out = console()
    decision = after.decisions[-1]
    out.print(
        f"revision {after.revision}: out {', '.join(decision.dropped) or '-'}; "
        f"in {', '.join(decision.added) or '-'} (by {escape(decision.by)})"
    )
    old = {r.module: r for r in before.coverage}
    for row in after.coverage:
        was = old.get(row.module)
        now, then = [*row.picked, *row.related], [*was.picked, *was.related] if was else []
        if now == then:
            continue
        text = f"  {escape(row.module)}: {len(then)} -> {len(now)} on the panel"
        if not now and not row.measured:
            text += "  [yellow]nothing left measured or picked here[/]"
        out.print(text, highlight=False)


def show_dry_run(setup: Setup, name: str, strategy: Any, state: Any) -> None:
    """What would be done, and what it may cost."""
    from rich.markup import escape

    out = console()
    pool = setup.pool
    pathway = setup.target.pathway
    lines = [
        f"candidates  {len(pool.candidates)} ({pool.origin})",
        f"measured    {len(pool.measured)}",
        f"pinned      {', '.join(pool.pinned) or '-'}",
        f"left out    {len(pool.left_out)}",
        "target      "
        + (
            "whole response"
            if pathway is None
            else f"{pathway.name}: {len(pathway.members)} genes, "
        )
        + ("" if pathway is None else f"{len(pathway.modules)} modules ({pathway.modules_from})"),
        "features    "
        + ("all" if setup.target.features is None else "; ".join(setup.target.features)),
        f"strategy    {name}: {setup.n_to_pick} of {len(pool.candidates)}",
    ]
    for line in lines:
        out.print(escape(line), highlight=False)
    _show_notes([*_reading(setup.inputs), *pool.notes])
    request = getattr(strategy, "first_request", None)
    if request is not None and state is not None:
        first = request(state, setup.n_to_pick)
        if first is not None:
            out.print(escape(f"chat        {strategy.chat.estimate([first])}"))
            if state.uncertainty is None and pool.measured:
                out.print("            (the uncertainties are not computed yet)")
    out.print("dry run: nothing was trained, asked or written")


def _reading(inputs: Mapping[str, Any]) -> list[str]:
    """What was decided when the screen was read."""
    meta = (inputs.get("screen") or {}).get("meta") or {}
    return [f"screen: {text}" for text in meta.get("notes") or ()]


def _show_notes(notes: Sequence[str]) -> None:
    from rich.markup import escape

    for text in notes:
        console().print(f"[yellow]note[/] {escape(text)}")
