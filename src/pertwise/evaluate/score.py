"""All metrics of a batch of predictions in one table, with every undefined value counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from pertwise import parts
from pertwise.errors import InputError
from pertwise.evaluate import auroc, genes, metrics
from pertwise.evaluate.metrics import Floats
from pertwise.evaluate.retrieval import DISTANCES, Distance, retrieval_all

#: Rows scored at once.
CHUNK = metrics.ROWS
TOPS = (20, 50, 100)


@dataclass(frozen=True)
class Metric:
    """What a column of a score table means.

    Attributes
    ----------
    better
        "high", "low", or "one" (nearer to 1 is better).
    undefined
        Value a perturbation gets when the *prediction* leaves the metric undefined (a constant has
        no correlation): that of no information. When the *truth* leaves it undefined
        (nothing measured, no variance), no method can be scored and the value stays NaN
        (`metrics.filled`).
    magnitude
        It speaks of how large a response is, which a rank does not know.
    """

    name: str
    about: str
    better: Literal["high", "low", "one"]
    undefined: float = float("nan")
    magnitude: bool = False


def metric_named(name: str) -> Metric:
    """The `Metric` of a part (any form of `pertwise.parts`)."""
    part = parts.describe("metric", name)
    more = part.facts.more
    better, undefined = more.get("better", "high"), float(more.get("undefined", "nan"))
    return Metric(part.label, part.about, better, undefined, bool(more.get("magnitude")))


_BUILT_IN = [parts.describe("metric", n) for n in parts.names("metric", offered=False)]
#: Base name -> meaning; a column is a base name, then "_top50", "_significant" or "_cosine".
METRICS: Mapping[str, Metric] = MappingProxyType({p.label: metric_named(p.name) for p in _BUILT_IN})
_ROWWISE = [p for p in _BUILT_IN if p.facts.more["rows"]]


def metric_of(column: str, more: Sequence[str] = ()) -> Metric:
    """The `Metric` behind a column such as ``cosine_top50`` or ``retrieval_reverse_l2``.

    `more` names further metrics (parts) that may stand in the table.
    """
    known = {**METRICS, **{m.name: m for m in map(metric_named, more)}}
    matches = [m for name, m in known.items() if column == name or column.startswith(name + "_")]
    if not matches:
        raise InputError(f"no metric is called {column!r}; known: {', '.join(known)}")
    return max(matches, key=lambda m: len(m.name))


@dataclass(frozen=True)
class Scores:
    """One row a perturbation, one column a metric.

    Attributes
    ----------
    values
        Index perturbation; NaN only where the truth leaves the metric undefined.
    undefined
        Same shape, True where the prediction left it undefined and the stated value was put in.
    """

    values: pd.DataFrame
    undefined: pd.DataFrame

    def tidy(self) -> pd.DataFrame:
        """Columns perturbation, metric, value, undefined; one row per (perturbation, metric)."""
        n, k = self.values.shape
        return pd.DataFrame(
            {
                "perturbation": np.repeat(np.asarray(self.values.index, dtype=object), k),
                "metric": np.tile(np.asarray(self.values.columns, dtype=object), n),
                "value": self.values.to_numpy(dtype=np.float64).ravel(),
                "undefined": self.undefined.to_numpy(dtype=bool).ravel(),
            }
        )


def _pairwise(
    truth: Floats,
    prediction: Floats,
    reference: Floats | None,
    mask: NDArray[np.bool_] | None,
    ranked: bool,
) -> Iterator[tuple[str, Floats]]:
    """(name, (n,) values) of every metric that compares one row with one row."""
    for part in _ROWWISE:
        if ranked and METRICS[part.label].magnitude:
            continue
        if "reference" not in part.facts.needs:
            yield part.label, part.found(truth, prediction, mask)
        elif reference is not None:
            yield part.label, part.found(truth, prediction, reference, mask)


def _further(
    names: Sequence[str],
    truth: Floats,
    prediction: Floats,
    mask: NDArray[np.bool_] | None,
    ranked: bool,
) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    """Metrics of one's own, on all features; what the mask leaves out is NaN in their truth."""
    out = {}
    measured = truth if mask is None else np.where(mask, truth, np.nan)
    for name in names:
        about, kernel = metric_named(name), parts.load("metric", name)
        if about.name in METRICS or (ranked and about.magnitude):
            continue
        value, perfect = (
            np.asarray(kernel(measured, p), dtype=np.float64)
            for p in (prediction, np.nan_to_num(measured))
        )
        if value.shape != (len(truth),):
            raise InputError(
                f"metric {name} gave an array of shape {value.shape} for {len(truth)} perturbations"
            )
        out[about.name] = metrics.filled(value, perfect, about.undefined)
    return out


