"""`pertwise train ...`: tasks, and what a tuned judge is worth."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pertwise.cli import train_prompts, train_tune
from pertwise.cli.bench import show_table
from pertwise.cli.groups import Facts, Llm, Reading
from pertwise.cli.options import grouped, refuse_given
from pertwise.cli.train_tune import Metric, Screens, Tasks

if TYPE_CHECKING:
    from pertwise.train.answers import Answers
    from pertwise.train.tasks import Task

app = typer.Typer(
    help="Tune a judge by reward: tasks, samples, prompts, trainers, evaluation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
@grouped
def tasks(
    screen: Annotated[list[Path], typer.Argument(help="Screens, one or several cell lines.")],
    facts: Facts,
    reading: Reading,
    out: Annotated[Path, typer.Option(help="JSON lines, one task a line.")],
    kind: Annotated[
        list[str] | None, typer.Option(help="edit (default), pick, rate, acquire; repeat.")
    ] = None,
    split: Annotated[str, typer.Option(help="What is held out: gene, family, line, drug.")] = (
        "gene"
    ),
    fold: Annotated[int, typer.Option(help="Which fold, from 0.")] = 0,
    folds: Annotated[int, typer.Option(help="Folds.")] = 5,
    folds_from: Annotated[
        Path | None, typer.Option(help="Take the folds of a file of recorded answers.")
    ] = None,
    near: Annotated[
        float,
        typer.Option(
            help="STRING weight that makes a neighbourhood: measured perturbations that near to a "
            "held-out one are named in no training prompt either; above 1: they are."
        ),
    ] = 0.9,
    base: Annotated[str, typer.Option(help="Selector in words whose neighbours are edited.")] = "",
    k: Annotated[int, typer.Option(help="Most neighbours shown.")] = 20,
    max_edits: Annotated[int, typer.Option(help="Most additions, and most removals.")] = 5,
    max_candidates: Annotated[
        int | None, typer.Option(help="Show at most this many to add or pick; all by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of folds and orders.")] = 0,
) -> None:
    """Write training and test tasks; no training prompt names what is held out."""
    from pertwise.screen import read_screen
    from pertwise.train.making import Making, make_tasks
    from pertwise.train.tasks import write_tasks

    screens = [read_screen(path, **reading.settings()) for path in screen]
    made = make_tasks(
        screens,
        facts.open(),
        kind or ["edit"],
        split=split,
        fold=fold,
        n_folds=folds,
        seed=seed,
        folds_from=folds_from,
        near=near,
        how=Making(base=base, k=k, max_edits=max_edits, max_candidates=max_candidates),
    )
    write_tasks(out, made)
    counts = Counter((t.kind, t.context, t.split) for t in made)
    for (what, context, side), n in sorted(counts.items()):
        typer.echo(f"{what}, {context or 'unnamed cells'}, {side}: {n}")
    typer.echo(f"written: {out} ({len(made)} tasks, {out.stat().st_size / 1e6:.1f} MB)")


@app.command()
@grouped
def evaluate(
    screen: Annotated[list[Path], typer.Argument(help="Screens, one or several cell lines.")],
    facts: Facts,
    reading: Reading,
    llm: Llm,
    out: Annotated[Path, typer.Option(help="Folder for the tables.")],
    before: Annotated[
        str | None, typer.Option(help="Endpoint of the untrained judge; --llm is the tuned one.")
    ] = None,
    recorded: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="Answers from a file: recorded edits, or {id, answer} lines."
        ),
    ] = None,
    best_of: Annotated[
        int, typer.Option(min=1, help="Answers a task of every endpoint; the best is shown too.")
    ] = 1,
    policy: Annotated[
        bool, typer.Option("--policy", help="Train the policy without a language model, too.")
    ] = False,
    split: Annotated[str, typer.Option(help="What is held out: gene, family, line, drug.")] = (
        "gene"
    ),
    folds: Annotated[int, typer.Option(help="Folds.")] = 5,
    fold: Annotated[
        int | None, typer.Option(help="Only this fold: the one a judge was tuned without.")
    ] = None,
    folds_from: Annotated[
        Path | None, typer.Option(help="Take the folds of a file of recorded answers.")
    ] = None,
    near: Annotated[float, typer.Option(help="As in `pertwise train tasks`.")] = 0.9,
    metric: Metric = "pearson",
    k: Annotated[int, typer.Option(help="Most neighbours shown.")] = 20,
    max_candidates: Annotated[
        int | None, typer.Option(help="Show at most this many to add; all by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of folds, policy and bootstrap.")] = 0,
) -> None:
    """Graph, edits before and after tuning, best of n, a policy without a language model."""
    from pertwise.errors import InputError
    from pertwise.evaluate.given import read_recorded_folds
    from pertwise.screen import read_screen
    from pertwise.train import evaluate as evaluating
    from pertwise.train.answers import read_answers
    from pertwise.train.grading import Grader
    from pertwise.train.making import Making, make_tasks
    from pertwise.train.policy import train_policy
    from pertwise.train.rewards import Scheme

    files = dict(text.partition("=")[::2] for text in recorded or ())
    if not all(files.values()):
        raise InputError("--recorded wants NAME=FILE, a name for the row and the file")
    knowledge = facts.needed() if policy else facts.open()
    screens = [read_screen(path, **reading.settings()) for path in screen]
    arrays, scheme = Grader.of(*screens, knowledge=knowledge), Scheme(metric=metric)
    if folds_from is not None:
        folds = len(read_recorded_folds(folds_from))
    elif split == "line":
        folds = min(folds, len(arrays.lines))
    test: list[Task] = []
    said: dict[str, tuple[str, ...]] = {}
    for number in range(folds) if fold is None else [fold]:
        made = make_tasks(
            screens, knowledge, ["edit"], split=split, fold=number, n_folds=folds, seed=seed,
            folds_from=folds_from, near=near, how=Making(k=k, max_candidates=max_candidates),
        )  # fmt: skip
        asked = [t for t in made if t.split == "test"]
        if policy and knowledge is not None:
            trained = train_policy(made, arrays, knowledge, scheme=scheme, seed=seed)
            said |= {t.id: (trained.answer(t),) for t in asked}
        test += asked
    arms: dict[str, Answers] = {name: read_answers(file, test) for name, file in files.items()}
    arms |= _asked(before, llm, test, out, best_of)
    if policy:
        arms["policy without a language model"] = said
    found = evaluating.evaluate(test, arms, arrays, scheme=scheme, seed=seed)
    shown = ["context", "arm", "n", *evaluating.METRICS, "validity", "reward", "n_added",
             "n_removed"]  # fmt: skip
    show_table(found.summary[shown], f"edits of {len(test)} held-out perturbations")
    for line in _against_graph(found.comparison):
        typer.echo(line)
    if any(s.simulated for s in screens):
        typer.echo("SIMULATED data: a screen comes from the simulator.")
    typer.echo("written: " + ", ".join(map(str, found.write(out))))


def _asked(
    before: str | None, llm: Llm, test: list[Task], out: Path, best_of: int
) -> dict[str, Answers]:
    """What the endpoints answer, kept in files beside the tables."""
    from pertwise.llm import open_chat
    from pertwise.train.answers import ask_tasks, write_answers

    found: dict[str, Answers] = {}
    ledger = out / "ledger.sqlite"
    if before is None and llm.llm is None:
        llm.refuse("no model is asked (--llm MODEL@URL, --before MODEL@URL)")
    for name, address in (("edited before", before), ("edited after", llm.llm)):
        if address is None:
            continue
        chat = open_chat(
            address, ledger=ledger, replay=llm.replay, run="train evaluate", **llm.limits()
        )
        try:
            found[name] = ask_tasks(chat, test, best_of)
        finally:
            chat.shutdown()
        write_answers(out / f"{name.replace(' ', '-')}.jsonl", found[name])
    return found


def _against_graph(table: Any) -> list[str]:
    """Each row against the graph by Pearson delta, in words."""
    if not len(table):
        return []
    rows = table[table["metric"] == "pearson_delta"].itertuples(index=False)
    return [
        f"{r.context}, {r.method_a} against graph: {r.difference:+.3f} in Pearson delta "
        f"[{r.low:+.3f}, {r.high:+.3f}], Wilcoxon p = {r.p:.2g}, n = {r.n}"
        for r in rows
    ]


@app.command()
@grouped
def sample(
    tasks: Tasks,
    screen: Screens,
    facts: Facts,
    reading: Reading,
    llm: Llm,
    out: Annotated[Path, typer.Option(help="Folder for the rows and the ledger.")],
    n: Annotated[int, typer.Option("-n", "--answers", min=1, help="Answers a task.")] = 4,
    recorded: Annotated[
        Path | None,
        typer.Option(help="Take answers from a file: recorded edits, or {id, answer} lines."),
    ] = None,
    least: Annotated[float, typer.Option(help="sft.jsonl: best answers with more reward.")] = 0.5,
    margin: Annotated[float, typer.Option(help="Pairs differ by this much reward.")] = 0.1,
    metric: Metric = "pearson",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first tasks.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost; ask nothing.")
    ] = False,
) -> None:
    """Best of n: answers to training tasks, scored; rows for supervised and preference tuning."""
    from pertwise.errors import InputError
    from pertwise.screen import read_screen
    from pertwise.train.answers import ask_tasks, read_answers, task_requests
    from pertwise.train.grading import Grader
    from pertwise.train.rewards import Scheme
    from pertwise.train.sampling import score_answers, write_samples
    from pertwise.train.tasks import read_tasks

    given = read_tasks(tasks, split="train")[:limit]
    if recorded is not None:
        llm.refuse("--recorded asks no model")
        refuse_given(["n", "dry_run"], "--recorded asks no model")
        if llm.llm is not None:
            raise InputError("give --llm or --recorded, not both")
        said = read_answers(recorded, given)
    else:
        ledger = out / "ledger.sqlite"
        with llm.asked(
            "train sample", None if dry_run and not ledger.is_file() else ledger
        ) as chat:
            if dry_run:
                typer.echo(str(chat.estimate(task_requests(chat, given, n))))  # type: ignore[attr-defined]
                return
            said = ask_tasks(chat, given, n)
    arrays = Grader.of(
        *(read_screen(path, **reading.settings()) for path in screen), knowledge=facts.open()
    )
    scored = score_answers(given, said, arrays, Scheme(metric=metric))
    best: dict[str, float] = {}
    for one in scored:
        best[one.task.id] = max(one.reward.total, best.get(one.task.id, 0.0))
    readable = sum(not one.reward.why for one in scored)
    typer.echo(
        f"{len(scored)} answers to {len(best)} tasks, {readable} readable; mean reward "
        f"{sum(one.reward.total for one in scored) / len(scored):.3f}, of the best a task "
        f"{sum(best.values()) / len(best):.3f} (chosen by the truth)"
    )
    for path, rows in write_samples(out, scored, least=least, margin=margin).items():
        typer.echo(f"written: {path} ({rows} rows)")


for _trainer in (train_prompts.prompts, train_tune.grpo, train_tune.sft, train_tune.dpo):
    app.command()(_trainer)
