"""`pertwise bench drugs` and what `pertwise predict --drug` calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pertwise._process import only_writer
from pertwise.cli.asking import (
    BudgetTokens,
    BudgetUsd,
    Concurrency,
    Timeout,
    check_answers,
    limits,
)

if TYPE_CHECKING:
    from pertwise.benchmark.drugs.run import BenchConfig


def bench_drugs(
    config: Annotated[
        Path, typer.Argument(help="TOML: data, regimes, methods (see docs/drugs.md).")
    ],
    data: Annotated[
        Path | None, typer.Option(help="Folder that the file names in the config are in.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for scores, summary, report; resumable.")
    ] = Path("drug-bench"),
    regime: Annotated[list[str] | None, typer.Option(help="Only these regimes.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only these fold seeds.")] = None,
    ungrouped: Annotated[
        bool, typer.Option(help="Let salts of one compound stand on both sides (to compare).")
    ] = False,
    drop_duplicates: Annotated[
        bool, typer.Option(help="Leave out drugs that share a compound with another name.")
    ] = False,
) -> None:
    """Drug responses: regimes x methods on one screen, with intervals over compounds."""
    from pertwise.benchmark.drugs.run import (
        load_bench,
        read_config,
        run_bench,
        summarise,
        write_results,
    )
    from pertwise.cli.bench import show_table

    settings = _with(
        read_config(config),
        regimes=regime,
        methods=method,
        seeds=seed,
        by_compound=False if ungrouped else None,
        drop_duplicates=True if drop_duplicates else None,
    )
    loaded = load_bench(settings, data if data is not None else config.parent)
    for key, value in loaded.notes.items():
        if value:
            typer.echo(f"{key}: {value}")
    with only_writer(out):
        table = run_bench(loaded, out)
        summary = summarise(table, weight=settings.weight)
        write_results(loaded, table, summary, out)
    for (name, held), block in summary.groupby(["data", "regime"], sort=False):
        wide = block.pivot(index="method", columns="metric", values="mean")
        wide = wide.loc[list(dict.fromkeys(block["method"]))].dropna(axis=1, how="all")
        answered = block.drop_duplicates("method").set_index("method")["coverage"]
        show_table(wide.assign(answered=answered).reset_index(), f"{name}: {held}")
    typer.echo(f"written: {out}/scores.parquet, summary.csv, report.md, run.json")


def _with(config: BenchConfig, **changes: object) -> BenchConfig:
    """The config with the changes that are given, checked again."""
    given = {k: v for k, v in changes.items() if v is not None}
    return type(config).model_validate({**config.model_dump(), **given})


def lgr(
    config: Annotated[Path, typer.Argument(help="The config of `pertwise bench drugs`.")],
    llm: Annotated[str, typer.Option(help="MODEL@URL, openai:MODEL, anthropic:MODEL ...")],
    out: Annotated[Path, typer.Option(help="JSON lines {cell, drug, neighbours, ...}.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the files in the config.")] = None,
    line: Annotated[list[str] | None, typer.Option(help="Only these lines.")] = None,
    k: Annotated[int, typer.Option(help="Neighbours asked for.")] = 10,
    ledger: Annotated[
        Path | None, typer.Option(help="SQLite ledger (default: beside OUT).")
    ] = None,
    replay: Annotated[bool, typer.Option(help="Answer from the ledger only.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Say what it would cost; ask nothing.")] = False,
    budget_tokens: BudgetTokens = None,
    budget_usd: BudgetUsd = None,
    timeout: Timeout = None,
    concurrency: Concurrency = None,
) -> None:
    """Ask a chat model which measured drugs act like each drug, line by line (resumable)."""
    from pertwise.benchmark.drugs.ask import bench_selector, lgr_questions
    from pertwise.benchmark.drugs.run import load_bench, read_config
    from pertwise.llm import open_chat
    from pertwise.select.chat.similar import ask_lists, estimate_questions, total_repairs

    bench = load_bench(read_config(config), data if data is not None else config.parent)
    questions = lgr_questions(bench, line or ())
    stored = None if dry_run else ledger or out.with_suffix(".ledger.sqlite")
    given = limits(budget_tokens, budget_usd, timeout, concurrency)
    chat = open_chat(llm, ledger=stored, replay=replay, run="lgr", **given)
    try:
        selector = bench_selector(bench, chat, k=k)
        typer.echo(f"questions: {len(questions)}")
        if dry_run:
            typer.echo(str(estimate_questions(selector, questions, k)))
            return
        with only_writer(out):
            answers = ask_lists(selector, questions, k, out)
    finally:
        chat.shutdown()
    short = sum(len(a.picks) < k for a in answers)
    repairs = total_repairs(answers)
    typer.echo(f"fewer than {k} valid: {short}; repairs: {repairs or 'none'}")
    typer.echo(f"written: {out}")
    check_answers(llm, answers)
