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
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pertwise.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    import pandas as pd


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
    try:
        fd = os.open(path, os.O_RDONLY)
    except PermissionError:
        if os.path.isdir(path):
            # Windows opens no folder as a file.
            return
        raise
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
    """Write UTF-8 text so that `path` never holds a half-written file; what UTF-8 cannot hold
    (half a surrogate pair) becomes "?"."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


#: Where a spreadsheet would begin a formula: at the start of a cell, and after what some countries'
#: settings take for the end of one. A cell must not begin with white space of a table either.
_BEGINS = r"'*[ \x00-\x08\x0b\x0c\x0e-\x1f\xa0]*[=+\-@＝＋－＠]"
_FORMULA = re.compile(rf"^(?='*[\t\r\n])|(?:^|(?<=[;\t\r\n]))(?={_BEGINS})")
_NEUTRAL = re.compile(rf"^'(?='*[\t\r\n])|(?:^|(?<=[;\t\r\n]))'(?={_BEGINS})")
_NUMBER = re.compile(r"[+\-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+\-]?\d+)?")


def csv_text(value: Any) -> Any:
    """A cell that no spreadsheet runs as a formula: texts get an apostrophe before = + - @.

    Numbers, also such as text, and everything that is no text stay as they are. `text_of_csv` is
    the exact inverse.
    """
    if not isinstance(value, str) or value == "-" or _NUMBER.fullmatch(value):
        return value
    return _FORMULA.sub("'", value)


def text_of_csv(value: Any) -> Any:
    """The text that `csv_text` was given."""
    return _NEUTRAL.sub("", value) if isinstance(value, str) else value


def csv_cells(table: pd.DataFrame, cell: Callable[[Any], Any]) -> pd.DataFrame:
    """The table with `cell` (`csv_text`, `text_of_csv`) on every text, labels included."""
    import pandas as pd

    kinds = pd.api.types
    out = table.rename(columns=cell)
    if not kinds.is_numeric_dtype(table.index.dtype):
        out = out.rename(index=cell)
    out.index.names = [cell(n) for n in out.index.names]
    for position, dtype in enumerate(table.dtypes):
        if not (kinds.is_numeric_dtype(dtype) or kinds.is_datetime64_any_dtype(dtype)):
            values = [cell(v) for v in table.iloc[:, position]]
            out.isetitem(position, pd.Series(values, index=out.index, dtype=object))
    return out


def write_csv_atomic(
    path: str | os.PathLike[str], table: pd.DataFrame, *, index: bool = False, **options: Any
) -> None:
    """Write a table that a spreadsheet can open safely (`csv_text`), atomically.

    `options` go to `pandas.DataFrame.to_csv`; read it back with `csv_cells(..., text_of_csv)`.
    """
    with atomic_path(path) as temporary:
        csv_cells(table, csv_text).to_csv(temporary, index=index, **options)


def csv_lines(table: pd.DataFrame, *, header: bool, **options: Any) -> bytes:
    """Rows as `write_csv_atomic` writes them, to append to a file that grows or to hand out."""
    text: str = csv_cells(table, csv_text).to_csv(index=False, header=header, **options)
    return text.encode("utf-8", "replace")


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
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def installed(module: str) -> bool:
    """Whether an optional dependency can be imported (found out by importing it)."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError):
        # OSError: a shared library of an installation that broke off.
        return False
    return True


def optional_import(module: str, extra: str, why: str) -> ModuleType:
    """Import an optional dependency or say which `pip install` line brings it.

    Raises
    ------
    MissingDependencyError
        When `module` is not installed, or a library of it cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except OSError as error:
        raise MissingDependencyError(
            f"{why} needs the package {module.split('.')[0]!r}, which cannot be loaded "
            f"({' '.join(str(error).split())[:200]}). Install it again with: "
            f"pip install --force-reinstall 'pertwise[{extra}]'"
        ) from error
    except ImportError as error:
        raise MissingDependencyError(
            f"{why} needs the package {module.split('.')[0]!r}, which is not installed. "
            f"Install it with: pip install 'pertwise[{extra}]'"
        ) from error
