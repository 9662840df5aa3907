"""`external`: predictions of another tool (chemCPA, STATE, GEARS, ...) as a predictor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._files import reading
from pertwise._names import canonical_perturbation
from pertwise._tables import columns_of, read_frame
from pertwise.errors import InputError
from pertwise.models.base import Prediction
from pertwise.models.context_means import ContextMean
from pertwise.models.contexts import joined, make_prediction
from pertwise.parts import part
from pertwise.screen.core import Screen
from pertwise.screen.signatures import normal_scores

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

_NAME = ("perturbation", "gene", "drug", "condition", "sm_name", "pert")
_CONTEXT = ("context", "cell", "cell_line", "cell_name", "cell_type")


@part(reads="file", argument="file")
class ExternalPredictor:
    """What another tool predicted, read from a file; it learns nothing.

    Parameters
    ----------
    file
        See `read_external`. What it lacks takes the context mean, stated, and stays in the score.
    rank
        Turn each predicted row into normal scores of its ranks, for a screen of ranked signatures.
    """

    #: Answers for any context that the file holds.
    contexts = True

    def __init__(self, file: str | os.PathLike[str], *, rank: bool = False, name: str = "") -> None:
        if not Path(file).is_file():
            raise InputError(f"{file}: no such file")
        self.file, self.rank = Path(file), rank
        self.name: str = name or self.file.name
        self._mean: ContextMean | None = None

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Keep the context means; match the file's features to those of the screen."""
        self._mean = ContextMean().fit(screen, knowledge)
        self._found = read_external(self.file, screen, rank=self.rank)
        return self

    def predict(self, names: Sequence[str], context: str | None = None) -> Prediction:
        """The file's rows; the context mean, stated, where it has none."""
        if self._mean is None:
            raise InputError(f"{self.name!r} has not been fitted; call fit first")
        asked = [canonical_perturbation(n) for n in names]
        mean = self._mean.predict(asked, context)
        here = str(mean.provenance["context"])
        out, fallback, support = np.array(mean.mean, dtype=np.float64), [], []
        for i, name in enumerate(asked):
            row = self._found.row(name, here)
            if row is not None:
                own = self._found.values[row]
                out[i] = np.where(np.isfinite(own), own, out[i])
            support.append(int(row is not None))
            note = "" if row is not None else f"not in {self.file.name}: context mean"
            fallback.append(joined(note, "" if row is not None else _said(mean, i)))
        return make_prediction(
            self.name, asked, here, mean.features, out, support, fallback,
            provenance={"features_predicted": self._found.n_features},
        )  # fmt: skip


def _said(mean: Prediction, row: int) -> str:
    return str(mean.support["fallback"].iloc[row])


@dataclass(frozen=True)
class External:
    """Predicted responses by (perturbation, context), in the features of a screen.

    Attributes
    ----------
    n_features
        How many of the screen's features the file has; the others take the context mean.
    """

    values: NDArray[np.float64]
    rows: dict[tuple[str, str], int]
    n_features: int

    def row(self, name: str, context: str) -> int | None:
        """Row of a perturbation in a context; a file without contexts answers for all."""
        return self.rows.get((name, context), self.rows.get((name, "")))


def read_external(path: Path, screen: Screen, *, rank: bool = False) -> External:
    """Read h5ad (X, obs) or parquet, csv, tsv (features beside the describing columns).

    A column names the perturbation and, for a screen of several contexts, another one the context.

    Raises
    ------
    pertwise.errors.InputError
        If those columns are missing, a pair occurs twice, or no feature is the screen's.
    """
    if path.suffix == ".h5ad":
        from anndata import read_h5ad

        with reading(path, "a file of predictions (h5ad)"):
            data = read_h5ad(path)
            described = data.obs.reset_index(drop=True)
            matrix = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
            matrix = matrix.astype(np.float64)
        features = [str(f) for f in data.var_names]
    elif path.suffix in (".parquet", ".csv", ".tsv"):
        frame = read_frame(path)
        names = {*_NAME, *_CONTEXT}
        columns = [c for c in frame if c not in names and pd.api.types.is_numeric_dtype(frame[c])]
        described, matrix = frame.drop(columns=columns), frame[columns].to_numpy()
        features = [str(c) for c in columns]
    else:
        raise InputError(f"{path}: predictions come as .h5ad, .parquet, .csv or .tsv")
    who = next((c for c in _NAME if c in described), None)
    where = next((c for c in _CONTEXT if c in described), None)
    if who is None or (where is None and len(screen.contexts) > 1):
        raise InputError(
            f"{path}: needs a column of perturbations ({', '.join(_NAME)}) and, for a screen of "
            f"several contexts, one of contexts ({', '.join(_CONTEXT)}); there are "
            f"{columns_of(described)}"
        )
    position = {f: i for i, f in enumerate(features)}
    shared = [i for i, f in enumerate(screen.features) if f in position]
    if not shared:
        raise InputError(f"{path}: none of its {len(features)} features is in the screen")
    values = np.full((len(described), screen.n_features), np.nan)
    own = np.asarray(matrix, dtype=np.float64)[:, [position[screen.features[i]] for i in shared]]
    values[:, shared] = normal_scores(own) if rank else own
    rows: dict[tuple[str, str], int] = {}
    contexts = [""] * len(described) if where is None else described[where].astype(str)
    for i, (name, context) in enumerate(zip(described[who].astype(str), contexts, strict=True)):
        key = (canonical_perturbation(name), context)
        if key in rows:
            raise InputError(f"{path}: {name!r} in {context!r} is predicted twice")
        rows[key] = i
    return External(values, rows, len(shared))
