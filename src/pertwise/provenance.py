"""What a result says about how it was made: versions, inputs by checksum, settings, seeds."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pertwise import __version__
from pertwise._io import sha256_file, sha256_text
from pertwise.errors import InputError

#: Packages whose version may change a number.
PACKAGES = ("numpy", "pandas", "scipy", "scikit-learn", "anndata", "torch")


def versions() -> dict[str, str]:
    """Python, pertwise and those of `PACKAGES` that are installed (none of them is imported)."""
    found = {"python": platform.python_version(), "pertwise": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def checksum(path: str | os.PathLike[str], named_in: str = "") -> str:
    """SHA-256 of a file; of a folder, over the names and contents of its files.

    Raises
    ------
    pertwise.errors.InputError
        If there is nothing of that name; `named_in` says where it was named.
    """
    place = Path(path)
    if place.is_file():
        return sha256_file(place)
    if not place.is_dir():
        raise InputError(f"no such file: {place}" + (f" (named in {named_in})" if named_in else ""))
    parts = sorted(p for p in place.rglob("*") if p.is_file())
    return sha256_text("\n".join(f"{p.relative_to(place)} {sha256_file(p)}" for p in parts))


def input_facts(given: Any) -> dict[str, str]:
    """Where an input comes from and what it is.

    Parameters
    ----------
    given
        A path, or an opened folder of knowledge (anything with ``path`` and ``fingerprint()``).

    Returns
    -------
    "path", with "sha256" of a file or "fingerprint" of a folder of knowledge.
    """
    if hasattr(given, "fingerprint"):
        return {"path": str(given.path), "fingerprint": given.fingerprint()}
    facts = {"path": str(given)}
    if Path(given).is_file():
        facts["sha256"] = sha256_file(given)
    return facts


def contents(inputs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Role -> checksum of `input_facts`: what decides a result, wherever the files lie."""
    return {
        role: str(facts.get("sha256") or facts.get("fingerprint") or facts.get("path"))
        for role, facts in sorted(inputs.items())
    }


def record(
    settings: Mapping[str, Any], inputs: Mapping[str, Mapping[str, Any]], **more: Any
) -> dict[str, Any]:
    """The record of a result, ready for JSON: versions, machine, settings with their hash (seeds
    are among them), inputs, and `more`."""
    plain = jsonable(settings)
    return {
        "versions": versions(),
        "machine": platform.machine(),
        "settings": plain,
        "settings_sha256": sha256_text(json.dumps(plain, sort_keys=True)),
        "inputs": jsonable(inputs),
        **jsonable(more),
    }


def identity(*parts: Any) -> str:
    """24 hexadecimal digits over everything that decides a result, this version included."""
    text = json.dumps([__version__, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def jsonable(value: Any) -> Any:
    """Plain values for JSON: arrays become lists, NaN and infinity None, the rest its text."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