def _filled(
    truth: Floats,
    prediction: Floats,
    reference: Floats | None,
    mask: NDArray[np.bool_] | None,
    ranked: bool,
) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    """Values with NaN replaced by the stated one where the prediction is to blame."""
    found = dict(_pairwise(truth, prediction, reference, mask, ranked))
    missing = np.isnan(np.stack(list(found.values()))).any(axis=0)
    perfect = {name: np.zeros(len(truth)) for name in found}
    if missing.any():
        # A perfect prediction is defined wherever the truth allows a score at all.
        t = truth[missing]
        ref = reference[missing] if reference is not None and reference.ndim == 2 else reference
        m = None if mask is None else mask[missing]
        for name, best in _pairwise(t, np.nan_to_num(t), ref, m, ranked):
            perfect[name][missing] = best
    return {
        name: metrics.filled(value, perfect[name], METRICS[name].undefined)
        for name, value in found.items()
    }


def _gather(top: NDArray[np.bool_], *arrays: Floats) -> tuple[list[Floats], NDArray[np.bool_]]:
    """The columns marked in each row of `top`, left-aligned; the mask says which are real."""
    width = int(top.sum(axis=1).max(initial=1))
    rows, columns = np.nonzero(top)
    place = np.arange(len(rows)) - np.r_[0, np.cumsum(top.sum(axis=1))[:-1]][rows]
    mask = np.zeros((len(top), width), dtype=bool)
    mask[rows, place] = True
    out = []
    for array in arrays:
        small = np.zeros((len(top), width))
        small[rows, place] = array[rows, columns]
        out.append(small)
    return out, mask


