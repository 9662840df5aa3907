"""`pertwise plan`: make, show and amend a panel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pertwise.errors import InputError

if TYPE_CHECKING:
    from pertwise.acquire import Plan
    from pertwise.acquire.assemble import Setup

LEDGER = "ledger.sqlite"


class _DefaultMake(TyperGroup):
    """`pertwise plan SCREEN ...` means `pertwise plan make SCREEN ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["make", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_DefaultMake,
    help="The next panel: which perturbations, why each, and what stays uncovered.",
    add_completion=False,
)


@app.command(
    "make",
    epilog="Also: `pertwise plan show PLAN.json`, `pertwise plan amend PLAN.json --replace A=B`.",
)
def make(
    screen: Annotated[
        Path | None,
        typer.Argument(help="What is measured (h5ad, csv, tsv, parquet). None with --cold-start."),
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="Knowledge folder (pertwise knowledge build).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.csv, .html, .json.")] = None,
    pathway: Annotated[
        str,
        typer.Option(
            help="Target: a name in the knowledge folder, FILE.gmt[:NAME], a file or "
            "comma-separated list of genes, or none (whole response).",
            rich_help_panel="Target",
        ),
    ] = "none",
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="Screen features that count, by name or glob ('*erythroid*'); repeat.",
            rich_help_panel="Target",
        ),
    ] = None,
    candidates: Annotated[
        str,
        typer.Option(
            help="File with one gene a line; 'screen' = rows of SCREEN with nothing measured; "
            "'knowledge' = all known genes; 'all' = 'screen' if there are such rows, else "
            "'knowledge'.",
            rich_help_panel="Candidates",
        ),
    ] = "all",
    batch: Annotated[int, typer.Option(help="Places on the panel, pinned genes included.")] = 20,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="knowledge, llm, uncertainty, iterpert, bald, batchbald, coreset, typiclust, "
            "badge, lcmd, random, or module:Class. Default: llm when --llm is given, else "
            "knowledge.",
            rich_help_panel="Picker",
        ),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL@URL",
            help="Chat endpoint; keys come from the environment.",
            rich_help_panel="Picker",
        ),
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="Prompt template: built-in name or file.", rich_help_panel="Picker")
    ] = "acquire",
    shortlist: Annotated[
        int,
        typer.Option(
            help="Length of the shortlist of 'llm' and 'knowledge'.", rich_help_panel="Picker"
        ),
    ] = 200,
    budget_tokens: Annotated[
        int | None, typer.Option(help="Most tokens to use.", rich_help_panel="Picker")
    ] = None,
    budget_usd: Annotated[
        float | None, typer.Option(help="Most US dollars to spend.", rich_help_panel="Picker")
    ] = None,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Answer from the ledger only, never call out.",
            rich_help_panel="Picker",
        ),
    ] = False,
    context: Annotated[
        str | None,
        typer.Option(help="Cell line or type, where SCREEN has several.", rich_help_panel="Target"),
    ] = None,
    context_text: Annotated[
        str,
        typer.Option(help="Free text about the cells for a chat model.", rich_help_panel="Target"),
    ] = "",
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GENE", help="Add to the candidates; repeat.", rich_help_panel="Candidates"
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GENE", help="Take off the candidates; repeat.", rich_help_panel="Candidates"
        ),
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GENE",
            help="Put on the panel; the rest is chosen around it; repeat.",
            rich_help_panel="Candidates",
        ),
    ] = None,
    keep_unknown: Annotated[
        bool,
        typer.Option(
            "--keep-unknown",
            help="Keep candidates that no table knows.",
            rich_help_panel="Candidates",
        ),
    ] = False,
    embedding: Annotated[
        str, typer.Option(help="Gene features for similarity.", rich_help_panel="Picker")
    ] = "text",
    control: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="Control label in SCREEN, where it is not recognised; repeat.",
            rich_help_panel="Reading SCREEN",
        ),
    ] = None,
    perturbation_key: Annotated[
        str | None,
        typer.Option(help="Column that names the perturbation.", rich_help_panel="Reading SCREEN"),
    ] = None,
    context_key: Annotated[
        str | None,
        typer.Option(help="Column that names the cell line.", rich_help_panel="Reading SCREEN"),
    ] = None,
    dose_key: Annotated[
        str | None,
        typer.Option(help="Column that holds the dose.", rich_help_panel="Reading SCREEN"),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(
            help="deltas (control-subtracted already) or means.", rich_help_panel="Reading SCREEN"
        ),
    ] = None,
    duplicates: Annotated[
        str | None,
        typer.Option(
            help="average: take the mean of repeated rows.", rich_help_panel="Reading SCREEN"
        ),
    ] = None,
    infinite: Annotated[
        str | None,
        typer.Option(
            help="nan: infinite values count as not measured.", rich_help_panel="Reading SCREEN"
        ),
    ] = None,
    drop_empty: Annotated[
        bool,
        typer.Option(
            "--drop-empty", help="Leave out rows without a name.", rich_help_panel="Reading SCREEN"
        ),
    ] = False,
    seed: Annotated[int, typer.Option(rich_help_panel="Picker")] = 0,
    round_number: Annotated[
        int | None,
        typer.Option(
            "--round", help="Number of this round, for the prompt.", rich_help_panel="Picker"
        ),
    ] = None,
    by: Annotated[str, typer.Option(help="Who plans, for the record.")] = "",
    cold_start: Annotated[
        bool, typer.Option("--cold-start", help="No screen yet: plan from knowledge alone.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, show size and cost, write nothing."),
    ] = False,
) -> None:
    """Which perturbations to measure next, why each, and what stays uncovered."""
    if knowledge is None:
        raise InputError("--knowledge DIR is needed (make one with `pertwise knowledge build`)")
    if screen is None and not cold_start:
        raise InputError("no SCREEN given; to plan before anything is measured, say --cold-start")
    if screen is not None and cold_start:
        raise InputError("--cold-start means no screen, but one was given; leave one of them out")
    if out is None and not dry_run:
        raise InputError("--out DIR is needed (or --dry-run to look first)")
    name = strategy or ("llm" if llm else "knowledge")
    settings = _strategy_settings(
        name,
        llm=llm,
        out=out,
        dry_run=dry_run,
        prompt=prompt,
        shortlist=shortlist,
        seed=seed,
        budget_tokens=budget_tokens,
        budget_usd=budget_usd,
        replay=replay,
    )
    asked: dict[str, Any] = {
        "pathway": pathway,
        "features": features or (),
        "candidates": candidates,
        "batch": batch,
        "context": context,
        "include": include or (),
        "exclude": exclude or (),
        "pin": pin or (),
        "keep_unknown": keep_unknown,
        "reading": {
            key: value
            for key, value in (
                ("control", control),
                ("perturbation_key", perturbation_key),
                ("context_key", context_key),
                ("dose_key", dose_key),
                ("values", values),
                ("duplicates", duplicates),
                ("infinite", infinite),
                ("drop_empty", drop_empty),
            )
            if value
        },
    }
    if dry_run or out is None:
        from pertwise.acquire.factory import open_strategy
        from pertwise.acquire.planning import make_state, prepare

        chosen = open_strategy(name, **settings)
        setup = prepare(screen, knowledge, **asked)
        state, _ = make_state(
            setup,
            chosen,
            predictor=None,
            embedding=embedding,
            seed=seed,
            context_text=context_text,
            round_number=round_number,
            store=out,
            train=False,
        )
        _show_dry_run(setup, name, chosen, state)
        return
    from pertwise.acquire import plan as make_plan
    from pertwise.report import write_plan

    made = make_plan(
        screen,
        knowledge,
        **asked,
        strategy=name,
        strategy_settings=settings,
        context_text=context_text,
        embedding=embedding,
        seed=seed,
        round_number=round_number,
        store=out,
        by=by,
    )
    paths = write_plan(made, out)
    show_plan(made)
    typer.echo(f"page   {paths['html']}\ntable  {paths['csv']}\nrecord {paths['json']}")


@app.command("show")
def show(
    plan: Annotated[Path, typer.Argument(help="plan.json, or the folder that holds it.")],
) -> None:
    """Print a plan."""
    from pertwise.acquire import Plan

    show_plan(Plan.load(plan))


@app.command("amend")
def amend(
    plan: Annotated[Path, typer.Argument(help="plan.json, or the folder that holds it.")],
    replace: Annotated[
        list[str] | None, typer.Option(metavar="A=B", help="Take A off, put B in its place.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(metavar="GENE", help="Take off.")] = None,
    add: Annotated[list[str] | None, typer.Option(metavar="GENE", help="Add at the end.")] = None,
    by: Annotated[str, typer.Option(help="Who decides.")] = "",
    why: Annotated[str, typer.Option(help="The reason.")] = "",
) -> None:
    """Change a panel by hand: coverage is checked again, the decision recorded."""
    from pertwise.acquire import Plan
    from pertwise.acquire import amend as change
    from pertwise.report import write_plan

    pairs = {}
    for text in replace or []:
        old, sign, new = text.partition("=")
        if not sign or not old.strip() or not new.strip():
            raise InputError(f"--replace wants OLD=NEW, got {text!r}")
        pairs[old.strip()] = new.strip()
    file = plan / "plan.json" if plan.is_dir() else plan
    before = Plan.load(file)
    after = change(before, replace=pairs, drop=drop or (), add=add or (), by=by, why=why)
    write_plan(after, file.parent, name=file.stem)
    show_changes(before, after)


def _strategy_settings(
    name: str,
    *,
    llm: str | None,
    out: Path | None,
    dry_run: bool,
    prompt: str,
    shortlist: int,
    seed: int,
    budget_tokens: int | None,
    budget_usd: float | None,
    replay: bool,
) -> dict[str, Any]:
    if name == "knowledge":
        if llm:
            raise InputError("--llm was given, but the strategy 'knowledge' asks no model")
        return {"k": shortlist}
    if name != "llm":
        if llm:
            raise InputError(f"--llm was given, but the strategy {name!r} asks no model")
        return {}
    if not llm:
        raise InputError(
            "the strategy 'llm' needs a model: --llm MODEL@URL (for example "
            "qwen3:8b@http://localhost:11434/v1, or anthropic:MODEL)"
        )
    from pertwise.llm import open_chat

    # A dry run must not create the folder; it only looks whether the answer is there already.
    ledger = None if out is None else out / LEDGER
    if dry_run and (ledger is None or not ledger.is_file()):
        ledger = None
    chat = open_chat(
        llm,
        ledger=ledger,
        replay=replay,
        run="plan",
        budget_tokens=budget_tokens,
        budget_usd=budget_usd,
    )
    return {"chat": chat, "k": shortlist, "prompt": prompt, "seed": seed}


def show_plan(plan: Plan) -> None:
    """The panel in the terminal."""
    from rich.markup import escape
    from rich.table import Table

    console = _console()
    if plan.simulated:
        console.print("[black on yellow] SIMULATED DATA [/] nothing here is real biology")
    console.print(f"[bold]{escape(plan.title)}[/]  (revision {plan.revision})")
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
    console.print(table)
    for r in plan.coverage:
        console.print(
            f"  {escape(r.module)}: {len(r.picked)} picked, {len(r.related)} related, "
            f"{len(r.measured)} measured, {len(r.open)} open of {r.size}",
            highlight=False,
        )
    for text in plan.warnings:
        console.print(f"[yellow]note[/] {escape(text)}")
    counts: dict[str, int] = {}
    for note in plan.repairs:
        counts[note.kind] = counts.get(note.kind, 0) + 1
    if counts:
        text = ", ".join(f"{n} {k}" for k, n in sorted(counts.items()))
        console.print(f"[yellow]repairs[/] {text}")
    if plan.fallback:
        console.print("[yellow]fallback[/] some picks do not come from the picker asked for")
    left: dict[str, int] = {}
    for row_out in plan.left_out:
        left[row_out.kind] = left.get(row_out.kind, 0) + 1
    if left:
        console.print("left out: " + ", ".join(f"{n} {k}" for k, n in left.items()))


def show_changes(before: Plan, after: Plan) -> None:
    """What an amendment did to the coverage."""
    from rich.markup import escape

    console = _console()
    decision = after.decisions[-1]
    console.print(
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
        console.print(text, highlight=False)


def _show_dry_run(setup: Setup, name: str, strategy: Any, state: Any) -> None:
    from rich.markup import escape

    console = _console()
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
        console.print(escape(line), highlight=False)
    request = getattr(strategy, "first_request", None)
    if request is not None and state is not None:
        first = request(state, setup.n_to_pick)
        if first is not None:
            console.print(escape(f"chat        {strategy.chat.estimate([first])}"))
            if state.uncertainty is None and pool.measured:
                console.print("            (the uncertainties are not computed yet)")
    console.print("dry run: nothing was trained, asked or written")


def _console() -> Any:
    from rich.console import Console

    return Console()
