"""From any result to digests and a summary that survives another processor; and back to words.

Every value is taken apart into leaves: arrays and texts with a name such as "mean" or
"neighbours/weight". A leaf has a digest (sha256 of its bytes) and a summary. On the machine that
recorded them the digests must be equal; elsewhere (another processor, BLAS or numpy) only the
summaries are compared, with a tolerance.
"""

from __future__ import annotations

import hashlib
import html
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

#: Of the robust comparison, relative to the size of the values.
TOLERANCE = 1e-5
#: Values kept in a summary, evenly spread.
KEPT = 3
NUMBER = re.compile(r"[-+\u2212]?\d+\.\d+(?:e[-+]?\d+)?")

Leaf = np.ndarray | str


# -- taking apart ----------------------------------------------------------------------------------


def leaves(value: Any, name: str = "") -> dict[str, Leaf]:
    """Name -> array or text; tables by column, None as a word, lists of texts as lines."""
    if isinstance(value, Mapping):
        parts = [leaves(v, f"{name}/{k}".lstrip("/")) for k, v in value.items()]
        return {k: v for part in parts for k, v in part.items()}
    if isinstance(value, pd.DataFrame):
        columns = {str(c): value[c] for c in value.columns}
        return leaves({"index": value.index, **columns}, name)
    if isinstance(value, pd.Series | pd.Index):
        value = value.to_numpy()
    if isinstance(value, list | tuple) and value and isinstance(value[0], Mapping | pd.DataFrame):
        return leaves({str(i): v for i, v in enumerate(value)}, name)
    if isinstance(value, str) or value is None:
        return {name: str(value)}
    array = np.asarray(value)
    if array.dtype.kind in "biufc":
        return {name: _plain(array)}
    return {name: "\n".join("" if _absent(x) else str(x) for x in array.ravel().tolist())}


def _absent(x: Any) -> bool:
    return x is None or (isinstance(x, float) and np.isnan(x))


def _plain(array: np.ndarray) -> np.ndarray:
    """Contiguous, one kind of integer, one kind of NaN."""
    if array.dtype.kind in "biu":
        return np.ascontiguousarray(array, dtype=np.int64)
    out = np.array(array, order="C")
    out[np.isnan(out)] = np.nan
    return out


def digest(leaf: Leaf) -> str:
    """16 hexadecimal digits over the bytes, with type and shape."""
    head = "text" if isinstance(leaf, str) else f"{leaf.dtype.str} {leaf.shape}"
    body = leaf.encode() if isinstance(leaf, str) else leaf.tobytes()
    return hashlib.sha256(head.encode() + b"\n" + body).hexdigest()[:16]


def summary(leaf: Leaf) -> dict[str, Any]:
    """What another processor must reproduce: shape, sums and a few values; the words of a text."""
    if isinstance(leaf, str):
        return _text_summary(leaf)
    flat = leaf.ravel().astype(np.float64)
    finite = flat[np.isfinite(flat)]
    some = flat[np.unique(np.linspace(0, len(flat) - 1, KEPT).astype(int))] if len(flat) else flat
    return {
        "shape": list(leaf.shape),
        "finite": len(finite),
        "sums": [_short(finite.sum()), _short(np.abs(finite).sum())],
        "some": [_short(x) for x in some],
    }


def _text_summary(text: str) -> dict[str, Any]:
    """Decimal numbers apart from the words around them; headings and cells of a page."""
    if "</html>" in text:
        headings = re.findall(r"<h[1-4][^>]*>(.*?)</h[1-4]>", text, re.DOTALL)
        cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", text, re.DOTALL)
        words = "\n".join(" ".join(re.sub(r"<[^>]+>", " ", x).split()) for x in cells)
        text = html.unescape(words)
        shown = [html.unescape(re.sub(r"<[^>]+>", "", x)).strip() for x in headings]
    else:
        shown = [line.strip() for line in text.splitlines() if line.startswith("#")]
    numbers = [float(n.replace("\u2212", "-")) for n in NUMBER.findall(text)]
    return {
        "lines": len(text.splitlines()),
        "words": digest(NUMBER.sub("#", text))[:8],
        **({"numbers": len(numbers)} if numbers else {}),
        **({"sums": [_short(sum(numbers)), _short(sum(map(abs, numbers)))]} if numbers else {}),
        **({"headings": shown} if shown else {}),
    }


def _short(x: float) -> float | None:
    """7 significant digits; None for what JSON cannot say."""
    return float(f"{x:.7g}") if np.isfinite(x) else None


# -- comparing -------------------------------------------------------------------------------------

Record = dict[str, dict[str, Any]]