def score_predictions(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    perturbations: Sequence[str],
    features: Sequence[str] | None = None,
    reference: ArrayLike | None = None,
    sampling_variance: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    own: ArrayLike | None = None,
    tops: Sequence[int] = TOPS,
    include_target: bool = False,
    significant: ArrayLike | None = None,
    retrieval_distances: Sequence[Distance] = DISTANCES,
    more: Sequence[str] = (),
    ranked: bool = False,
) -> Scores:
    """Every metric of a batch of held-out perturbations.

    Parameters
    ----------
    truth, prediction
        (n, d) measured (NaN = not measured) and predicted deltas against control.
    perturbations
        n names, one a row.
    features
        d names; needed to leave the target gene out. None: no feature is a target.
    reference
        (d,) mean response of the training perturbations, for `pearson_reference`.
    sampling_variance
        (n, d) variance of the measured means: top-k features are then chosen by
        |delta| / standard error (`pertwise.evaluate.genes.differential_score`).
    candidates, own
        (n_candidates, d) measured responses that a prediction may be mistaken for, and the row of
        each perturbation among them; None leaves `retrieval_*` to the held-out candidates only.
    tops
        Sizes k of the differential feature sets; a k that is not below d is left out.
    include_target
        Whether the target's own feature counts, in every metric.
    significant
        (n, d) bool: features called differential in the truth, adds `*_significant`.
    more
        Further metrics: names of parts, such as ``path/to/file.py:Class``.
    ranked
        The responses are ranks: metrics of magnitude are left out.

    Raises
    ------
    pertwise.errors.InputError
        For unequal shapes or a prediction that is not finite (use a declared fallback).
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if t.ndim != 2 or t.shape != p.shape or len(perturbations) != len(t):
        raise InputError(
            f"truth {t.shape}, prediction {p.shape} and {len(perturbations)} names do not agree"
        )
    if not np.isfinite(p).all():
        row = perturbations[int(np.argwhere(~np.isfinite(p))[0][0])]
        raise InputError(f"the prediction of {row!r} is not finite; give it a declared fallback")
    ref = None if reference is None else np.asarray(reference, dtype=np.float64)
    keep = None
    if features is not None and not include_target:
        keep = genes.target_mask(perturbations, features)
    order = genes.differential_score(t, sampling_variance)
    called = None if significant is None else np.asarray(significant, dtype=bool)

    parts: list[dict[str, tuple[Floats, NDArray[np.bool_]]]] = []
    for start in range(0, max(len(t), 1), CHUNK):
        rows = slice(start, start + CHUNK)
        parts.append(
            _score_rows(
                t[rows],
                p[rows],
                None if ref is None else ref[rows] if ref.ndim == 2 else ref,
                order[rows],
                None if keep is None else keep[rows],
                None if called is None else called[rows],
                [k for k in tops if k < t.shape[1]],
                ranked,
            )
        )
    columns = {
        name: (
            np.concatenate([x[name][0] for x in parts]),
            np.concatenate([x[name][1] for x in parts]),
        )
        for name in parts[0]
    }
    columns.update(_retrievals(t, p, candidates, own, retrieval_distances))
    columns.update(_further(more, t, p, keep, ranked))
    index = pd.Index(list(perturbations), name="perturbation")
    return Scores(
        pd.DataFrame({k: v for k, (v, _) in columns.items()}, index=index),
        pd.DataFrame({k: u for k, (_, u) in columns.items()}, index=index),
    )


def _score_rows(
    t: Floats,
    p: Floats,
    ref: Floats | None,
    order: Floats,
    keep: NDArray[np.bool_] | None,
    called: NDArray[np.bool_] | None,
    tops: Sequence[int],
    ranked: bool,
) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    out = dict(_filled(t, p, ref, keep, ranked))
    sets = {f"top{k}": genes.top_mask(order, k, keep) for k in tops}
    never = np.zeros(len(t), dtype=bool)
    for k in tops:
        overlap = genes.de_overlap(order, np.where(np.isnan(t), np.nan, p), k, mask=keep)
        out[f"de_overlap_top{k}"] = (overlap, never)
    if called is not None:
        sets["significant"] = called if keep is None else called & keep
        overlap = genes.de_overlap(order, p, None, truth_significant=called, mask=keep)
        out["de_overlap_significant"] = (overlap, never)
        usable = ~np.isnan(t) if keep is None else keep & ~np.isnan(t)
        out["de_auroc"] = (auroc.de_auroc(p, called, usable), never)
        out["de_auprc"] = (auroc.de_auprc(p, called, usable), never)
    for label, chosen in sets.items():
        arrays = [np.nan_to_num(t), p]
        if ref is not None:
            arrays.append(np.broadcast_to(ref, t.shape))
        small, mask = _gather(chosen & ~np.isnan(t), *arrays)
        small_ref = small[2] if ref is not None else None
        for name, value in _filled(small[0], small[1], small_ref, mask, ranked).items():
            out[f"{name}_{label}"] = value
    return out


def _retrievals(
    t: Floats,
    p: Floats,
    candidates: ArrayLike | None,
    own: ArrayLike | None,
    kinds: Sequence[Distance],
) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    out = {}
    unmeasured = np.isnan(t).all(axis=1)
    for kind in kinds:
        found = retrieval_all(p, t if candidates is None else candidates, own, kind=kind)
        for which, result in found.items():
            if which == "measured":
                if candidates is None:
                    continue
                name = f"retrieval_{kind}"
            else:
                name = f"retrieval_{which}_{kind}"
            bad = result.undefined & ~unmeasured
            out[name] = (np.where(unmeasured, np.nan, result.score), bad)
    return out
