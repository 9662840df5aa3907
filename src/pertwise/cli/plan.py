"""`pertwise plan`: make, show and amend a panel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from pertwise._process import only_writer
from pertwise.cli.asking import Figures, nothing_usable
from pertwise.cli.groups import Cells, Facts, Llm, Reading
from pertwise.cli.guides import Guides
from pertwise.cli.options import OptionGroup, grouped
from pertwise.cli.plan_show import show_changes, show_dry_run, show_plan
from pertwise.errors import InputError, unknown_name
from pertwise.report.style import wanted_formats

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.llm.base import Chat

_TARGET, _CANDIDATES, _PICKER = "Target", "Candidates", "Picker"
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


@dataclass(frozen=True)
class Goal(OptionGroup):
    """What the panel is for."""

    spelled: ClassVar[dict[str, str]] = {"round_number": "--round"}

    pathway: Annotated[
        str,
        typer.Option(
            help="Target: a name in the knowledge folder, FILE.gmt[:NAME], a file or "
            "comma-separated list of genes, or none (whole response).",
            rich_help_panel=_TARGET,
        ),
    ] = "none"
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="Screen features that count, by name or glob ('*erythroid*'); repeat.",
            rich_help_panel=_TARGET,
        ),
    ] = None
    batch: Annotated[int, typer.Option(help="Places on the panel, pinned ones included.")] = 20
    round_number: Annotated[
        int | None, typer.Option("--round", help="Number of this round.", rich_help_panel=_TARGET)
    ] = None
    rounds_left: Annotated[
        int | None,
        typer.Option(
            min=0, help="Rounds after this one: the model is told.", rich_help_panel=_TARGET
        ),
    ] = None


@dataclass(frozen=True)
class Pool(OptionGroup):
    """Who may be picked."""

    spelled: ClassVar[dict[str, str]] = {"fact_tables": "--facts"}

    candidates: Annotated[
        str,
        typer.Option(
            help="File with one name a line; 'screen' = rows of SCREEN with nothing measured; "
            "'targetable' = protein-coding genes with a position, unless the controls lack them; "
            "'knowledge' = all known genes; 'auto' and 'all' = 'screen' if there are such rows, "
            "else 'targetable' and 'knowledge'.",
            rich_help_panel=_CANDIDATES,
        ),
    ] = "auto"
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Add to the candidates; repeat.", rich_help_panel=_CANDIDATES
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Take off the candidates; repeat.", rich_help_panel=_CANDIDATES
        ),
    ] = None
    pin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Put on the panel; the rest is chosen around it; repeat.",
            rich_help_panel=_CANDIDATES,
        ),
    ] = None
    fact_tables: Annotated[
        list[Path] | None,
        typer.Option(
            "--facts",
            metavar="FILE",
            help="Table of facts (csv, tsv, parquet; a column names the perturbation), shown in "
            "the prompt and on the page; repeat.",
            rich_help_panel=_CANDIDATES,
        ),
    ] = None
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only candidates that meet it: 'tpm > 1 and essential = no', on columns of "
            "--facts; repeat.",
            rich_help_panel=_CANDIDATES,
        ),
    ] = None
    keep_unknown: Annotated[
        bool,
        typer.Option(
            "--keep-unknown",
            help="Keep candidates that no table knows.",
            rich_help_panel=_CANDIDATES,
        ),
    ] = False

    def settings(self) -> dict[str, Any]:
        """As arguments of `pertwise.plan`."""
        return {
            "candidates": self.candidates,
            "include": self.include or (),
            "exclude": self.exclude or (),
            "pin": self.pin or (),
            "keep_unknown": self.keep_unknown,
            "facts": tuple(self.fact_tables or ()),
            "require": tuple(self.require or ()),
        }


@dataclass(frozen=True)
class Picker(OptionGroup):
    """Who picks, and how it is set."""

    strategy: Annotated[
        str | None,
        typer.Option(
            help="A strategy (`pertwise parts strategy` lists them), path/to/file.py:Class or "
            "module:Class. Default: llm when --llm is given, else knowledge.",
            rich_help_panel=_PICKER,
        ),
    ] = None
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Prompt template of a strategy that asks a model: built-in name or file.",
            rich_help_panel=_PICKER,
        ),
    ] = None
    shortlist: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:N]",
            help="Who is shown to 'llm': information (representatives, the default), uncertainty, "
            "random or all, with the length; a number alone: the N most uncertain (for "
            "'knowledge': only they may be picked).",
            rich_help_panel=_PICKER,
        ),
    ] = None
    hand_over: Annotated[
        str | None,
        typer.Option(
            metavar="STRATEGY",
            help="Who chooses when there is nothing left to choose: random, typiclust, "
            "variance-reduction.",
            rich_help_panel=_PICKER,
        ),
    ] = None
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TERM=VALUE",
            help="Weight of a term of 'knowledge': uncertainty, relation, module, redundancy, "
            "information; repeat.",
            rich_help_panel=_PICKER,
        ),
    ] = None
    embedding: Annotated[
        str,
        typer.Option(
            help="Features for similarity: auto, or kinds joined by + (graph+go+text ...).",
            rich_help_panel=_PICKER,
        ),
    ] = "auto"
    ensemble: Annotated[
        str,
        typer.Option(
            help="Networks behind the uncertainty: quick, or published (ten times the time).",
            rich_help_panel=_PICKER,
        ),
    ] = "quick"
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0

    def check(self, name: str, *, model: bool) -> None:
        """Whether strategy `name` takes what was given.

        Raises
        ------
        pertwise.errors.InputError
            For an option that this strategy does not take, or a model given or missing against its
            needs.
        """
        from pertwise import parts

        part = parts.describe("strategy", name)
        taken = part.parameters
        asks = "chat" in part.facts.needs
        if self.weight and "weights" not in taken:
            raise InputError(f"--weight belongs to the strategy 'knowledge', not to {name!r}")
        if self.shortlist is not None and not part.facts.more.get("shortlists"):
            raise InputError(f"the strategy {name!r} has no shortlist: leave --shortlist out")
        if self.prompt is not None and "prompt" not in taken:
            raise InputError(f"the strategy {name!r} has no prompt: leave --prompt out")
        if model and not asks:
            raise InputError(f"--llm was given, but the strategy {name!r} asks no model")
        if asks and not model:
            raise InputError(
                f"the strategy {name!r} needs a model: --llm MODEL@URL (for example "
                "qwen3:8b@http://localhost:11434/v1, or anthropic:MODEL)"
            )

    def check_marks(self, name: str) -> None:
        """Whether strategy `name` uses marks.

        Raises
        ------
        pertwise.errors.InputError
            When --ratings would not be used.
        """
        from pertwise import parts

        part = parts.describe("strategy", name)
        if not part.own and "ratings" not in part.facts.reads:
            raise InputError(
                f"the strategy {name!r} does not use marks: leave --ratings out, or take "
                "--strategy adaptive"
            )

    def settings(self, name: str, chat: Chat | None) -> dict[str, Any]:
        """The settings of strategy `name`."""
        from pertwise import parts

        given: dict[str, Any] = {"weights": _weights(self.weight)} if self.weight else {}
        if self.shortlist is not None:
            given |= _shortlist(self.shortlist)
        if chat is None:
            return given
        taken = parts.describe("strategy", name).parameters
        asking = {"chat": chat, "prompt": self.prompt or "acquire", "seed": self.seed}
        return given | {key: value for key, value in asking.items() if key in taken}


@app.command(
    "make",
    epilog="Also: `pertwise plan show PLAN.json`, `pertwise plan amend PLAN.json --replace A=B`.",
)
@grouped
def make(
    facts: Facts,
    goal: Goal,
    pool: Pool,
    picker: Picker,
    guides: Guides,
    llm: Llm,
    cells: Cells,
    reading: Reading,
    screen: Annotated[
        Path | None,
        typer.Argument(help="What is measured (h5ad, csv, tsv, parquet). None with --cold-start."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.csv, .html, .json.")] = None,
    by: Annotated[str, typer.Option(help="Who plans, for the record.")] = "",
    cold_start: Annotated[
        bool, typer.Option("--cold-start", help="No screen yet: plan from knowledge alone.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Plan over a panel that was amended; it is kept in history/."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, show size and cost, write nothing."),
    ] = False,
    figures: Figures = None,
) -> None:
    """Which perturbations to measure next, why each, and what stays uncovered."""
    _check(screen, out, cold_start=cold_start, dry_run=dry_run)
    if out is not None and not (overwrite or dry_run):
        from pertwise.acquire.history import refuse_erasing

        refuse_erasing(out)
    formats = None if figures is None else ",".join(wanted_formats(figures))
    if formats and dry_run:
        raise InputError("--figures: a dry run draws none; leave it out")
    guides.check()
    library = guides.opened()
    if cold_start:
        reading.refuse("a cold start reads no screen")
    if llm.llm is None:
        cells.refuse("no model is asked (--llm MODEL@URL)", but=("context",))
    name = picker.strategy or ("llm" if llm.llm else "knowledge")
    picker.check(name, model=bool(llm.llm))
    if facts.ratings:
        picker.check_marks(name)
    if goal.rounds_left is not None and not llm.llm:
        raise InputError("--rounds-left is told to a model, and none is asked (--llm MODEL@URL)")
    asked: dict[str, Any] = {
        "pathway": goal.pathway,
        "features": goal.features or (),
        "batch": goal.batch,
        "context": cells.context,
        "reading": reading.settings(),
        **pool.settings(),
    }
    state: dict[str, Any] = {
        "embedding": picker.embedding,
        "ensemble": picker.ensemble,
        "seed": picker.seed,
        "context_text": cells.context_text,
        "round_number": goal.round_number,
        "rounds_left": goal.rounds_left,
        "store": out,
    }
    knowledge = facts.needed()
    # A dry run must not create the folder; it only looks whether the answer is there already.
    ledger = None if out is None else out / LEDGER
    if dry_run and (ledger is None or not ledger.is_file()):
        ledger = None
    with llm.opened("plan", ledger) as chat:
        settings = picker.settings(name, chat)
        if dry_run or out is None:
            _dry_run(screen, knowledge, name, settings, asked, state, picker.hand_over)
            return
        from pertwise.acquire import plan as make_plan
        from pertwise.report import write_plan

        with only_writer(out):
            made = make_plan(
                screen,
                knowledge,
                **asked,
                **state,
                strategy=name,
                strategy_settings=settings,
                hand_over=picker.hand_over,
                by=by,
            )
            order: list[str] = []
            if library is not None:
                made, order = guides.order(made, library, out, knowledge)
            paths = write_plan(made, out, overwrite=overwrite)
            if formats is not None:
                from pertwise.report import plot

                order += [
                    f"figure {path}"
                    for path in plot.save(plot.figures_of(made), out, formats).values()
                ]
    show_plan(made)
    typer.echo(f"page   {paths['html']}\ntable  {paths['csv']}\nrecord {paths['json']}")
    for line in order:
        typer.echo(line)
    chosen_by = {p.chosen_by for p in made.picks if p.chosen_by.startswith("strategy")}
    if chat is not None and chosen_by and "strategy" not in chosen_by:
        repairs = [r.model_dump() for r in made.repairs if r.stage == "picker"]
        nothing_usable(llm.name, repairs, "every pick on this panel is the fallback's")


def _check(screen: Path | None, out: Path | None, *, cold_start: bool, dry_run: bool) -> None:
    if screen is None and not cold_start:
        raise InputError("no SCREEN given; to plan before anything is measured, say --cold-start")
    if screen is not None and cold_start:
        raise InputError("--cold-start means no screen, but one was given; leave one of them out")
    if out is None and not dry_run:
        raise InputError("--out DIR is needed (or --dry-run to look first)")


def _dry_run(
    screen: Path | None,
    knowledge: Knowledge,
    name: str,
    settings: dict[str, Any],
    asked: dict[str, Any],
    state: dict[str, Any],
    hand_over: str | None,
) -> None:
    from pertwise import parts
    from pertwise.acquire.exhaustion import HandOver
    from pertwise.acquire.planning import make_state, prepare

    chosen = parts.load("strategy", name, **settings)
    if hand_over is not None:
        chosen = HandOver(chosen, hand_over)
    setup = prepare(screen, knowledge, **asked)
    made, _ = make_state(setup, chosen, predictor=None, train=False, **state)
    show_dry_run(setup, name, chosen, made)


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


def _shortlist(text: str) -> dict[str, Any]:
    """NAME, N or NAME:N as settings of a strategy with a shortlist."""
    name, _, length = text.partition(":")
    if name.strip().isdecimal() and not length:
        name, length = "uncertainty", name
    found: dict[str, Any] = {"shortlist": name.strip()}
    if length:
        if not length.strip().isdecimal():
            raise InputError(f"--shortlist {text}: {length!r} is no length; write NAME:N")
        found["k"] = int(length)
    return found


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
