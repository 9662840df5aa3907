"""`pertwise predict`: unmeasured perturbations, with reasons, spread and an honest score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pertwise._files import read_text
from pertwise._process import only_writer
from pertwise.cli.asking import Figures, nothing_usable
from pertwise.cli.groups import Cells, Facts, Llm, Reading
from pertwise.cli.options import grouped
from pertwise.cli.prediction_files import Written
from pertwise.errors import InputError
from pertwise.report.style import wanted_formats

if TYPE_CHECKING:
    from pertwise.prediction.predicting import Predicted

LEDGER = "ledger.sqlite"


@grouped
def predict(
    screen: Annotated[
        Path,
        typer.Argument(
            help="What is measured (h5ad, csv, tsv, parquet), or the TOML config of `bench "
            "drugs`, which also names what is known."
        ),
    ],
    facts: Facts,
    cells: Cells,
    llm: Llm,
    reading: Reading,
    written: Written,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--names",
            "--genes",
            help="Perturbations, comma-separated or repeated; A+B for a combination; @FILE for "
            "one a line.",
        ),
    ] = None,
    drug: Annotated[
        list[str] | None,
        typer.Option(help="One compound, taken as it is: name in any spelling, SMILES; repeat."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Name of a method (`pertwise parts predictor`; langpert and graph-edit go with "
            "--llm), or path/to/file.py:Class. Default: multi-kernel; langpert when --llm is given."
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
    other: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[LINE=]FILE",
            help="Screen of another line (responses, signs, ranked signatures) to learn from as "
            "well; repeat.",
        ),
    ] = None,
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
    data: Annotated[
        Path | None, typer.Option(help="Folder of the files that a TOML config names.")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option(
            help="Compute anew what an earlier run kept in the cache folder ($PERTWISE_CACHE)."
        ),
    ] = False,
    figures: Figures = None,
) -> None:
    """Predicted responses of unmeasured perturbations, what they rest on, and how good that is."""
    if out is None:
        raise InputError("--out DIR is needed")
    written.check()
    formats = None if figures is None else ",".join(wanted_formats(figures))
    from pertwise._cache import keeping
    from pertwise.prediction.predicting import DEFAULT_METHOD
    from pertwise.prediction.predicting import predict as predicted
    from pertwise.prediction.writing import write_prediction
    from pertwise.report.prediction_page import write_page

    if llm.llm is None:
        cells.refuse("no model is asked (--llm MODEL@URL)", but=("context",))
    settings = parse_settings(setting or [])
    if other:
        if "other" in settings:
            raise InputError("give other screens by --other or by --set other=, not by both")
        settings["other"] = other_files(other)
    with keeping(fresh):
        given = _inputs(screen, facts, reading, data, DEFAULT_METHOD)
    if method is None and llm.llm is None and given.answers:
        settings.setdefault("answers", given.answers)
    # The lock makes the folder in which the ledger lies.
    with only_writer(out), llm.opened("predict", out / LEDGER) as chat, keeping(fresh):
        found = predicted(
            given.screen,
            [*read_names(names or []), *(drug or [])],
            knowledge=given.knowledge,
            drugs=given.drugs,
            lines=given.lines,
            ratings=given.ratings,
            method=method or (given.method if chat is None else "langpert"),
            context=cells.context,
            context_text=cells.context_text,
            chat=chat,
            settings=settings,
            explain_names=read_names(explain or []),
            folds=folds,
            seed=seed,
            reading=reading.settings(),
        )
        page = write_page(found, out)
        paths = write_prediction(found, out, **written.layout)
        made = written.write_cells(found, out, seed, reading)
        paths |= {} if made is None else {"cells.h5ad": made}
        if formats is not None:
            from pertwise.report import plot

            paths |= plot.save(plot.figures_of(found), out, formats)
    _show(found)
    typer.echo(f"page   {page}")
    for name, path in paths.items():
        typer.echo(f"{path.suffix[1:]:6} {path}" + ("  (long)" if name == "prediction.csv" else ""))
    said = found.prediction.provenance.get("answers", ())
    from pertwise.select.base import usable

    if chat is not None and said and not any(usable(a["fallback"], a["provenance"]) for a in said):
        nothing_usable(
            llm.name, [r for a in said for r in a["repairs"]], "every prediction is a fallback"
        )


def parse_settings(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs; VALUE is read as TOML, and as plain text when it is none.

    Raises
    ------
    pertwise.errors.InputError
        For a pair without "=" or a name given twice.
    """
    from pertwise.config import refuse_secrets, toml_value

    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InputError(f"--set {pair!r}: write NAME=VALUE, for example k=10")
        if name in found:
            raise InputError(f"--set {name} is given twice")
        found[name] = toml_value(value)
    refuse_secrets(found, "--set")
    return found


def other_files(given: list[str]) -> dict[str, str] | list[str]:
    """FILE or LINE=FILE, all of one kind or unnamed ones under the names of their files.

    Raises
    ------
    pertwise.errors.InputError
        For a line named twice.
    """
    named = [text.partition("=") if "=" in text and not Path(text).exists() else ("", "", text)
             for text in given]  # fmt: skip
    if not any(name for name, _, _ in named):
        return list(given)
    found: dict[str, str] = {}
    for name, _, file in named:
        label = name.strip() or Path(file).name.partition(".")[0]
        if label in found:
            raise InputError(f"--other {label}: named twice; each needs a name of its own")
        found[label] = file.strip()
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
    for one in () if found.standing is None else (found.standing, *found.further):
        table = one.summary.rename_axis("held-out").reset_index()
        show_table(table, f"{one.n_folds}-fold cross-validation on this screen: {one.setting}")
    typer.echo(found.standing_sentence)


@dataclass(frozen=True)
class _Inputs:
    """What to predict from: files as given, or what the config of a benchmark names."""

    screen: Any
    knowledge: Any
    drugs: list[Path]
    lines: Path | None
    method: str
    answers: str = ""
    ratings: Sequence[Path] = ()


def _inputs(
    screen: Path, facts: Facts, reading: Reading, data: Path | None, method: str
) -> _Inputs:
    if screen.suffix != ".toml":
        if data is not None:
            raise InputError("--data goes with a TOML config in place of SCREEN")
        known = (facts.folder, facts.drugs or [], facts.lines)
        return _Inputs(screen, *known, method, ratings=facts.ratings or [])
    facts.refuse(f"{screen} says what is known")
    reading.refuse(f"{screen} says how to read")
    from pertwise.benchmark.prediction.regimes import RegimesConfig, open_regimes
    from pertwise.config import read_settings

    config = read_settings(screen, RegimesConfig, folder=data)
    opened, answers = open_regimes(config, plates=False), config.data.lists or ""
    return _Inputs(
        opened.screen, opened.knowledge, [], None, "fused" if answers else method, answers
    )
