"""What several strategies share: ties, scales, and turning an order into a `Selection`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pertwise.acquire.base import AcquisitionState
from pertwise.errors import InputError
from pertwise.select.base import Pick, Repair, Selection

Floats = NDArray[np.float64]


def tie_order(names: Sequence[str]) -> NDArray[np.int64]:
    """Rank of each name by its BLAKE2 digest: breaks ties the same way on every machine.

    Alphabetical ties would fill a cold-start panel with genes that begin with A.
    """
    digests = [hashlib.blake2b(n.encode(), digest_size=8).digest() for n in names]
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.array(sorted(range(len(names)), key=digests.__getitem__), dtype=np.int64)] = np.arange(
        len(names)
    )
    return rank


def best_first(scores: Floats, ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions from the largest score to the smallest; equal scores by `ties`."""
    return np.lexsort((ties, -scores)).astype(np.int64)


def arg_best(scores: Floats, ties: NDArray[np.int64], allowed: NDArray[np.bool_]) -> int:
    """Position of the largest allowed score; equal ones by `ties`.

    Equal to six digits: what products of float32 leave to the linear algebra of a machine must not
    decide between two candidates.
    """
    top = scores[allowed].max()
    tied = np.flatnonzero(allowed & np.isclose(scores, top, rtol=1e-6, atol=0.0))
    return int(tied[np.argmin(ties[tied])])


def unit_rows(x: NDArray[Any]) -> NDArray[np.float32]:
    """Rows scaled to length 1; zero rows (nothing known) stay zero."""
    rows = np.asarray(x, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return scaled


def scale01(x: Floats) -> Floats:
    """Min-max to [0, 1]; all zero when every value is the same."""
    low, high = float(x.min()), float(x.max())
    return (x - low) / (high - low) if high > low else np.zeros_like(x)


def order_utilities(order: Sequence[int] | NDArray[Any], n: int) -> Floats:
    """Utility 1 - position / n for a complete order of `n` candidates: first 1, last 1 / n."""
    utilities = np.empty(n)
    utilities[np.asarray(order, dtype=np.int64)] = 1.0 - np.arange(n) / n
    return utilities


def check_n(n: int) -> None:
    """Refuse a batch of no one."""
    if n < 1:
        raise InputError(f"a batch needs at least one pick, got {n}")


def uncertainty_ranks(state: AcquisitionState) -> dict[str, int]:
    """1 = most uncertain; empty at a cold start."""
    if state.uncertainty is None:
        return {}
    values = state.uncertainty.to_numpy(dtype=float)
    order = best_first(values, tie_order(state.candidates))
    return {state.candidates[j]: i + 1 for i, j in enumerate(order)}


def need_embedding(state: AcquisitionState, strategy: str) -> NDArray[np.float32]:
    """(n_candidates + n_measured, k) gene features.

    Raises
    ------
    pertwise.errors.InputError
        When the state has none.
    """
    if state.embedding is None:
        raise InputError(
            f"strategy {strategy!r} compares genes by features, and there are none: give a "
            "knowledge folder"
        )
    return state.embedding


def deviations(members: NDArray[Any]) -> Floats:
    """Per-candidate disagreement vectors.

    (n_members, n_candidates, n_features) predictions -> (n_candidates, n_members * n_features)
    rows phi(p) = (f_m,d(p) - mean_m f_m,d(p)) / sqrt((n_members - 1) * n_features), so that
    phi(p).phi(q) is the covariance of p and q over members, averaged over features, and
    |phi(p)|^2 = u(p).
    """
    m, n, d = members.shape
    if m < 2:
        raise InputError(f"disagreement needs at least 2 ensemble members, got {m}")
    centred = np.asarray(members, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    rows: Floats = centred.transpose(1, 0, 2).reshape(n, m * d) / np.sqrt((m - 1) * d)
    return rows


def squared_distances_to(phi: Floats, lengths: Floats, j: int) -> Floats:
    """(n,) squared distance of each row to row j, from dot products and the squared lengths.

    A row that equals row j is at exactly 0, whatever the rounding: what is drawn or left depends on
    it.
    """
    distance: Floats = lengths + lengths[j] - 2.0 * (phi @ phi[j])
    # Cancellation leaves this much of the lengths behind; such rows are compared by their entries.
    near = np.flatnonzero(distance <= 1e-8 * (lengths + lengths[j]))
    distance[near] = ((phi[near] - phi[j]) ** 2).sum(axis=1)
    return distance


def selection(
    state: AcquisitionState,
    order: Sequence[int] | NDArray[Any],
    utilities: Floats,
    reasons: Mapping[int, str],
    source: str,
    *,
    extra: Mapping[int, Mapping[str, Any]] | None = None,
    evidence: Mapping[int, tuple[str, ...]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    repairs: tuple[Repair, ...] = (),
    fallback: bool = False,
) -> Selection:
    """A `Selection` from positions of chosen candidates (best first) and utilities of all."""
    ranks = uncertainty_ranks(state)
    picks = []
    for j in map(int, order):
        name = state.candidates[j]
        fields: dict[str, Any] = dict((extra or {}).get(j, {}))
        if ranks:
            fields.setdefault("uncertainty_rank", ranks[name])
        picks.append(
            Pick(
                item=name,
                reason=reasons[j],
                score=float(utilities[j]),
                evidence=(evidence or {}).get(j, ()),
                extra=fields,
            )
        )
    return Selection(
        picks=tuple(picks),
        source=source,
        repairs=repairs,
        utilities=pd.Series(utilities, index=list(state.candidates), name="utility"),
        provenance=dict(provenance or {}),
        fallback=fallback,
    )


def by_position(
    state: AcquisitionState,
    phi: Floats,
    order: Sequence[int],
    distance: Floats,
    reasons: Mapping[int, str],
    name: str,
) -> Selection:
    """A batch drawn in the space of ensemble deviations: picks in their order, then by `distance`.

    Parameters
    ----------
    phi
        (n_candidates, width) deviations; distance (n_candidates,) to the nearest pick.
    """
    chosen = set(order)
    rest = [int(j) for j in best_first(distance, tie_order(state.candidates)) if j not in chosen]
    utilities = order_utilities([*order, *rest], len(phi))
    provenance = {"strategy": name, "features": "ensemble deviations"}
    return selection(state, order, utilities, reasons, name, provenance=provenance)


def random_start(state: AcquisitionState, n: int, name: str) -> Selection:
    """The declared cold start of strategies that need a model: a random batch, said openly."""
    from pertwise.acquire.strategies.random import Random

    drawn = Random().choose(state, n)
    note = Repair(
        "fallback", name, f"{name} needs model uncertainty and there is none yet: drawn at random"
    )
    return Selection(
        picks=tuple(
            Pick(p.item, f"{p.reason} (cold start of {name})", p.score, p.evidence, p.extra)
            for p in drawn.picks
        ),
        source=name,
        repairs=(note,),
        utilities=drawn.utilities,
        provenance={"strategy": name, "cold_start": "random"},
        fallback=True,
    )
