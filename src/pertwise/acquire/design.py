"""How many cells and controls: power from a screen's own noise and effects, and what money buys."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise.acquire.inputs import match_features, one_context
from pertwise.acquire.noise import Noise, screen_noise
from pertwise.arrays.power import fdr_level, t_power
from pertwise.errors import InputError
from pertwise.screen import Screen, read_screen

if TYPE_CHECKING:
    from anndata import AnnData

MOST_CELLS = 100_000
#: Cells a perturbation that the table shows.
SHOWN = (10, 25, 50, 100, 200, 400, 800)
SOURCES = (
    "noise of a cell: s = sqrt(v / (1/n + 1/m)), v the sampling variance in the screen",
    "power: noncentral t, standard error s sqrt(1/n + 1/m), n - 1 degrees of freedom (Cohen 1988)",
    "false discovery rate: level a with (1-c) a / ((1-c) a + c power(a)) = rate (Jung 2005; Liu "
    "and Hwang 2007); rate = setting x (1-c) under Benjamini and Hochberg (1995)",
    "share of changed features c: 1 - Storey's (2002) share of true nulls; their effect: "
    "sqrt(mean(delta^2 - v) / c)",
    "controls: m = n sqrt(P) for P perturbations (Dunnett 1955)",
)


@dataclass(frozen=True)
class Design:
    """Advice on the size of the next experiment.

    Attributes
    ----------
    cells, controls
        Needed for a perturbation, and in all for the stated number of perturbations.
    power
        Expected power with them; `effect` at `rate` (kind "fdr" or "alpha").
    batch
        Perturbations that the budget holds at this power; None without a budget.
    table
        Power by cells of a perturbation: columns cells, controls, total, power, found.
    trade
        What twice the cells buys against twice the perturbations; the same columns and `what`.
    lines
        The advice in sentences.
    """

    effect: float
    changed: float
    rate: float
    kind: str
    wanted: float
    perturbations: int
    cells: int | None
    controls: int | None
    power: float
    batch: int | None
    table: pd.DataFrame
    trade: pd.DataFrame
    lines: tuple[str, ...]
    noise: Noise

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON-able values."""
        out = {k: v for k, v in asdict(self).items() if k not in ("table", "trade", "noise")}
        noise = asdict(self.noise) | {"sd": [float(s) for s in self.noise.sd]}
        tables = {n: getattr(self, n).to_dict("records") for n in ("table", "trade")}
        return {**out, **tables, "noise": noise, "sources": list(SOURCES)}


