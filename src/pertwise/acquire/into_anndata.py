"""A plan inside an AnnData, by the habits of scverse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pertwise.acquire.panel import Plan
from pertwise.screen.anndata_rows import at_rows, rows_of

if TYPE_CHECKING:
    from anndata import AnnData


def into_anndata(plan: Plan, into: AnnData | None, key: str | None) -> AnnData:
    """See `Plan.to_anndata`."""
    from anndata import AnnData

    table = pd.concat([pd.DataFrame(plan.candidates), pd.DataFrame(plan.measured)])
    table = table.drop_duplicates("gene").set_index("gene", drop=False).rename_axis(None)
    if into is None:
        data, at = AnnData(obs=table[["symbol"]].copy()), np.arange(len(table))
    else:
        data, at = into, rows_of(into, list(table["gene"]), key, plan.context)
    status = table["status"].fillna("measured").replace("not picked", "candidate")
    words = [*status, None]
    data.obs["pertwise"] = pd.Categorical([words[i] for i in at])
    for column in ("utility", "uncertainty"):
        data.obs[f"pertwise_{column}"] = at_rows(table[column], at)
    data.obsm["X_pertwise"] = at_rows(table[["x", "y"]], at)
    data.uns["pertwise_plan"] = plan.model_dump_json()
    return data
