"""Figures for a notebook (`pw.plot`): each takes a result, draws on `ax` and returns it.

    import pertwise as pw
    ax = pw.plot.coverage(plan)
    ax.figure.savefig("coverage.pdf")

Simulated data are labelled as such in the title.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise._files import read_json_object, read_parquet
from pertwise._names import canonical_perturbation
from pertwise.errors import InputError, unknown_name
from pertwise.models import Prediction
from pertwise.report.style import COLOURS, ORDER, figure_bytes, wanted_formats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pertwise.acquire import Plan
    from pertwise.prediction.predicting import Predicted
    from pertwise.screen import Screen

__all__ = [
    "coverage",
    "figures_of",
    "learning_curves",
    "neighbours",
    "panel",
    "predicted_against_measured",
    "program_heat_map",
    "save",
]  # fmt: skip

_ROUNDS = ("target", "predictor", "strategy", "metric", "n_acquired", "value")
_PARTS = (
    ("measured", "measured", "ink", ""),
    ("picked", "in the panel", "blue", "//"),
    ("related", "touched by a pick", "sky", ".."),
    ("open", "open candidates", "orange", "\\\\"),
    ("unavailable", "on no list", "pale", ""),
)


def coverage(plan: Plan, ax: Axes | None = None) -> Axes:
    """Members of each module of the target: measured, picked, open, on no list.

    Raises
    ------
    pertwise.errors.InputError
        If the plan has no target modules.
    """
    if not plan.coverage:
        raise InputError("this plan has no target modules, so there is no coverage to draw")
    ax = _axes(ax, height=0.6 + 0.28 * len(plan.coverage))
    names = [row.module for row in plan.coverage]
    start = np.zeros(len(names))
    for attribute, words, colour, hatch in _PARTS:
        width = np.array([len(getattr(row, attribute)) for row in plan.coverage])
        if width.any():
            ax.barh(
                names, width, left=start, label=words, color=COLOURS[colour], hatch=hatch,
                edgecolor="white", linewidth=0.5,
            )  # fmt: skip
        start = start + width
    ax.invert_yaxis()
    ax.set_xlabel("genes")
    _beside(ax)
    return _titled(ax, "Coverage of the target", plan.simulated)


def panel(plan: Plan, ax: Axes | None = None) -> Axes:
    """Map of candidates (grey), measured perturbations (dark) and the panel (named)."""
    ax = _axes(ax, 5.5, 4.5)
    table = plan.candidate_table
    known = pd.DataFrame(plan.measured)
    if not {"x", "y"} <= set(table.columns) or table[["x", "y"]].isna().to_numpy().all():
        raise InputError("this plan holds no map: it was made without knowledge or embeddings")
    picked = table.loc[[g for g in plan.genes if g in table.index]]
    ax.scatter(table["x"], table["y"], s=6, color=COLOURS["pale"], label="candidates")
    if len(known) and {"x", "y"} <= set(known.columns):
        ax.scatter(known["x"], known["y"], s=8, marker="s", color=COLOURS["ink"], label="measured")
    ax.scatter(picked["x"], picked["y"], s=34, marker="^", color=COLOURS["blue"], label="panel")
    for gene, x, y in zip(picked.index, picked["x"], picked["y"], strict=True):
        ax.annotate(gene, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    ax.set_xticks([])
    ax.set_yticks([])
    _beside(ax)
    return _titled(ax, "The panel among its candidates", plan.simulated)


def neighbours(predicted: Predicted, name: str, ax: Axes | None = None, most: int = 15) -> Axes:
    """The measured perturbations that one prediction rests on, by weight.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a perturbation that was not explained.
    """
    why = predicted.why(name)
    table = why.neighbours.head(most)
    if table.empty:
        raise InputError(f"{name}: the prediction rests on no neighbour that could be drawn")
    ax = _axes(ax, height=0.8 + 0.25 * len(table))
    ax.barh(table["neighbour"].astype(str), table["weight"].astype(float), color=COLOURS["blue"])
    ax.invert_yaxis()
    ax.set_xlabel(f"weight ({why.neighbours_from})")
    return _titled(ax, f"Neighbours of {why.perturbation}", predicted.simulated)


def predicted_against_measured(
    prediction: Predicted | Prediction,
    screen: Screen,
    names: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Predicted against measured responses, a point a feature; the diagonal is perfect.

    Parameters
    ----------
    screen
        Measurements; the features that both have are drawn.
    names
        Perturbations, all that are in both if empty; at most eight have a colour of their own.

    Raises
    ------
    pertwise.errors.InputError
        If no perturbation or no feature is in both.
    """
    found, simulated = _prediction(prediction)
    if len(screen.contexts) > 1:
        if isinstance(prediction, Prediction):
            raise InputError("the screen holds several contexts: draw one (screen.in_context)")
        screen = screen.in_context(prediction.context)
    measured = screen.only_measured()
    wanted = [canonical_perturbation(n) for n in names] or list(found.perturbations)
    for name in names:
        if canonical_perturbation(name) not in found.perturbations:
            raise unknown_name("predicted perturbation", name, found.perturbations)
    both = [n for n in wanted if n in set(measured.perturbations)]
    features = [f for f in found.features if f in set(measured.features)]
    if not both or not features:
        missing = "perturbation" if not both else "feature"
        raise InputError(f"no {missing} is in the prediction and measured in the screen")
    ax = _axes(ax, 4.6, 4.4)
    columns = [found.features.index(f) for f in features]
    theirs = [measured.features.index(f) for f in features]
    ends: list[Any] = [np.zeros(1)]
    for i, name in enumerate(both):
        x = np.asarray(found.mean[found.perturbations.index(name)], float)[columns]
        rows = np.asarray(measured.of_perturbations([name]).responses, float)[:, theirs]
        y = np.nanmean(rows, axis=0)
        known = np.isfinite(y)
        own = i if len(both) <= len(ORDER) else 0
        r = np.corrcoef(x[known], y[known])[0, 1] if known.sum() > 2 else np.nan
        label = f"{name} (r = {r:.2f})" if len(both) <= len(ORDER) else None
        ax.scatter(x[known], y[known], s=8, alpha=0.7, color=COLOURS[ORDER[own]], label=label)
        ends.append(np.concatenate([x[known], y[known]]))
    ends_of = [float(v) for v in (np.min(np.concatenate(ends)), np.max(np.concatenate(ends)))]
    ax.plot(ends_of, ends_of, color=COLOURS["grey"], linewidth=1, linestyle="--")
    ax.set_xlabel("predicted")
    ax.set_ylabel("measured")
    if len(both) <= len(ORDER):
        _beside(ax)
    return _titled(ax, f"{len(both)} perturbations", simulated or screen.simulated)