def design(
    screen: Screen | str | os.PathLike[str] | AnnData,
    *,
    effect: float | None = None,
    power: float = 0.8,
    fdr: float = 0.05,
    alpha: float | None = None,
    changed: float | None = None,
    perturbations: int = 20,
    budget_cells: float | None = None,
    budget: float | None = None,
    cost_cell: float = 0.0,
    cost_perturbation: float = 0.0,
    features: Sequence[str] = (),
    context: str | None = None,
) -> Design:
    """Cells and controls that show a stated effect, and what a budget holds; see `SOURCES`.

    Parameters
    ----------
    effect
        Smallest change of a mean that is to be seen, in the unit of the screen (log-normalised
        expression: natural logarithms); None = the screen's own (`Noise.effect`).
    power
        Chance to see it, on average over the features.
    fdr, alpha
        Benjamini-Hochberg setting over the features of a perturbation; `alpha` tests each feature
        alone at that level instead.
    changed
        Share of features that a perturbation changes, for `fdr`; None = the screen's own.
    budget_cells, budget
        Cells in all (controls included), or money with the cost of a cell and of a perturbation
        (guides, cloning); with neither no batch size is given.

    Raises
    ------
    pertwise.errors.InputError
        A screen without variances or without effects that can be told from noise, or settings that
        mean nothing; names them.
    """
    if not isinstance(screen, Screen):
        screen = read_screen(screen)
    screen = one_context(screen, context)
    noise = screen_noise(screen, match_features(screen, features))
    _check(power=power, fdr=fdr, alpha=alpha, changed=changed)
    if perturbations < 1:
        raise InputError(f"perturbations must be at least 1, got {perturbations}")
    size = noise.effect if effect is None else effect
    if not size > 0 or not math.isfinite(size):
        raise InputError(
            "no effect of this screen stands out from its noise: state the one to be seen "
            "(--effect, in the unit of the screen)"
            if effect is None
            else f"effect must be a positive number, got {effect}"
        )
    share = noise.changed if changed is None else changed
    if alpha is None and not share > 0:
        raise InputError(
            "no share of changed features can be told from this screen: state it (--changed 0.05), "
            "or test each feature alone (--alpha 0.05)"
        )
    share = min(share, 0.95)

    def expected(n: float, m: float) -> float:
        level = alpha
        if level is None:
            level = fdr_level(size, noise.sd, n, m, fdr * (1.0 - share), share)
        return float(t_power(size, noise.sd, n, m, level).mean()) if level > 0 else 0.0

    def row(cells: float, batch: int) -> dict[str, float]:
        controls = _controls(cells, batch)
        reached = expected(cells, controls)
        total = cells * batch + controls
        found = reached * share * len(features or screen.features) * batch
        return {"perturbations": batch, "cells": cells, "controls": controls, "total": total,
                "power": round(reached, 4), "found": round(found, 1)}  # fmt: skip

    cells = _fewest(lambda n: expected(n, _controls(n, perturbations)), power)
    now = cells if cells is not None else int(max(2, noise.cells))
    kept = row(now, perturbations)
    half = max(2, now // 2)
    trade = [
        {"what": "as advised" if cells else "as in the screen", **kept},
        {"what": "twice the cells", **row(2 * now, perturbations)},
        {"what": "twice the perturbations", **row(now, 2 * perturbations)},
        {"what": "twice the perturbations, same cells in all", **row(half, 2 * perturbations)},
    ]
    batch = None
    if budget_cells is not None or budget is not None:
        batch = _largest_batch(expected, power, budget_cells, budget, cost_cell, cost_perturbation)
    made = Design(
        effect=size,
        changed=share,
        rate=fdr if alpha is None else alpha,
        kind="fdr" if alpha is None else "alpha",
        wanted=power,
        perturbations=perturbations,
        cells=cells,
        controls=None if cells is None else int(kept["controls"]),
        power=kept["power"],
        batch=batch,
        table=pd.DataFrame([row(n, perturbations) for n in SHOWN]),
        trade=pd.DataFrame(trade),
        lines=(),
        noise=noise,
    )
    return replace(made, lines=tuple(_words(made, budget_cells, budget)))


def _controls(cells: float, batch: int) -> int:
    return math.ceil(cells * math.sqrt(batch))


def _fewest(reached: Callable[[float], float], power: float) -> int | None:
    """Smallest whole number from 2 on with that power; None beyond `MOST_CELLS`."""
    high = 2
    while reached(high) < power:
        high *= 2
        if high > MOST_CELLS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= power else (middle, high)
    return max(2, high)


def _largest_batch(
    expected: Callable[[float, float], float],
    power: float,
    budget_cells: float | None,
    budget: float | None,
    cost_cell: float,
    cost_perturbation: float,
) -> int:
    """Most perturbations for which cells with that power are within both budgets."""
    for name, value in (("--budget-cells", budget_cells), ("--budget", budget)):
        if value is not None and not value > 0:
            raise InputError(f"{name} must be positive, got {value}")
    if budget is not None and not (cost_cell > 0 or cost_perturbation > 0):
        raise InputError(
            "a budget in money needs the cost of a cell or of a perturbation (--cost-cell)"
        )
    if min(cost_cell, cost_perturbation) < 0:
        raise InputError("costs must not be negative")

    def fits(batch: int) -> bool:
        cells = _fewest(lambda n: expected(n, _controls(n, batch)), power)
        if cells is None:
            return False
        total = cells * batch + _controls(cells, batch)
        money = total * cost_cell + batch * cost_perturbation
        return total <= (budget_cells or math.inf) and money <= (budget or math.inf)

    low, high = 0, 1
    while fits(high) and high < MOST_CELLS:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _check(**shares: float | None) -> None:
    for name, value in shares.items():
        if value is not None and not 0 < value < 1:
            raise InputError(f"{name} must be between 0 and 1, got {value}")


def _words(d: Design, budget_cells: float | None, budget: float | None) -> list[str]:
    test = f"{'false discovery rate' if d.kind == 'fdr' else 'level'} {d.rate:g}"
    unit = d.noise.unit or "the unit of the screen"
    own = "" if math.isnan(d.noise.effect) else (
        f"; here {d.noise.changed:.1%} of features are changed, by {d.noise.effect:.3g} "
        "(root mean square)"
    )  # fmt: skip
    lines = [f"noise of a single cell {np.median(d.noise.sd):.3g} ({unit}, median feature){own}"]
    if d.cells is None:
        lines.append(
            f"an effect of {d.effect:.3g} is not seen with power {d.wanted:g} at {test} with "
            f"{MOST_CELLS:,} cells a perturbation"
        )
    else:
        lines.append(
            f"an effect of {d.effect:.3g} is seen with power {d.wanted:g} at {test} with {d.cells} "
            f"cells a perturbation and {d.controls} control cells for {d.perturbations} "
            "perturbations"
        )
    now, cells, more, spread = d.trade.to_dict("records")
    lines.append(
        f"twice the cells takes the power from {now['power']:.2f} to {cells['power']:.2f}; "
        f"the same cells on twice the perturbations leave {spread['power']:.2f}, and find "
        f"{_times(spread['found'], now['found'])} as many changed features in all (twice "
        f"the cells: {_times(cells['found'], now['found'])}; twice the perturbations with as many "
        f"cells each: {_times(more['found'], now['found'])})"
    )
    if d.batch is not None:
        said = [f"{budget_cells:,.0f} cells"] if budget_cells is not None else []
        said += [f"a budget of {budget:,.0f}"] if budget is not None else []
        lines.append(f"{' and '.join(said)} hold {d.batch} perturbations at this power")
    return lines


def _times(a: float, b: float) -> str:
    return f"{a / b:.2f} times" if b > 0 else "none"
