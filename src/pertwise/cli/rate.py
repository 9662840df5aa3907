"""`pertwise rate`: marks of perturbations on programs, by a chat model or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pertwise._process import Interrupted, only_writer
from pertwise.cli.asking import Anonymise, nothing_usable
from pertwise.cli.groups import Asking, Cells, Facts, Llm, Reading
from pertwise.cli.options import OptionGroup, grouped, refuse_given
from pertwise.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from pertwise.prediction.marking import ToMark
    from pertwise.prediction.rated import Rated
    from pertwise.select.chat.rate import ChatRater

#: Options that only a model needs.
ASKING = (
    "reasons", "replicates", "min_agreement", "ask_anew", "batch_size", "max_reasks", "anonymise",
    "shuffle_annotations", "kind", "dask",
)  # fmt: skip
#: Options that say what is marked.
WHAT = ("names", "programs", "features", "feature", "pathway", "template", "out")
#: Program names of a table of agreement are cut to this.
WIDTH = 40


@grouped
def rate(
    llm: Llm,
    facts: Facts,
    cells: Cells,
    reading: Reading,
    asking: Asking,
    screen: Annotated[
        Path | None,
        typer.Argument(help="Whose perturbations are marked (h5ad, csv, tsv, parquet)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The table of marks (csv).")] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--names",
            "--genes",
            help="Perturbations instead of SCREEN's, comma-separated or repeated; @FILE for one a "
            "line.",
        ),
    ] = None,
    programs: Annotated[
        str | None,
        typer.Option(
            metavar="genes|drugs|FILE",
            help="General programs, or a csv or JSON with key, name, definition, up, down, signed "
            "(default: the general ones of what is marked).",
        ),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="Mark the features of SCREEN.")
    ] = False,
    feature: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Mark this feature; repeat.")
    ] = None,
    pathway: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Mark this gene set of the knowledge; repeat."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(help="What a perturbation is called (default: knock-down, or drug)."),
    ] = None,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Ask for one sentence a perturbation.")
    ] = False,
    replicates: Annotated[
        int, typer.Option(min=1, help="Times that everything is asked, each in its own order.")
    ] = 1,
    min_agreement: Annotated[
        float,
        typer.Option(
            min=-1.0,
            max=1.0,
            help="Leave out programs whose rank correlation between replicates is lower.",
        ),
    ] = 0.5,
    ask_anew: Annotated[
        bool,
        typer.Option(
            "--ask-anew",
            help="Ask once more about such programs, their definition restated, before they are "
            "left out.",
        ),
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Perturbations a question (default: what fits the answer)."),
    ] = None,
    max_reasks: Annotated[
        int, typer.Option(min=0, help="Times that rows which lack something are asked again.")
    ] = 2,
    anonymise: Anonymise = False,
    shuffle_annotations: Annotated[
        bool,
        typer.Option(
            "--shuffle-annotations", help="Control: show beside each name the facts of another."
        ),
    ] = False,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask",
            help="Scheduler address, e.g. tcp://host:8786: its workers ask, each with a key from "
            "its own environment.",
        ),
    ] = None,
    template: Annotated[
        bool,
        typer.Option("--template", help="Write the empty table for a person to fill in."),
    ] = False,
    compare: Annotated[
        Path | None,
        typer.Option(help="Say how far the marks of SCREEN, a table of marks, agree with these."),
    ] = None,
) -> None:
    """Mark what each perturbation does to each program, from -3 to 3 (resumable).

    The table can be read, edited and filled in without pertwise.
    """
    from pertwise.cli.predict import read_names
    from pertwise.prediction.marking import list_marks
    from pertwise.prediction.rated import check_out, write_template
    from pertwise.prediction.rating import rater_of

    if compare is not None:
        _only_compare(llm, facts, cells, reading, asking)
        _compare(screen, compare)
        return
    if out is None and not asking.dry_run:
        raise InputError("say where the table of marks goes: --out ratings.csv")
    if screen is None:
        reading.refuse("no screen is read")
    facts.refuse("marks are what is asked for", but=("knowledge", "drugs", "lines"))
    if asking.dry_run:
        refuse_given(["dask"], "--dry-run asks nothing")
    if replicates == 1:
        refuse_given(["min_agreement", "ask_anew"], "there is one replicate (--replicates 2)")
    asked = list_marks(
        screen,
        read_names(names or []),
        programs=programs if programs in ("genes", "drugs", None) else Path(programs),
        features=features or feature or False,
        pathways=pathway or (),
        knowledge=facts.open(),
        context=cells.context,
        context_text=cells.context_text,
        kind=kind,
        reading=reading.settings(),
    )
    if template and out is not None:
        for group in (llm, asking):
            group.refuse("--template asks no model")
        refuse_given(ASKING, "--template asks no model")
        columns = {c: asked.programs_in(c) for c in asked.names}
        for path in write_template(out, asked.names, columns).values():
            typer.echo(f"written: {path}")
        return
    who = llm.name
    given: dict[str, Any] = {"batch_size": batch_size, "prompt": asking.prompt}
    settings = {name: value for name, value in given.items() if value is not None}
    settings |= {"reasons": reasons, "replicates": replicates, "seed": asking.seed}
    settings |= {"anonymise": anonymise, "shuffle_annotations": shuffle_annotations}
    stored = asking.kept(None if out is None else out.with_suffix(".ledger.sqlite"))
    if out is not None:
        check_out(out)
    with llm.asked("rate", stored, dask) as chat:
        rater = rater_of(asked, chat, max_reasks=max_reasks, **settings)
        _tell_questions(asked, rater)
        if asking.dry_run or out is None:
            questions = asked.questions(rater)
            typer.echo(str(chat.estimate(rater.first_requests(questions))))  # type: ignore[attr-defined]
            typer.echo(rater.cost_of_100(questions, f"{asked.kind}s"))
            return
        then = "" if llm.replay else f". The same command goes on from {stored}"
        agree = {"min_agreement": min_agreement, "ask_anew": ask_anew}
        rated = _rated(asked, rater, agree, out, then)
    _tell_marks(rated)
    typer.echo(f"written: {out}")
    if not rated.n_marks[0]:
        nothing_usable(who, [vars(r) for r in rated.repairs], "every mark is empty")


def _only_compare(*groups: OptionGroup) -> None:
    why = "--compare reads two tables of marks"
    for group in groups:
        group.refuse(why)
    refuse_given([*ASKING, *WHAT], why)


def _compare(one: Path | None, other: Path) -> None:
    from pertwise.knowledge.agreement import agreement
    from pertwise.knowledge.ratings import read_ratings

    if one is None:
        raise InputError("give both tables: pertwise rate ONE.csv --compare OTHER.csv")
    first = {r.context: r for r in read_ratings(one)}
    second = {r.context: r for r in read_ratings(other)}
    if len(first) == len(second) == 1:
        pairs = [(*first.values(), *second.values())]
    else:
        pairs = [(first[c], second[c]) for c in first if c in second]
    if not pairs:
        raise InputError(
            f"{one} and {other} share no context: {', '.join(map(repr, first))} and "
            f"{', '.join(map(repr, second))}"
        )
    for a, b in pairs:
        called = a.context if a.context == b.context else f"{a.context} and {b.context}"
        typer.echo(f"agreement{f' in {called}' if called else ''}:")
        _show_agreement(agreement(a, b))


def _rated(asked: ToMark, rater: ChatRater, agree: dict[str, Any], out: Path, then: str) -> Rated:
    from pertwise.prediction.rated import PartialTable
    from pertwise.prediction.rating import rate_all

    partial = PartialTable(out, asked.programs)
    try:
        with only_writer(out), partial:
            rated = rate_all(asked, rater, **agree, on_answer=partial.add)
            rated.write(out)
            partial.done()
            return rated
    except BaseException as error:
        held = f"; the answers so far: {partial.path}" if partial.path.is_file() else ""
        if isinstance(error, Interrupted):
            error.add_note(f"{held}{then}".lstrip("; ."))
        else:
            typer.echo(f"stopped early{held}{then}", err=True)
        raise


def _tell_questions(asked: ToMark, rater: ChatRater) -> None:
    for note in asked.notes[:20]:
        typer.echo(f"note: {note}")
    if len(asked.notes) > 20:
        typer.echo(f"... and {len(asked.notes) - 20} more notes")
    questions = asked.questions(rater)
    n = len({name for group in asked.names.values() for name in group})
    cells = ", ".join(c for c in asked.names if c) or "unnamed cells"
    often = f", {rater.replicates} times" if rater.replicates > 1 else ""
    typer.echo(
        f"to mark: {n} {asked.kind}s in {len(asked.programs)} programs, in {cells}{often}: "
        f"{len(questions)} questions of at most {max(len(q.names) for q in questions)} rows"
    )


def _tell_marks(rated: Rated) -> None:
    given, wanted = rated.n_marks
    counts = ", ".join(f"{kind} {n}" for kind, n in rated.repair_counts().items())
    typer.echo(f"marks: {given} of {wanted}; repairs: {counts or 'none'}")
    for context, table in rated.agreement.groupby("context", sort=False):
        typer.echo(f"agreement of replicates{f' in {context}' if context else ''}:")
        _show_agreement(table)
    for context, anew in rated.asked_anew.items():
        told = ", ".join(f"{p} ({_shown(a)}, now {_shown(b)})" for p, (a, b) in anew.items())
        typer.echo(f"asked anew{f' in {context}' if context else ''}, agreement: {told}")
    for context, programs in rated.left_out.items():
        where = f" in {context}" if context else ""
        typer.echo(
            f"left out{where}, agreement below {rated.min_agreement:g}: {', '.join(programs)}"
        )


def _shown(agreement: float | None) -> str:
    return "unknown" if agreement is None else f"{agreement:.2f}"


def _show_agreement(table: pd.DataFrame) -> None:
    for row in table.to_dict("records"):
        typer.echo(
            f"  {row['program'][:WIDTH]:{WIDTH}}  rank correlation {row['spearman']:5.2f}  mean "
            f"difference {row['mean_absolute_difference']:.2f}  n {row['n']}"
        )
