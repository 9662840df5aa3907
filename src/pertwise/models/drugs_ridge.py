"""Kernel ridge over (drug, line) pairs: drug kernels x line kernel, shrunk to the line mean.

Model: response of drug d in line c = line mean m_c + f(d, c) + noise, f a Gaussian process with

    cov f((d, c), (d', c')) = sum_i K_i(d, d') (u_i + v_i L(c, c')) + w [d = d'],

one drug kernel K_i a source of knowledge (structure, mechanism, targets, a chat's neighbours),
L the kernel of lines (1 for the same line; an unmeasured line is the weighted mixture of its
related lines), u_i the part of an effect that all lines share, v_i what belongs to the line,
w what is peculiar to a drug. All weights are non-negative and learned with the noise by marginal
likelihood with a prior towards equal weights (`arrays.gaussian_process.fit_weights`, the same as
on the gene side); all features share them, so the responses enter through their Gram matrix.

The deviation from the line mean is finally shrunk. One kernel for all features predicts the few
strong directions of response too timidly and the many weak ones, mostly noise, too boldly; so the
deviation is taken apart into the principal components of the training deviations, and each block of
components (1, 2, 3-4, 5-8, ...) gets a scale of its own, chosen by least squares on folds inside
the training rows that hold out what the test holds out (the idea of "curds and whey", Breiman &
Friedman 1997, J. R. Stat. Soc. B 59:3). All scales 0 would predict the line mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.arrays.gaussian_process import combine, fit_weights
from pertwise.errors import InputError
from pertwise.kernels.drugs import DrugSimilarity
from pertwise.knowledge.lines import CellTable
from pertwise.models.base import Prediction
from pertwise.models.drugs import (
    Floats,
    LinePredictor,
    Lines,
    Training,
    line_means,
    make_prediction,
)
from pertwise.screen.core import canonical_perturbation

HoldOut = Literal["drug", "line", "pair"]
#: Pseudo-rows at the mean of all lines that a line mean starts from.
LINE_PRIOR = 3.0
#: The weights start equal and the prior keeps them near: more steps change no third digit.
MAX_ITERATIONS = 20
#: Blocks of principal components with a scale of their own: 1, 2, 3-4, ..., 129-256, rest.
N_BLOCKS = 10
_NOTHING = "cell mean (no kernel knows this drug)"


def group_folds(groups: Sequence[str], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each item: equal groups share a fold; depends on the set of groups and the seed.

    Folds are balanced in the number of groups, not of items.
    """
    distinct = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold = {distinct[g]: i % n_folds for i, g in enumerate(order)}
    return np.array([fold[g] for g in groups], dtype=np.int64)


def pair_kernels(drugs: Floats, lines: Floats, same_drug: Floats) -> Floats:
    """Kernels between pairs from kernels between drugs and between lines.

    Parameters
    ----------
    drugs
        (m, a, b) similarity of the drugs of row pair i and column pair j, one a kernel.
    lines, same_drug
        (a, b) similarity of their lines; 1 where the drug is the same.

    Returns
    -------
    (2 m + 1, a, b): each drug kernel shared by all lines, each times the line kernel, same drug.
    """
    return np.concatenate([drugs, drugs * lines, same_drug[None]])


def principal_axes(values: Floats) -> Floats:
    """(n, d) -> (r, d) orthonormal principal directions of the rows, strongest first, r <= n.

    Not centred: the rows are deviations already. Directions below 1e-8 of the largest variance
    are left out. Signs are arbitrary and do not matter where the axes are used.
    """
    variance, vectors = np.linalg.eigh(values @ values.T)
    order = np.argsort(-variance, kind="stable")
    variance, vectors = variance[order], vectors[:, order]
    keep = variance > 1e-8 * max(float(variance[0]), 1e-300)
    return np.asarray((vectors[:, keep] / np.sqrt(variance[keep])).T @ values)


def component_block(n: int) -> NDArray[np.int64]:
    """(n,) block of each component: sizes 1, 1, 2, 4, 8, ..., the last one open."""
    index = np.arange(1, n + 1, dtype=np.float64)
    return np.minimum(np.ceil(np.log2(index)), N_BLOCKS - 1).astype(np.int64)


def best_scale(inner: float, square: float) -> float:
    """s >= 0 minimising |E - s P|^2, given inner = <E, P> and square = <P, P>."""
    return inner / square if square > 0 and inner > 0 else 0.0


