"""One unit: rounds of acquisition replayed on a finished screen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from pertwise import parts
from pertwise._files import PART, read_json_object, reading
from pertwise._io import write_json_atomic
from pertwise.acquire.base import AcquisitionState, Strategy, Target
from pertwise.acquire.state import noise_variance
from pertwise.benchmark.acquisition.config import Curve, Protocol
from pertwise.benchmark.acquisition.world import ReplayTarget, World
from pertwise.errors import InputError
from pertwise.evaluate.metrics import mse, pearson_delta
from pertwise.evaluate.retrieval import retrieval
from pertwise.models.base import Prediction, Predictor
from pertwise.select.base import Selection

#: Share of the pool that counts as hits.
HIT_SHARE = 0.05
#: Measures of every round, each a mean over held-out perturbations or target features.
MEASURES = ("mse", "pearson_delta", "pearson_feature", "retrieval")


@dataclass(frozen=True)
class Split:
    """Held-out and pool names of one seed: the same for every strategy, predictor and target."""

    heldout: tuple[str, ...]
    pool: tuple[str, ...]


class _Round(BaseModel):
    round: int
    n_acquired: int
    picks: list[str]
    reasons: dict[str, str]
    extra: dict[str, dict[str, Any]]
    repairs: dict[str, int]
    measures: dict[str, dict[str, float | None]]
    bias: dict[str, dict[str, float | None]] = {}
    hits: dict[str, dict[str, int]] = {}
    note: str


def read_round(file: Path) -> dict[str, Any]:
    """One round that a replay stored.

    Raises
    ------
    pertwise.errors.InputError
        When the file is damaged; says that deleting it lets the run compute it again.
    """
    found = read_json_object(file, "a round of a run", PART)
    with reading(file, "a round of a run", PART):
        _Round.model_validate(found)
    return found


def make_split(names: tuple[str, ...], heldout: float, seed: int) -> Split:
    """`heldout` of the sorted names (at least 2), drawn with PCG64(seed).

    Raises
    ------
    pertwise.errors.InputError
        When nothing would be left to acquire.
    """
    ordered = sorted(names)
    n_out = max(2, round(heldout * len(ordered)))
    if n_out >= len(ordered):
        raise InputError(
            f"{len(ordered)} perturbations are too few to hold out {n_out} and acquire any"
        )
    drawn = np.random.default_rng(seed).permutation(len(ordered))
    return Split(
        heldout=tuple(sorted(ordered[i] for i in drawn[:n_out])),
        pool=tuple(sorted(ordered[i] for i in drawn[n_out:])),
    )


def stream(*parts: Any) -> np.random.Generator:
    """A generator that depends on these parts only, on every machine and in every process."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest[:16], dtype=np.uint32))


def plan_rounds(n_pool: int, protocol: Protocol, batch: int, initial: int) -> tuple[int, str]:
    """Number of rounds the pool allows, and a note when that is fewer than asked for.

    The last round must leave at least one candidate unchosen: a batch that takes the whole pool is
    no choice.
    """
    possible = (n_pool - initial - 1) // batch
    if possible < 1:
        raise InputError(
            f"a pool of {n_pool} with {initial} measured at the start gives no round of {batch}"
        )
    if possible < protocol.rounds:
        return possible, (
            f"{possible} rounds instead of {protocol.rounds}: the pool of {n_pool} holds no more "
            f"than {possible} batches of {batch} and a choice"
        )
    return protocol.rounds, ""