def record(value: Any) -> Record:
    """Leaf name -> {"digest": ..., summary}."""
    return {k: {"digest": digest(v), **summary(v)} for k, v in leaves(value).items()}


def differences(
    old: Record, new: Record, *, exact: bool, tolerance: float = TOLERANCE
) -> list[str]:
    """What changed, one line a leaf; empty when nothing did.

    Parameters
    ----------
    exact
        Whether equal digests are asked for; otherwise equal summaries are enough.
    tolerance
        Of the summaries; infinite = the names of the leaves are enough.
    """
    out = [f"{k}: is gone" for k in old if k not in new]
    out += [f"{k}: is new" for k in new if k not in old]
    for name in old:
        if name not in new or old[name]["digest"] == new[name]["digest"]:
            continue
        changed = _changed(old[name], new[name], TOLERANCE if exact else tolerance)
        if changed:
            out.append(f"{name}: {changed}")
        elif exact:
            what = (
                f"only the last digits changed (summaries agree to {TOLERANCE:g})"
                if "shape" in old[name]
                else "words outside headings and tables, or last digits, changed (see --against)"
            )
            out.append(f"{name}: {what}")
    return out


def _changed(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> str:
    if tolerance == float("inf"):
        return ""
    for key in {**old, **new}:
        if key not in ("digest", "sums", "some") and old.get(key) != new.get(key):
            return f"{key} was {old.get(key)}, is {new.get(key)}"
    # Printed numbers are rounded, so that a last digit may turn over on another machine.
    loose = tolerance if "shape" in old else max(tolerance, 1e-3)
    total = (old.get("sums", [0.0, 0.0])[1]) or 0.0
    typical = total / (old.get("finite", old.get("numbers")) or 1)
    for a, b in zip(old.get("sums", ()), new.get("sums", ()), strict=True):
        if not _near(a, b, loose * total + 1e-12):
            return f"sum was {a}, is {b}"
    for a, b in zip(old.get("some", ()), new.get("some", ()), strict=True):
        if not _near(a, b, loose * max(typical, abs(a or 0.0)) + 1e-12):
            return f"a value was {a}, is {b}"
    return ""


def _near(a: float | None, b: float | None, within: float) -> bool:
    return a == b or (a is not None and b is not None and abs(a - b) <= within)


# -- pages -----------------------------------------------------------------------------------------


def normalised(text: str, *folders: str) -> str:
    """A page or message without what differs between runs: versions, times, paths, checksums."""
    for folder in sorted(map(str, folders), key=len, reverse=True):
        text = text.replace(folder, "FOLDER")
    # A workbook is on the page only where openpyxl is installed; tables have tests of their own.
    text = re.sub(r'<a href="data:[^"]*" download="plan\.xlsx">plan\.xlsx</a> ', "", text)
    text = re.sub(r'href="data:[^"]*"', "DATA", text)
    text = re.sub(r"(?m)^(<p>)?Seconds per split .*$", "SECONDS", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "SERVER", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:\d\d)?)?", "T", text)
    text = re.sub(r"\b\d+\.\d+\.\d+[\w.+]*", "VERSION", text)
    return re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12,64}\b", "HASH", text)


# -- the machine -----------------------------------------------------------------------------------

PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "torch", "rdkit", "matplotlib", "anndata")


def machine() -> dict[str, Any]:
    """What decides the last bits: processor features in use, BLAS, versions."""
    import scipy.linalg  # noqa: F401  (brings its own BLAS, which is then listed)
    from threadpoolctl import threadpool_info

    simd = np.show_config(mode="dicts").get("SIMD Extensions", {})
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    blas = {
        f"{x['internal_api']} {x.get('version')} {x.get('architecture', '')}".strip()
        for x in threadpool_info()
        if x["user_api"] == "blas"
    }
    return {
        "machine": platform.machine(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "simd": " ".join(map(str, simd.get("found", ()))),
        "cpu": _cpu(),
        "blas": sorted(blas),
        "versions": versions,
    }


def _cpu() -> str:
    """Digest of the flags of the processor; the libraries choose their code by them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            flags = next((x.split(":", 1)[1] for x in lines if x.startswith("flags")), "")
    except OSError:
        flags = platform.processor()
    return hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:12]


def dumps(recorded: dict[str, Record], where: dict[str, Any]) -> str:
    """One line a leaf, so that a diff names what changed."""
    cases = []
    for case in sorted(recorded):
        rows = [
            f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False, separators=(',', ':'))}"
            for k, v in recorded[case].items()
        ]
        cases.append(f"{json.dumps(case)}: {{\n" + ",\n".join(rows) + "\n }")
    head = json.dumps(where, sort_keys=True)
    return f'{{"machine": {head},\n"cases": {{\n' + ",\n".join(cases) + "\n}}\n"
