"""Any one-context predictor, line by line: retrieval (LGR, chemistry, mechanism) on drug screens.

The general `NeighbourPredictor` (select, then aggregate) learns from one context. `PerLine` gives
it the pool of each line, P_c = the drugs measured there; for a line without measurements, pool
and responses are borrowed from related lines, which is stated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from pertwise.arrays.means import masked_mean
from pertwise.knowledge.lines import CellTable
from pertwise.models.base import Prediction, Predictor
from pertwise.models.drugs import LinePredictor, Lines, Training, make_prediction
from pertwise.models.neighbours import NeighbourPredictor
from pertwise.screen.core import Screen, make_obs
from pertwise.select.base import Selector


class PerLine(LinePredictor):
    """A predictor of one context, fitted in each line on what was measured there.

    Parameters
    ----------
    build
        line name -> a fresh predictor (it may put facts about the line into a prompt).
    cells, n_related
        Which lines an unmeasured line borrows from.
    """

    def __init__(
        self,
        build: Callable[[str], Predictor],
        *,
        name: str,
        cells: CellTable | None = None,
        n_related: int = 5,
    ) -> None:
        super().__init__(cells=cells, n_related=n_related)
        self.build, self.name = build, name

    def fit(self, screen: Screen) -> Self:
        """Keep the screen; a line's predictor is fitted when the line is asked for."""
        super().fit(screen)
        self._fitted: dict[str, Predictor] = {}
        self._screen = screen
        return self

    def predict(self, drugs: Sequence[str], context: str) -> Prediction:
        """What the predictor of the line says; its fallback is the mean of the line."""
        if context not in self._fitted:
            pool = borrowed_line(self.training, self.lines, context)
            self._fitted[context] = self.build(context).fit(pool)
        found = self._fitted[context].predict(drugs)
        note = self.lines.mean(context)[1]
        said = [x.replace("training mean", "cell mean") for x in found.support["fallback"]]
        return make_prediction(
            self.name, found.perturbations, context, found.features, found.mean,
            found.support["n_support"].tolist(),
            ["; ".join(x for x in (note, y) if x) for y in said],
            spread=found.spread,
            neighbours=found.neighbours,
            provenance=found.provenance,
        )  # fmt: skip


def borrowed_line(data: Training, lines: Lines, context: str) -> Screen:
    """The screen of one line: its own rows, or for an unmeasured line those of related lines.

    Borrowed responses are the weighted mean of the related lines' means plus the mean
    deviation of the drug in those of them that measured it, so that lines with different means mix
    without a shift. `obs` names the line asked for.
    """
    weights = lines.related(context)
    base = lines.mean(context)[0]
    rows = np.flatnonzero(np.isin(data.line, [data.lines.index(n) for n in weights]))
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(data.drugs[data.drug[row]], []).append(int(row))
    values = []
    for own in found.values():
        rest = data.responses[own] - lines.means[data.line[own]]
        seen = np.isfinite(rest).any(axis=0)
        values.append(np.where(seen, base + masked_mean(rest), np.nan))
    return Screen(
        responses=np.array(values, dtype=np.float32),
        obs=make_obs(list(found), context=context),
        features=data.features,
        control_mean=np.full((1, len(data.features)), np.nan, dtype=np.float32),
        meta={"borrowed": sorted(weights)} if context not in lines.names else {},
    )


def retrieve(
    selector: Selector,
    *,
    k: int = 10,
    name: str | None = None,
    shrinkage: float | str = 0.0,
    fallbacks: Sequence[Selector] = (),
    cells: CellTable | None = None,
    n_related: int = 5,
) -> PerLine:
    """Mean response of the k drugs a selector names, in the same line (LGR when it is a chat).

    Parameters
    ----------
    shrinkage
        Pull to the line mean, a number or "cv" (see `NeighbourPredictor`).
    """

    def build(line: str) -> Predictor:
        known = cells is not None and cells.resolve(line) is not None
        return NeighbourPredictor(
            selector,
            k=k,
            shrinkage=shrinkage,
            fallbacks=fallbacks,
            context_text=cells.line(line).text() if cells is not None and known else "",
        )

    return PerLine(build, name=name or f"{selector.name} {k}", cells=cells, n_related=n_related)
