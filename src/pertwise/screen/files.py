"""`Screen` to and from AnnData/h5ad without loss."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pertwise._hdf5 import write_h5ad_atomic
from pertwise.errors import InputError
from pertwise.screen.core import OBS_COLUMNS, Screen

if TYPE_CHECKING:
    from anndata import AnnData

#: Version of the layout below; a newer file is refused with a clear message.
FORMAT = 1


def to_anndata(screen: Screen) -> AnnData:
    """X = responses; uns["pertwise"] = JSON (format, contexts, meta); varm["control_mean"]."""
    from anndata import AnnData

    obs = screen.obs.copy()
    table = screen.feature_table
    var = table.copy() if len(table) else pd.DataFrame(index=pd.Index(screen.features))
    header = {"format": FORMAT, "contexts": list(screen.contexts), "meta": dict(screen.meta)}
    data = AnnData(
        X=np.array(screen.responses),
        obs=obs,
        var=var,
        uns={"pertwise": json.dumps(header)},
        varm={"control_mean": np.array(screen.control_mean.T)},
    )
    if screen.sampling_variance is not None:
        data.layers["sampling_variance"] = np.array(screen.sampling_variance)
    return data


def is_screen_anndata(data: AnnData) -> bool:
    """True when `data` was written by `to_anndata`."""
    return "pertwise" in data.uns


def from_anndata(data: AnnData) -> Screen:
    """Inverse of `to_anndata`.

    Raises
    ------
    pertwise.errors.InputError
        If the file is not a pertwise screen, or from a newer version.
    """
    if not is_screen_anndata(data):
        raise InputError("not a pertwise screen (uns['pertwise'] is missing); use read_screen")
    header = json.loads(str(data.uns["pertwise"]))
    _check_whole(data, header)
    if header.get("format", 0) > FORMAT:
        raise InputError(
            f"screen format {header['format']} is newer than this pertwise reads ({FORMAT}); "
            "upgrade pertwise"
        )
    obs = data.obs.copy()
    for column in ("perturbation", "context"):
        obs[column] = obs[column].astype(str)
    obs = obs[[*OBS_COLUMNS, *[c for c in obs.columns if c not in OBS_COLUMNS]]]
    variance = data.layers.get("sampling_variance")
    return Screen(
        responses=np.asarray(data.X, dtype=np.float32),
        obs=obs,
        features=tuple(map(str, data.var_names)),
        control_mean=np.ascontiguousarray(np.asarray(data.varm["control_mean"], np.float32).T),
        feature_table=data.var.copy() if data.var.shape[1] else pd.DataFrame(),
        sampling_variance=None if variance is None else np.asarray(variance, dtype=np.float32),
        meta=header["meta"],
    )


#: Why a concatenation is refused, and what to do.
CONCATENATED = (
    "rows of pertwise screens that were put together outside pertwise (as anndata.concat does): "
    "what says which controls each row was compared with is gone; join the screens with pertwise "
    "screen join (pw.join)"
)


def _check_whole(data: AnnData, header: Mapping[str, Any]) -> None:
    """Refuse what looks like a screen but lost parts or gained rows on the way."""
    contexts = list(dict.fromkeys(data.obs["context"].astype(str))) if "context" in data.obs else []
    control = data.varm.get("control_mean")
    if (
        not set(OBS_COLUMNS) <= set(map(str, data.obs.columns))
        or contexts != list(header.get("contexts", []))
        or control is None
        or np.shape(control)[1] != len(contexts)
        or not data.obs_names.is_unique
    ):
        raise InputError(f"{CONCATENATED}, or slice them as screens before saving")


def save(screen: Screen, path: str | os.PathLike[str]) -> None:
    """Write h5ad atomically (gzip)."""
    write_h5ad_atomic(path, to_anndata(screen))
