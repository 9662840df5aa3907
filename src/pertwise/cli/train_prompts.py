"""`pertwise train prompts`: the prompt search of `pertwise.train.prompts`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pertwise._process import only_writer
from pertwise.cli.groups import Facts, Llm, Reading
from pertwise.cli.options import grouped
from pertwise.cli.train_tune import Metric, Screens

if TYPE_CHECKING:
    from pertwise.llm.base import Chat

#: Kind of task -> the command that takes the prompt, in words.
_USED = {
    "edit": "pertwise predict ... --method graph-edit --set prompt={path}",
    "pick": "pertwise ask ... --prompt {path}",
    "rate": "pertwise rate ... --prompt {path}",
    "acquire": "pertwise plan ... --strategy llm --prompt {path}",
}


@grouped
def prompts(
    tasks: Annotated[Path, typer.Argument(help="Tasks of `pertwise train tasks`, of one kind.")],
    screen: Screens,
    facts: Facts,
    reading: Reading,
    llm: Llm,
    out: Annotated[Path, typer.Option(help="Folder for prompt, tables and ledger.")],
    reflect: Annotated[
        str | None,
        typer.Option(metavar="MODEL@URL", help="Who writes prompts; default: the model of --llm."),
    ] = None,
    calls: Annotated[
        int, typer.Option(min=1, help="Answers to tasks after which no prompt is begun.")
    ] = 200,
    learn: Annotated[int, typer.Option(min=1, help="Most training tasks to learn from.")] = 40,
    validation: Annotated[
        int, typer.Option(min=1, help="Most training tasks set aside to rank prompts on.")
    ] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Tasks a reflection reads.")] = 3,
    metric: Metric = "pearson",
    seed: Annotated[int, typer.Option(help="Of everything drawn.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost; ask nothing.")
    ] = False,
) -> None:
    """Search for the prompt that earns most on training tasks; scored once on test tasks.

    The same command goes on from its ledger, and asks nothing again.
    """
    from pertwise.screen import read_screen
    from pertwise.train.grading import Grader
    from pertwise.train.prompt_asking import start_of
    from pertwise.train.prompts import Search, estimate_requests, search_prompt
    from pertwise.train.rewards import Scheme
    from pertwise.train.tasks import read_tasks

    how = Search(calls, learn, validation, batch, seed)
    given = read_tasks(tasks)
    start_of(given)
    ledger = out / "ledger.sqlite"
    if dry_run:
        with _chats(llm, reflect, ledger if ledger.is_file() else None) as chats:
            for chat, asked, what in zip(
                chats,
                estimate_requests(*chats, given, how),
                ("answers", "reflections"),
                strict=True,
            ):
                typer.echo(f"at most {len(asked)} {what}: {chat.estimate(asked)}")  # type: ignore[attr-defined]
        return
    knowledge = facts.open()
    screens = [read_screen(path, **reading.settings()) for path in screen]
    arrays = Grader.of(*screens, knowledge=knowledge)
    simulated = any(s.simulated for s in screens)
    with only_writer(out), _chats(llm, reflect, ledger) as (chat, writer):
        found = search_prompt(
            given, arrays, chat, writer, knowledge=knowledge, how=how, scheme=Scheme(metric=metric)
        )
        paths = found.write(
            out, tasks=str(tasks), model=getattr(chat, "name", "chat"),
            reflecting=getattr(writer, "name", "chat"), metric=metric, simulated=simulated,
            **vars(how),
        )  # fmt: skip
    for line in found.words():
        typer.echo(line)
    if simulated:
        typer.echo("SIMULATED data: a screen comes from the simulator.")
    typer.echo("written: " + ", ".join(map(str, paths)))
    if found.ended is not None:
        typer.echo(f"ended early. The same command goes on from {ledger}", err=True)
        raise found.ended
    typer.echo("next: " + _USED[given[0].kind].format(path=paths[0]))


@contextmanager
def _chats(llm: Llm, reflect: str | None, ledger: Path | None) -> Iterator[tuple[Chat, Chat]]:
    """Who answers and who writes prompts, over one ledger and one budget."""
    from pertwise.llm import open_chat

    run = "train prompts"
    with llm.asked(run, ledger) as chat:
        if reflect is None:
            yield chat, chat
            return
        writer = open_chat(reflect, ledger=ledger, replay=llm.replay, run=run, **llm.limits())
        try:
            yield chat, writer
        finally:
            writer.shutdown()
