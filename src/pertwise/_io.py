"""Small file helpers shared by every room: atomic writes, checksums, optional imports."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pertwise.errors import InputError, MissingDependencyError

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SECRET = re.compile(r"(?i)key|token|secret|passw|credential")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it into place only if the block succeeds.

    A reader therefore sees the old file or the whole new one, never a part. The temporary name
    keeps the suffix of `path`, because writers such as pandas choose a format by it.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        suffix = "".join(target.suffixes[-2:])
        fd, name = tempfile.mkstemp(
            prefix=f".{target.name[:80]}.", suffix=".tmp" + suffix, dir=target.parent
        )
        os.close(fd)
        temporary = Path(name)
        yield temporary
        # mkstemp makes private files; results are meant to be shared like any other output.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        flush_to_disk(temporary)
        os.replace(temporary, target)
        flush_to_disk(target.parent)
    except OSError as error:
        # What failed in the block on another file is told with that file's name.
        if error.filename not in (None, *map(str, (temporary, target, *target.parents))):
            raise
        raise InputError(f"{target} cannot be written: {why_not(error)}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def flush_to_disk(path: str | os.PathLike[str]) -> None:
    """Have the system write a file (or the names in a folder) to the disk now.

    A rename may reach the disk before the content of the file: after a power cut the new name would
    then stand for an empty file.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some file systems do not flush folders, or at all; a full disk must be told.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(fd)


_ERRNO = re.compile(r"(?i)errno\s*=?\s*(\d+)")
_REMEDY = {
    errno.ENOSPC: "make room there or choose another place",
    errno.EDQUOT: "make room there or choose another place",
    errno.EFBIG: "make room there or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.EACCES: "change the permissions or choose another place",
    errno.EPERM: "change the permissions or choose another place",
}


def why_not(error: OSError) -> str:
    """The reason of an operating-system error in plain words, and what to do, on one line.

    HDF5 and Arrow put the error number into the text only.
    """
    stated = _ERRNO.search(str(error))
    number = error.errno or (int(stated[1]) if stated else 0)
    words = os.strerror(number) if number else " ".join(str(error).split())[:200]
    return f"{words}; {_REMEDY.get(number, 'check the path, or choose another place')}"


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text so that `path` never holds a half-written file."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON atomically; NaN is refused because it is not JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def config_path(config: str | os.PathLike[str], value: str) -> str:
    """A file named in a configuration, relative to its folder; $VARIABLES are filled in.

    Raises
    ------
    InputError
        If a variable is not set, or its name is that of a secret (paths are shown in messages).
    """

    def filled(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if _SECRET.search(name):
            raise InputError(f"{config}: ${name} looks like a secret; a path must not hold one")
        if name not in os.environ:
            raise InputError(f"{config}: {value!r} needs the environment variable {name}; set it")
        return os.environ[name]

    return str(Path(config).parent / _VARIABLE.sub(filled, value))


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
