"""Uncertainty kept beside the plan, so that a killed run asks the very same question again.

A chat request is found in the ledger only if it is equal to the last byte. Training again could
move the last digit of an uncertainty (other thread count, other machine), change the prompt and
pay twice; so what was computed once is stored under a key over everything it depends on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertwise._files import PART, read_parquet
from pertwise._io import atomic_path
from pertwise.acquire.base import Target
from pertwise.acquire.state import Disagreement
from pertwise.provenance import identity


class StoredUncertainty:
    """u(p) of one question in one folder; does nothing when `folder` is None or the inputs have
    no checksum (a `Screen` object given in the call)."""

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        inputs: Mapping[str, Any],
        target: Target,
        candidates: Sequence[str],
        seed: int,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._path: Path | None = None
        self._candidates = list(candidates)
        screen = inputs.get("screen", {})
        if folder is None or "sha256" not in screen:
            return
        question = {
            "screen": screen["sha256"],
            "knowledge": inputs["knowledge"]["fingerprint"],
            "features": None if target.features is None else list(target.features),
            "candidates": self._candidates,
            "seed": seed,
            **dict(extra or {}),
        }
        self._path = Path(folder) / f"uncertainty-{identity(question)[:16]}.parquet"

    def load(self, features: int | None = None) -> Disagreement | None:
        """The stored values in candidate order, or None.

        `features`: also the predictions of that many features; without them nothing is stored.
        """
        if self._path is None or not self._path.is_file():
            return None
        table = read_parquet(self._path, "stored uncertainties", PART)
        if not {"gene", "uncertainty"} <= set(table):
            return None
        values = table.set_index("gene")["uncertainty"].reindex(self._candidates)
        if not np.isfinite(values.to_numpy(dtype=float)).all():
            return None
        u = pd.Series(values.to_numpy(dtype=float), index=self._candidates, name="uncertainty")
        if not features:
            return Disagreement(u)
        columns = [f"prediction {i}" for i in range(features)]
        if not set(columns) <= set(table):
            return None
        mean = table.set_index("gene")[columns].reindex(self._candidates)
        return Disagreement(u, mean=mean.to_numpy(dtype=np.float32))

    def save(self, found: Disagreement) -> None:
        """Write atomically."""
        if self._path is None:
            return
        u = found.uncertainty
        table = pd.DataFrame({"gene": u.index, "uncertainty": u.to_numpy(dtype=float)})
        if found.mean is not None:
            names = [f"prediction {i}" for i in range(found.mean.shape[1])]
            table = table.join(pd.DataFrame(found.mean, columns=names))
        with atomic_path(self._path) as temporary:
            table.to_parquet(temporary, index=False)
