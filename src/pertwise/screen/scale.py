"""Is a matrix made of counts or of logarithms? Decided from evidence, never assumed.

Log data that are logged again, or counts that are averaged raw, give plausible but wrong screens;
so what cannot be told apart is refused with the flag that settles it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pertwise.errors import InputError

#: counts: raw counts; normalised: divided by library size, not logged; log1p: logged (log2, log10:
#: to that base); as-is: averaged as it stands (z-scores, components).
Scale = Literal["counts", "normalised", "log1p", "log2", "log10", "as-is"]
#: What brings logarithms of 1 + x to the natural base.
TO_NATURAL: Mapping[str, float] = {"log2": float(np.log(2.0)), "log10": float(np.log(10.0))}
#: The largest natural log1p of normalised counts worth believing: ln(1 + 1e6).
MAX_LOG = 14.0
LOGGED_TWICE = "values were logged twice"
_TAGS: dict[str, Scale] = {
    "counts": "counts",
    "raw": "counts",
    "raw_counts": "counts",
    "raw counts": "counts",
    "umi": "counts",
    "normalised": "normalised",
    "normalized": "normalised",
    "cpm": "normalised",
    "log1p": "log1p",
    "lognorm": "log1p",
    "log-normalised": "log1p",
    "log-normalized": "log1p",
    "logcounts": "log1p",
    "log2": "log2",
    "log10": "log10",
    "as-is": "as-is",
}


@dataclass(frozen=True)
class Verdict:
    """A scale with the evidence for it (shown to the user); `checked`: the values show it too."""

    scale: Scale
    evidence: str
    checked: bool = False


def tag_of(uns: Mapping[str, Any]) -> Verdict | None:
    """The scale a file states about its X: ``uns["scale"]``, ``["X_name"]`` or ``["log1p"]``."""
    for key in ("scale", "X_scale", "X_name", "data_scale"):
        value = uns.get(key)
        if isinstance(value, str) and value.strip().casefold() in _TAGS:
            return Verdict(_TAGS[value.strip().casefold()], f"uns[{key!r}] = {value!r}")
    if "log1p" in uns:
        base = uns["log1p"] if isinstance(uns["log1p"], (int, float)) else None
        for name, number in (("log2", 2.0), ("log10", 10.0)):
            if base is not None and abs(base - number) < 1e-6:
                return Verdict(name, f"uns['log1p'] states base {base:g}")  # type: ignore[arg-type]
        if base is not None and abs(base - np.e) > 1e-2:
            return Verdict("as-is", f"uns['log1p'] states base {base:g}")
        return Verdict("log1p", "uns['log1p'] is set (scanpy)")
    return None


def judge_values(sample: NDArray[Any] | sparse.csr_matrix) -> tuple[Scale | None, str]:
    """Scale of a sample of cells from its values alone.

    Parameters
    ----------
    sample
        (n_cells, n_features) values.

    Returns
    -------
    The scale, or None when the values do not tell; and the evidence. Within one cell, counts
    that were divided by the library size are integer multiples of the smallest one; the same
    holds after undoing log1p. That tells normalised from log-normalised values whatever the
    library sizes or the genes that were kept.
    """
    x = sparse.csr_matrix(sample)
    x.eliminate_zeros()
    # Cells with NaN or infinite values are named, and refused, when they are read.
    broken = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))[~np.isfinite(x.data)]
    x = x[np.setdiff1d(np.arange(x.shape[0]), broken)] if len(broken) else x
    values = np.asarray(x.data, dtype=np.float64)
    if not values.size:
        return None, "NaN or infinite values" if len(broken) else "all values are zero"
    if values.min() < 0:
        return None, f"negative values (smallest {values.min():.3g})"
    largest = values.max()
    mixed = _mixture(x)
    if mixed:
        return None, mixed
    if np.array_equal(values, np.rint(values)):
        if largest <= 2 and values.size < 50:
            return None, "only a few small integers"
        if largest == 1:
            return None, "all values are 0 or 1: counts, or only what was detected"
        return "counts", f"all values are non-negative integers (largest {largest:g})"
    shares: dict[Scale, list[bool]] = {"normalised": [], "log1p": [], "log2": [], "log10": []}
    again: list[bool] = []
    for i in range(x.shape[0]):
        row = np.asarray(x.data[x.indptr[i] : x.indptr[i + 1]], dtype=np.float64)
        if len(row) < 5:
            continue
        shares["normalised"].append(_integer_multiples(row))
        if largest <= MAX_LOG:
            shares["log1p"].append(_integer_multiples(np.expm1(row)))
        if largest <= np.log1p(MAX_LOG):
            again.append(_integer_multiples(np.expm1(np.expm1(row))))
        if largest <= MAX_LOG / np.log(2):
            shares["log2"].append(_integer_multiples(np.exp2(row) - 1))
        if largest <= MAX_LOG / np.log(10):
            shares["log10"].append(_integer_multiples(10.0**row - 1))
    found = {name: float(np.mean(hits)) if hits else 0.0 for name, hits in shares.items()}
    best = max(found, key=lambda name: found[name])
    if found[best] >= 0.8 and sum(share == found[best] for share in found.values()) == 1:
        undone = "values are" if best == "normalised" else f"undoing {best} gives"
        return best, f"{undone} whole multiples within {found[best]:.0%} of the sampled cells"
    if again and np.mean(again) >= 0.8 and found[best] < 0.2:
        return None, f"{LOGGED_TWICE}: undoing log1p twice gives whole multiples"
    if largest > MAX_LOG:
        return None, (f"values are not integers and reach {largest:.4g}, too large for logarithms")
    return (
        None,
        f"values are not integers, largest {largest:.3g}: could be logs or corrected counts",
    )


def whole_rows(x: sparse.csr_matrix) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) rows of counts and rows of fractions; rows too poor to tell are neither.

    Counts: at least five stored values, all whole and not all the same. Fractions: any other row
    with a value that is not whole.
    """
    filled = np.diff(x.indptr) > 0
    counted, spread = np.zeros(x.shape[0], dtype=bool), np.zeros(x.shape[0], dtype=bool)
    starts = x.indptr[:-1][filled]
    if len(starts):
        counted[filled] = np.logical_and.reduceat(x.data == np.rint(x.data), starts)
        spread[filled] = np.maximum.reduceat(x.data, starts) > np.minimum.reduceat(x.data, starts)
    return counted & spread & (np.diff(x.indptr) >= 5), filled & ~counted


