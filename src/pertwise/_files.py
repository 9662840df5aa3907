"""Reading files that may be anything: cut, damaged, encrypted, of another kind, not readable.

Whatever is wrong with a file becomes one `InputError` that names it and says what to do. Text may
be plain, gzipped or the one file of a zip; what it unpacks to is bounded, and so are its lines.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pertwise.errors import InputError, PertwiseError

if TYPE_CHECKING:
    import pandas as pd

#: Bytes that any file may unpack to, and times its own size on top: tables and annotation pack to
#: a tenth or a thirtieth, a bomb to a thousandth.
UNPACKED, RATIO = 64 << 20, 60
#: Bytes of one line: the longest gene set is a hundredth of this.
LINE = 16 << 20
_AGAIN = "check that it is whole and the right file, or get it again"
#: What to do about a damaged part of a run that goes on where it stopped.
PART = "delete it and give the same command again, it is then computed again"
#: First bytes -> what such a file is.
_LOOKS = (
    (b"\x89HDF\r\n", "HDF5 (h5ad, h5mu)"),
    (b"PAR1", "parquet"),
    (b"SQLite format 3", "an SQLite database"),
    (b"PK\x03\x04", "a zip archive (xlsx, npz)"),
    (b"\xd0\xcf\x11\xe0", "an old or encrypted Office file"),
    (b"%PDF", "PDF"),
    (b"\x89PNG", "a picture"),
    (b"Salted__", "encrypted"),
    (b"-----BEGIN PGP", "encrypted"),
    (b"\x80\x04", "a pickle"),
    (b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
    (b"<", "HTML or XML"),
)


@contextlib.contextmanager
def readable(path: str | os.PathLike[str], what: str, remedy: str = _AGAIN) -> Iterator[None]:
    """Turn whatever goes wrong in the block into an `InputError` about the file `path`.

    For blocks that only read: parsers of other libraries raise anything on damaged bytes.

    Parameters
    ----------
    what
        What the file should be, "a knowledge table".
    remedy
        What to do about it.
    """
    try:
        yield
    except PertwiseError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, {what} was expected; name a file in it") from None
    except PermissionError:
        raise InputError(
            f"{path} may not be read (permission denied); change its permissions or copy it"
        ) from None
    except Exception as error:
        looks = looks_like(path)
        raise InputError(
            f"{path}: cannot be read as {what}{f' (it looks like {looks})' if looks else ''}: "
            f"{one_line(error)}; {remedy}"
        ) from error


def one_line(error: BaseException) -> str:
    """Kind and text of an error, on one line and of bounded length."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def looks_like(path: str | os.PathLike[str]) -> str:
    """What the first bytes of a file say it is; "" where they say nothing."""
    try:
        with open(path, "rb") as handle:
            start = handle.read(64)
    except OSError:
        return ""
    if not start:
        return "empty"
    return next((name for magic, name in _LOOKS if start.startswith(magic)), "")


class _Bounded(io.RawIOBase):
    """Bytes of a text, refused when there are too many, too many without a line end, or NUL."""

    def __init__(self, raw: Any, path: Path, limit: int, longest: int) -> None:
        self._raw, self._path, self._left, self._longest = raw, path, limit, longest
        self._line = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._raw.read(len(buffer))
        self._left -= len(block)
        end = block.rfind(b"\n")
        self._line = self._line + len(block) if end < 0 else len(block) - end - 1
        if self._left < 0:
            raise InputError(
                f"{self._path} unpacks to more than {RATIO} times its size: it is no usable table"
            )
        if self._line > LINE:
            raise InputError(
                f"{self._path} has a line of more than {LINE >> 20} MB: it is no table"
            )
        if b"\0" in block:
            looks = looks_like(self._path)
            raise InputError(
                f"{self._path} is not text, it holds NUL bytes"
                f"{f' (it looks like {looks})' if looks else ''}; {_AGAIN}"
            )
        buffer[: len(block)] = block
        return len(block)


@contextlib.contextmanager
def open_text(
    path: str | os.PathLike[str], what: str = "text", longest: int | None = LINE
) -> Iterator[IO[str]]:
    """Open UTF-8 text that may be gzipped, or the one file of a zip archive; see `readable`.

    The block may only read: an error in it is told as an error of the file. `longest` = most bytes
    of a line, None = of the whole.
    """
    file = Path(path)
    with readable(file, what), contextlib.ExitStack() as stack:
        raw: Any = stack.enter_context(open(file, "rb"))
        magic, limit = raw.read(4), os.fstat(raw.fileno()).st_size * RATIO + UNPACKED
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            raw = stack.enter_context(gzip.open(raw, "rb"))
        elif magic == b"PK\x03\x04":
            archive = stack.enter_context(zipfile.ZipFile(raw))
            names = [n for n in archive.namelist() if not n.endswith("/")]
            if len(names) != 1:
                raise InputError(f"{file}: expected one file in the zip, found {len(names)}")
            raw = stack.enter_context(archive.open(names[0]))
        bounded = io.BufferedReader(_Bounded(raw, file, limit, longest or limit), 1 << 18)
        yield io.TextIOWrapper(bounded, encoding="utf-8-sig", newline="")


def read_text(path: str | os.PathLike[str], what: str = "text") -> str:
    """The whole of a text file, plain or packed; see `open_text`."""
    with open_text(path, what, None) as text:
        return text.read().replace("\r\n", "\n")


def read_json(path: str | os.PathLike[str], what: str = "JSON", remedy: str = _AGAIN) -> Any:
    """A JSON document, plain or packed.

    Raises
    ------
    InputError
        See `readable`; also for nesting too deep to read.
    """
    with readable(path, what, remedy):
        return json.loads(read_text(path, what))


def read_json_object(
    path: str | os.PathLike[str], what: str = "a JSON object", remedy: str = _AGAIN
) -> dict[str, Any]:
    """A JSON document that is an object; see `read_json`."""
    value = read_json(path, what, remedy)
    if not isinstance(value, dict):
        raise InputError(f"{path} is not {what}: it holds a {type(value).__name__}; {remedy}")
    return value


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A TOML document."""
    with readable(path, "valid TOML", "correct it there"):
        return tomllib.loads(read_text(path, "a TOML file"))


def read_frame(
    path: str | os.PathLike[str], what: str = "a table", remedy: str = _AGAIN, **options: Any
) -> pd.DataFrame:
    """A parquet, csv or tsv table (the last two plain or packed), chosen by the name of the file.

    `options` go to `pandas.read_csv`.
    """
    import pandas as pd

    file = Path(path)
    if file.suffix == ".parquet":
        with readable(file, what, remedy):
            return pd.read_parquet(file)
    options.setdefault("sep", "\t" if ".tsv" in file.suffixes else ",")
    with open_text(file, what) as text, readable(file, what, remedy):
        return pd.read_csv(text, **options)