def program_heat_map(
    result: Predicted | Prediction | Screen,
    names: Sequence[str] = (),
    features: Sequence[str] = (),
    ax: Axes | None = None,
    most: int = 40,
) -> Axes:
    """Perturbations x features (programs), blue below and red above the control.

    Parameters
    ----------
    result
        A prediction, or a screen of one context.
    names, features
        What to draw; the strongest `most` of each if empty.
    """
    rows, columns, values, simulated = _matrix(result)
    chosen = _places(names, rows, "perturbation", np.nan_to_num(values).std(axis=1), most)
    shown = _places(features, columns, "feature", np.nan_to_num(values).std(axis=0), most)
    part = values[np.ix_(chosen, shown)]
    ax = _axes(ax, 2.2 + 0.22 * len(shown), 1.6 + 0.2 * len(chosen))
    top = float(np.nanmax(np.abs(part))) if np.isfinite(part).any() else 1.0
    image = ax.imshow(part, cmap="RdBu_r", vmin=-top or -1, vmax=top or 1, aspect="auto")
    ax.set_xticks(range(len(shown)), [_cut(columns[j]) for j in shown], rotation=90, fontsize=7)
    ax.set_yticks(range(len(chosen)), [rows[i] for i in chosen], fontsize=7)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(image, ax=ax, shrink=0.7, label="change against control")
    return _titled(ax, "Responses", simulated)


