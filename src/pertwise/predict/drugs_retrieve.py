"""Retrieve and aggregate: the mean response, in the same line, of the drugs a selector names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pertwise.errors import InputError
from pertwise.knowledge.drugs_cells import CellTable
from pertwise.predict.base import Prediction
from pertwise.predict.baselines import masked_mean
from pertwise.predict.drugs import Floats, LinePredictor, Training, make_prediction
from pertwise.predict.drugs_ridge import group_folds
from pertwise.screen.core import canonical_perturbation
from pertwise.select.base import Query, Selection, Selector
from pertwise.select.chemistry import cell_query


class Retrieve(LinePredictor):
    """Closed-pool retrieval per line (LGR, chemistry kNN, mechanism kNN, by the selector given).

    The pool of line c is what was measured there, P_c, minus the query (and minus every other
    name of the same compound). The prediction is

        m_c + s (mean of the picked drugs' responses in c - m_c),

    with m_c the line mean. ``shrink`` = 1 is the plain mean of the neighbours. For an unmeasured
    line, pool and responses are the means over its related lines, which is stated.

    Parameters
    ----------
    selector
        Any selector over drug names.
    k
        Neighbours asked for; fewer may come back and ``n_support`` says how many were used.
    shrink
        s, or None to choose it in [0, 1] by cross-validation over training drugs.
    compounds
        drug -> parent compound, so that a salt of the query is never its own neighbour.
    """

    def __init__(
        self,
        selector: Selector,
        *,
        k: int = 10,
        shrink: float | None = 1.0,
        compounds: Mapping[str, str] | None = None,
        cells: CellTable | None = None,
        n_related: int = 5,
        prior: float = 0.0,
        name: str | None = None,
        n_folds: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(cells=cells, n_related=n_related, prior=prior)
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        self.selector, self.k, self.shrink = selector, k, shrink
        self.compounds = dict(compounds or {})
        self.name = name or f"{selector.name} {k}"
        self.n_folds, self.seed = n_folds, seed
        self.chosen_shrink = 1.0 if shrink is None else shrink

    def _learn(self, data: Training, means: Floats) -> None:
        self._pools: dict[str, dict[str, Floats]] = {}
        if self.shrink is None:
            self.chosen_shrink = self._choose_shrink(data, means)

    def _choose_shrink(self, data: Training, means: Floats) -> float:
        """Least-squares s over held-out training drugs, each answered from the other folds."""
        fold = group_folds([self.compounds.get(d, d) for d in data.drugs], self.n_folds, self.seed)
        top = bottom = 0.0
        for line, context in enumerate(data.lines):
            rows = np.flatnonzero(data.line == line)
            for held in sorted(set(fold[data.drug[rows]])):
                inside = rows[fold[data.drug[rows]] != held]
                if not len(inside):
                    continue
                centre = masked_mean(data.responses[inside])
                pool = {data.drugs[data.drug[r]]: data.responses[r] for r in inside}
                for row in rows[fold[data.drug[rows]] == held]:
                    selection = self._ask(data.drugs[data.drug[row]], context, list(pool))
                    if not selection.picks:
                        continue
                    guess = _aggregate(selection, pool, centre) - centre
                    seen = np.isfinite(data.responses[row])
                    truth = data.responses[row][seen] - centre[seen]
                    top += float(guess[seen] @ truth)
                    bottom += float(guess[seen] @ guess[seen])
        return float(np.clip(top / bottom, 0.0, 1.0)) if bottom > 0 else 0.0

    def _ask(self, drug: str, context: str, pool: Sequence[str]) -> Selection:
        compound = self.compounds.get(drug, drug)
        allowed = [d for d in pool if d != drug and self.compounds.get(d, d) != compound]
        query: Query = cell_query(drug, context, self.cells)
        if not allowed:
            return Selection((), self.selector.name, fallback=True)
        return self.selector.select(query, sorted(allowed), self.k)

    def pool(self, context: str) -> tuple[dict[str, Floats], str]:
        """Drug -> response in the line (or borrowed from related lines), and what was borrowed."""
        data, weights = self.training, self.lines.related(context)
        if context not in self._pools:
            found: dict[str, list[Floats]] = {}
            for name in weights:
                for row in np.flatnonzero(data.line == data.lines.index(name)):
                    # Deviations, so that lines with other means mix without a shift.
                    rest = data.responses[row] - self.lines.means[data.line[row]]
                    found.setdefault(data.drugs[data.drug[row]], []).append(rest)
            base = self.lines.mean(context)[0]
            self._pools[context] = {d: base + _mean_or_nan(np.array(r)) for d, r in found.items()}
        return self._pools[context], self.lines.mean(context)[1]

    def predict(self, drugs: Sequence[str], context: str) -> Prediction:
        """Mean of the neighbours' responses; the line mean, stated, when there is none."""
        data = self.training
        pool, borrowed = self.pool(context)
        centre = self.lines.mean(context)[0]
        rows, used, fallback, sources = [], [], [], []
        found: list[tuple[str, str, int, float, str]] = []
        for drug in map(canonical_perturbation, drugs):
            selection = self._ask(drug, context, list(pool))
            guess = _aggregate(selection, pool, centre) if selection.picks else centre
            rows.append(centre + self.chosen_shrink * (guess - centre))
            used.append(len(selection.picks))
            notes = [borrowed, "" if selection.picks else _why_none(selection)]
            if selection.picks and selection.fallback:
                notes.append(selection.repairs[-1].action if selection.repairs else "fallback")
            fallback.append("; ".join(n for n in notes if n))
            sources.append(selection.repair_counts())
            found.extend(
                (drug, p.item, i, self.chosen_shrink / len(selection.picks), p.reason)
                for i, p in enumerate(selection.picks, start=1)
            )
        columns = ["perturbation", "neighbour", "rank", "weight", "reason"]
        return make_prediction(
            self.name, drugs, context, data.features, np.array(rows), used, fallback,
            columns={"repairs": [str(s) if s else "" for s in sources]},
            neighbours=pd.DataFrame(found, columns=columns),
            provenance={"k": self.k, "shrink": self.chosen_shrink, "pool": len(pool)},
        )  # fmt: skip


def _mean_or_nan(values: Floats) -> Floats:
    """(n, d) -> (d,) mean of the finite entries; NaN where none is."""
    return np.asarray(np.where(np.isfinite(values).any(axis=0), masked_mean(values), np.nan))


def _why_none(selection: Selection) -> str:
    reason = selection.repairs[-1].action if selection.repairs else "no measured drug is left"
    return f"cell mean ({reason})"


def _aggregate(selection: Selection, pool: Mapping[str, Floats], centre: Floats) -> Floats:
    """Mean over the picks, feature by feature; the line mean where none was measured."""
    values = np.array([pool[p.item] for p in selection.picks])
    seen = np.isfinite(values).any(axis=0)
    return np.asarray(np.where(seen, masked_mean(values), centre))
