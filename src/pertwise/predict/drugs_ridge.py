"""Kernel ridge over (drug, line) pairs: drug kernels x line kernel, shrunk to the line mean.

Model: response of drug d in line c = line mean m_c + f(d, c) + noise, with f a Gaussian process of
covariance K_drug(d, d') * K_line(c, c'). K_drug is a mean of similarity kernels, plus a share of
identity (what is peculiar to one drug and shared by its lines); K_line = r + (1 - r) L says how
much of a drug's effect is common to all lines. All features share one covariance, so that every
candidate setting costs one eigendecomposition and products of small matrices (the responses enter
through their Gram matrix only).

Everything is chosen inside the training rows, on folds that hold out what the test holds out
(drugs, lines or pairs): the shares, the ridge, the prior of the line means, and the scale of the
result. The scale is the shrinkage to the line mean: 0 predicts the line mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.knowledge.drugs_cells import CellTable
from pertwise.knowledge.drugs_similarity import CombinedSimilarity, DrugSimilarity
from pertwise.predict.base import Prediction
from pertwise.predict.drugs import Floats, LinePredictor, Training, line_means, make_prediction
from pertwise.screen.core import canonical_perturbation

HoldOut = Literal["drug", "line", "pair"]


def group_folds(groups: Sequence[str], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each item: equal groups share a fold; depends on the set of groups and the seed.

    Folds are balanced in the number of groups.
    """
    distinct = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold = {distinct[g]: i % n_folds for i, g in enumerate(order)}
    return np.array([fold[g] for g in groups], dtype=np.int64)


def ridge_smoothers(k_train: Floats, k_test: Floats, ridges: Sequence[float]) -> list[Floats]:
    """One (n_test, n_train) matrix A a ridge, f_test = A y: A = K_test (K_train + ridge I)^-1."""
    values, vectors = np.linalg.eigh(k_train)
    turned = k_test @ vectors
    return [(turned / (np.maximum(values, 0.0) + r)) @ vectors.T for r in ridges]


def fitted_inner_products(
    smoother: Floats, train_gram: Floats, cross_gram: Floats
) -> tuple[float, float]:
    """(<P, E>, <P, P>) of predictions P = A E_train with held-out residuals E, from Gram matrices.

    `train_gram` = E_train E_train^T, `cross_gram` = E_train E^T (n_train, n_test).
    """
    half = smoother @ train_gram
    return float(np.einsum("ij,ji->", smoother, cross_gram)), float((half * smoother).sum())


def best_scale(inner: float, square: float) -> tuple[float, float]:
    """(s, gain): s >= 0 minimising |E - s P|^2 and by how much it falls below |E|^2."""
    if square <= 0 or inner <= 0:
        return 0.0, 0.0
    return inner / square, inner**2 / square


@dataclass(frozen=True)
class Setting:
    """One candidate: share of effects common to all lines, identity share, ridge, line prior."""

    common: float
    identity: float
    ridge: float
    prior: float