def block_scales(inner: Floats, square: Floats) -> Floats:
    """(n_blocks,) scale of each block, pulled to the scale of all blocks by empirical Bayes.

    Parameters
    ----------
    inner, square
        (n_folds, n_blocks) <E, P> and <P, P> on each held-out fold.

    With s_b = sum inner / sum square, its jackknife variance v_b over folds, the common scale s
    and the variance t between blocks beyond chance (DerSimonian & Laird 1986, Control. Clin.
    Trials 7:177), the scale is max(0, (t s_b + v_b s) / (t + v_b)): blocks keep scales of their own
    only as far as the folds agree that they differ.
    """
    top, bottom = inner.sum(axis=0), square.sum(axis=0)
    common = best_scale(float(top.sum()), float(bottom.sum()))
    n_folds = len(inner)
    used = (bottom > 0) & ((bottom - square) > 0).all(axis=0)
    out = np.full(inner.shape[1], common)
    if n_folds < 2 or used.sum() < 2:
        return out
    own = top[used] / bottom[used]
    left_out = (top - inner)[:, used] / (bottom - square)[:, used]
    variance = (n_folds - 1) * np.var(left_out, axis=0) + 1e-12
    weight = 1.0 / variance
    centre = float(weight @ own / weight.sum())
    excess = float(weight @ (own - centre) ** 2) - (len(own) - 1)
    between = max(0.0, excess / float(weight.sum() - (weight**2).sum() / weight.sum()))
    out[used] = np.maximum((between * own + variance * common) / (between + variance), 0.0)
    return out


