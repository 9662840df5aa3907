"""LLMPert: an ensemble of small networks from gene features to responses, with uncertainty."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._names import canonical_perturbation, split_combination
from pertwise.errors import InputError, unknown_name
from pertwise.kernels.ratings import GivenRatings, profiles_of_marks
from pertwise.models.base import Prediction, only_context
from pertwise.models.llmpert.ensemble import FittedEnsemble, fit_ensemble, mean_variance
from pertwise.models.llmpert.train import EnsembleSettings
from pertwise.parts import part

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.screen import Screen

#: Declared fallback of a perturbation without features: it enters as the mean training input, where
#: the members still differ, so that it keeps an uncertainty.
NO_FEATURES = "no features: predicted at the mean training input"


@part(label="LLMPert", needs=("knowledge", "torch"), reads="ratings")
class LLMPertEnsemble:
    """Ensemble of multilayer perceptrons on gene embeddings (the predictor "LLMPert").

    A perturbation enters as the embedding of its gene, a combination "A+B" as the mean of its
    parts. The mean over members is the prediction; their disagreement is the uncertainty u(p).

    Parameters
    ----------
    embedding
        A kind for ``knowledge.embedding(genes, kind, dim)``, or the rows themselves: a mapping from
        gene to vector (all of one length).
    dim
        Columns of a computed embedding; not used with a mapping.
    ratings
        Marks as further inputs: True for those of the knowledge, a file, tables, or False. They are
        brought to the variance of the embedding over the training rows; what is not marked, or has
        marks and no embedding, enters there as the mean training input.
    seed
        Same seed, machine and number of threads: same predictions. The order of the rows of the
        screen does not matter.
    keep_members
        Whether `predict` returns the members' predictions, 4 bytes x members x perturbations x
        features.
    settings
        All hyper-parameters; single ones can be given as keywords instead (``epochs=50``).

    Notes
    -----
    ``spread`` is sqrt(variance over members + mean squared training residual) per feature. With
    few perturbations the network nearly interpolates, so the residual is too small and the spread
    with it: use it to rank, not as a calibrated error bar.
    """

    name = "LLMPert ensemble"

    def __init__(
        self,
        embedding: str | Mapping[str, Any] = "text",
        *,
        dim: int = 256,
        ratings: GivenRatings = True,
        seed: int = 0,
        keep_members: bool = True,
        settings: EnsembleSettings | None = None,
        **hyper_parameters: Any,
    ) -> None:
        if settings is not None and hyper_parameters:
            raise InputError(
                f"give either settings or single hyper-parameters, not both: got settings and "
                f"{sorted(hyper_parameters)}"
            )
        known = EnsembleSettings.__dataclass_fields__
        for name in hyper_parameters:
            if name not in known:
                raise unknown_name("hyper-parameter of the LLMPert ensemble", name, known)
        self.settings = settings or EnsembleSettings(**hyper_parameters)
        self.seed, self.dim, self.keep_members = seed, dim, keep_members
        self.ratings = ratings
        self._given = None if isinstance(embedding, str) else _as_rows(embedding)
        self.embedding = embedding if isinstance(embedding, str) else "given"
        self._knowledge: Knowledge | None = None
        self._fitted: FittedEnsemble | None = None
        self._features: tuple[str, ...] = ()
        self._trained: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._provenance: dict[str, Any] = {}
        self._n_support = self._width = 0
        # What stands for a gap in the inputs, and what marks are multiplied by (`_start`).
        self._fill: NDArray[np.float32] | None = None
        self._balance = 1.0

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Fit on the measured perturbations of one context that have features.

        Measured perturbations without features are left out and counted in the provenance;
        features measured for no perturbation are predicted as 0 (no change), and counted too.

        Raises
        ------
        InputError
            If nothing measured has features, a perturbation has several rows (several contexts or
            doses), or an embedding kind is asked for without a knowledge folder.
        """
        if self._given is None and knowledge is None:
            raise InputError(
                f"embedding {self.embedding!r} comes from a knowledge folder: pass knowledge to "
                "fit, or give the predictor a mapping from gene to vector"
            )
        self._knowledge = knowledge
        measured = screen.only_measured()
        order = np.argsort(measured.obs["perturbation"].to_numpy(dtype=str), kind="stable")
        names = [str(measured.obs["perturbation"].iloc[i]) for i in order]
        if not names:
            raise InputError("no measured perturbation to learn from: every response is NaN")
        for a, b in itertools.pairwise(names):
            if a == b:
                raise InputError(
                    f"perturbation {a!r} has several measured rows (contexts or doses); fit one "
                    "context at a time: screen.in_context(...)"
                )
        if len(measured.contexts) > 1:
            raise InputError(
                f"{self.name!r} learns from one context at a time, but the screen holds "
                f"{list(measured.contexts)[:5]}; slice it with screen.in_context(...)"
            )
        self._context = measured.contexts[0]
        x, known = self._start(names)
        if not known.any():
            raise InputError(
                f"none of the {len(names)} measured perturbations has features in the embedding "
                f"{self.embedding!r} (the first: {', '.join(names[:3])})"
            )
        y = measured.responses[order][known]
        self._trained = np.flatnonzero(np.isfinite(y).any(axis=0))
        self._fitted = self._fit_arrays(x[known], y[:, self._trained])
        self._features = screen.features
        self._n_support = int(known.sum())
        self._provenance = {
            "method": self.name,
            "embedding": self.embedding,
            "dim": int(x.shape[1]),
            "inputs_of_marks": int(x.shape[1] - self._width),
            "seed": self.seed,
            "settings": self.settings.as_dict(),
            "n_training": self._n_support,
            "n_without_features": int((~known).sum()),
            "without_features": [n for n, k in zip(names, known, strict=True) if not k][:20],
            "n_features_never_measured": len(self._features) - len(self._trained),
            "trained_inputs": self._fitted.n_inputs,
            "trained_outputs": self._fitted.n_outputs,
        }
        return self

    def _fit_arrays(self, x: NDArray[Any], y: NDArray[Any]) -> FittedEnsemble:
        rng = np.random.default_rng(self.seed)
        return fit_ensemble(x, y, rng=rng, settings=self.settings)

    def predict(self, perturbations: Sequence[str], context: str | None = None) -> Prediction:
        """Ensemble mean, spread and (if kept) members; see `NO_FEATURES` for unknown names."""
        names = tuple(canonical_perturbation(p) for p in perturbations)
        fitted, x, known = self._query(names)
        only_context(self.name, self._context, context)
        shape = (len(names), len(self._features))
        mean, spread = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        members = None
        if self.keep_members:
            members = np.zeros((self.settings.members, *shape), np.float32)
            kept = fitted.members(x)
            members[:, :, self._trained] = kept
            part, variance = mean_variance(kept)
        else:
            part, variance = fitted.moments(x)
        mean[:, self._trained] = part
        spread[:, self._trained] = np.sqrt(variance + fitted.noise)
        return Prediction(
            perturbations=names,
            features=self._features,
            mean=mean,
            spread=spread,
            support=pd.DataFrame(
                {
                    "n_support": np.full(len(names), self._n_support),
                    "fallback": np.where(known, "", NO_FEATURES).astype(object),
                },
                index=pd.Index(names),
            ),
            members=members,
            provenance=dict(self._provenance),
        )

    def uncertainty(
        self, perturbations: Sequence[str], features: Sequence[str] | None = None
    ) -> pd.Series:
        """u(p) = mean over features of the (unbiased) variance over members.

        Parameters
        ----------
        features
            Features that count, for instance those of a pathway; None = all. Those never measured
            are skipped.

        Raises
        ------
        UnknownNameError
            For a feature that the screen does not have.
        InputError
            If none of the features was measured, or there is only one member.
        """
        names = tuple(canonical_perturbation(p) for p in perturbations)
        fitted, x, _ = self._query(names)
        columns = None
        if features is not None:
            place = {f: i for i, f in enumerate(self._features)}
            for f in features:
                if f not in place:
                    raise unknown_name("feature", f, place)
            wanted = np.array([place[f] for f in features], dtype=np.intp)
            columns = np.flatnonzero(np.isin(self._trained, wanted))
            if not len(columns):
                raise InputError(
                    f"none of the {len(features)} features asked for was measured in training"
                )
        return pd.Series(fitted.uncertainty(x, columns), index=pd.Index(names), name="uncertainty")

    def _query(
        self, names: Sequence[str]
    ) -> tuple[FittedEnsemble, NDArray[np.float32], NDArray[np.bool_]]:
        if self._fitted is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        x, known = self._inputs(names)
        x[~known] = self._fitted.input_mean
        return self._fitted, x, known

    def _start(self, names: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Input rows of the training perturbations; sets what stands for a gap and the scale."""
        self._fill, self._balance = None, 1.0
        x, known = self._inputs(names)
        if x.shape[1] > self._width and known.any():
            of_marks = slice(self._width, None)
            given = x[known].astype(np.float64)
            variance = np.nansum(np.nanvar(given[:, : self._width], axis=0))
            marked = np.isfinite(given[:, of_marks]).any()
            of_them = np.nansum(np.nanvar(given[:, of_marks], axis=0)) if marked else 0.0
            if variance > 0 and of_them > 0:
                self._balance = float(np.sqrt(variance / of_them))
            x[:, of_marks] *= self._balance
            sums, count = np.nansum(x[known], axis=0), np.isfinite(x[known]).sum(axis=0)
            self._fill = (sums / np.maximum(count, 1)).astype(np.float32)
            x = np.where(np.isfinite(x), x, self._fill)
        return x, known

    def _inputs(self, names: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Input rows (n, d + p) and whether every part of the perturbation has features or marks.

        The last p columns are marks. NaN where one of the two is missing, until `_start` has set
        what stands for a gap.
        """
        parts = [split_combination(n) for n in names]
        genes = sorted({g for p in parts for g in p})
        vectors, self._width = self._vectors(genes)
        marks = profiles_of_marks(self._knowledge, self.ratings, genes) * self._balance
        row = {g: i for i, g in enumerate(genes)}
        x = np.zeros((len(names), self._width + marks.shape[1]), dtype=np.float32)
        known = np.zeros(len(names), dtype=bool)
        for i, p in enumerate(parts):
            marked = _middle([marks[row[g]] for g in p])
            told = all(g in vectors for g in p)
            known[i] = told or bool(np.isfinite(marked).any())
            if not known[i]:
                continue
            x[i, : self._width] = _middle([vectors[g] for g in p]) if told else np.nan
            x[i, self._width :] = marked
        if self._fill is not None:
            x = np.where(np.isfinite(x), x, self._fill)
        return x, known

    def _vectors(self, genes: Sequence[str]) -> tuple[Mapping[str, NDArray[np.float32]], int]:
        """Rows of the embedding, of the genes that have one, and their length."""
        if self._given is not None:
            return self._given, len(next(iter(self._given.values())))
        knowledge = self._knowledge
        if knowledge is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        found = knowledge.embedding(genes, self.embedding, self.dim)
        gone = set(found.missing)
        rows = zip(genes, found.matrix, strict=True)
        return {g: row for g, row in rows if g not in gone}, found.matrix.shape[1]


#: The name of the method in the literature.
LLMPert = LLMPertEnsemble


def _middle(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Mean of some rows; nearly always there is one, of which tens of thousands are asked for."""
    return rows[0] if len(rows) == 1 else np.asarray(np.mean(rows, axis=0))


def _as_rows(given: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    rows = {str(g): np.asarray(v, dtype=np.float32).ravel() for g, v in given.items()}
    if not rows:
        raise InputError("the mapping from gene to vector is empty")
    first, width = next((g, len(v)) for g, v in rows.items())
    for gene, row in rows.items():
        if len(row) != width:
            raise InputError(
                f"vectors must have one length: {first!r} has {width}, {gene!r} has {len(row)}"
            )
        if not np.isfinite(row).all():
            raise InputError(f"the vector of {gene!r} is not finite")
    return rows
