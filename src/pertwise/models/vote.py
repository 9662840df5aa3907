"""`KernelVotePredictor`: every measured perturbation votes, weighted by how alike it is.

Made for tables with many gaps, such as labelled pairs (perturbation, gene), where each feature was
measured in few perturbations: a gap is left out, not filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as product_of
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, identity

from pertwise.kernels.genes import (
    DEFAULT_KERNELS,
    GeneBlocks,
    KernelSource,
    gene_blocks,
    product,
)
from pertwise.kernels.ratings import GivenRatings, MarkKernels
from pertwise.kernels.transfer import GivenScreens
from pertwise.models.base import MEAN_FALLBACK, Prediction, only_context, support_table
from pertwise.models.kernel_model import KernelModel
from pertwise.parts import part
from pertwise.screen.training import TrainingData, canonical

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Votes are kept in single precision: tables of labels are large.
Floats = NDArray[np.floating[Any]]
#: Exponents of the similarity, and pseudo-votes for the feature's mean (in units of the median
#: total vote), tried on left-out training rows.
POWERS = (1.0, 2.0, 3.0, 4.0)
PRIORS = (0.3, 1.0, 3.0, 10.0)
#: Shares of the similarity that come from marks, and from other screens, where there are some.
SHARES = (0.0, 0.25, 0.5, 0.75)
#: Related features that lend their votes: this many, from these kernels.
N_RELATED = 30
FEATURE_KERNELS = ("string", "go", "reactome", "complexes", "text", "string_coexpression")
MAX_TUNING_ROWS = 500
#: A feature needs this many values to take part in tuning.
MIN_VALUES = 5


def vote(weights: Floats, residual: Floats, measured: Floats, prior: float) -> Floats:
    """(q, d) sum_j w_ij r_jd / (sum_j w_ij m_jd + prior): Nadaraya-Watson with a prior at zero.

    Parameters
    ----------
    weights
        (q, n) non-negative; residual (n, d) with 0 where not measured; measured (n, d) 0/1, or any
        non-negative number of values behind an entry.
    """
    return np.asarray((weights @ residual) / (weights @ measured + prior))


def mean_feature_correlation(predicted: Floats, truth: Floats) -> float:
    """Mean over features of the Pearson correlation over the rows measured for it.

    Features with fewer than `MIN_VALUES` values or without variance are left out; 0 if none is
    left. It asks what an AUROC per feature asks: which perturbations move this feature?
    """
    known = np.isfinite(truth)
    count = known.sum(axis=0)
    safe = np.maximum(count, 1)

    def centred(x: Floats) -> Floats:
        x = np.where(known, x, 0.0)
        return np.where(known, x - x.sum(axis=0) / safe, 0.0)

    p, t = centred(predicted), centred(np.nan_to_num(truth))
    size = np.sqrt((p**2).sum(axis=0) * (t**2).sum(axis=0))
    use = (count >= MIN_VALUES) & (size > 1e-12)
    return float(((p * t).sum(axis=0)[use] / size[use]).mean()) if use.any() else 0.0


def related_features(gram: Floats, n_related: int = N_RELATED) -> csr_matrix:
    """(d, d) sparse: 1 on the diagonal, squared similarity for the strongest related features."""
    off = np.maximum(gram, 0.0) ** 2
    np.fill_diagonal(off, 0.0)
    k = min(n_related, len(off) - 1)
    if k > 0:
        border = -np.partition(-off, k - 1, axis=1)[:, k - 1 : k]
        off[off < border] = 0.0
    return (csr_matrix(off) + identity(len(off))).tocsr()


@part(label="kernel vote", needs="knowledge", reads=("other", "ratings"))
class KernelVotePredictor(KernelModel):
    """Mean of the measured values of alike perturbations, feature by feature.

    prediction(p, d) = f_d + sum_q w_pq (y_qd - f_d) / (sum_q w_pq + c) over the perturbations q
    measured for feature d; w = mean kernel ^ power; f_d the feature's mean, shrunk to the overall
    mean by `shrink` pseudo-values. Power, prior c and whether related features (other genes of the
    same complex or pathway) lend their votes are chosen by leave-one-out inside the training set
    (`mean_feature_correlation`).

    Parameters
    ----------
    kernels, sources, ratings, other, look_up, exclude_from_screen
        See `KernelModel`; all are averaged. Kernels of marks and those of other screens are
        averaged apart from the rest, and how much each of these means counts is chosen with the
        power (`SHARES`).
    related
        Let related features lend votes where that helps: needs features that are genes.
    """

    _squares = 0

    def __init__(
        self,
        kernels: Sequence[str] = DEFAULT_KERNELS,
        *,
        sources: Sequence[KernelSource] = (),
        ratings: GivenRatings = True,
        other: GivenScreens = (),
        look_up: bool = True,
        related: bool = True,
        shrink: float = 5.0,
        exclude_from_screen: bool = True,
        name: str = "kernel vote",
    ) -> None:
        super().__init__(
            kernels,
            sources,
            exclude_from_screen,
            name,
            ratings=ratings,
            other=other,
            look_up=look_up,
        )
        self.related = related
        self.shrink = shrink

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Choose power, prior and sharing on left-out rows; keep the votes.

        Raises
        ------
        pertwise.errors.InputError
            If nothing is measured or there is no knowledge to build a kernel from.
        """
        data = self._start(screen, knowledge)
        known = np.isfinite(data.y)
        overall = float(np.nanmean(data.y))
        total = np.nansum(data.y, axis=0)
        self._centre = (total + self.shrink * overall) / (known.sum(axis=0) + self.shrink)
        residual = np.where(known, data.y - self._centre, 0.0).astype(np.float32)
        self._votes = [(residual, known.astype(np.float32))]
        if self.related:
            shared = self._share(residual, known.astype(np.float32))
            if shared is not None:
                self._votes.append(shared)
        self._choose(data)
        return self

    def _share(self, residual: Floats, measured: Floats) -> tuple[Floats, Floats] | None:
        """Votes with those of related features added; None when the features are no known genes."""
        genes = gene_blocks(
            self._folder(),
            self._trained().features,
            FEATURE_KERNELS,
            exclude_from_screen=self.exclude_from_screen,
            skip_missing=True,
        )
        if genes.known.mean() < 0.5:
            return None
        gram = np.zeros((len(genes.names), len(genes.names)), dtype=np.float32)
        for block in genes.blocks:
            gram += (block @ block.T).toarray() / len(genes.blocks)
        share = related_features(gram)
        return (
            np.asarray((share @ residual.T).T, dtype=np.float32),
            np.asarray((share @ measured.T).T, dtype=np.float32),
        )

    def _groups_of(self, kinds: Sequence[str]) -> list[int]:
        """For each kernel the group whose mean it joins: 0 rest, 1 marks, 2 other screens."""
        marks = {k for m in self.sources if isinstance(m, MarkKernels) for k in m.kinds}
        return [
            2 if other else int(kind in marks)
            for kind, other in zip(kinds, self._of_others(kinds), strict=True)
        ]

    def _choose(self, data: TrainingData) -> None:
        n = len(data.names)
        self._groups = sorted(set(self._groups_of(self._blocks.kinds)))
        self._power, self._prior, self._which = 1.0, 1.0, 0
        self._shares: tuple[float, ...] = (0.0,) * (len(self._groups) - 1)
        self.tried: dict[tuple[tuple[float, ...], float, float, bool], float] = {}
        if n < 3:
            return
        rows = np.arange(0, n, int(np.ceil(n / MAX_TUNING_ROWS)))
        truth = data.y[rows] - self._centre
        means = self._means(self._blocks.take(rows))
        for shares in product_of(SHARES, repeat=len(means) - 1):
            if sum(shares) < 1.0:
                self._try(self._mixed(means, shares, rows), shares, truth)
        self._shares, self._power, prior, sharing = max(self.tried, key=lambda k: self.tried[k])
        self._which = int(sharing)
        weights = (self._mixed(means, self._shares, rows) ** self._power).astype(np.float32)
        self._prior = prior * self._unit(weights @ self._votes[self._which][1])

    def _try(self, similarity: Floats, shares: tuple[float, ...], truth: Floats) -> None:
        for power in POWERS:
            weights = (similarity**power).astype(np.float32)
            for which, (residual, measured) in enumerate(self._votes):
                total, behind = weights @ residual, weights @ measured
                unit = self._unit(behind)
                for prior in PRIORS:
                    held_out = total / (behind + prior * unit)
                    quality = mean_feature_correlation(held_out, truth)
                    self.tried[(shares, power, prior, bool(which))] = quality

    @staticmethod
    def _unit(behind: Floats) -> float:
        positive = behind[behind > 0]
        return float(np.median(positive)) if positive.size else 1.0

    def _means(self, asked: GeneBlocks) -> list[Floats]:
        """(q, n) mean of the kernels of each group that there is."""
        groups = self._groups_of(asked.kinds)
        out = [np.zeros((len(asked.names), len(self._blocks.names))) for _ in self._groups]
        for group, a, b in zip(groups, asked.blocks, self._blocks.blocks, strict=True):
            out[self._groups.index(group)] += product(a, b)
        return [total / groups.count(g) for g, total in zip(self._groups, out, strict=True)]

    @staticmethod
    def _mixed(
        means: Sequence[Floats],
        shares: Sequence[float],
        left_out: NDArray[np.intp] | None = None,
    ) -> Floats:
        """The similarity: `shares` of all groups but the first, which has the rest.

        Negative values (of dense embeddings) count as 0, those of a row with itself are left out.
        """
        mean = (1.0 - sum(shares)) * means[0]
        for share, other in zip(shares, means[1:], strict=True):
            mean = mean + share * other
        mean = np.maximum(mean, 0.0)
        if left_out is not None:
            mean[np.arange(len(left_out)), left_out] = 0.0
        return np.asarray(mean)

    def _share_of(self, group: int) -> float:
        """Share of the similarity that a group of kernels has."""
        shares = (1.0 - sum(self._shares), *self._shares)
        return dict(zip(self._groups, shares, strict=True)).get(group, 0.0)

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Votes; perturbations that no kernel knows get the feature means, stated."""
        data = self._trained()
        only_context(self.name, data.context, context)
        names = canonical(perturbations)
        asked = self._asked(names)
        similarity = self._mixed(self._means(asked), self._shares)
        weights = np.asarray(similarity**self._power, dtype=np.float32)
        known = np.asarray((weights > 0).any(axis=1))
        residual, measured = self._votes[self._which]
        change = vote(weights, residual, measured, max(self._prior, 1e-9))
        mean = self._centre + np.where(known[:, None], change, 0.0)
        return Prediction(
            perturbations=names,
            features=data.features,
            mean=mean.astype(np.float32),
            spread=None,
            support=support_table(
                names, (weights > 0).sum(axis=1), ["" if i else MEAN_FALLBACK for i in known]
            ),
            provenance={
                "method": self.name,
                "kernels": list(self._blocks.kinds),
                "power": self._power,
                "prior": self._prior,
                "share_of_marks": self._share_of(1),
                "trust_in_other_screens": self._share_of(2),
                "related_features": bool(self._which),
            },
        )
