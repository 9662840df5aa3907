"""`external`: predictions of another tool (chemCPA, STATE, GEARS, ...) as a predictor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._files import reading
from pertwise._names import COMBINATION, canonical_perturbation
from pertwise._tables import columns_of, read_frame
from pertwise.errors import InputError
from pertwise.models.base import Prediction
from pertwise.models.context_means import ContextMean
from pertwise.models.contexts import joined, make_prediction
from pertwise.parts import part
from pertwise.screen.core import Screen
from pertwise.screen.labels import control_kind, without_controls
from pertwise.screen.signatures import normal_scores

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

Values = Literal["auto", "deltas", "means"]
_NAME = (
    "perturbation", "target_gene", "gene", "drug", "condition", "sm_name", "pert", "compound",
    "treatment", "gene_perturbed", "drugname_drugconc",
)  # fmt: skip
_CONTEXT = ("context", "cell", "cell_line", "cell_name", "cell_type", "celltype")


@part(reads="file", argument="file")
class ExternalPredictor:
    """What another tool predicted, read from a file; it learns nothing.

    Parameters
    ----------
    file
        See `read_external`. What it lacks takes the context mean, stated, and stays in the score.
    rank
        Turn each predicted row into normal scores of its ranks, for a screen of ranked signatures.
    values
        What the rows of a file without controls are: "deltas" ("auto") or "means".
    """

    #: Answers for any context that the file holds.
    contexts = True

    def __init__(
        self,
        file: str | os.PathLike[str],
        *,
        rank: bool = False,
        name: str = "",
        values: Values = "auto",
    ) -> None:
        if not Path(file).is_file():
            raise InputError(f"{file}: no such file")
        if values not in get_args(Values):
            raise InputError(f"values {values!r} is not one of {', '.join(get_args(Values))}")
        self.file, self.rank, self.values = Path(file), rank, values
        self.name: str = name or self.file.name
        self._mean: ContextMean | None = None

    def fit(self, screen: Screen, knowledge: Knowledge | None = None) -> Self:
        """Keep the context means; match the file's features to those of the screen."""
        self._mean = ContextMean().fit(screen, knowledge)
        self._found = read_external(self.file, screen, rank=self.rank, values=self.values)
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


def read_external(
    path: Path, screen: Screen, *, rank: bool = False, values: Values = "auto"
) -> External:
    """Read h5ad (X, obs) or parquet, csv, tsv: features beside the describing columns, or long
    (perturbation, feature, mean).

    A column names the perturbation and, for a screen of several contexts, another one the context.
    Rows of a control (also GEARS's "A+ctrl") are recognised: what is predicted is then subtracted
    from them, and cells are averaged first, as `read_screen` does with any screen.

    Parameters
    ----------
    values
        Of rows without a control: "deltas" (what "auto" takes them for), or "means" from which the
        screen's control mean of the context is subtracted.

    Raises
    ------
    pertwise.errors.InputError
        If those columns are missing, a pair occurs twice, no feature is the screen's, or means
        have no control to be compared with.
    """
    described, matrix, features = _rows_of(path)
    who = next((c for c in _NAME if c in described), None)
    where = next((c for c in _CONTEXT if c in described), None)
    if who is None or (where is None and len(screen.contexts) > 1):
        raise InputError(
            f"{path}: needs a column of perturbations ({', '.join(_NAME)}) and, for a screen of "
            f"several contexts, one of contexts ({', '.join(_CONTEXT)}); there are "
            f"{columns_of(described)}"
        )
    labels = described[who].astype(str)
    alone = {label: "" if control_kind(label) else _alone(label) for label in labels.unique()}
    names = labels.map(alone)
    contexts = pd.Series("", index=names.index) if where is None else described[where].astype(str)
    controlled = bool((names == "").any())
    if controlled:
        theirs = _against_controls(path, (described, matrix, features), who, where)
        matrix, features = theirs.responses, list(theirs.features)
        names = theirs.obs["perturbation"]
        contexts = theirs.obs["context"] if where else pd.Series("", index=names.index)
    position = {f: i for i, f in enumerate(features)}
    shared = [i for i, f in enumerate(screen.features) if f in position]
    if not shared:
        raise InputError(f"{path}: none of its {len(features)} features is in the screen")
    out = np.full((len(names), screen.n_features), np.nan)
    own = np.asarray(matrix, dtype=np.float64)[:, [position[screen.features[i]] for i in shared]]
    out[:, shared] = normal_scores(own) if rank else own
    if values == "means" and not controlled:
        out -= _control_means(path, screen, list(contexts))
    rows: dict[tuple[str, str], int] = {}
    for i, (name, context) in enumerate(zip(names, contexts, strict=True)):
        key = (canonical_perturbation(name), context)
        if key in rows:
            raise InputError(
                f"{path}: {name!r} in {context!r} is predicted twice; predicted cells come with "
                "cells of the control, then they are averaged and compared with those"
            )
        rows[key] = i
    return External(out, rows, len(shared))


