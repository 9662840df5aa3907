"""Results beside the data they are about: which rows of an AnnData a perturbation has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.screen.files import is_screen_anndata
from pertwise.screen.grouping import group_rows
from pertwise.screen.layouts import Keys, recognise

if TYPE_CHECKING:
    from anndata import AnnData


def rows_of(
    data: AnnData, names: Sequence[str], key: str | None = None, context: str = ""
) -> NDArray[np.int64]:
    """(n_obs,) position in `names` of the perturbation of every row (a mean or a cell), -1 = none.

    Parameters
    ----------
    key
        Column of the perturbation; None = recognised, as when the object is read.
    context
        Only rows of this line or type, where the object names them; "" = of any.

    Raises
    ------
    pertwise.errors.InputError
        No column of perturbations, or none of `names` in it.
    """
    if key is None and is_screen_anndata(data):
        found, cells = (data.obs[c].astype(str).to_numpy() for c in ("perturbation", "context"))
    else:
        where = "the AnnData"
        layout = recognise(data.obs, Keys(perturbation=key), where=where, features=data.var_names)
        made = group_rows(data.obs, layout, drop_empty=True, where=where)
        found, cells = (
            np.append(made.groups[c].to_numpy(dtype=object), "")[made.codes]
            for c in ("perturbation", "context")
        )
    place = {n: i for i, n in enumerate(names)}
    at = np.array([place.get(n, -1) for n in found], dtype=np.int64)
    if context:
        at[(cells != context) & (cells != "")] = -1
    if not (at >= 0).any():
        some = ", ".join(sorted({str(n) for n in found} - {""})[:3])
        raise InputError(
            f"no row of the AnnData is one of the {len(place)} perturbations (rows are of {some} "
            "...); name the column of perturbations with key="
        )
    return at


def at_rows(values: Any, at: NDArray[np.int64]) -> NDArray[Any]:
    """(n_obs, ...) `values` (one a name) at the rows of `rows_of`; NaN where there is none."""
    values = np.asarray(values, dtype=np.float32)
    out = np.full((len(at), *values.shape[1:]), np.nan, dtype=np.float32)
    out[at >= 0] = values[at[at >= 0]]
    return out