def target_uncertainty(
    prediction: Prediction, n: int, target: ReplayTarget
) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
    """u(p) of the first `n` rows on the target, and the member predictions behind it.

    u(p) = (1 - g) mean_f w_f v_f(p) + g mean_all v_f(p), v = variance over members (or squared
    spread). Member predictions are scaled by sqrt(w_f) and, when g > 0, joined with all features
    scaled alike, so that their plain mean variance over columns is u(p).
    """
    scale = np.sqrt(target.weights)
    g = target.global_weight
    if prediction.members is not None:
        members = prediction.members[:, :n]
        part = members[:, :, target.columns] * scale.astype(np.float32)
        if g > 0:
            d_target, d_all = part.shape[2], members.shape[2]
            total = d_target + d_all
            part = np.concatenate(
                [
                    part * np.float32(np.sqrt((1 - g) * total / d_target)),
                    members * np.float32(np.sqrt(g * total / d_all)),
                ],
                axis=2,
            )
        u = part.astype(np.float64).var(axis=0, ddof=1).mean(axis=1)
        return u, np.ascontiguousarray(part)
    if prediction.spread is not None:
        variance = prediction.spread[:n].astype(np.float64) ** 2
        u = (1 - g) * (variance[:, target.columns] * target.weights).mean(axis=1)
        return u + g * variance.mean(axis=1), None
    raise InputError("this predictor gives neither members nor a spread: no uncertainty to use")


