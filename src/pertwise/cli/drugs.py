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
    from pertwise.models import Prediction


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
    from pertwise.benchmark.drugs.run import BenchConfig, DrugTask
    from pertwise.benchmark.engine import run_task
    from pertwise.cli.bench import show_table, tell_failures
    from pertwise.config import read_settings

    settings = _with(
        read_settings(config, BenchConfig, folder=data),
        regimes=regime,
        methods=method,
        seeds=seed,
        by_compound=False if ungrouped else None,
        drop_duplicates=True if drop_duplicates else None,
    )
    task = DrugTask(settings)
    for key, value in task.bench.notes.items():
        if value:
            typer.echo(f"{key}: {value}")
    run = run_task(task, out)
    summary = run.summary
    run.page(out / "report.html")
    for (name, held), block in summary.groupby(["data", "regime"], sort=False):
        wide = block.pivot(index="method", columns="metric", values="mean")
        wide = wide.loc[list(dict.fromkeys(block["method"]))].dropna(axis=1, how="all")
        answered = block.drop_duplicates("method").set_index("method")["coverage"]
        show_table(wide.assign(answered=answered).reset_index(), f"{name}: {held}")
    tell_failures(run, "the cell mean stands in for it")
    typer.echo(f"written: {out}/scores.parquet, summary.csv, report.html, report.md, run.json")


def _with(config: BenchConfig, **changes: object) -> BenchConfig:
    """The config with the changes that are given, checked again."""
    given = {k: v for k, v in changes.items() if v is not None}
    return type(config).model_validate({**config.model_dump(), **given})


def drug_config(screen: Path, drugs: list[Path], knowledge: Path | None = None) -> BenchConfig:
    """The config of a screen file and tables of drug facts, all else by default."""
    from pertwise.benchmark.drugs.run import BenchConfig, DataConfig
    from pertwise.errors import InputError

    if not drugs:
        raise InputError(
            "--drug needs facts about the drugs: --drugs TABLE, or a TOML config in place of SCREEN"
        )
    data = DataConfig(
        name=screen.stem,
        signatures=str(screen.absolute()),
        drugs=[str(d.absolute()) for d in drugs],
        knowledge=None if knowledge is None else str(knowledge.absolute()),
    )
    return BenchConfig(data=data)


def predict_drug(
    config: Path | BenchConfig, data: Path | None, drug: str, context: str, method: str = ""
) -> tuple[Prediction, dict[str, str]]:
    """Predict one drug (name or SMILES) in one line from everything measured.

    Returns
    -------
    The prediction, and notes: how the drug was identified, what was measured of it, warnings.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a drug that is neither a known name nor a SMILES, or a line without facts or data.
    """
    from pertwise.benchmark.drugs.predict import predict_one
    from pertwise.benchmark.drugs.run import BenchConfig, load_bench
    from pertwise.config import read_settings

    if isinstance(config, Path):
        config = read_settings(config, BenchConfig, folder=data)
    return predict_one(load_bench(config, data or Path()), drug, context, method)


def predict_drug_command(
    drug: Annotated[str, typer.Option(help="Name (any spelling, salt or synonym) or SMILES.")],
    context: Annotated[str, typer.Option(help="Cell line or type.")],
    config: Annotated[Path, typer.Option(help="The config of `pertwise bench drugs`.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the files in the config.")] = None,
    method: Annotated[str, typer.Option(help="Method; by default the best that applies.")] = "",
    top: Annotated[int, typer.Option(help="Genes shown at either end.")] = 10,
    out: Annotated[Path | None, typer.Option(help="Write all genes as csv.")] = None,
) -> None:
    """Predicted response of one drug in one cell line, with what it rests on."""
    prediction, notes = predict_drug(config, data, drug, context, method)
    show_drug(prediction, notes, context, top, out)


def show_drug(
    prediction: Prediction, notes: dict[str, str], context: str, top: int, out: Path | None
) -> None:
    """Print a predicted drug response and what it rests on; write all features to `out`."""
    import numpy as np
    import pandas as pd

    from pertwise._io import write_csv_atomic
    from pertwise.cli.bench import show_table

    for key, text in notes.items():
        typer.echo(f"{key}: {text}")
    values = prediction.mean[0]
    order = np.argsort(-values, kind="stable")
    shown = pd.DataFrame(
        {
            "most up": [prediction.features[i] for i in order[:top]],
            "score": values[order[:top]].astype(float),
            "most down": [prediction.features[i] for i in order[::-1][:top]],
            "score ": values[order[::-1][:top]].astype(float),
        }
    )
    show_table(shown, f"{prediction.perturbations[0]} in {context}", digits=2)
    if prediction.neighbours is not None and len(prediction.neighbours):
        show_table(
            prediction.neighbours[["rank", "neighbour", "weight", "reason"]], "rests on", digits=2
        )
    if out is not None:
        full = pd.DataFrame({"feature": prediction.features, "predicted": values})
        if prediction.spread is not None:
            full["spread"] = prediction.spread[0]
        write_csv_atomic(out, full)
        typer.echo(f"written: {out}")


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
    from pertwise.benchmark.drugs.run import BenchConfig, load_bench
    from pertwise.config import read_settings
    from pertwise.llm import open_chat
    from pertwise.select.chat.similar import ask_lists, estimate_questions, total_repairs

    bench = load_bench(read_settings(config, BenchConfig, folder=data))
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