class DrugKernelRidge(LinePredictor):
    """Kernel ridge over drug kernels x line kernel; see the module.

    Parameters
    ----------
    similarities
        Drug kernels. One gives plain kernel ridge; several are averaged.
    learn_weights
        After the common settings, fit non-negative weights of one ridge per kernel and of their
        mean by non-negative least squares on the held-out training predictions (stacking, Breiman
        1996). False: equal weights.
    hold_out
        What the inner folds hold out: as the test does.
    compounds
        drug -> parent compound; one compound is never on both sides of an inner fold.
    line_kernel
        "identity": lines are alike only as far as the common share says; "facts": similarity of
        organ and driver genes (needs `cells`).
    """

    def __init__(
        self,
        similarities: Sequence[DrugSimilarity],
        *,
        name: str = "kernel ridge",
        learn_weights: bool = False,
        hold_out: HoldOut = "drug",
        compounds: Mapping[str, str] | None = None,
        cells: CellTable | None = None,
        n_related: int = 5,
        line_kernel: Literal["identity", "facts"] = "identity",
        commons: Sequence[float] = (0.3, 0.6, 0.9),
        identities: Sequence[float] = (0.0, 0.5),
        ridges: Sequence[float] = (0.1, 0.3, 1.0, 3.0, 10.0),
        priors: Sequence[float] = (0.0, 3.0),
        n_folds: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(cells=cells, n_related=n_related)
        if not similarities:
            raise InputError("kernel ridge needs at least one drug similarity")
        if hold_out not in ("drug", "line", "pair"):
            raise InputError(f"hold_out must be 'drug', 'line' or 'pair', got {hold_out!r}")
        if line_kernel == "facts" and cells is None:
            raise InputError("line_kernel='facts' needs a table of cell-line facts (cells=...)")
        if n_folds < 2:
            raise InputError(f"n_folds must be at least 2, got {n_folds}")
        self.similarities = tuple(similarities)
        self.name, self.learn_weights, self.hold_out = name, learn_weights, hold_out
        self.compounds = dict(compounds or {})
        self.line_kernel = line_kernel
        self.grid = [
            Setting(*values) for values in itertools.product(commons, identities, ridges, priors)
        ]
        self.n_folds, self.seed = n_folds, seed

    # -- kernels ---------------------------------------------------------------------------

    def _similarity(self, which: str) -> DrugSimilarity:
        if which == "mean":
            return CombinedSimilarity(self.similarities)
        return next(s for s in self.similarities if s.name == which)

    def _line_matrix(self, rows: Sequence[str], columns: Sequence[str]) -> Floats:
        if self.line_kernel == "facts" and self.cells is not None:
            return self.cells.similarity(rows, columns)
        same = np.asarray(rows, object)[:, None] == np.asarray(columns, object)[None, :]
        return np.asarray(same, dtype=np.float64)

    # -- choosing inside the training rows -------------------------------------------------

    def _folds(self, data: Training) -> NDArray[np.int64]:
        compounds = [self.compounds.get(data.drugs[i], data.drugs[i]) for i in data.drug]
        lines = [data.lines[i] for i in data.line]
        if self.hold_out == "drug":
            groups = compounds
        elif self.hold_out == "line":
            groups = lines
        else:
            groups = [f"{d}\t{c}" for d, c in zip(compounds, lines, strict=True)]
        return group_folds(groups, self.n_folds, self.seed)

    def _learn(self, data: Training, means: Floats) -> None:
        fold = self._folds(data)
        held_folds = [f for f in range(self.n_folds) if 0 < (fold == f).sum() < len(fold)]
        self.weights: dict[str, float] = {"mean": 0.0}
        self.setting, self.gain = self.grid[0], 0.0
        if held_folds:
            self._choose(data, fold, held_folds)
        # Fit on everything with what was chosen.
        means = line_means(data.responses, data.line, len(data.lines), self.setting.prior)
        self._lines = type(self.lines)(data.lines, means, self.cells, self.n_related)
        rest = data.residuals(means)
        self._coefficients = {}
        for which, weight in self.weights.items():
            if weight > 0:
                k = self._pairs(which, data, data.drugs, np.arange(len(fold)), np.arange(len(fold)))
                solved = np.linalg.solve(k + self.setting.ridge * np.eye(len(k)), rest)
                self._coefficients[which] = weight * solved
        self._spread = np.sqrt(np.mean(rest**2, axis=0) * max(0.0, 1.0 - self.gain))

    def _pairs(
        self,
        which: str,
        data: Training,
        pool: Sequence[str],
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        setting: Setting | None = None,
    ) -> Floats:
        """Kernel between training rows, with the drug kernel built on `pool`."""
        chosen = setting or self.setting
        drugs = self._similarity(which).matrix(data.drugs, data.drugs, pool)
        drugs = drugs + chosen.identity * np.eye(len(data.drugs))
        lines = self._line_matrix(data.lines, data.lines)
        return _pair_kernel(drugs, lines, chosen.common, data, rows, columns)

    def _inner(
        self, data: Training, fold: NDArray[np.int64], held: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
        train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        return train, test, sorted({data.drugs[i] for i in data.drug[train]})

    def _choose(self, data: Training, fold: NDArray[np.int64], held_folds: list[int]) -> None:
        """Common settings by the squared error of held-out rows, each at its best scale."""
        n = len(self.grid)
        inner, square, total = np.zeros(n), np.zeros(n), np.zeros(n)
        shapes = sorted({(s.common, s.identity) for s in self.grid})
        ridges = sorted({s.ridge for s in self.grid})
        priors = sorted({s.prior for s in self.grid})
        for held in held_folds:
            train, test, pool = self._inner(data, fold, held)
            grams = {p: _grams(data, train, test, self._held_means(data, train, p)) for p in priors}
            for common, identity in shapes:
                shape = Setting(common, identity, 1.0, 0.0)
                k = self._pairs("mean", data, pool, np.arange(len(fold)), train, shape)
                smoothers = ridge_smoothers(k[train], k[test], ridges)
                for i, s in enumerate(self.grid):
                    if (s.common, s.identity) == (common, identity):
                        gram, cross, error = grams[s.prior]
                        a, b = fitted_inner_products(smoothers[ridges.index(s.ridge)], gram, cross)
                        inner[i], square[i], total[i] = (
                            inner[i] + a,
                            square[i] + b,
                            total[i] + error,
                        )
        scales = [best_scale(a, b) for a, b in zip(inner, square, strict=True)]
        loss = total - np.array([gain for _, gain in scales])
        best = int(np.argmin(loss))
        self.setting = self.grid[best]
        self.weights = {"mean": scales[best][0]}
        self.gain = float(scales[best][1] / total[best]) if total[best] > 0 else 0.0
        if self.learn_weights and len(self.similarities) > 1:
            self._stack(data, fold, held_folds, float(total[best]))

    def _held_means(self, data: Training, train: NDArray[np.int64], prior: float) -> Floats:
        """Line means of the inner training rows; unmeasured lines borrow as in `predict`."""
        means = line_means(data.responses[train], data.line[train], len(data.lines), prior)
        known = sorted(set(data.line[train].tolist()))
        if len(known) < len(data.lines):
            names = tuple(data.lines[i] for i in known)
            lines = type(self.lines)(names, means[known], self.cells, self.n_related)
            for i in set(range(len(data.lines))) - set(known):
                means[i] = lines.mean(data.lines[i])[0]
        return means

    def _stack(
        self, data: Training, fold: NDArray[np.int64], held_folds: list[int], total: float
    ) -> None:
        """Non-negative weights of the single-kernel ridges and of the ridge on their mean."""
        from scipy.optimize import nnls

        names = ["mean", *(s.name for s in self.similarities)]
        products, targets = np.zeros((len(names), len(names))), np.zeros(len(names))
        for held in held_folds:
            train, test, pool = self._inner(data, fold, held)
            means = self._held_means(data, train, self.setting.prior)
            gram, cross, _ = _grams(data, train, test, means)
            parts = []
            for which in names:
                k = self._pairs(which, data, pool, np.arange(len(fold)), train)
                parts.append(ridge_smoothers(k[train], k[test], [self.setting.ridge])[0])
            for i, a in enumerate(parts):
                half = a @ gram
                targets[i] += np.einsum("ij,ji->", a, cross)
                for j, b in enumerate(parts):
                    products[i, j] += (half * b).sum()
        # NNLS wants a design matrix: the Cholesky factor of its normal equations is one.
        jitter = 1e-8 * np.trace(products) / len(names)
        upper = np.linalg.cholesky(products + jitter * np.eye(len(names))).T
        weights, _ = nnls(upper, np.linalg.solve(upper.T, targets))
        self.weights = {n: float(w) for n, w in zip(names, weights, strict=True)}
        explained = 2 * weights @ targets - weights @ products @ weights
        self.gain = float(explained / total) if total > 0 else 0.0

    # -- predicting ------------------------------------------------------------------------

    def predict(self, drugs: Sequence[str], context: str) -> Prediction:
        """Line mean + weighted kernel ridge; the line mean for a drug no kernel knows."""
        data = self.training
        names = [canonical_perturbation(d) for d in drugs]
        mean, borrowed = self.lines.mean(context)
        lines = self._line_matrix([context], data.lines)
        out = np.tile(mean, (len(names), 1))
        same = np.asarray(names, object)[:, None] == np.asarray(data.drugs, object)[None, :]
        for which, coefficients in self._coefficients.items():
            k = self._similarity(which).matrix(names, data.drugs, data.drugs)
            k = k + self.setting.identity * same
            common = self.setting.common + (1 - self.setting.common) * lines[0]
            out += (k[:, data.drug] * common[data.line][None, :]) @ coefficients
        known = set(names) - set(CombinedSimilarity(self.similarities).missing(names))
        known |= set(names) & set(data.drugs)
        fallback = [
            "; ".join(x for x in (borrowed, "" if n in known else _NOTHING) if x) for n in names
        ]
        return make_prediction(
            self.name, names, context, data.features, out, [len(data.drugs)] * len(names), fallback,
            spread=np.tile(self._spread, (len(names), 1)).astype(np.float32),
            neighbours=self._nearest(names),
            provenance={
                "setting": vars(self.setting),
                "weights": self.weights,
                "explained": self.gain,
                "hold_out": self.hold_out,
            },
        )  # fmt: skip

    def _nearest(self, names: Sequence[str], n: int = 10) -> pd.DataFrame:
        """The most similar training drugs under the mean kernel, with what each kernel says."""
        data = self.training
        parts = {s.name: s.matrix(names, data.drugs, data.drugs) for s in self.similarities}
        total = np.mean(list(parts.values()), axis=0) if parts else np.zeros((len(names), 0))
        rows = []
        for i, name in enumerate(names):
            order = [j for j in np.argsort(-total[i], kind="stable") if data.drugs[j] != name][:n]
            for rank, j in enumerate(order, start=1):
                why = ", ".join(f"{k} {m[i, j]:.2f}" for k, m in parts.items() if m[i, j] > 0)
                rows.append((name, data.drugs[j], rank, float(total[i, j]), why or "none"))
        return pd.DataFrame(rows, columns=["perturbation", "neighbour", "rank", "weight", "reason"])


_NOTHING = "cell mean (no kernel knows this drug)"


def _pair_kernel(
    drugs: Floats,
    lines: Floats,
    common: float,
    data: Training,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> Floats:
    shared = common + (1 - common) * lines[np.ix_(data.line[rows], data.line[columns])]
    return np.asarray(drugs[np.ix_(data.drug[rows], data.drug[columns])] * shared)


def _grams(
    data: Training, train: NDArray[np.int64], test: NDArray[np.int64], means: Floats
) -> tuple[Floats, Floats, float]:
    """(E_train E_train^T, E_train E_test^T, |E_test|^2) of the residuals from `means`."""
    rest = data.residuals(means)
    return rest[train] @ rest[train].T, rest[train] @ rest[test].T, float((rest[test] ** 2).sum())