def feature_correlation(truth: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson across perturbations of each feature: (n, d), (n, d) -> (d,); NaN where undefined.

    Complements Pearson delta, which is undefined for a target of one or two features.
    """
    correlation = pearson_delta(np.asarray(truth).T, np.asarray(prediction).T)
    return np.asarray(correlation, dtype=np.float64)


def measure(
    truth: NDArray[np.float32],
    mean: NDArray[np.float32],
    reference: NDArray[np.float32],
    target: ReplayTarget,
) -> dict[str, float]:
    """Round measures on the held-out perturbations.

    Parameters
    ----------
    truth, mean
        (n_heldout, n_features), all features of the screen.
    reference
        (n_features,) mean of the acquired responses: what "no model" would say; its own scores
        carry the suffix ``_mean``.
    """
    t = truth[:, target.columns].astype(np.float64)
    # Weighted MSE = plain MSE of responses scaled by sqrt(weight).
    scale = np.sqrt(target.weights)
    out: dict[str, float] = {}
    base = np.broadcast_to(reference, truth.shape)
    for suffix, full in (("", mean), ("_mean", base)):
        p = full[:, target.columns].astype(np.float64)
        g = target.global_weight
        error = _nanmean(mse(t * scale, p * scale))
        if g > 0:
            error = (1 - g) * error + g * _nanmean(mse(truth, full))
        out[f"mse{suffix}"] = error
        # Two points always correlate perfectly: below 3 features the number says nothing.
        out[f"pearson_delta{suffix}"] = (
            _nanmean(pearson_delta(t, p)) if t.shape[1] >= 3 else float("nan")
        )
        out[f"pearson_feature{suffix}"] = _nanmean(feature_correlation(t, p))
        out[f"retrieval{suffix}"] = _nanmean(retrieval(t, p).score) if len(t) > 1 else float("nan")
    return out


def selection_bias(
    acquired: NDArray[np.float32], heldout: NDArray[np.float32], target: ReplayTarget
) -> dict[str, float]:
    """How far the acquired responses are from being a sample of the held-out ones.

    Parameters
    ----------
    acquired, heldout
        (n_acquired, n_features) and (n_heldout, n_features), all features of the screen.

    Returns
    -------
    mean_acquired, mean_heldout
        Mean signed response over rows and the target's features, in the unit of the screen.
    size_acquired, size_heldout
        Mean squared response.
    shift
        Root mean square over the target's features of the difference of their means: a predictor
        centred on the mean of the acquired starts with that error.
    """
    a, h = (x[:, target.columns].astype(np.float64) for x in (acquired, heldout))
    shift = _column_means(a).astype(np.float64) - _column_means(h)
    return {
        "mean_acquired": _nanmean(a),
        "mean_heldout": _nanmean(h),
        "size_acquired": _nanmean(a**2),
        "size_heldout": _nanmean(h**2),
        "shift": float(np.sqrt(np.mean(shift**2))),
    }


def hit_names(
    names: Sequence[str], responses: NDArray[np.float32], target: ReplayTarget
) -> frozenset[str]:
    """The `HIT_SHARE` of the names (at least one) with the strongest measured response.

    Strength = mean squared response over the target's features that were measured; names without
    any are no hit, and of equal strengths at the edge those first by name count.

    Parameters
    ----------
    names, responses
        The pool, (n_pool,) and (n_pool, n_features), all features of the screen.
    """
    own = responses[:, target.columns].astype(np.float64)
    known = np.isfinite(own)
    count = known.sum(axis=1)
    total = (np.where(known, own, 0.0) ** 2).sum(axis=1)
    size = np.divide(total, count, out=np.zeros(len(names)), where=count > 0)
    most = max(1, round(HIT_SHARE * len(names)))
    order = sorted(range(len(names)), key=lambda i: (-size[i], names[i]))[:most]
    return frozenset(names[i] for i in order if size[i] > 0)


def _nanmean(values: NDArray[Any]) -> float:
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return float(finite.mean()) if len(finite) else float("nan")


class Replay:
    """Replays one unit; rounds already on disk are read, not repeated.

    Parameters
    ----------
    world
        See `make_world`.
    unit, protocol
        What to replay.
    strategy
        Any `Strategy`.
    make_predictor
        Seed -> a fresh predictor; one is fitted every round on all acquired perturbations.
    folder
        Where ``round_NN.json`` files go; None = keep nothing.
    scored
        Held-out perturbations that are scored; None = all.

    Raises
    ------
    pertwise.errors.InputError
        If fewer than two of them are held out.
    """

    def __init__(
        self,
        world: World,
        unit: Curve,
        protocol: Protocol,
        strategy: Strategy,
        make_predictor: Callable[[int], Predictor],
        folder: Path | None = None,
        scored: Collection[str] | None = None,
    ) -> None:
        self.world, self.unit, self.protocol = world, unit, protocol
        self.strategy, self.make_predictor, self.folder = strategy, make_predictor, folder
        # What nobody looks at is not predicted: most of the pool, in every round.
        self.blind = "nothing" in parts.facts(strategy).needs
        self.split = make_split(world.names, protocol.heldout, unit.seed)
        if scored is not None:
            kept = tuple(n for n in self.split.heldout if n in scored)
            if len(kept) < 2:
                raise InputError(
                    f"{len(kept)} of the {len(self.split.heldout)} held-out perturbations of seed "
                    f'{unit.seed} were measured in other screens; setting = "elsewhere" needs 2'
                )
            self.split = replace(self.split, heldout=kept)
        self.position = {name: i for i, name in enumerate(world.names)}
        self.rounds, self.note = plan_rounds(
            len(self.split.pool), protocol, unit.batch, unit.initial
        )
        self.targets = (
            list(world.targets.values()) if unit.target == "*" else [world.targets[unit.target]]
        )
        pool = world.screen.responses[[self.position[p] for p in self.split.pool]]
        self.hits = {t.name: hit_names(self.split.pool, pool, t) for t in self.targets}

    def run(self) -> list[dict[str, Any]]:
        """Rounds 1..n, each a JSON-able record (see `_record`)."""
        # Seeds alone decide the initial set, so all strategies start from the same one.
        start = stream("initial", self.unit.seed).permutation(len(self.split.pool))
        acquired = tuple(sorted(self.split.pool[i] for i in start[: self.unit.initial]))
        records: list[dict[str, Any]] = []
        prediction: Prediction | None = None
        for number in range(1, self.rounds + 1):
            stored = self._stored(number)
            if stored is not None:
                records.append(stored)
                acquired = tuple(sorted([*acquired, *stored["picks"]]))
                prediction = None
                continue
            if prediction is None and acquired and not self.blind:
                prediction = self._predict(acquired, number - 1)
            selection = self._choose(number, acquired, prediction)
            acquired = tuple(sorted([*acquired, *selection.items]))
            prediction = self._predict(acquired, number)
            record = self._record(number, acquired, selection, prediction)
            if self.folder is not None:
                write_json_atomic(self._path(number), record)
            records.append(record)
        return records

    def _path(self, number: int) -> Path:
        if self.folder is None:
            raise InputError("this replay has no folder")
        return self.folder / f"round_{number:02d}.json"

    def _stored(self, number: int) -> dict[str, Any] | None:
        if self.folder is None or not self._path(number).is_file():
            return None
        return read_round(self._path(number))

    def _predict(self, acquired: tuple[str, ...], number: int) -> Prediction:
        """Fit on the acquired, predict what is left of the pool if asked, then the held-out."""
        left = () if self.blind else self._left(acquired)
        # Sorted names and a seed per (seed, round): the fit does not depend on who chose them.
        predictor = self.make_predictor(
            int(stream("predictor", self.unit.seed, number).integers(2**31 - 1))
        )
        fitted = predictor.fit(self.world.screen.of_perturbations(acquired), self.world.knowledge)
        return fitted.predict([*left, *self.split.heldout])

    def _left(self, acquired: tuple[str, ...]) -> tuple[str, ...]:
        gone = set(acquired)
        return tuple(p for p in self.split.pool if p not in gone)

    def _choose(
        self, number: int, acquired: tuple[str, ...], prediction: Prediction | None
    ) -> Selection:
        candidates = self._left(acquired)
        target = self.targets[0]
        u, members, mean = None, None, None
        if prediction is not None and not self.blind:
            values, members = target_uncertainty(prediction, len(candidates), target)
            mean = prediction.mean[: len(candidates), target.columns]
            u = pd.Series(values, index=list(candidates), name="uncertainty")
        rows = [self.position[p] for p in (*candidates, *acquired)]
        screen = self.world.screen.of_perturbations(acquired) if acquired else None
        features = tuple(self.world.screen.features[c] for c in target.columns)
        state = AcquisitionState(
            candidates=candidates,
            measured=acquired,
            rng=stream("strategy", self.unit.strategy, self.unit.seed, number),
            target=Target(pathway=target.pathway, features=features),
            screen=screen,
            knowledge=self.world.knowledge,
            uncertainty=u,
            member_predictions=members,
            embedding=None if self.world.embedding is None else self.world.embedding[rows],
            round=number,
            context=self.world.context,
            relations=target.relations if target.pathway is not None else None,
            neighbours=None
            if self.world.neighbours is None
            else self.world.neighbours[rows][:, rows],
            noise_variance=None if screen is None else noise_variance(screen, features),
            prediction=mean,
            rounds_left=self.rounds - number,
        )
        return self.strategy.choose(state, self.unit.batch)

    def _record(
        self,
        number: int,
        acquired: tuple[str, ...],
        selection: Selection,
        prediction: Prediction,
    ) -> dict[str, Any]:
        """What a round leaves behind: picks with reasons, and the measures per target."""
        heldout = [self.position[p] for p in self.split.heldout]
        truth = self.world.screen.responses[heldout]
        mean = prediction.mean[-len(heldout) :]
        rows = [self.position[p] for p in acquired]
        known = self.world.screen.responses[rows]
        reference = _column_means(known)
        taken = set(acquired)
        hits = {
            name: {
                "n_hits": len(of),
                "found": len(of & taken),
                "in_batch": len(of & set(selection.items)),
            }
            for name, of in self.hits.items()
        }
        measures = {t.name: _clean(measure(truth, mean, reference, t)) for t in self.targets}
        fallbacks = prediction.support["fallback"].iloc[-len(heldout) :]
        return {
            "round": number,
            "n_acquired": len(acquired),
            "picks": list(selection.items),
            "reasons": {p.item: p.reason for p in selection.picks},
            "extra": {p.item: _clean(p.extra) for p in selection.picks},
            "repairs": selection.repair_counts(),
            "fallback": selection.fallback,
            "ledger_keys": list(selection.provenance.get("ledger_keys", ())),
            "heldout_fallbacks": int((fallbacks != "").sum()),
            "measures": measures,
            "bias": {t.name: _clean(selection_bias(known, truth, t)) for t in self.targets},
            "hits": hits,
            "note": self.note,
        }


def _column_means(values: NDArray[Any]) -> NDArray[np.float32]:
    """Mean over rows ignoring NaN; 0 (no change) for a feature that no row measured."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64)
    means = np.zeros(values.shape[1])
    np.divide(total, count, out=means, where=count > 0)
    return means.astype(np.float32)


def _clean(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: None stands for "undefined"; numpy scalars become Python's."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not np.isfinite(value):
            value = None
        out[key] = value
    return out


__all__ = ["MEASURES", "Replay", "Split", "make_split", "measure", "plan_rounds", "stream"]
