"""From cells to a `Screen`: normalise, choose features, subtract matched controls, count noise.

The work is that of `pertwise.screen.shards`, in this process and with nothing kept: cells are read
in blocks of bounded size, exact sums are merged, the screen is made of those.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pertwise.screen.core import Screen
from pertwise.screen.scan import PseudobulkSettings
from pertwise.screen.shards import run

if TYPE_CHECKING:
    from anndata import AnnData


def pseudobulk(
    sources: str | os.PathLike[str] | AnnData | Sequence[str | os.PathLike[str]],
    settings: PseudobulkSettings | None = None,
    *,
    counts: str | os.PathLike[str] | None = None,
) -> Screen:
    """Cells to a `Screen`, in this process.

    Library-size normalisation to ``target_sum`` and log1p (unless the data are logs already);
    highly variable features from training perturbations and controls; means minus the mean of
    matched controls (same batch when there is one, else same context); cells and sampling variance
    of every mean (`pertwise.screen.finish.VARIANCE_FORMULA`, derived in
    `pertwise.screen.sums.contrast`).

    Parameters
    ----------
    sources
        A file (h5ad, zarr, parquet), several files of one experiment, or an AnnData.
    settings
        Defaults to `PseudobulkSettings()`.
    counts
        An h5ad file to write besides: whole-number sums of raw counts per perturbation, context,
        dose and batch, controls included (`pertwise.screen.countsums.write_counts`).

    Raises
    ------
    pertwise.errors.InputError
        If no control is found, the scale cannot be told, names are empty, or values are not
        finite; with `counts` also if values are no raw counts.
    """
    listed = list(sources) if isinstance(sources, (list, tuple)) else [sources]
    with tempfile.TemporaryDirectory(prefix="pertwise-") as folder:
        return run(listed, settings or PseudobulkSettings(), Path(folder), counts=counts)
