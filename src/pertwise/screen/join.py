"""Several screens as one: rounds and batches of one line, perturbations in several lines."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.errors import InputError
from pertwise.screen.core import OBS_COLUMNS, Screen
from pertwise.screen.join_controls import (
    SAME,
    batch_effects,
    joined_controls,
    joined_meta,
    joined_table,
)
from pertwise.screen.join_rows import KEY, Duplicates, agreement_of, settle
from pertwise.screen.signatures import is_ranked

if TYPE_CHECKING:
    from anndata import AnnData


Features = Literal["intersect", "union"]
Floats = NDArray[np.float32]
EXPERIMENT = "experiment"
#: Controls of one context whose summed expression differs by more than this are on two scales.
MOST_APART = 4.0
#: Features of several screens that are needed to judge that.
_JUDGED = 50


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
        See `join`.
    """
    named = {n: _in_context(s, n) if s.contexts == ("",) else s for n, s in screens.items()}
    return join(named, told=False)


def join(
    screens: Mapping[str, Screen | str | os.PathLike[str] | AnnData]
    | Sequence[Screen | str | os.PathLike[str] | AnnData],
    *,
    features: Features = "intersect",
    duplicates: Duplicates = "refuse",
    context: str | None = None,
    told: bool = True,
) -> Screen:
    """Rounds, batches or lines as one screen.

    Every row stays what it was: a mean minus the controls of its own experiment (column
    `EXPERIMENT`), with its sampling variance and its other columns. Controls are kept apart: the
    feature table has their mean in every experiment and context, `control_mean` the mean weighted
    by control cells. How far controls of one context differ between experiments is in
    ``meta["batch_effect"]`` and the notes.

    Parameters
    ----------
    screens
        name -> screen or file; of a sequence the names are the stems of the files, else "1", "2".
    features
        "intersect": those of all; "union": all, NaN where an experiment has not measured them.
    duplicates
        A (perturbation, context, dose) in several experiments: "refuse" it, take the "average"
        (weighted by 1 / sampling variance, else by cells, else equally), the "first" or the "last".
    context
        Name for the cells of screens that name none, where others do.
    told
        False leaves out the columns and notes about experiments (contexts of one data set).

    Raises
    ------
    pertwise.errors.InputError
        Nothing to join, ranks beside magnitudes, other units or scales, named beside unnamed
        contexts, no common feature, rows that occur twice without a rule.
    """
    for name, value, allowed in (
        ("features", features, get_args(Features)),
        ("duplicates", duplicates, get_args(Duplicates)),
    ):
        if value not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    opened = _opened(screens)
    if not opened:
        raise InputError("no screen to join")
    opened = _contexts(opened, context)
    _check_alike(opened)
    names = _features(opened, features)
    parts = {n: _on_features(s, names) for n, s in opened.items()}
    _check_scale(parts)
    obs = _obs(parts, told)
    responses = np.concatenate([p.responses for p in parts.values()])
    variance = _variances(parts)
    notes: list[str] = []
    if told:
        notes.append(
            f"{len(parts)} experiments joined on {len(names)} features ({features}): "
            + ", ".join(f"{n} with {len(p)} rows" for n, p in parts.items())
        )
    twice = obs.duplicated(list(KEY), keep=False).to_numpy()
    if twice.any():
        if duplicates == "refuse":
            p, c, _ = obs.loc[twice, list(KEY)].iloc[0]
            raise InputError(
                f"{p!r} (context {c!r}) stands in two of the screens, and {int(twice.sum()) - 1} "
                "more rows do; say what counts: --duplicates average, first or last"
            )
        agreement = agreement_of(obs, responses)
        obs, responses, variance = settle(obs, responses, variance, duplicates)
        notes.append(
            f"{agreement['rows']} perturbations stand in several experiments: {duplicates} taken"
            + ("" if agreement["r"] is None else f" (median correlation {agreement['r']:.2f})")
        )
    obs.index = _index(obs, told)
    obs["sampling_variance"] = _sums(obs, variance, features, opened)
    effects = batch_effects(parts) if told else []
    notes += [e["note"] for e in effects]
    control, cells = joined_controls(parts, tuple(dict.fromkeys(obs["context"])))
    return Screen(
        responses=responses,
        obs=obs,
        features=tuple(names),
        control_mean=control,
        feature_table=joined_table(parts, names, told),
        sampling_variance=variance,
        meta=joined_meta(opened, cells, effects, notes, told),
    )


# -- opening and refusing --------------------------------------------------------------------------


def _opened(screens: Any) -> dict[str, Screen]:
    from pertwise.screen.read import read_screen

    if isinstance(screens, Mapping):
        listed = [(str(n), s) for n, s in screens.items()]
    else:
        listed = [
            (str(i) if isinstance(s, Screen) else Path(s).name.split(".")[0], s)
            for i, s in enumerate(screens, 1)
        ]
    found: dict[str, Screen] = {}
    for name, source in listed:
        free = next(
            n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(2)))
            if n not in found
        )  # fmt: skip
        found[free] = source if isinstance(source, Screen) else read_screen(source)
    return found


def _in_context(screen: Screen, name: str) -> Screen:
    obs = screen.obs.assign(context=name)
    return Screen(
        screen.responses, obs, screen.features, screen.control_mean, screen.feature_table,
        screen.sampling_variance, screen.meta,
    )  # fmt: skip