class DrugKernelRidge(LinePredictor):
    """Kernel ridge over drug kernels x line kernel; see the module.

    Parameters
    ----------
    similarities
        Drug kernels: one gives plain kernel ridge, several the multi-kernel, several with a chat
        model's neighbours among them the fused predictor.
    hold_out
        What the inner folds hold out, as the test does.
    compounds
        drug -> parent compound; one compound is never on both sides of an inner fold.
    weight_prior
        Strength of the prior towards equal kernel weights.
    """

    def __init__(
        self,
        similarities: Sequence[DrugSimilarity],
        *,
        name: str = "kernel ridge",
        hold_out: HoldOut = "drug",
        compounds: Mapping[str, str] | None = None,
        cells: CellTable | None = None,
        n_related: int = 5,
        weight_prior: float = 0.01,
        prior: float = LINE_PRIOR,
        n_folds: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(cells=cells, n_related=n_related, prior=prior)
        if not similarities:
            raise InputError("kernel ridge needs at least one drug similarity")
        if len({s.name for s in similarities}) != len(similarities):
            raise InputError(f"two drug kernels share a name: {[s.name for s in similarities]}")
        if hold_out not in ("drug", "line", "pair"):
            raise InputError(f"hold_out must be 'drug', 'line' or 'pair', got {hold_out!r}")
        if n_folds < 2:
            raise InputError(f"n_folds must be at least 2, got {n_folds}")
        self.similarities = tuple(similarities)
        self.name, self.hold_out = name, hold_out
        self.compounds = dict(compounds or {})
        self.weight_prior = weight_prior
        self.n_folds, self.seed = n_folds, seed
        self.weights: dict[str, float] = {}
        self.noise, self.explained = 1.0, 0.0
        self.scales = np.ones(N_BLOCKS)

    # -- kernels ---------------------------------------------------------------------------

    def _kernel_names(self) -> list[str]:
        names = [s.name for s in self.similarities]
        return [*names, *(f"{n} x line" for n in names), "same drug"]

    def _kernels(
        self,
        data: Training,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        pool: Sequence[str],
    ) -> Floats:
        """(2 m + 1, n_rows, n_columns) between training rows; picks are read within `pool`."""
        drugs = np.array([s.matrix(data.drugs, data.drugs, pool) for s in self.similarities])
        at = np.ix_(data.drug[rows], data.drug[columns])
        return pair_kernels(
            np.array([k[at] for k in drugs]),
            self._line_weights(data, data.line[rows], data.line[columns]),
            _same(data.drug[rows], data.drug[columns]),
        )

    def _line_weights(
        self, data: Training, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> Floats:
        """(n_rows, n_columns): 1 for the same line; a line without columns mixes related ones."""
        known = tuple(data.lines[i] for i in sorted(set(columns.tolist())))
        lines = Lines(known, np.zeros((len(known), 0)), self.cells, self.n_related)
        table = np.zeros((len(data.lines), len(data.lines)))
        for i in set(rows.tolist()):
            for name, weight in lines.related(data.lines[i]).items():
                table[i, data.lines.index(name)] = weight
        return table[np.ix_(rows, columns)]

    # -- learning --------------------------------------------------------------------------

    def _learn(self, data: Training, means: Floats) -> None:
        every = np.arange(len(data.drug))
        kernels = self._kernels(data, every, every, data.drugs)
        rest = data.residuals(means)
        found = fit_weights(
            kernels,
            rest @ rest.T,
            rest.shape[1],
            prior=self.weight_prior,
            max_iterations=MAX_ITERATIONS,
        )
        self.noise = found.noise
        self._w = found.weights
        self.weights = dict(zip(self._kernel_names(), map(float, found.weights), strict=True))
        self._choose_scales(data)
        system = combine(kernels, self._w) + self.noise * np.eye(len(every))
        axes = principal_axes(rest)
        factor = self.scales[component_block(len(axes))]
        self._coefficients = (np.linalg.solve(system, rest @ axes.T) * factor) @ axes
        self._spread = np.sqrt(np.mean(rest**2, axis=0) * max(0.0, 1.0 - self.explained))

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

    def _choose_scales(self, data: Training) -> None:
        """Least squares over held-out training rows, with the kernels and axes of what is left."""
        fold = self._folds(data)
        inner, square, total = [], [], 0.0
        for held in range(self.n_folds):
            train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
            if not len(train) or not len(test):
                continue
            pool = sorted({data.drugs[i] for i in data.drug[train]})
            k = combine(self._kernels(data, np.arange(len(fold)), train, pool), self._w)
            rest = data.residuals(self._means_without(data, train))
            axes = principal_axes(rest[train])
            system = k[train] + self.noise * np.eye(len(train))
            guess = k[test] @ np.linalg.solve(system, rest[train] @ axes.T)
            truth = rest[test] @ axes.T
            block = component_block(len(axes))
            inner.append(np.bincount(block, (guess * truth).sum(axis=0), N_BLOCKS))
            square.append(np.bincount(block, (guess**2).sum(axis=0), N_BLOCKS))
            total += float((rest[test] ** 2).sum())
        if not inner:
            self.scales, self.explained = np.zeros(N_BLOCKS), 0.0
            return
        self.scales = block_scales(np.array(inner), np.array(square))
        gain = 2 * self.scales @ np.sum(inner, axis=0) - self.scales**2 @ np.sum(square, axis=0)
        self.explained = float(np.clip(gain / total, 0.0, 1.0)) if total > 0 else 0.0

    def _means_without(self, data: Training, train: NDArray[np.int64]) -> Floats:
        """Line means of the inner training rows; unmeasured lines borrow as in `predict`."""
        means = line_means(data.responses[train], data.line[train], len(data.lines), self.prior)
        known = sorted(set(data.line[train].tolist()))
        names = tuple(data.lines[i] for i in known)
        lines = Lines(names, means[known], self.cells, self.n_related)
        for i in set(range(len(data.lines))) - set(known):
            means[i] = lines.mean(data.lines[i])[0]
        return means

    # -- predicting ------------------------------------------------------------------------

    def predict(self, drugs: Sequence[str], context: str) -> Prediction:
        """Line mean + kernel ridge; the line mean for a drug no kernel knows, stated."""
        data = self.training
        names = [canonical_perturbation(d) for d in drugs]
        mean, borrowed = self.lines.mean(context)
        parts = np.array([s.matrix(names, data.drugs, data.drugs) for s in self.similarities])
        parts = parts.reshape(len(self.similarities), len(names), len(data.drugs))
        weights = self.lines.related(context)
        lines = np.array([weights.get(name, 0.0) for name in data.lines])[data.line]
        k = combine(
            pair_kernels(
                parts[:, :, data.drug],
                np.broadcast_to(lines, (len(names), len(data.drug))),
                _same(names, [data.drugs[i] for i in data.drug]),
            ),
            self._w,
        )
        related = (parts > 0).any(axis=0).sum(axis=1)
        fallback = ["; ".join(x for x in (borrowed, "" if n else _NOTHING) if x) for n in related]
        return make_prediction(
            self.name, names, context, data.features, mean + k @ self._coefficients, related,
            fallback,
            spread=np.tile(self._spread, (len(names), 1)).astype(np.float32),
            neighbours=self._nearest(names, parts),
            provenance={
                "weights": self.weights,
                "noise": self.noise,
                "scales": [float(x) for x in self.scales],
                "explained": self.explained,
                "hold_out": self.hold_out,
            },
        )  # fmt: skip

    def _nearest(self, names: Sequence[str], parts: Floats, n: int = 10) -> pd.DataFrame:
        """The most similar training drugs under the weighted kernels, with what each one says."""
        data, m = self.training, len(self.similarities)
        weight = self._w[:m] + self._w[m : 2 * m]
        total = combine(parts, weight)
        rows = []
        for i, name in enumerate(names):
            order = [j for j in np.argsort(-total[i], kind="stable") if data.drugs[j] != name]
            for rank, j in enumerate([j for j in order if total[i, j] > 0][:n], start=1):
                said = [
                    f"{s.name} {parts[p, i, j]:.2f}"
                    for p, s in enumerate(self.similarities)
                    if parts[p, i, j] > 0
                ]
                rows.append((name, data.drugs[j], rank, float(total[i, j]), ", ".join(said)))
        return pd.DataFrame(rows, columns=["perturbation", "neighbour", "rank", "weight", "reason"])


def _same(
    rows: Sequence[str] | NDArray[np.int64], columns: Sequence[str] | NDArray[np.int64]
) -> Floats:
    left, right = np.asarray(rows, dtype=object), np.asarray(columns, dtype=object)
    return np.asarray(left[:, None] == right[None, :], dtype=np.float64)
