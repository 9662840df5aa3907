"""Several screens as one: the same perturbations in several contexts, genes beside compounds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pertwise.errors import InputError
from pertwise.screen.core import Screen
from pertwise.screen.signatures import is_ranked


def join_screens(screens: Mapping[str, Screen]) -> Screen:
    """The rows of all screens, on the features that all of them have.

    Parameters
    ----------
    screens
        name -> screen. The name is the context of a screen that does not name its own one; the
        contexts of the others stay as they are.

    Raises
    ------
    pertwise.errors.InputError
        If there is nothing to join, no feature is common, some hold ranks and others magnitudes, or
        a (perturbation, context, dose) occurs twice.
    """
    if not screens:
        raise InputError("no screen to join")
    ranked = {name: is_ranked(s) for name, s in screens.items()}
    if len(set(ranked.values())) > 1:
        ranks = next(n for n, r in ranked.items() if r)
        raise InputError(
            f"{ranks!r} holds ranks and another screen magnitudes: they cannot be joined"
        )
    first, *others = screens.values()
    common = set(first.features).intersection(*(s.features for s in others))
    shared = [f for f in first.features if f in common]
    if not shared:
        raise InputError(f"the screens {', '.join(map(repr, screens))} have no feature in common")
    parts = [s.of_features(shared) for s in screens.values()]
    tables = []
    for name, part in zip(screens, parts, strict=True):
        table = part.obs.copy()
        if part.contexts == ("",):
            table["context"] = name
        tables.append(table)
    obs = pd.concat(tables)
    obs.index = pd.Index(obs["perturbation"] + "|" + obs["context"])
    if not obs.index.is_unique:
        dose = obs["dose"].map(lambda v: "" if np.isnan(v) else f"{v:g}")
        obs.index = pd.Index(obs.index + "|" + dose.to_numpy())
    if not obs.index.is_unique:
        twice = obs.index[obs.index.duplicated()][0]
        raise InputError(f"{twice!r} (perturbation|context|dose) stands in two of the screens")
    control: dict[str, np.ndarray] = {}
    for part, table in zip(parts, tables, strict=True):
        for context, mean in zip(dict.fromkeys(table["context"]), part.control_mean, strict=True):
            control.setdefault(context, mean)
    variance = [p.sampling_variance for p in parts if p.sampling_variance is not None]
    return Screen(
        responses=np.concatenate([p.responses for p in parts]),
        obs=obs,
        features=tuple(shared),
        control_mean=np.array([control[c] for c in dict.fromkeys(obs["context"])]),
        sampling_variance=np.concatenate(variance) if len(variance) == len(parts) else None,
        meta={
            **first.meta,
            "source": ", ".join(str(s.meta.get("source", "")) for s in screens.values()),
            "simulated": any(s.simulated for s in screens.values()),
        },
    )
