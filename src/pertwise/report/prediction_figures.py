"""Figures of the prediction benchmark; each takes the table it draws and returns a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise.report.style import COLOURS, ORDER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: One less than there are colours, so that a pair of both comes back after 56 methods only.
_MARKERS = "os^Dv<>"


def _look(i: int) -> dict[str, Any]:
    """Colour and marker of the i-th method: colour is never the only carrier."""
    return {
        "color": COLOURS[ORDER[i % len(ORDER)]],
        "marker": _MARKERS[i % len(_MARKERS)],
        "linestyle": ("-", "--", ":")[i // len(ORDER) % 3],
        "markersize": 5,
        "linewidth": 1.5,
    }


def _axes(n: int = 1, width: float = 5.2, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    import matplotlib.pyplot as plt

    columns = min(n, 2)
    rows = -(-n // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False
    )
    axes = list(grid.ravel())
    for unused in axes[n:]:
        unused.set_visible(False)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes[:n]


def _legend(ax: Axes) -> None:
    """Beside the axes, so that it never covers a line."""
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def learning_curves(curves: pd.DataFrame) -> Figure:
    """Mean score (bars: standard error over repeats) against the number of training items."""
    metrics = list(dict.fromkeys(curves["metric"]))
    methods = list(dict.fromkeys(curves["method"]))
    figure, axes = _axes(len(metrics))
    for ax, metric in zip(axes, metrics, strict=True):
        for i, method in enumerate(methods):
            part = curves[(curves["metric"] == metric) & (curves["method"] == method)]
            ax.errorbar(
                part["n_train"], part["mean"], yerr=part["se_seeds"].fillna(0), label=method,
                capsize=2, **_look(i),
            )  # fmt: skip
        ax.set_xlabel("training perturbations")
        ax.set_ylabel(metric)
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def calibration(table: pd.DataFrame) -> Figure:
    """Realised against nominal coverage; the diagonal is perfect."""
    figure, (ax,) = _axes(1, 4.4, 4.0)
    columns = [c for c in table.columns if c.startswith("coverage_")]
    nominal = np.array([float(c.removeprefix("coverage_")) / 100 for c in columns])
    ax.plot([0, 1], [0, 1], color=COLOURS["grey"], linestyle="--", linewidth=1)
    for i, row in enumerate(table.itertuples(index=False)):
        realised = [getattr(row, c) for c in columns]
        ax.plot(nominal, realised, label=row.method, **_look(i))
    ax.set_xlabel("nominal coverage")
    ax.set_ylabel("share of measured values inside")
    ax.set_xlim(0.4, 1)
    ax.set_ylim(0.2, 1)
    _legend(ax)
    return figure


def strata(table: pd.DataFrame, metric: str, words: str) -> Figure:
    """Mean score of every method in each stratum."""
    figure, (ax,) = _axes()
    methods = [c for c in table.columns if c not in ("stratum", "low", "high", "n")]
    for i, method in enumerate(methods):
        ax.plot(table["stratum"], table[method], label=method, **_look(i))
    labels = [f"{r.low:.2g}-{r.high:.2g}\nn = {r.n}" for r in table.itertuples(index=False)]
    ax.set_xticks(table["stratum"], labels, fontsize=8)
    ax.set_xlabel(words)
    ax.set_ylabel(metric)
    _legend(ax)
    return figure


def ceiling(table: pd.DataFrame, metric: str) -> Figure:
    """Methods below the two ceilings, by quantile of reproducibility."""
    figure, (ax,) = _axes()
    ax.plot(
        table["quantile"], table["perfect"], color=COLOURS["ink"], linestyle="--",
        label="bound of a perfect prediction",
    )  # fmt: skip
    ax.plot(
        table["quantile"], table["replicate"], color=COLOURS["grey"], linestyle=":",
        label="repeat of the experiment",
    )  # fmt: skip
    known = {"quantile", "n", "replicate", "perfect"}
    methods = [c for c in table.columns if c not in known and not c.endswith(" / perfect")]
    for i, method in enumerate(methods):
        ax.plot(table["quantile"], table[method], label=method, **_look(i))
    ax.set_xticks(table["quantile"])
    ax.set_xlabel("quantile of reproducibility (0 = least)")
    ax.set_ylabel(metric)
    _legend(ax)
    return figure


def plane(table: pd.DataFrame, error: str, correlation: str) -> Figure:
    """Methods by error and correlation; the training mean divides the plane."""
    figure, (ax,) = _axes()
    centre = table[table["method"] == "training mean"].iloc[0]
    ax.axvline(centre[error], color=COLOURS["grey"], linewidth=1)
    ax.axhline(centre[correlation], color=COLOURS["grey"], linewidth=1)
    for i, row in enumerate(table.itertuples(index=False)):
        values = row._asdict()
        bound = values["against_training_mean"] == "bound"
        look = _look(i)
        ax.scatter(
            values[error], values[correlation], color=look["color"],
            marker="*" if bound else look["marker"], s=90 if bound else 35, zorder=3,
        )  # fmt: skip
        ax.annotate(
            values["method"], (values[error], values[correlation]), xytext=(5, 4),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    ax.set_xlabel(f"{error} (lower is better)")
    ax.set_ylabel(f"{correlation} (higher is better)")
    return figure


def measured_neighbours(tables: Mapping[str, pd.DataFrame], metric: str) -> Figure:
    """One panel a graph: mean score against the number of measured neighbours.

    `tables`: graph -> long table (method, measured_neighbours, n, mean).
    """
    figure, axes = _axes(len(tables), height=3.0)
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        groups = [str(g) for g in table["measured_neighbours"].cat.categories]
        for i, method in enumerate(dict.fromkeys(table["method"])):
            part = table[table["method"] == method].set_index("measured_neighbours")["mean"]
            values = [part.get(g, np.nan) for g in groups]
            ax.plot(range(len(groups)), values, label=method, **_look(i))
        n = table.groupby("measured_neighbours", observed=True)["n"].first()
        labels = [f"{g}\nn = {n.get(g, 0)}" for g in groups]
        ax.set_xticks(range(len(groups)), labels, fontsize=8)
        ax.set_title(name, fontsize=9)
        ax.set_ylabel(metric)
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def set_predictions(table: pd.DataFrame) -> Figure:
    """Every part of the neighbour sets in the plane of error and cosine, one panel a method.

    `table`: method, graph, part ("both", "named only", "graph only", "all named"),
    squared_error, cosine.
    """
    methods = [m for m in dict.fromkeys(table["method"]) if m]
    graphs = [g for g in dict.fromkeys(table["graph"]) if g]
    markers = {"both": "o", "named only": "^", "graph only": "s"}
    figure, axes = _axes(len(methods))
    for ax, method in zip(axes, methods, strict=True):
        own = table[table["method"] == method]
        for part, marker in markers.items():
            for i, graph in enumerate(graphs):
                row = own[(own["graph"] == graph) & (own["part"] == part)]
                ax.scatter(
                    row["squared_error"], row["cosine"], marker=marker, s=36,
                    color=COLOURS[ORDER[i % len(ORDER)]],
                    label=f"{part}, {graph}",
                )  # fmt: skip
        whole = own[own["part"] == "all named"]
        ax.scatter(
            whole["squared_error"], whole["cosine"], marker="*", s=110, color=COLOURS["ink"],
            label="all named",
        )  # fmt: skip
        ax.set_title(method, fontsize=9)
        ax.set_xlabel("squared_error (lower is better)")
        ax.set_ylabel("cosine (higher is better)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(
        handles, labels, frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 0.98)
    )
    return figure