def learning_curves(
    run: Any,
    target: str | None = None,
    predictor: str | None = None,
    metric: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Error of each strategy against what was acquired, from an acquisition benchmark.

    Parameters
    ----------
    run
        A run of `pw.bench`, its folder, or its table `rounds` (target, predictor, strategy, seed,
        metric,
        n_acquired, value).
    target, predictor, metric
        Which, where there are several: the first if None.
    """
    rounds, simulated = _rounds(run)
    for column, wanted in (("target", target), ("predictor", predictor), ("metric", metric)):
        names = list(dict.fromkeys(rounds[column]))
        if wanted is not None and wanted not in names:
            raise unknown_name(column, wanted, names)
        rounds = rounds[rounds[column] == (names[0] if wanted is None else wanted)]
    ax = _axes(ax)
    for i, (strategy, part) in enumerate(rounds.groupby("strategy", sort=True)):
        curve = part.groupby("n_acquired")["value"].agg(["mean", "sem"])
        ax.errorbar(
            curve.index, curve["mean"], yerr=curve["sem"].fillna(0), capsize=2, label=str(strategy),
            color=COLOURS[ORDER[i % len(ORDER)]], marker="os^Dv<>"[i % 7], markersize=4,
        )  # fmt: skip
    ax.set_xlabel("acquired perturbations")
    ax.set_ylabel(str(rounds["metric"].iloc[0]))
    _beside(ax)
    return _titled(ax, str(rounds["target"].iloc[0]), simulated)


def figures_of(result: Plan | Predicted) -> dict[str, Callable[[], Axes]]:
    """The figures of a plan or of a prediction, for `save`."""
    from pertwise.acquire.panel import Plan

    if isinstance(result, Plan):
        return {"coverage": partial(coverage, result), "panel": partial(panel, result)}
    found = result
    drawn: dict[str, Callable[[], Axes]] = {"heat_map": lambda: program_heat_map(found)}
    for i, why in enumerate(found.explanations):
        name = "".join(c if c.isalnum() else "_" for c in why.perturbation)[:60]
        drawn[f"neighbours_{i + 1}_{name}"] = partial(neighbours, found, why.perturbation)
    return drawn


def save(
    figures: Mapping[str, Callable[[], Axes]], folder: str | os.PathLike[str], formats: str
) -> dict[str, Path]:
    """Write figures as files, atomically; name of the file -> path.

    Parameters
    ----------
    figures
        Name -> function that draws it; one that has nothing to draw (`InputError`) is left out.
    formats
        "svg,png,pdf" or some of them.

    Raises
    ------
    pertwise.errors.InputError
        For a format that is none of these.
    """
    import matplotlib.pyplot as plt

    from pertwise._io import atomic_path

    wanted = wanted_formats(formats)
    made: dict[str, Path] = {}
    for name, draw in figures.items():
        try:
            figure: Any = draw().figure
        except InputError:
            continue
        for kind in wanted:
            path = Path(folder) / "figures" / f"{name}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as place:
                place.write_bytes(figure_bytes(figure, kind))
            made[path.name] = path
        plt.close(figure)
    return made


def _axes(ax: Axes | None, width: float = 5.2, height: float = 3.6) -> Axes:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    made: Axes = plt.subplots(figsize=(width, height))[1]
    made.spines[["top", "right"]].set_visible(False)
    return made


def _titled(ax: Axes, title: str, simulated: bool) -> Axes:
    ax.set_title(f"{title} (SIMULATED)" if simulated else title, fontsize=10, loc="left")
    return ax


def _beside(ax: Axes) -> None:
    """Legend beside the axes, so that it covers nothing."""
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _prediction(result: Predicted | Prediction) -> tuple[Prediction, bool]:
    if isinstance(result, Prediction):
        return result, False
    return result.prediction, result.simulated


def _matrix(result: Any) -> tuple[tuple[str, ...], tuple[str, ...], Any, bool]:
    """Names of rows and columns, the values, and whether they are simulated."""
    if hasattr(result, "responses"):
        if len(result.contexts) > 1:
            raise InputError(
                f"the screen holds {len(result.contexts)} contexts: draw one (screen.in_context)"
            )
        names = tuple(result.obs["perturbation"])
        return names, result.features, np.asarray(result.responses, float), result.simulated
    found, simulated = _prediction(result)
    return found.perturbations, found.features, np.asarray(found.mean, float), simulated


def _places(
    asked: Sequence[str], names: Sequence[str], what: str, size: Any, most: int
) -> list[int]:
    """Positions of what was asked for, else of the largest, in the order they stand."""
    if not asked:
        return sorted(np.argsort(-size, kind="stable")[:most].tolist())
    place = {n: i for i, n in reversed(list(enumerate(names)))}
    found = []
    for name in asked:
        own = name if name in place else canonical_perturbation(name)
        if own not in place:
            raise unknown_name(what, name, names)
        found.append(place[own])
    return found


def _rounds(run: Any) -> tuple[pd.DataFrame, bool]:
    """The rounds of a run, and whether its screen is simulated."""
    simulated = False
    if isinstance(run, pd.DataFrame):
        table = run
    elif isinstance(run, str | os.PathLike):
        path = Path(run) / "rounds.parquet"
        if not path.is_file():
            raise InputError(
                f"{path}: there is no such file; give the folder of an acquisition run"
            )
        table = read_parquet(path, "the rounds of an acquisition run")
        record = path.with_name("run.json")
        if record.is_file():
            simulated = bool(read_json_object(record, "a run's record").get("simulated"))
    else:
        table, simulated = run.read("rounds.parquet"), bool(run.record.get("simulated"))
    missing = set(_ROUNDS) - set(table.columns)
    if missing:
        raise InputError(f"the table of rounds lacks the columns {sorted(missing)}")
    return table, simulated
