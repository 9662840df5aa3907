"""Predictions of other tools (chemCPA, STATE, ...) as a method of the drug bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise._files import read_frame, readable
from pertwise.errors import InputError
from pertwise.knowledge.drugs_cells import CellTable
from pertwise.predict.base import Prediction
from pertwise.predict.drugs import CellMean, make_prediction
from pertwise.screen.core import Screen, canonical_perturbation
from pertwise.screen.signatures import normal_scores

_DRUG = ("perturbation", "drug", "condition", "sm_name")
_LINE = ("context", "cell", "cell_line", "cell_name", "cell_type")


@dataclass(frozen=True)
class External:
    """Predicted responses by (drug, line), in the features of the screen they are scored on.

    Attributes
    ----------
    n_features
        How many of the screen's features the file has; the others take the cell mean.
    """

    values: NDArray[np.float64]
    rows: dict[tuple[str, str], int]
    features: tuple[str, ...]
    n_features: int
    source: str

    def predict(
        self, drugs: Sequence[str], context: str, train: Screen, cells: CellTable | None = None
    ) -> Prediction:
        """The file's rows; the cell mean, stated, where it has none (they stay in the score)."""
        mean = CellMean(cells=cells).fit(train).predict(drugs, context).mean
        names = [canonical_perturbation(d) for d in drugs]
        out, fallback = np.array(mean, dtype=np.float64), []
        for i, name in enumerate(names):
            row = self.rows.get((name, context))
            if row is not None:
                own = self.values[row]
                out[i] = np.where(np.isfinite(own), own, out[i])
            fallback.append("" if row is not None else f"not in {self.source}: cell mean")
        support = [int((n, context) in self.rows) for n in names]
        return make_prediction(self.source, names, context, self.features, out, support, fallback)


def read_external(path: Path, screen: Screen, *, rank: bool = False) -> External:
    """Read h5ad (X, obs with drug and line) or parquet (a drug and a line column, then features).

    Parameters
    ----------
    rank
        Turn each predicted row into normal scores of its ranks, for a screen of ranked signatures.

    Raises
    ------
    pertwise.errors.InputError
        If drug or line columns are missing, a pair occurs twice, or no feature is the screen's.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".h5ad":
        from anndata import read_h5ad

        with readable(path, "a file of predictions (h5ad)"):
            data = read_h5ad(path)
            described = data.obs.reset_index(drop=True)
            matrix = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
            matrix = matrix.astype(np.float64)
        features = [str(f) for f in data.var_names]
    elif path.suffix == ".parquet":
        frame = read_frame(path, "a table of predictions")
        names = {*_DRUG, *_LINE}
        columns = [c for c in frame if c not in names and pd.api.types.is_numeric_dtype(frame[c])]
        described, matrix = frame.drop(columns=columns), frame[columns].to_numpy()
        features = [str(c) for c in columns]
    else:
        raise InputError(f"{path}: predictions come as .h5ad or .parquet")
    who = next((c for c in _DRUG if c in described), None)
    line = next((c for c in _LINE if c in described), None)
    if who is None or line is None:
        raise InputError(
            f"{path}: needs a drug column ({', '.join(_DRUG)}) and a line column "
            f"({', '.join(_LINE)}); there are {list(described.columns)}"
        )
    position = {f: i for i, f in enumerate(features)}
    shared = [i for i, f in enumerate(screen.features) if f in position]
    if not shared:
        raise InputError(f"{path}: none of its {len(features)} features is in the screen")
    values = np.full((len(described), screen.n_features), np.nan)
    own = np.asarray(matrix, dtype=np.float64)[:, [position[screen.features[i]] for i in shared]]
    values[:, shared] = normal_scores(own) if rank else own
    rows: dict[tuple[str, str], int] = {}
    for i, (drug, context) in enumerate(
        zip(described[who].astype(str), described[line].astype(str), strict=True)
    ):
        key = (canonical_perturbation(drug), context)
        if key in rows:
            raise InputError(f"{path}: {drug!r} in {context!r} is predicted twice")
        rows[key] = i
    return External(values, rows, screen.features, len(shared), path.name)
