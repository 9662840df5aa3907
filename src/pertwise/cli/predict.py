"""`pertwise predict`: unmeasured perturbations, with reasons, spread and an honest score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pertwise._files import read_text
from pertwise.errors import InputError

if TYPE_CHECKING:
    from pertwise.evaluate.predicting import Predicted

LEDGER = "ledger.sqlite"


def predict(
    screen: Annotated[
        Path,
        typer.Argument(
            help="What is measured (h5ad, csv, tsv, parquet). With --drug also the TOML config of "
            "`pertwise bench drugs`."
        ),
    ],
    genes: Annotated[
        list[str] | None,
        typer.Option(
            help="Perturbations, comma-separated or repeated; A+B for a combination; @FILE for "
            "one a line."
        ),
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="Knowledge folder (pertwise knowledge build).")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Name of a method, langpert, graph+edit (with --llm), or path/to/file.py:Class. "
            "Default: multi-kernel; langpert when --llm is given."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help='Setting of the method, as in TOML: k=10, how=rank, graphs=["string","go"]; '
            "repeat.",
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Cell line or type.")] = None,
    explain: Annotated[
        list[str] | None,
        typer.Option(help="Explain these on the page (default: the first five asked); repeat."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Folds of the cross-validation that says how good the method is here; 0 skips "
            "it. Default: 5, and 0 for methods that ask a language model.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of folds and bootstrap.")] = 0,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL@URL",
            help="Chat endpoint; keys come from the environment.",
            rich_help_panel="Language model",
        ),
    ] = None,
    context_text: Annotated[
        str,
        typer.Option(help="Free text about the cells.", rich_help_panel="Language model"),
    ] = "",
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Answer from the ledger in OUT only, never call out.",
            rich_help_panel="Language model",
        ),
    ] = False,
    budget_tokens: Annotated[
        int | None, typer.Option(help="Most tokens to use.", rich_help_panel="Language model")
    ] = None,
    budget_usd: Annotated[
        float | None,
        typer.Option(help="Most US dollars to spend.", rich_help_panel="Language model"),
    ] = None,
    drug: Annotated[
        str | None,
        typer.Option(help="Predict a drug instead: name or SMILES.", rich_help_panel="Drugs"),
    ] = None,
    drugs: Annotated[
        list[Path] | None,
        typer.Option(help="Table of drug facts (parquet, csv); repeat.", rich_help_panel="Drugs"),
    ] = None,
    top: Annotated[
        int, typer.Option(help="Features shown at either end.", rich_help_panel="Drugs")
    ] = 10,
) -> None:
    """Predicted responses of unmeasured perturbations, what they rest on, and how good that is."""
    if drug is not None:
        _drug(screen, drug, drugs or [], context, knowledge, method or "", top, out, genes)
        return
    if out is None:
        raise InputError("--out DIR is needed")
    from pertwise.evaluate.predicting import DEFAULT_METHOD, predict_genes, write_prediction
    from pertwise.report.prediction_page import write_page

    settings = parse_settings(setting or [])
    chat = None
    if llm is not None:
        from pertwise.llm import open_chat

        chat = open_chat(
            llm,
            ledger=out / LEDGER,
            replay=replay,
            run="predict",
            budget_tokens=budget_tokens,
            budget_usd=budget_usd,
        )
    try:
        found = predict_genes(
            screen,
            read_names(genes or []),
            knowledge=knowledge,
            method=method or (DEFAULT_METHOD if llm is None else "langpert"),
            context=context,
            context_text=context_text,
            chat=chat,
            settings=settings,
            explain_genes=read_names(explain or []),
            folds=folds,
            seed=seed,
        )
    finally:
        if chat is not None:
            chat.shutdown()
    page = write_page(found, out)
    paths = write_prediction(found, out)
    _show(found)
    typer.echo(f"page   {page}")
    for name, path in paths.items():
        typer.echo(f"{path.suffix[1:]:6} {path}" + ("  (long)" if name == "prediction.csv" else ""))


def parse_settings(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; VALUE is read as TOML, and as plain text when it is none.

    Raises
    ------
    pertwise.errors.InputError
        For a pair without "=" or a name given twice.
    """
    import tomllib

    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"--set {pair!r}: write NAME=VALUE, for example k=10")
        if name in found:
            raise InputError(f"--set {name} is given twice")
        try:
            found[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[name] = value.strip()
    return found


def read_names(given: list[str]) -> list[str]:
    """Names given comma-separated, or one a line in @FILE."""
    names = []
    for text in given:
        if text.startswith("@"):
            file = Path(text[1:])
            if not file.is_file():
                raise InputError(f"no such file: {file}")
            text = ",".join(read_text(file, "a list of names").splitlines())
        names += [n.strip() for n in text.split(",") if n.strip()]
    return names


def _show(found: Predicted) -> None:
    import numpy as np
    import pandas as pd

    from pertwise.cli.bench import show_table

    if found.simulated:
        typer.echo("SIMULATED data: nothing here says anything about real biology.")
    rows = []
    for i, name in enumerate(found.prediction.perturbations[:30]):
        mean = found.prediction.mean[i].astype(float)
        order = np.argsort(-np.abs(mean), kind="stable")[:3]
        near = found.prediction.neighbours
        named = [] if near is None else list(near.loc[near["perturbation"] == name, "neighbour"])
        rows.append(
            {
                "perturbation": name,
                "length": float(np.sqrt((mean**2).sum())),
                "largest changes": ", ".join(
                    f"{found.prediction.features[j]} {mean[j]:+.2g}" for j in order
                ),
                "neighbours": ", ".join(named[:4]),
                "fallback": str(found.prediction.support["fallback"].iloc[i]),
            }
        )
    show_table(pd.DataFrame(rows), f"{found.method}, {found.n_train} measured")
    left = len(found.prediction.perturbations) - len(rows)
    if left:
        typer.echo(f"... and {left} more in prediction.csv")
    for e in found.explanations:
        if len(e.neighbours) > 1:
            typer.echo(
                f"{e.perturbation}: {len(e.neighbours)} neighbours ({e.neighbours_from}), mean "
                f"pairwise cosine {e.agreement:.2f}"
            )
    for note in found.notes:
        typer.echo(f"note: {note}")
    if found.repairs:
        typer.echo(f"repairs of answers: {len(found.repairs)} (on the page)")
    if found.standing is not None:
        table = found.standing.summary.rename_axis("held-out").reset_index()
        show_table(table, f"{found.standing.n_folds}-fold cross-validation on this screen")
    typer.echo(found.standing_sentence)


def _drug(
    screen: Path,
    drug: str,
    drugs: list[Path],
    context: str | None,
    knowledge: Path | None,
    method: str,
    top: int,
    out: Path | None,
    genes: list[str] | None,
) -> None:
    from pertwise.cli.drugs import drug_config, predict_drug, show_drug

    if genes:
        raise InputError("give either --genes or --drug, not both")
    if context is None:
        raise InputError("--drug needs --context CELL, the line to predict it in")
    config = screen if screen.suffix == ".toml" else drug_config(screen, drugs, knowledge)
    prediction, notes = predict_drug(config, None, drug, context, method)
    show_drug(prediction, notes, context, top, None if out is None else out / "prediction.csv")