def _contexts(screens: dict[str, Screen], context: str | None) -> dict[str, Screen]:
    unnamed = [n for n, s in screens.items() if "" in s.contexts]
    if context is not None:
        return {
            n: _in_context(s, context) if s.contexts == ("",) else s for n, s in screens.items()
        }
    if unnamed and len(unnamed) < len(screens):
        other = next(n for n in screens if n not in unnamed)
        raise InputError(
            f"{other!r} names its cells {screens[other].contexts[0]!r} and {unnamed[0]!r} names "
            "none: say which cells those are with --context NAME"
        )
    return screens


def _check_alike(screens: dict[str, Screen]) -> None:
    ranked = {name: is_ranked(s) for name, s in screens.items()}
    if len(set(ranked.values())) > 1:
        ranks = next(n for n, r in ranked.items() if r)
        raise InputError(
            f"{ranks!r} holds ranks and another screen magnitudes: they cannot be joined"
        )
    for key, words in SAME.items():
        stated = {n: s.meta[key] for n, s in screens.items() if s.meta.get(key) is not None}
        for (a, x), (b, y) in itertools.pairwise(stated.items()):
            if x != y:
                raise InputError(
                    f"{a!r} and {b!r} cannot be joined: {words} is {x!r} in the first and {y!r} in "
                    "the second; make both screens from their cells in the same way"
                )


def _check_scale(parts: dict[str, Screen]) -> None:
    """Control means of log-normalised expression must sum to about as much in every experiment."""
    totals: dict[str, float] = {}
    common = np.all([np.isfinite(p.control_mean).any(axis=0) for p in parts.values()], axis=0)
    if common.sum() < _JUDGED or any("log" not in str(p.meta.get("unit")) for p in parts.values()):
        return
    for name, part in parts.items():
        mean = np.nanmean(part.control_mean[:, common], axis=0).astype(float)
        totals[name] = float(np.expm1(mean).sum())
    low, high = min(totals, key=totals.__getitem__), max(totals, key=totals.__getitem__)
    if totals[low] > 0 and totals[high] > MOST_APART * totals[low]:
        raise InputError(
            f"{high!r} and {low!r} are on two scales: their controls sum to {totals[high]:.4g} and "
            f"{totals[low]:.4g} over the {int(common.sum())} common features; make both screens "
            "from their cells with one --target-sum"
        )


def _features(screens: dict[str, Screen], how: Features) -> list[str]:
    first, *others = screens.values()
    common = set(first.features).intersection(*(s.features for s in others))
    if not common:
        raise InputError(f"the screens {', '.join(map(repr, screens))} have no feature in common")
    if how == "union":
        return list(dict.fromkeys(f for s in screens.values() for f in s.features))
    return [f for f in first.features if f in common]


# -- putting together ------------------------------------------------------------------------------


def _on_features(screen: Screen, names: list[str]) -> Screen:
    """The screen on these features in this order, NaN for those that it does not have."""
    place = {f: i for i, f in enumerate(screen.features)}
    at = np.array([place.get(f, -1) for f in names])

    def wide(values: Floats) -> Floats:
        out = np.ascontiguousarray(values[:, at])
        out[:, at < 0] = np.nan
        return out

    table = screen.feature_table
    return Screen(
        responses=wide(screen.responses),
        obs=screen.obs,
        features=tuple(names),
        control_mean=wide(screen.control_mean),
        feature_table=table.reindex(names) if len(table) else table,
        sampling_variance=None
        if screen.sampling_variance is None
        else wide(screen.sampling_variance),
        meta=screen.meta,
    )


def _obs(parts: dict[str, Screen], told: bool) -> pd.DataFrame:
    tables = []
    for name, part in parts.items():
        table = part.obs.copy()
        if told and EXPERIMENT not in table:
            table[EXPERIMENT] = name
        tables.append(table)
    obs = pd.concat(tables)
    for column in obs.columns.difference(OBS_COLUMNS):
        # h5ad holds no column of text with gaps; numbers keep theirs as NaN.
        if not pd.api.types.is_numeric_dtype(obs[column]):
            obs[column] = obs[column].astype(object).where(obs[column].notna(), "").astype(str)
    return obs[[*OBS_COLUMNS, *[c for c in obs.columns if c not in OBS_COLUMNS]]]


def _variances(parts: dict[str, Screen]) -> Floats | None:
    """Variances of all rows, NaN for those of screens that state none; None when none does."""
    if all(p.sampling_variance is None for p in parts.values()):
        return None
    return np.concatenate(
        [
            np.full_like(p.responses, np.nan)
            if p.sampling_variance is None
            else p.sampling_variance
            for p in parts.values()
        ]
    )


def _sums(
    obs: pd.DataFrame, variance: Floats | None, how: Features, screens: dict[str, Screen]
) -> NDArray[np.float64]:
    """(n_rows,) variance summed over the features that are now there."""
    old = obs["sampling_variance"].to_numpy(dtype=float)
    if variance is None:
        same = len({s.features for s in screens.values()}) == 1
        # A sum over other features is no sum over these.
        return old if same else np.full_like(old, np.nan)
    known = np.isfinite(variance).any(axis=1)
    return np.where(known, np.nansum(variance, axis=1, dtype=np.float64), np.nan)


def _index(obs: pd.DataFrame, told: bool) -> pd.Index:
    index = obs["perturbation"]
    if not told or not index.is_unique:
        index = index + "|" + obs["context"]
    if not index.is_unique:
        index = index + "|" + obs["dose"].map(lambda v: "" if np.isnan(v) else f"{v:g}")
    return pd.Index(index.to_numpy(), name=None)
