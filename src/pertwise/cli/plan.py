"""`pertwise plan`: make, show and amend a panel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pertwise._process import only_writer
from pertwise.cli.asking import (
    BudgetTokens,
    BudgetUsd,
    Concurrency,
    Timeout,
    limits,
    nothing_usable,
)
from pertwise.cli.plan_show import show_changes, show_dry_run, show_plan
from pertwise.errors import InputError, unknown_name

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
            "badge, lcmd, variance-reduction, random, or path/to/file.py:Class "
            "(`pertwise parts strategy`). Default: llm when --llm is given, else knowledge.",
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
        int | None,
        typer.Option(
            help="Only the N most uncertain may be picked. Default: 200 for 'llm', all for "
            "'knowledge'.",
            rich_help_panel="Picker",
        ),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TERM=VALUE",
            help="Weight of a term of 'knowledge': uncertainty, relation, module, redundancy, "
            "information; repeat.",
            rich_help_panel="Picker",
        ),
    ] = None,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    timeout: Timeout = None,
    concurrency: Concurrency = None,
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
        str,
        typer.Option(
            help="Gene features for similarity: auto, or kinds joined by + (graph+go+text ...).",
            rich_help_panel="Picker",
        ),
    ] = "auto",
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
        weight=weight or [],
        seed=seed,
        limits=limits(budget_tokens, budget_usd, timeout, concurrency),
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
        from pertwise import parts
        from pertwise.acquire.planning import make_state, prepare

        chosen = parts.load("strategy", name, **settings)
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
        show_dry_run(setup, name, chosen, state)
        return
    from pertwise.acquire import plan as make_plan
    from pertwise.report import write_plan

    with only_writer(out):
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
    chosen_by = {p.chosen_by for p in made.picks if p.chosen_by.startswith("strategy")}
    if name == "llm" and chosen_by and "strategy" not in chosen_by:
        repairs = [r.model_dump() for r in made.repairs if r.stage == "picker"]
        nothing_usable(str(llm), repairs, "every pick on this panel is the fallback's")


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
    Plan.load(file)  # a wrong name must not leave a folder behind
    with only_writer(file.parent):
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
    shortlist: int | None,
    weight: list[str],
    seed: int,
    limits: dict[str, Any],
    replay: bool,
) -> dict[str, Any]:
    from pertwise import parts

    part = parts.describe("strategy", name)
    taken = part.parameters
    if weight and "weights" not in taken:
        raise InputError(f"--weight belongs to the strategy 'knowledge', not to {name!r}")
    if shortlist is not None and not part.facts.more.get("shortlists"):
        raise InputError(f"the strategy {name!r} has no shortlist: leave --shortlist out")
    given: dict[str, Any] = {"weights": _weights(weight)} if weight else {}
    if shortlist is not None:
        given |= {"k": shortlist, "shortlist": "uncertainty"}
    if "chat" not in part.facts.needs:
        if llm:
            raise InputError(f"--llm was given, but the strategy {name!r} asks no model")
        return given
    if not llm:
        raise InputError(
            f"the strategy {name!r} needs a model: --llm MODEL@URL (for example "
            "qwen3:8b@http://localhost:11434/v1, or anthropic:MODEL)"
        )
    from pertwise.llm import open_chat

    # A dry run must not create the folder; it only looks whether the answer is there already.
    ledger = None if out is None else out / LEDGER
    if dry_run and (ledger is None or not ledger.is_file()):
        ledger = None
    chat = open_chat(llm, ledger=ledger, replay=replay, run="plan", **limits)
    asking = {"chat": chat, "prompt": prompt, "seed": seed}
    return given | {key: value for key, value in asking.items() if key in taken}


def _weights(texts: list[str]) -> Any:
    import dataclasses

    from pertwise.acquire.strategies.knowledge import Weights

    known = [f.name for f in dataclasses.fields(Weights)]
    values = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or name not in known:
            raise unknown_name("weight", name, known, f"(--weight TERM=VALUE; got {text!r})")
        try:
            values[name] = float(value)
        except ValueError:
            raise InputError(f"--weight {text}: {value!r} is not a number") from None
    return Weights(**values)
