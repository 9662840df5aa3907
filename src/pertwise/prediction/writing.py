"""The files of a prediction."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pertwise._hdf5 import write_h5ad_atomic
from pertwise._io import write_csv_atomic, write_json_atomic
from pertwise.prediction.explaining import Z90
from pertwise.provenance import jsonable
from pertwise.screen.rows import at_rows, rows_of

if TYPE_CHECKING:
    from anndata import AnnData

    from pertwise.models import Prediction
    from pertwise.prediction.predicting import Predicted


def write_prediction(found: Predicted, out: str | os.PathLike[str]) -> dict[str, Path]:
    """Write prediction.h5ad, prediction.csv, neighbours.csv, cross_validation.csv and, last,
    prediction.json into the folder `out`, each atomically.

    prediction.h5ad: X = means, layers["spread"] (standard deviation; absent when the method gives
    none), obs = support columns and ``measured``. prediction.csv is long: one line per
    perturbation and feature with mean, spread and the 90 % interval mean -/+ 1.645 spread.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ("prediction.h5ad", "prediction.csv", "neighbours.csv", "prediction.json")
    paths = {name: folder / name for name in kinds}
    record = jsonable(found.record)
    write_h5ad_atomic(paths["prediction.h5ad"], to_anndata(found))
    write_csv_atomic(paths["prediction.csv"], long_table(found.prediction))
    columns = ["perturbation", "neighbour", "rank", "weight", "reason"]
    table = found.prediction.neighbours
    write_csv_atomic(
        paths["neighbours.csv"], pd.DataFrame(columns=columns) if table is None else table[columns]
    )
    if found.standing is not None:
        paths["cross_validation.csv"] = folder / "cross_validation.csv"
        told = [
            s.per_perturbation.assign(setting=s.setting) for s in (found.standing, *found.further)
        ]
        write_csv_atomic(paths["cross_validation.csv"], pd.concat(told), index=True)
    else:
        # Scores of an earlier run in this folder would be taken for those of this one.
        (folder / "cross_validation.csv").unlink(missing_ok=True)
    write_json_atomic(paths["prediction.json"], record)
    return paths


def long_table(prediction: Prediction) -> pd.DataFrame:
    """perturbation, feature, mean, spread, low_90, high_90 (empty without a spread), fallback."""
    n, d = prediction.mean.shape
    mean = prediction.mean.ravel().astype(np.float64)
    spread = (
        np.full(n * d, np.nan)
        if prediction.spread is None
        else prediction.spread.ravel().astype(np.float64)
    )
    return pd.DataFrame(
        {
            "perturbation": np.repeat(np.array(prediction.perturbations, dtype=object), d),
            "feature": np.tile(np.array(prediction.features, dtype=object), n),
            "mean": mean,
            "spread": spread,
            "low_90": mean - Z90 * spread,
            "high_90": mean + Z90 * spread,
            "fallback": np.repeat(prediction.support["fallback"].to_numpy(dtype=object), d),
        }
    )


def into_anndata(found: Predicted, data: AnnData, key: str | None = None) -> AnnData:
    """See `Predicted.to_anndata`."""
    made = found.prediction
    at = rows_of(data, made.perturbations, key, found.context)
    data.obsm["pertwise_predicted"] = pd.DataFrame(
        at_rows(made.mean, at), index=data.obs_names, columns=list(made.features)
    )
    if made.spread is not None:
        data.obs["pertwise_spread"] = at_rows(np.nanmean(made.spread, axis=1), at)
    data.uns["pertwise_prediction"] = json.dumps(jsonable(found.record))
    return data


def to_anndata(found: Predicted) -> AnnData:
    """Means as X, ``layers["spread"]``, support and ``measured`` in obs, the record in uns."""
    from anndata import AnnData

    record = jsonable(found.record)
    prediction = found.prediction
    obs = prediction.support.copy()
    obs.index = pd.Index(prediction.perturbations)
    hidden = set() if found.measured is None else set(found.record["settings"]["hidden"])
    for column in {"fallback", "setting"} & set(obs.columns):
        obs[column] = obs[column].astype(str)
    obs["measured"] = [p in hidden for p in prediction.perturbations]
    data = AnnData(
        X=np.array(prediction.mean),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(prediction.features)),
        uns={"pertwise_prediction": json.dumps(record)},
    )
    if prediction.spread is not None:
        data.layers["spread"] = np.array(prediction.spread)
    return data
