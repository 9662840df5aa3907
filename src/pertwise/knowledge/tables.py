"""The opened folder: manifest, tables read on demand, and what was computed from them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from pertwise._cache import read_arrays, write_arrays
from pertwise._files import read_json_object, reading
from pertwise._process import alive
from pertwise.errors import InputError, unknown_name
from pertwise.knowledge.genes.symbols import SymbolIndex
from pertwise.knowledge.layout import FORMAT, FORMAT_VERSION, HOW, MANIFEST, TABLES

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_matrix

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Arrays = dict[str, NDArray[Any]]

_ANEW = "it is damaged: build it anew: pertwise knowledge build SOURCES --out DIR --overwrite"


class _Entry(BaseModel):
    file: str
    sha256: str
    from_screen: bool


class _Table(_Entry):
    rows: int
    licence: str
    sources: list[str]


class _Matrix(_Entry):
    n_genes: int
    dim: int


class _Source(BaseModel):
    kind: str
    title: str
    file: str
    version: str
    date: str
    file_date: str
    licence: str
    sha256: str
    from_screen: bool


class _LeftOut(BaseModel):
    names: int
    rows: int
    examples: list[str]


class _Manifest(BaseModel):
    built: str
    taxon: Literal["9606", "10090"] = "9606"
    tables: dict[str, _Table]
    embeddings: dict[str, _Matrix]
    sources: dict[str, _Source]
    unavailable: dict[str, str]
    unresolved_names: dict[str, _LeftOut]
    ignored_files: list[str]


def put_back(folder: Path) -> None:
    """Undo a replacement of `folder` that was killed between its two renames; see `build`."""
    if folder.exists():
        return
    for left, owner in leftovers(folder, "old"):
        if owner and (left / "was" / MANIFEST).is_file():
            with contextlib.suppress(OSError):
                os.replace(left / "was", folder)
                left.rmdir()
            return


def leftovers(folder: Path, what: str) -> list[tuple[Path, bool]]:
    """Folders beside `folder` that a build made ("building", "old"), and whether it is dead."""
    start = f".{folder.name}.{what}-"
    if not folder.parent.is_dir():
        return []
    found = sorted(p for p in folder.parent.iterdir() if p.name.startswith(start))
    return [(p, _is_dead(p.name.removeprefix(start).partition("-")[0])) for p in found]


def _is_dead(pid: str) -> bool:
    try:
        return not alive(int(pid)) or int(pid) == os.getpid()
    except (ValueError, OverflowError):
        return False


class Tables:
    """A knowledge folder on disk. Each instance keeps what it read; nothing is shared."""

    def __init__(self, path: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
        self.path = os.fspath(path)
        self.manifest: Mapping[str, Any] = MappingProxyType(dict(manifest))
        self._kept: dict[Any, Any] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Tables:
        """Open a folder (reads its manifest); see `Knowledge.open` for the errors."""
        folder = Path(path)
        how = "build one with: pertwise knowledge build SOURCES --out DIR"
        put_back(folder)
        if not folder.exists():
            raise InputError(f"{folder}: no such knowledge folder; {how}")
        file = folder / MANIFEST
        if not file.is_file():
            raise InputError(f"{folder} is not a knowledge folder (no {MANIFEST} in it); {how}")
        manifest = read_json_object(file, "the manifest of a knowledge folder", _ANEW)
        if manifest.get("format") != FORMAT:
            raise InputError(f"{file} is not the manifest of a knowledge folder; {how}")
        found = manifest.get("format_version")
        if found != FORMAT_VERSION:
            raise InputError(
                f"{folder} has knowledge format version {found}, this pertwise reads version "
                f"{FORMAT_VERSION}; build it anew: pertwise knowledge build SOURCES --out {folder} "
                "--overwrite"
            )
        with reading(file, "the manifest of a knowledge folder", _ANEW):
            _Manifest.model_validate(manifest, strict=True)
        for name, entry in manifest["tables"].items():
            if not (folder / entry["file"]).is_file():
                raise InputError(f"{folder}: the file {entry['file']} of table {name!r} is missing")
        return cls(folder, manifest)

    @classmethod
    def empty(cls) -> Tables:
        """Nothing known about genes: for knowledge that holds drugs only."""
        return cls("", {"tables": {}, "embeddings": {}, "sources": {}})

    def reopened(self) -> Tables:
        """The same folder with nothing kept."""
        return Tables(self.path, self.manifest)

    def keep(self, key: Any, make: Callable[[], T]) -> T:
        """The value made for `key`, made once."""
        if key not in self._kept:
            self._kept[key] = make()
        value: T = self._kept[key]
        return value

    def stored(self, what: str, read: Callable[[Arrays], T]) -> T | None:
        """What `read` makes of the arrays that `store` wrote for these very tables, else None.

        `read` raises whatever it likes about arrays that do not fit together.
        """
        path = self._cache(what)
        return None if path is None else read_arrays(path, read)

    def store(self, what: str, arrays: Arrays) -> None:
        """Keep what took long to compute in the folder; one that cannot be written does without."""
        path = self._cache(what)
        if path is not None:
            write_arrays(path, arrays)

    def _cache(self, what: str) -> Path | None:
        safe = "".join(c if c.isalnum() else "-" for c in what)
        return Path(self.path) / "cache" / f"{safe}-{self.fingerprint()}.npz" if self.path else None

    def fingerprint(self) -> str:
        """Twelve hex digits over the checksums of all tables and registered matrices."""
        entries = {**self.manifest["tables"], **self.manifest["embeddings"]}
        lines = sorted(f"{name} {entry['sha256']}" for name, entry in entries.items())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]

    def names(self) -> tuple[str, ...]:
        """Names of the tables."""
        return tuple(self.manifest["tables"])

    def has(self, *names: str) -> bool:
        """Whether the folder holds all these tables."""
        return all(n in self.manifest["tables"] for n in names)

    def table(self, name: str) -> pd.DataFrame:
        """A table by name (kept: do not change it in place).

        Raises
        ------
        InputError
            When this folder was built without it; says which file brings it.
        """

        def read() -> pd.DataFrame:
            import pandas as pd

            frame = pd.read_parquet(io.BytesIO(self.checked(self._entry(name))))
            return frame.astype({"source": str})

        return self.keep(("table", name), read)

    def columns(self, name: str, *columns: str) -> list[list[Any]]:
        """Columns of a table as lists, not kept: a look-up needs no pandas, whose import takes
        longer. Errors as in `table`.
        """
        # `read_table` and `to_numpy` import pandas.
        from pyarrow.parquet import ParquetFile

        held = ParquetFile(io.BytesIO(self.checked(self._entry(name)))).read(columns=list(columns))
        return [held[c].to_pylist() for c in columns]

    def _entry(self, name: str) -> Mapping[str, Any]:
        entry: Mapping[str, Any] | None = self.manifest["tables"].get(name)
        if entry is None:
            known = {*TABLES, *HOW, *self.manifest["tables"]}
            if name not in known:
                raise unknown_name("knowledge table", name, known)
            raise InputError(self.lack(f"table {name!r}", name))
        return entry

    def checked(self, entry: Mapping[str, Any]) -> bytes:
        """Bytes of a file of the folder, compared with the checksum it was written with.

        Raises
        ------
        InputError
            When the file cannot be read or has changed since.
        """
        path = Path(self.path) / str(entry["file"])
        with reading(path, "a part of the knowledge folder", _ANEW):
            content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise InputError(
                f"{path} has changed since it was written (its checksum differs); {_ANEW}"
            )
        return content

    def lack(self, what: str, table: str) -> str:
        """The sentence that says what is not there and which file would bring it."""
        return (
            f"{what} is not available: {self.path or 'no knowledge folder'} was built without "
            f"{table!r}; rebuild it with "
            f"{HOW.get(table, 'its source')}"
        )

    def symbols(self) -> SymbolIndex:
        """The look-up of names."""
        if not self.path:
            return self.keep("symbols", lambda: SymbolIndex((), (), ()))
        return self.keep("symbols", self._index)

    def _index(self) -> SymbolIndex:
        names, approved, kinds = self.columns("symbols", "name", "approved", "kind")
        index = SymbolIndex(names, approved, kinds)
        if not self.has("genes"):
            return index
        return index.with_entrez(
            lambda: zip(*self.columns("genes", "entrez", "symbol"), strict=True)
        )

    def screen_sources(self) -> list[str]:
        """Ids of the sources that were derived from a perturbation screen."""
        return [s for s, entry in self.manifest["sources"].items() if entry["from_screen"]]


def lists_of(keys: Iterable[K], values: Iterable[T]) -> dict[K, list[T]]:
    """Key -> its values, in their order.

    A groupby makes a table of each of tens of thousands of groups: a second where this takes none.
    """
    found: dict[K, list[T]] = {}
    for key, value in zip(keys, values, strict=True):
        found.setdefault(key, []).append(value)
    return found


def sparse_arrays(matrix: csr_matrix) -> Arrays:
    """A sparse matrix as arrays that `Tables.store` can keep."""
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    return {**parts, "shape": np.array(matrix.shape)}


def sparse_of(arrays: Arrays, shape: tuple[int, int] | None = None) -> csr_matrix:
    """The matrix of `sparse_arrays`.

    Raises
    ------
    ValueError, KeyError
        If arrays are missing, do not fit together, or are of another shape than `shape`.
    """
    from scipy.sparse import csr_matrix

    parts, own = (arrays["data"], arrays["indices"], arrays["indptr"]), arrays["shape"].tolist()
    if shape is not None and own != list(shape):
        raise ValueError(f"a matrix of {own}, not of {list(shape)}")
    matrix = csr_matrix(parts, shape=own)
    matrix.check_format(full_check=True)
    return matrix
