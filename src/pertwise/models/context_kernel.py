"""Kernel ridge over (perturbation, context) pairs, shrunk to the context mean.

Model: response of perturbation p in context c = context mean m_c + f(p, c) + noise, f a Gaussian
process with

    cov f((p, c), (p', c')) = sum_i K_i(p, p') (u_i + v_i L(c, c')) + w [p = p'],

one kernel K_i a source of knowledge (graphs, texts | structure, mechanism, targets | a chat's
neighbours), L the kernel of contexts (1 for the same one; an unmeasured context is the weighted
mixture of its related ones), u_i the part of an effect that all contexts share, v_i what belongs to
the context, w what is peculiar to a perturbation. All weights are non-negative and learned with the
noise by marginal likelihood with a prior towards equal weights (`arrays.gaussian_process.
fit_weights`); all features share them, so the responses enter through their Gram matrix.

The deviation from the context mean is finally shrunk. One kernel for all features predicts the few
strong directions of response too timidly and the many weak ones, mostly noise, too boldly; so the
deviation is taken apart into the principal components of the training deviations, and each block of
components (1, 2, 3-4, 5-8, ...) gets a scale of its own, chosen by least squares on folds inside
the training rows that hold out what the test holds out (the idea of "curds and whey", Breiman &
Friedman 1997, J. R. Stat. Soc. B 59:3). All scales 0 would predict the context mean.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import canonical_perturbation
from pertwise.arrays.folds import group_folds
from pertwise.arrays.gaussian_process import combine, fit_weights
from pertwise.errors import InputError
from pertwise.kernels.base import Kernel
from pertwise.kernels.known import fitting, kernel, list_kernels, plain
from pertwise.kernels.ratings import GivenRatings, kernels_of_marks
from pertwise.kernels.transfer import GivenScreens, kernels_of_others
from pertwise.models.base import Prediction
from pertwise.models.contexts import (
    CONTEXT_PRIOR,
    ContextData,
    ContextPredictor,
    Floats,
    context_means,
    joined,
    make_prediction,
)
from pertwise.select.recorded import RecordedSelector

HoldOut = Literal["perturbation", "context", "pair"]
HOLD_OUT: tuple[HoldOut, ...] = ("perturbation", "context", "pair")
#: The weights start equal and the prior keeps them near: more steps change no third digit.
MAX_ITERATIONS = 20
#: Weights are learned on at most this many training rows (evenly spaced by context and name).
MAX_ROWS_FOR_WEIGHTS = 1200
#: Blocks of principal components with a scale of their own: 1, 2, 3-4, ..., 129-256, rest.
N_BLOCKS = 10
_NOTHING = "context mean (no kernel knows this perturbation)"


def pair_kernels(alike: Floats, contexts: Floats, same: Floats) -> Floats:
    """Kernels between (perturbation, context) pairs.

    Parameters
    ----------
    alike
        (m, a, b) similarity of the perturbations of row pair i and column pair j, one a kernel.
    contexts, same
        (a, b) similarity of their contexts; 1 where the perturbation is the same.

    Returns
    -------
    (2 m + 1, a, b): each kernel shared by all contexts, each times the context kernel, `same`.
    """
    return np.concatenate([alike, alike * contexts, same[None]])


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


class ContextKernelPredictor(ContextPredictor):
    """Kernel ridge over kernels of perturbations x kernel of contexts; see the module.

    Parameters
    ----------
    kernels
        Names (`kernels.known.kernel`) or kernels; one gives kernel ridge, several the multi-kernel.
        "all": those that fit the perturbations and that the knowledge can give; "plain": chemistry
        of compounds, the reference kernels of genes.
    answers
        File of recorded neighbour lists, or an opened one: their kernels beside the others (fused);
        with ``kernels=()`` the only ones.
    ratings
        Marks whose kernels join: those of the knowledge (True), a file, or none (False).
    other
        Other screens whose kernels join (`kernels.transfer`).
    hold_out
        What the inner folds hold out, as the test does: "perturbation", "context" or "pair".
        Names of one thing (salts, aliases; `Knowledge.identity`) are held out together.
    weight_prior
        Strength of the prior towards equal kernel weights.
    """

    def __init__(
        self,
        kernels: str | Sequence[str | Kernel] = "all",
        *,
        answers: str | os.PathLike[str] | RecordedSelector | None = None,
        ratings: GivenRatings = True,
        other: GivenScreens = (),
        name: str = "kernel ridge",
        hold_out: HoldOut = "perturbation",
        n_related: int = 5,
        weight_prior: float = 0.01,
        prior: float = CONTEXT_PRIOR,
        n_folds: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(n_related=n_related, prior=prior, name=name)
        if not (kernels or answers is not None or ratings or other):
            raise InputError("kernel ridge needs at least one kernel")
        if hold_out not in HOLD_OUT:
            raise InputError(f"hold_out must be one of {', '.join(HOLD_OUT)}, got {hold_out!r}")
        if n_folds < 2:
            raise InputError(f"n_folds must be at least 2, got {n_folds}")
        self.kernels = kernels if isinstance(kernels, str) else tuple(kernels)
        # Kernels that were built already need nothing more.
        self.needs = ("knowledge",) if any(isinstance(k, str) for k in self.kernels) else ()
        self.answers, self.hold_out, self.ratings = answers, hold_out, ratings
        self.other = other
        self.weight_prior = weight_prior
        self.n_folds, self.seed = n_folds, seed
        self.weights: dict[str, float] = {}
        self.noise, self.explained = 1.0, 0.0
        self.scales = np.ones(N_BLOCKS)

    # -- kernels ---------------------------------------------------------------------------

    def _open(self, names: Sequence[str]) -> tuple[Kernel, ...]:
        """The kernels to use for perturbations such as these."""
        known, made = self._knowledge, list[Kernel]()
        for one in (self.kernels,) if isinstance(self.kernels, str) else self.kernels:
            if not isinstance(one, str):
                made.append(one)
            elif (choose := {"all": fitting, "plain": plain}.get(one)) is None:
                made.append(self._named(one))
            elif known is not None:
                made += map(self._named, choose(known, names))
        if self.answers is not None:
            lists = self.answers
            if not isinstance(lists, RecordedSelector):
                lists = RecordedSelector.from_file(lists)
            made += list_kernels(lists.answers)
        made += kernels_of_marks(known, self.ratings)
        made += kernels_of_others(known, self.other)
        if not made:
            raise InputError(
                f"{self.name!r}: what is known gives no kernel that fits perturbations such as "
                f"{names[0]!r}; give a knowledge folder of genes, or a table of drugs"
            )
        if len({k.name for k in made}) != len(made):
            raise InputError(f"two kernels share a name: {[k.name for k in made]}")
        return tuple(made)

    def _named(self, name: str) -> Kernel:
        if self._knowledge is None:
            raise InputError(f"{self.name!r}: the kernel {name!r} needs knowledge")
        return kernel(self._knowledge, name)

    def _kernel_names(self) -> list[str]:
        names = [k.name for k in self._opened]
        return [*names, *(f"{n} x context" for n in names), "same perturbation"]

    def _kernels(
        self,
        data: ContextData,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        pool: Sequence[str],
    ) -> Floats:
        """(2 m + 1, n_rows, n_columns) between training rows; picks are read within `pool`."""
        alike = np.array([k.between(data.names, data.names, pool) for k in self._opened])
        at = np.ix_(data.who[rows], data.who[columns])
        return pair_kernels(
            np.array([k[at] for k in alike]),
            self._context_weights(data, data.where[rows], data.where[columns]),
            _same(data.who[rows], data.who[columns]),
        )

    def _context_weights(
        self, data: ContextData, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> Floats:
        """(n_rows, n_columns): 1 for the same context; one without columns mixes related ones."""
        known = tuple(data.contexts[i] for i in sorted(set(columns.tolist())))
        contexts = self._among(known, np.zeros((len(known), 0)))
        table = np.zeros((len(data.contexts), len(data.contexts)))
        for i in set(rows.tolist()):
            for name, weight in contexts.related(data.contexts[i]).items():
                table[i, data.contexts.index(name)] = weight
        return table[np.ix_(rows, columns)]

    # -- learning --------------------------------------------------------------------------

    def _learn(self, data: ContextData, means: Floats) -> None:
        self._opened = self._open(data.names)
        every = np.arange(len(data.who))
        some = every[:: int(np.ceil(len(every) / MAX_ROWS_FOR_WEIGHTS))]
        kernels = self._kernels(data, every, every, data.names)
        rest = data.residuals(means)
        found = fit_weights(
            kernels if len(some) == len(every) else kernels[:, some[:, None], some[None, :]],
            rest[some] @ rest[some].T,
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

    def _folds(self, data: ContextData) -> NDArray[np.int64]:
        things = np.array(self._identity(data.names), dtype=object)[data.who].tolist()
        contexts = [data.contexts[i] for i in data.where]
        # One context cannot be held out of itself: what is left to learn from is perturbations.
        alone = self.hold_out == "context" and len(data.contexts) == 1
        if self.hold_out == "perturbation" or alone:
            groups = things
        elif self.hold_out == "context":
            groups = contexts
        else:
            groups = [f"{d}\t{c}" for d, c in zip(things, contexts, strict=True)]
        return group_folds(groups, self.n_folds, self.seed)

    def _choose_scales(self, data: ContextData) -> None:
        """Least squares over held-out training rows, with the kernels and axes of what is left."""
        fold = self._folds(data)
        inner, square, total = [], [], 0.0
        for held in range(self.n_folds):
            train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
            if not len(train) or not len(test):
                continue
            pool = sorted({data.names[i] for i in data.who[train]})
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

    def _means_without(self, data: ContextData, train: NDArray[np.int64]) -> Floats:
        """Context means of the inner training rows; unmeasured ones borrow as in `predict`."""
        where, n = data.where[train], len(data.contexts)
        means = context_means(data.responses[train], where, n, self.prior)
        known = sorted(set(where.tolist()))
        contexts = self._among(tuple(data.contexts[i] for i in known), means[known])
        for i in set(range(n)) - set(known):
            means[i] = contexts.mean(data.contexts[i])[0]
        return means

    # -- predicting ------------------------------------------------------------------------

    def predict(self, names: Sequence[str], context: str | None = None) -> Prediction:
        """Context mean + kernel ridge; the context mean for what no kernel knows, stated."""
        data, here = self.training, self._here(context)
        asked = [canonical_perturbation(n) for n in names]
        mean, borrowed = self.contexts.mean(here)
        parts = np.array([k.between(asked, data.names, data.names) for k in self._opened])
        parts = parts.reshape(len(self._opened), len(asked), len(data.names))
        weights = self.contexts.related(here)
        contexts = np.array([weights.get(c, 0.0) for c in data.contexts])[data.where]
        k = combine(
            pair_kernels(
                parts[:, :, data.who],
                np.broadcast_to(contexts, (len(asked), len(data.who))),
                _same(asked, [data.names[i] for i in data.who]),
            ),
            self._w,
        )
        related = (parts > 0).any(axis=0).sum(axis=1)
        fallback = [joined(borrowed, "" if n else _NOTHING) for n in related]
        return make_prediction(
            self.name, asked, here, data.features, mean + k @ self._coefficients, related,
            fallback,
            spread=np.tile(self._spread, (len(asked), 1)).astype(np.float32),
            neighbours=self._nearest(asked, parts),
            provenance={
                "weights": self.weights,
                "noise": self.noise,
                "scales": [float(x) for x in self.scales],
                "explained": self.explained,
                "hold_out": self.hold_out,
            },
        )  # fmt: skip

    def _nearest(self, names: Sequence[str], parts: Floats, n: int = 10) -> pd.DataFrame:
        """The training perturbations most alike by the weighted kernels, and what each one says."""
        data, m = self.training, len(self._opened)
        weight = self._w[:m] + self._w[m : 2 * m]
        total = combine(parts, weight)
        rows = []
        for i, name in enumerate(names):
            order = [j for j in np.argsort(-total[i], kind="stable") if data.names[j] != name]
            for rank, j in enumerate([j for j in order if total[i, j] > 0][:n], start=1):
                said = [
                    f"{k.name} {parts[p, i, j]:.2f}"
                    for p, k in enumerate(self._opened)
                    if parts[p, i, j] > 0
                ]
                rows.append((name, data.names[j], rank, float(total[i, j]), ", ".join(said)))
        return pd.DataFrame(rows, columns=["perturbation", "neighbour", "rank", "weight", "reason"])


def _same(
    rows: Sequence[str] | NDArray[np.int64], columns: Sequence[str] | NDArray[np.int64]
) -> Floats:
    left, right = np.asarray(rows, dtype=object), np.asarray(columns, dtype=object)
    return np.asarray(left[:, None] == right[None, :], dtype=np.float64)
