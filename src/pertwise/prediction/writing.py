"""The files of a prediction."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from pertwise._files import reading
from pertwise._hdf5 import write_content_atomic
from pertwise._io import write_csv_atomic, write_json_atomic
from pertwise._names import is_combination
from pertwise.errors import InputError
from pertwise.prediction.explaining import Z90
from pertwise.provenance import jsonable
from pertwise.screen.anndata_rows import at_rows, rows_of

if TYPE_CHECKING:
    from anndata import AnnData

    from pertwise.models import Prediction
    from pertwise.prediction.predicting import Predicted


Values = Literal["deltas", "means"]
#: Key of uns under which a prediction keeps its record.
RECORD = "pertwise_prediction"
#: Column of labels -> what its readers call a control.
CONTROLS = {"condition": "ctrl", "target_gene": "non-targeting"}
_OWN = ("is_control", "context", "n_support", "fallback", "setting", "measured")


def write_prediction(
    found: Predicted, out: str | os.PathLike[str], **layout: Any
) -> dict[str, Path]:
    """Write prediction.h5ad, prediction.csv, neighbours.csv, cross_validation.csv and, last,
    prediction.json into the folder `out`, each atomically.

    prediction.h5ad: see `to_anndata`, which takes `layout` (column, control, values);
    `read_prediction` reads it back. prediction.csv is long: one line per
    perturbation and feature with mean, spread and the 90 % interval mean -/+ 1.645 spread.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ("prediction.h5ad", "prediction.csv", "neighbours.csv", "prediction.json")
    paths = {name: folder / name for name in kinds}
    record = jsonable(found.record)
    write_content_atomic(paths["prediction.h5ad"], **_content(found, **layout))
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


def to_anndata(
    found: Predicted,
    *,
    column: str = "perturbation",
    control: str | None = None,
    values: Values = "deltas",
) -> AnnData:
    """A row a perturbation and a last one of the control, as other tools read it.

    X = means, ``layers["spread"]`` their standard deviation (0 for the control) and, of
    ensembles, ``layers["epistemic"]`` the part over their members, var = features,
    obs = `column` (label), context, is_control, the support columns and ``measured``. uns: values,
    unit, cell_line, simulated, and the whole record as JSON in ``pertwise_prediction``.

    Parameters
    ----------
    column
        Name of the column of labels: "perturbation" (scPerturb), "target_gene" (STATE, Virtual
        Cell Challenge), "condition" (GEARS: labels are then "A+ctrl", "A+B" and "ctrl") or any.
    control
        Label of the control row; None takes that of the screen, else what goes with `column`.
    values
        "deltas" against the control (whose row is 0), or "means": the control mean of the screen
        is added.

    Raises
    ------
    pertwise.errors.InputError
        If means are asked for and the screen does not know its control mean, or `control` is the
        name of something predicted.
    """
    from anndata import AnnData

    return AnnData(**_content(found, column=column, control=control, values=values))