def _rows_of(path: Path) -> tuple[pd.DataFrame, Any, list[str]]:
    """(what describes the rows, (n, d) values, features) of a file."""
    if path.suffix == ".h5ad":
        from anndata import read_h5ad

        with reading(path, "a file of predictions (h5ad)"):
            data = read_h5ad(path)
            matrix = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
            return data.obs.reset_index(drop=True), matrix, [str(f) for f in data.var_names]
    if path.suffix not in (".parquet", ".csv", ".tsv"):
        raise InputError(f"{path}: predictions come as .h5ad, .parquet, .csv or .tsv")
    frame = read_frame(path)
    described = {*_NAME, *_CONTEXT}
    if {"feature", "mean"} <= set(frame):
        keys = [c for c in frame if c in described]
        if keys and not frame.duplicated([*keys, "feature"]).any():
            wide = frame.pivot(index=keys, columns="feature", values="mean")
            return wide.index.to_frame(index=False), wide.to_numpy(), list(map(str, wide.columns))
    columns = [c for c in frame if c not in described and pd.api.types.is_numeric_dtype(frame[c])]
    return frame.drop(columns=columns), frame[columns].to_numpy(), [str(c) for c in columns]


def _alone(label: str) -> str:
    """A label without the controls that GEARS joins to it ("A+ctrl" -> "A")."""
    return COMBINATION.join(without_controls(label, ("ctrl",)))


def _against_controls(
    path: Path, rows: tuple[pd.DataFrame, Any, list[str]], who: str, where: str | None
) -> Screen:
    """Deltas of a file that holds its controls, of cells or of means; `rows` as of `_rows_of`."""
    from anndata import AnnData

    from pertwise.screen import PseudobulkSettings, read_screen
    from pertwise.screen.layouts import Keys

    described, matrix, features = rows
    data: Any = path
    if path.suffix != ".h5ad":
        obs = described.set_axis(described.index.astype(str), axis=0)
        data = AnnData(np.asarray(matrix), obs=obs, var=pd.DataFrame(index=pd.Index(features)))
    # Models write smooth values, which show no scale: what is not counts is taken as it stands.
    whole = bool(np.min(matrix) >= 0 and np.array_equal(matrix, np.rint(matrix)))
    scale = "counts" if whole else "as-is"
    keys = Keys(perturbation=who, context=where or "", dose="", batch="", labels="as-is")
    settings = PseudobulkSettings(keys=keys, n_hvg=None, scale=scale, layer="X", min_cells=1)
    return read_screen(
        data, perturbation_key=who, context_key=where or "", dose_key="", batch_key="",
        labels="as-is", pseudobulk=settings,
    )  # fmt: skip


def _control_means(path: Path, screen: Screen, contexts: list[str]) -> NDArray[np.float64]:
    """(n, d) mean of the screen's controls in the context of every row."""
    at = {c: i for i, c in enumerate(screen.contexts)}
    only = 0 if len(at) == 1 else None
    found = [at.get(c, only) for c in contexts]
    unknown = [c for c, i in zip(contexts, found, strict=True) if i is None]
    base = screen.control_mean[[i or 0 for i in found]].astype(np.float64)
    if unknown or np.isnan(base).any():
        why = f"has no context {unknown[0]!r}" if unknown else "does not hold its control means"
        raise InputError(
            f"{path}: means need a control: the screen {why}; add a row of the control to the file"
        )
    return base
