"""`pertwise llm`: try an endpoint, look into a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Chat endpoints, prompts and ledgers.", no_args_is_help=True)


@app.command()
def ping(
    model: Annotated[
        str, typer.Argument(help="MODEL@URL, openai:MODEL, ollama:MODEL or anthropic:MODEL[@URL].")
    ],
    reasoning: Annotated[
        bool | None, typer.Option(help="Switch reasoning on or off (default: the model's).")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds of silence to bear.")] = 60.0,
) -> None:
    """Ask an endpoint for one tiny constrained answer and say what it supports."""
    from pertwise.llm import Message, open_chat
    from pertwise.llm.answers import PicksAnswer, picks_schema
    from pertwise.llm.converse import converse
    from pertwise.llm.loop import run_sync
    from pertwise.select.closed_list import ClosedList

    def check(answer: PicksAnswer) -> str:
        return names.check([p.name for p in answer.picks], n_min=1, n_max=1).problem

    names = ClosedList(["MYC", "TABLE"])
    chat = open_chat(model, timeout_s=timeout, attempts=1, max_tokens=512, reasoning=reasoning)
    question = (
        "Choose exactly 1 name of this list that is a human gene.\n<candidates>\nMYC\nTABLE\n"
        '</candidates>\nAnswer with JSON only: {"picks": [{"name": "<name>", "reason": "<why>"}]}'
    )
    talk = run_sync(
        converse(
            chat,
            (Message(role="user", content=question),),
            PicksAnswer,
            check=check,
            json_schema=picks_schema(list(names.items)),
            max_reasks=0,
        )
    )
    chat.shutdown()
    turn = talk.turns[0]
    if turn.reply is None:
        from pertwise.errors import ChatError

        raise ChatError(turn.problem)
    reply = turn.reply
    typer.echo(f"endpoint     {chat.name}")
    typer.echo(f"model        {reply.model or '(not said)'}")
    typer.echo(f"seconds      {reply.seconds:.2f}")
    typer.echo(f"tokens       {reply.prompt_tokens} prompt, {reply.completion_tokens} completion")
    cost = "unknown price" if reply.cost_usd is None else f"${reply.cost_usd:.6f}"
    typer.echo(f"cost         {cost}")
    schema = "rejected, asked plainly" if "json_schema" in reply.degraded else "accepted"
    typer.echo(f"json schema  {schema}")
    typer.echo(f"reasoning    {len(reply.reasoning)} characters returned separately")
    if turn.answer is None or turn.problem:
        typer.echo(f"answer       NOT USABLE: {turn.problem}")
        raise typer.Exit(1)
    named = ", ".join(p.name for p in turn.answer.picks)
    typer.echo(f"answer       {named}")


@app.command()
def export(
    ledger: Annotated[Path, typer.Argument(help="Ledger file (SQLite).")],
    out: Annotated[Path, typer.Argument(help="JSON lines file to write.")],
) -> None:
    """Write every exchange and failure of a ledger as JSON lines."""
    from pertwise.llm.ledger import Ledger

    n = Ledger(ledger, replay=True).export_jsonl(out)
    typer.echo(f"{n} records -> {out}")


@app.command("ledger")
def show_ledger(ledger: Annotated[Path, typer.Argument(help="Ledger file (SQLite).")]) -> None:
    """Exchanges, failures, tokens and cost by model."""
    from pertwise.llm.ledger import Ledger

    book = Ledger(ledger, replay=True)
    typer.echo(f"{len(book)} exchanges in {ledger}")
    for row in book.summary().to_dict("records"):
        usd = row["cost_usd"]
        priced = "price unknown" if row["without_price"] and not usd else f"${usd or 0.0:.4f}"
        typer.echo(f"{row['model']}@{row['endpoint']}")
        typer.echo(
            f"  {row['exchanges']} exchanges, {row['failed_attempts']} failed attempts, "
            f"{row['failed_calls']} failed calls, {row['paid_twice']} paid twice"
        )
        typer.echo(
            f"  {row['prompt_tokens']} prompt + {row['completion_tokens']} completion tokens, "
            f"{priced}, {row['seconds'] or 0.0:.1f} s of answering"
        )
    calls, tokens, usd = book.doubtful()
    if calls:
        typer.echo(
            f"{calls} calls without a receipt (under way, cut off, killed, or reported too low), "
            f"which budgets count: up to {tokens} tokens, ${usd:.4f}"
        )


@app.command()
def prompt(
    name: Annotated[
        str,
        typer.Argument(help="acquire, langpert, edit, lgr, judge, gene_summary, rate, perturbqa."),
    ],
) -> None:
    """Print a built-in prompt template, as a start for your own."""
    from pertwise.llm.templates import load_prompt

    typer.echo(load_prompt(name).text, nl=False)