def _mixture(x: sparse.csr_matrix) -> str:
    """What is mixed, when some cells hold counts and others do not; else ""."""
    counted, other = whole_rows(x)
    if not counted.any() or not other.any():
        return ""
    if x[other].max() > MAX_LOG:
        # Normalised values of a cell are whole when its library size divides the target sum.
        sums = np.asarray(x.sum(axis=1)).ravel()
        typical = float(np.median(sums[other]))
        counted &= np.abs(sums - typical) > 0.2 * typical
        if counted.sum() <= max(1, 0.05 * other.sum()):
            return ""
    n, m = int(counted.sum()), int(other.sum())
    share = n / (n + m)
    return (
        f"{share:.0%} of the sampled cells hold whole numbers (counts), {1 - share:.0%} do not: "
        "counts and logarithms or corrected values are mixed"
    )


def _integer_multiples(row: NDArray[np.float64]) -> bool:
    """True when all entries are whole multiples of the smallest (or of half or a third of it)."""
    ratio = row / row.min()
    for unit in (1, 2, 3):
        scaled = ratio * unit
        near = np.rint(scaled)
        # Large ratios carry float32 error in proportion; small ones must be clearly whole.
        close = np.abs(scaled - near) < 1e-2 + 2e-4 * near
        # Ratios above 30 are near a whole number by chance too often to be evidence.
        small = scaled < 30
        if small.sum() >= 5 and close[small].mean() > 0.98 and len(np.unique(near[small])) > 1:
            return True
    return False


def decide_scale(
    sample: NDArray[Any] | sparse.csr_matrix,
    *,
    tag: Verdict | None = None,
    wanted: str = "auto",
    where: str = "the file",
    others: str = "",
) -> Verdict:
    """The scale to work with: what the user says, else the tag, else the values.

    `others` says what else the file holds that could be read instead.

    Raises
    ------
    pertwise.errors.InputError
        If the tag contradicts the values, or neither tells.
    """
    choices = ("auto", *get_args(Scale))
    if wanted not in choices:
        raise InputError(f"scale {wanted!r} is not one of {', '.join(choices)}")
    scale, evidence = judge_values(sample)
    if wanted != "auto":
        if wanted == "log1p" and scale == "counts":
            evidence += "; taken as log1p because you said so"
        return Verdict(wanted, f"given by the user ({evidence})")  # type: ignore[arg-type]
    flags = f"--scale {' | '.join(get_args(Scale))}" + (f"; {others}" if others else "")
    if tag is not None:
        mixed = scale is None and ("mixed" in evidence or LOGGED_TWICE in evidence)
        limit = MAX_LOG / TO_NATURAL.get(tag.scale, 1.0)
        logs = scale is None and tag.scale in ("log1p", *TO_NATURAL)
        if logs and min(sample.shape) and sample.max() > limit:
            mixed, evidence = (
                True,
                f"values reach {sample.max():.4g}, too large for such logarithms",
            )
        if evidence.startswith("negative") and tag.scale != "as-is":
            raise InputError(
                f"{where} contradicts itself: {tag.evidence} says {tag.scale}, but there are "
                f"{evidence}, as after scaling to z-scores. Say what it is with {flags}"
            )
        if mixed or (scale is not None and scale != tag.scale):
            raise InputError(
                f"{where} contradicts itself: {tag.evidence} says {tag.scale}, but {evidence}. "
                f"Say which is right with {flags}"
            )
        return Verdict(tag.scale, f"{tag.evidence}; {evidence}", scale is not None)
    if scale is None:
        raise InputError(
            f"{where}: cannot tell counts from logs ({evidence}), and log data must not be "
            f"logged twice. Say what it is with {flags}"
        )
    return Verdict(scale, evidence, True)
