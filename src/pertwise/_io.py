"""Small file helpers shared by every room: atomic writes, checksums, optional imports."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pertwise.errors import MissingDependencyError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place only if the block succeeds.

    A reader therefore sees the old file or the whole new one, never a part. The temporary name
    keeps the suffix of `path`, because writers such as pandas choose a format by it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(target.suffixes[-2:])
    fd, name = tempfile.mkstemp(
        prefix=f".{target.name}.", suffix=".tmp" + suffix, dir=target.parent
    )
    os.close(fd)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; results are meant to be shared like any other output.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text so that `path` never holds a half-written file."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON atomically; NaN is refused because it is not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Hex SHA-256 of UTF-8 text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def optional_import(module: str, extra: str, why: str) -> ModuleType:
    """Import an optional dependency or say which `pip install` line brings it.

    Raises
    ------
    MissingDependencyError
        When `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{why} needs the package {module.split('.')[0]!r}, which is not installed. "
            f"Install it with: pip install 'pertwise[{extra}]'"
        ) from error
