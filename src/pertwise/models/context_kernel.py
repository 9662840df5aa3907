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
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import cho_solve

from pertwise._cache import digest, kept
from pertwise._names import canonical_perturbation
from pertwise.arrays.component_scales import (
    N_BLOCKS,
    block_products,
    block_scales,
    leading_maps,
    rescaled,
)
from pertwise.arrays.folds import group_folds
from pertwise.arrays.gaussian_process import KernelFit, combine, factored, fit_weights
from pertwise.errors import InputError
from pertwise.kernels.base import Kernel, same_names
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


def _axes(rest: Floats) -> dict[str, Floats]:
    gram = rest @ rest.T
    maps = leading_maps(gram)
    return {"maps": maps, "along": gram @ maps}


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

    def _sums(
        self, rows: Sequence[str], others: Sequence[str], pool: Sequence[str], which: Sequence[int]
    ) -> tuple[Floats, Floats]:
        """(n_rows, n_others) sums of some kernels, by the weight of what all contexts share and of
        what belongs to one. One kernel is held at a time."""
        shared, own = np.zeros((2, len(rows), len(others)))
        m = len(self._opened)
        for i in which:
            alike = self._opened[i].between(rows, others, pool)
            shared += self._w[i] * alike
            own += self._w[m + i] * alike
        return shared, own

    def _covariance(
        self, sums: tuple[Floats, Floats], contexts: Floats, same: NDArray[np.bool_]
    ) -> Floats:
        """Weighted sum of `pair_kernels` without holding them: all are (a, b)."""
        shared, own = sums
        return np.asarray(shared + own * contexts + self._w[-1] * same)

    def _inside(
        self,
        data: ContextData,
        sums: tuple[Floats, Floats],
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
    ) -> Floats:
        """(n_rows, n_columns) covariance of training rows from sums between training names."""
        at = np.ix_(data.who[rows], data.who[columns])
        return self._covariance(
            (sums[0][at], sums[1][at]),
            self._context_weights(data, data.where[rows], data.where[columns]),
            data.who[rows][:, None] == data.who[columns][None, :],
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
        rest = data.residuals(means)
        moving = [i for i, k in enumerate(self._opened) if getattr(k, "reads_pool", True)]
        still = [i for i in range(len(self._opened)) if i not in moving]
        fold = self._folds(data)
        question = cache(lambda: self._question(data, fold, moving))
        # Both are asked for when the weights are known.
        sums = cache(lambda: self._sums(data.names, data.names, data.names, still))

        def among(pool: Sequence[str]) -> tuple[Floats, Floats]:
            """The kernels that read the pool are made for each, the others once."""
            if not moving:
                return sums()
            more = self._sums(data.names, data.names, pool, moving)
            return sums()[0] + more[0], sums()[1] + more[1]

        def learned() -> dict[str, Floats]:
            found = self._found(data, rest, every[:: -(-len(every) // MAX_ROWS_FOR_WEIGHTS)])
            self._w, self.noise = found.weights, found.noise
            self._choose_scales(data, fold, among)
            single = np.array([self.noise, self.explained])
            return {"weights": self._w, "single": single, "scales": self.scales}

        fit = kept("fit", question, learned)
        self._w, self.scales = fit["weights"], fit["scales"]
        self.noise, self.explained = map(float, fit["single"])
        self.weights = dict(zip(self._kernel_names(), map(float, self._w), strict=True))
        system = self._inside(data, among(data.names), every, every)
        axes = kept("axes", question, lambda: _axes(rest))
        self._maps, self._along = axes["maps"], axes["along"]
        # Solved for what is asked: that is less than for every feature.
        self._factor, self._rest = factored(system.T, self.noise), rest
        self._spread = np.sqrt(np.mean(rest**2, axis=0) * max(0.0, 1.0 - self.explained))

    def _question(
        self, data: ContextData, fold: NDArray[np.int64], moving: Sequence[int]
    ) -> list[Any]:
        """Everything that the weights, scales and axes depend on; kernels by what they say."""
        names = data.names

        def arrays() -> Iterator[Any]:
            yield from (data.responses, data.who, data.where, fold)
            yield from (k.between(names, names, names) for k in self._opened)
            for held in range(self.n_folds):
                pool = sorted({names[i] for i in data.who[fold != held]})
                yield from (self._opened[i].between(names, names, pool) for i in moving)

        lines = None if self._knowledge is None else self._knowledge.lines
        told = [self.hold_out, self.weight_prior, self.n_folds, self.n_related, self.prior, moving]
        about = repr(dict(lines.lines)) if lines else ""
        return [type(self).__qualname__, told, data.contexts, about, digest(arrays())]

    def _found(self, data: ContextData, rest: Floats, some: NDArray[np.int64]) -> KernelFit:
        """Weights and noise by the rows `some`."""
        names = [data.names[i] for i in sorted(set(data.who[some].tolist()))]
        place = {n: i for i, n in enumerate(names)}
        who = np.array([place[data.names[i]] for i in data.who[some]])
        alike = np.array([k.between(names, names, data.names) for k in self._opened])
        at = np.ix_(who, who)
        kernels = pair_kernels(
            np.array([k[at] for k in alike]),
            self._context_weights(data, data.where[some], data.where[some]),
            np.equal.outer(who, who).astype(np.float64),
        )
        return fit_weights(
            kernels,
            rest[some] @ rest[some].T,
            rest.shape[1],
            prior=self.weight_prior,
            max_iterations=MAX_ITERATIONS,
        )

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

    def _choose_scales(
        self,
        data: ContextData,
        fold: NDArray[np.int64],
        among: Callable[[Sequence[str]], tuple[Floats, Floats]],
    ) -> None:
        """Least squares over held-out training rows, with the kernels and axes of what is left."""
        inner, square, total = [], [], 0.0
        for held in range(self.n_folds):
            train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
            if not len(train) or not len(test):
                continue
            sums = among(sorted({data.names[i] for i in data.who[train]}))
            rest = data.residuals(self._means_without(data, train))
            factor = factored(self._inside(data, sums, train, train).T, self.noise)
            k = self._inside(data, sums, test, train)
            rows = cho_solve(factor, k.T, check_finite=False).T
            # Everything by products of rows: there are more features than rows.
            gram = rest @ rest.T
            own, across = gram[np.ix_(train, train)], gram[np.ix_(test, train)]
            maps, through = leading_maps(own), rows @ own
            guess = through @ maps
            inner.append(block_products(guess, across @ maps, float(np.vdot(rows, across))))
            square.append(block_products(guess, guess, float(np.vdot(through, rows))))
            total += float(np.trace(gram[np.ix_(test, test)]))
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
        m, who = len(self._opened), data.who
        k = self._covariance(
            (combine(parts, self._w[:m])[:, who], combine(parts, self._w[m:-1])[:, who]),
            np.broadcast_to(contexts, (len(asked), len(who))),
            same_names(asked, [data.names[i] for i in who]),
        )
        rows = cho_solve(self._factor, k.T, check_finite=False).T
        rows = rescaled(rows, rows @ self._along, self._maps, self.scales)
        related = (parts > 0).any(axis=0).sum(axis=1)
        fallback = [joined(borrowed, "" if n else _NOTHING) for n in related]
        return make_prediction(
            self.name, asked, here, data.features, mean + rows @ self._rest, related,
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
