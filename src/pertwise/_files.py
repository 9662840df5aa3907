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
import re
import zipfile
from collections.abc import Iterable, Iterator
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
#: An escaped surrogate; only an escape can bring half a pair into a text that was UTF-8.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
#: First bytes -> what such a file is, and what to do.
_LOOKS = (
    (b"\x89hdf\r\n", "an HDF5 file; name it .h5ad if it is AnnData"),
    (b"par1", "a parquet file; name it .parquet"),
    (b"sqlite format 3", "an SQLite database"),
    (b"pk\x03\x04", "a zip archive or an Excel workbook; unpack it, or save the sheet as csv"),
    (b"\xd0\xcf\x11\xe0", "an old or encrypted Office file; save the sheet as csv"),
    (b"%pdf", "a PDF; save the table as csv"),
    (b"\x89png", "a picture"),
    (b"salted__", "encrypted; decrypt it first"),
    (b"-----begin pgp", "encrypted; decrypt it first"),
    (b"\x80\x04", "a pickle; these are not opened, they can run code"),
    (b"\xff\xfe", "UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as UTF-8"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with git lfs pull"),
    (b"<", "a web page, not the file behind it; download it again"),
)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], what: str, remedy: str = _AGAIN) -> Iterator[None]:
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
    except MemoryError as error:
        raise InputError(f"{path} needs more memory than there is to be read as {what}") from error
    except UnicodeDecodeError as error:
        reason = (
            f"it is {looks}"
            if (looks := looks_like(path))
            else (
                f"it is not UTF-8 text (byte 0x{error.object[error.start]:02x}); save it as UTF-8 "
                "(e.g. iconv -f WINDOWS-1252 -t UTF-8 FILE)"
            )
        )
        raise InputError(f"{path} cannot be read as {what}: {reason}") from error
    except Exception as error:
        looks = looks_like(path)
        reason = f"it is {looks}" if looks else f"{reason_of(error)}; {remedy}"
        raise InputError(f"{path} cannot be read as {what}: {reason}") from error


def reason_of(error: BaseException) -> str:
    """Kind and text of an error, on one line and of bounded length."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def looks_like(path: str | os.PathLike[str] | bytes) -> str:
    """What the first bytes of a file say it is, and what to do; "" where they say nothing."""
    start = path if isinstance(path, bytes) else b""
    if not isinstance(path, bytes):
        try:
            with open(path, "rb") as handle:
                start = handle.read(512)
        except OSError:
            return ""
        if not start:
            return "empty; get it again"
    start = start.lstrip().lower()
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
            looks = looks_like(self._path) or f"binary data; {_AGAIN}"
            raise InputError(f"{self._path} cannot be read as text: it is {looks}")
        buffer[: len(block)] = block
        return len(block)


@contextlib.contextmanager
def open_text(
    path: str | os.PathLike[str], what: str = "text", longest: int | None = LINE
) -> Iterator[IO[str]]:
    """Open UTF-8 text that may be gzipped, or the one file of a zip archive; see `reading`.

    The block may only read: an error in it is told as an error of the file. `longest` = most bytes
    of a line, None = of the whole.
    """
    file = Path(path)
    with reading(file, what), contextlib.ExitStack() as stack:
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
        See `reading`; also for nesting too deep to read.
    """
    with reading(path, what, remedy):
        return _parsed(read_text(path, what))


def _parsed(text: str) -> Any:
    """The JSON value; halves of surrogate pairs (``"\\ud800"``), which are no text, are U+FFFD."""
    value = json.loads(text)
    if _HALF.search(text):
        said = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        value = json.loads(said.decode("utf-16-le", "replace"))
    return value


def read_json_object(
    path: str | os.PathLike[str], what: str = "a JSON object", remedy: str = _AGAIN
) -> dict[str, Any]:
    """A JSON document that is an object; see `read_json`."""
    value = read_json(path, what, remedy)
    if not isinstance(value, dict):
        raise InputError(f"{path} is not {what}: it holds a {type(value).__name__}; {remedy}")
    return value


def json_lines(
    lines: Iterable[str], path: str | os.PathLike[str], remedy: str = ""
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of JSON lines, blank ones left out.

    Raises
    ------
    InputError
        Names the file and the line that is not JSON, or no object; then `remedy`.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _parsed(line)
        except (ValueError, RecursionError) as error:
            told = f"; {remedy}" if remedy else ""
            raise InputError(
                f"{path} line {number} is not JSON: {reason_of(error)}{told}"
            ) from None
        if not isinstance(row, dict):
            raise InputError(f"{path} line {number} is no JSON object")
        yield number, row


def read_parquet(
    path: str | os.PathLike[str], what: str = "a parquet table", remedy: str = _AGAIN
) -> pd.DataFrame:
    """A table that this program wrote; see `reading`."""
    import pandas as pd

    with reading(path, what, remedy):
        return pd.read_parquet(path)