def _content(
    found: Predicted,
    *,
    column: str = "perturbation",
    control: str | None = None,
    values: Values = "deltas",
) -> dict[str, Any]:
    record = jsonable(found.record)
    prediction = found.prediction
    names = list(prediction.perturbations)
    label = control or CONTROLS.get(column) or found.control or "control"
    if label in names or column in _OWN:
        what = f"control label {label!r}" if label in names else f"column {column!r}"
        raise InputError(f"the {what} is taken; choose another name for it")
    base = np.zeros(len(prediction.features), dtype=np.float32)
    if values == "means":
        if found.control_mean is None or not np.isfinite(found.control_mean).all():
            raise InputError(
                "the screen does not hold the mean of its controls (control-subtracted values), so "
                "only deltas can be written"
            )
        base = np.asarray(found.control_mean, dtype=np.float32)
    obs = prediction.support.copy()
    hidden = set() if found.measured is None else set(found.record["settings"]["hidden"])
    for text in {"fallback", "setting"} & set(obs.columns):
        obs[text] = obs[text].astype(str)
    obs["measured"] = [p in hidden for p in names]
    obs.index = pd.Index(names)
    obs.loc[label] = [{"b": False, "i": 0, "f": np.nan}.get(d.kind, "") for d in obs.dtypes]
    obs = obs.astype(dict(zip(prediction.support, prediction.support.dtypes, strict=True)))
    obs["measured"] = obs["measured"].astype(bool)
    obs.insert(0, column, [*(label_in(column, n, label) for n in names), label])
    obs.insert(1, "is_control", [False] * len(names) + [True])
    if found.context:
        obs.insert(2, "context", found.context)
    layers = {}
    if prediction.spread is not None:
        layers["spread"] = np.vstack([prediction.spread, np.zeros_like(base)])
    if prediction.epistemic is not None:
        known = prediction.epistemic.astype(np.float32)
        layers["epistemic"] = np.vstack([known, np.zeros_like(base)])
    return {
        "X": np.vstack([prediction.mean + base, base]).astype(np.float32),
        "obs": obs,
        "var": pd.DataFrame(index=pd.Index(prediction.features)),
        "layers": layers,
        "uns": {
            "values": values,
            "unit": found.unit,
            "source": "pertwise predict",
            "simulated": bool(found.simulated),
            RECORD: json.dumps(record),
            **({"cell_line": found.context} if found.context else {}),
        },
    }


def label_in(column: str, name: str, control: str) -> str:
    """A perturbation as it is written in a column: in GEARS's with its control ("A+ctrl")."""
    return f"{name}+{control}" if column == "condition" and not is_combination(name) else name


def read_prediction(path: str | os.PathLike[str]) -> Prediction:
    """The `Prediction` in a ``prediction.h5ad`` that `write_prediction` wrote.

    Means are control-subtracted again, labels are pertwise names again; neighbours, members and
    what else the run found stay in the other files.

    Raises
    ------
    pertwise.errors.InputError
        If the file is none of pertwise's predictions; read others with the predictor ``external``.
    """
    import anndata

    from pertwise.models import Prediction
    from pertwise.screen.layouts import Keys, parse_label, recognise

    with reading(path, "a prediction (h5ad)"):
        data = anndata.read_h5ad(path)
    if RECORD not in data.uns or "is_control" not in data.obs:
        raise InputError(
            f"{path} is not a prediction that pertwise wrote (no {RECORD} in uns); other tools' "
            "predictions are scored with `pertwise bench external`"
        )
    # What was edited since may lack the control row, or hold a record that is none.
    with reading(path, "a prediction that pertwise wrote"):
        obs = data.obs
        if lacking := sorted({"n_support", "fallback"} - set(obs.columns)):
            raise InputError(f"{path}: a prediction without {', '.join(lacking)} in obs")
        own = ~obs["is_control"].to_numpy(dtype=bool)
        layout = recognise(obs, Keys(str(obs.columns[0]), labels="as-is"), where=str(path))
        labels = obs[layout.perturbation].astype(str)[own]
        names = tuple(parse_label(label, layout)[0] for label in labels)
        x = np.asarray(data.X, dtype=np.float32)
        spread = data.layers.get("spread")
        support = obs.loc[own].drop(columns=[str(obs.columns[0]), "is_control"])
        for text in {"fallback", "setting"} & set(support.columns):
            support[text] = support[text].astype(str)
        record = json.loads(str(data.uns[RECORD]))
        return Prediction(
            perturbations=names,
            features=tuple(map(str, data.var_names)),
            mean=x[own] - x[~own][0] if str(data.uns.get("values")) == "means" else x[own],
            spread=None if spread is None else np.asarray(spread, dtype=np.float32)[own],
            support=support.set_axis(pd.Index(names)),
            provenance={"file": str(path), **record.get("prediction", {})},
        )
