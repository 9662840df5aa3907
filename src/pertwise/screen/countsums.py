"""Sums of raw counts per perturbation and batch, made while the cells are read for pseudobulk.

What edgeR, DESeq2 and their kin take: whole numbers, controls included. A task adds its cells to a
table of 32-bit sums; when new pairs of group and batch do not fit any more, what is there goes to
the task's file as a sorted segment. Segments are added up pair by pair when the result is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from pertwise import __version__
from pertwise._files import PART, reading
from pertwise._hdf5 import check_room
from pertwise._io import atomic_path
from pertwise.errors import InputError
from pertwise.screen.batchsums import WholeSums
from pertwise.screen.scan import PseudobulkSettings, Scan

Ids = NDArray[np.int64]
#: Memory of a task's table; beyond it sums are written out and added up at the end.
TABLE_BYTES = 300_000_000
#: Values of the result that are at work at a time.
_AT_ONCE = 4_000_000
#: What the perturbation column holds for controls.
CONTROL = "control"


def check_counts(found: Scan) -> None:
    """Whether the values that are read may be summed as counts.

    Raises
    ------
    pertwise.errors.InputError
        If they are of another scale.
    """
    if found.verdict.scale != "counts":
        raise InputError(
            f"{found.sources[0]} holds {found.verdict.scale} ({found.verdict.evidence}); sums of "
            "counts need raw counts: name where they are with --layer (a layer, or raw)"
        )


class CountSink:
    """Adds blocks of counts; `write` gets (sorted pairs, cells, csr of sums), piece by piece."""

    def __init__(
        self, width: int, n_blocks: int, write: Callable[[Ids, Ids, sparse.csr_matrix], None]
    ) -> None:
        self._width, self._blocks, self._write = width, n_blocks, write
        self._capacity = max(1, TABLE_BYTES // (4 * width))
        self._clear()

    def _clear(self) -> None:
        self._rows: dict[int, int] = {}
        self._n: list[int] = []
        self._table: WholeSums | None = None

    def __call__(
        self, x: sparse.csr_matrix, group: Ids, block: Ids, name: Callable[[int], str]
    ) -> None:
        """Add cells; `name` says which file and cell a row is.

        Raises
        ------
        pertwise.errors.InputError
            If a value is no whole number.
        """
        odd = np.rint(x.data) != x.data
        if odd.any():
            at = int(odd.argmax())
            cell = int(np.searchsorted(x.indptr, at, side="right")) - 1
            raise InputError(
                f"{name(cell)} has the value {x.data[at]}, which is no count; sums of counts need "
                "raw counts: name where they are with --layer (a layer, or raw)"
            )
        keys = group * self._blocks + block
        distinct, where = np.unique(keys, return_inverse=True)
        new = [k for k in distinct.tolist() if k not in self._rows]
        if len(self._rows) + len(new) > self._capacity:
            self.flush()
            if len(distinct) > self._capacity:
                half = x.shape[0] // 2
                self(x[:half], group[:half], block[:half], name)
                self(x[half:], group[half:], block[half:], lambda i: name(i + half))
                return
            new = distinct.tolist()
        for k in new:
            self._rows[k] = len(self._rows)
            self._n.append(0)
        if self._table is None:
            self._table = WholeSums(self._capacity, self._width)
        row = np.array([self._rows[k] for k in distinct.tolist()], dtype=np.int64)[where]
        for r, n in zip(*np.unique(row, return_counts=True), strict=True):
            self._n[r] += int(n)
        self._table.add(x, row)

    def flush(self) -> None:
        """Write out what is in the table."""
        if self._table is None:
            return
        pairs = np.array(sorted(self._rows), dtype=np.int64)
        rows = np.array([self._rows[int(p)] for p in pairs])
        n, step = np.array(self._n)[rows], max(1, _AT_ONCE // self._width)
        for lo in range(0, len(rows), step):
            part = slice(lo, lo + step)
            sums = sparse.csr_matrix(self._table.rows(rows[part]))
            self._write(pairs[part], n[part], sums)
        self._clear()


@contextmanager
def count_file(path: Path, found: Scan) -> Iterator[CountSink]:
    """A sink whose segments are at `path` when the block succeeds."""
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as handle:

        def write(pairs: Ids, n: Ids, sums: sparse.csr_matrix) -> None:
            check_room(path, 12 * sums.nnz)
            group = handle.create_group(f"{len(handle):06d}")
            values = sums.data.astype(np.int64)
            small = not len(values) or values.max() < 2**31
            group["data"] = values.astype(np.int32) if small else values
            facts = {"pairs": pairs, "n": n, "indptr": sums.indptr, "indices": sums.indices}
            for key, value in facts.items():
                group[key] = value

        sink = CountSink(len(found.features), len(found.blocks), write)
        yield sink
        sink.flush()


def write_counts(
    path: Path, found: Scan, settings: PseudobulkSettings, parts: Sequence[Path]
) -> int:
    """Add up the segments of all tasks and write them as an h5ad file; returns its rows.

    Rows are perturbation, context, dose and batch that have cells, in order of the groups; X (rows
    x genes) is csr of int32, or int64 where a sum needs it.
    """
    import h5py
    from anndata.io import write_elem

    width, n_blocks = len(found.features), len(found.blocks)
    with ExitStack() as stack:
        segments = []
        for part in parts:
            stack.enter_context(reading(part, "partial sums", PART))
            handle = stack.enter_context(h5py.File(part, "r"))
            segments += [(g["pairs"][:], g["n"][:], g) for g in handle.values()]
        pairs = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(s[0] for s in segments)]))
        n, total = np.zeros(len(pairs), dtype=np.int64), np.zeros(len(pairs), dtype=np.int64)
        for listed, cells, _ in segments:
            n[np.searchsorted(pairs, listed)] += cells
        stored = sum(int(g["data"].shape[0]) for _, _, g in segments)
        check_room(path, 12 * stored)
        large = any(g["data"].dtype.itemsize > 4 for _, _, g in segments)
        with atomic_path(path) as temporary, h5py.File(temporary, "w") as out:
            out.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            x = out.create_group("X")
            options = {"maxshape": (None,), "chunks": (1 << 16,), "compression": "gzip"}
            data = x.create_dataset("data", (0,), "i8" if large else "i4", shuffle=True, **options)
            indices = x.create_dataset("indices", (0,), "i4", shuffle=True, **options)
            pointers = [np.zeros(1, dtype=np.int64)]
            step = max(1, _AT_ONCE // width)
            for lo in range(0, len(pairs), step):
                dense = np.zeros((min(step, len(pairs) - lo), width), dtype=np.int64)
                for listed, _, group in segments:
                    _add_rows(dense, pairs[lo : lo + step], listed, group)
                if not large and dense.max(initial=0) >= 2**31:
                    large = True
                    data = _widened(x, data, options)
                total[lo : lo + step] = dense.sum(axis=1)
                rows = sparse.csr_matrix(dense)
                at = data.shape[0]
                for target, values in ((data, rows.data), (indices, rows.indices)):
                    target.resize((at + len(values),))
                    target[at:] = values
                pointers.append(at + rows.indptr[1:].astype(np.int64))
            x.create_dataset("indptr", data=np.concatenate(pointers))
            x.attrs.update(
                {"encoding-type": "csr_matrix", "encoding-version": "0.1.0",
                 "shape": [len(pairs), width]}
            )  # fmt: skip
            write_elem(out, "obs", _obs(found, pairs // n_blocks, pairs % n_blocks, n, total))
            write_elem(out, "var", pd.DataFrame(index=pd.Index(list(found.features))))
            write_elem(out, "uns", _facts(found, settings))
            for name in ("layers", "obsm", "obsp", "varm", "varp"):
                write_elem(out, name, {})
    return len(pairs)


def _add_rows(dense: NDArray[np.int64], pairs: Ids, listed: Ids, group: Any) -> None:
    first, last = np.searchsorted(listed, [pairs[0], pairs[-1] + 1])
    if first == last:
        return
    pointers = group["indptr"][first : last + 1].astype(np.int64)
    a, b = int(pointers[0]), int(pointers[-1])
    row = np.repeat(np.searchsorted(pairs, listed[first:last]), np.diff(pointers))
    # Each pair stands once in a segment, each gene once in a row: nothing is added twice.
    dense[row, group["indices"][a:b]] += group["data"][a:b]


def _widened(x: Any, data: Any, options: dict[str, Any]) -> Any:
    """The data set with room for sums beyond 32 bits."""
    values = data[:].astype(np.int64)
    del x["data"]
    return x.create_dataset("data", data=values, shuffle=True, **options)


def _obs(found: Scan, group: Ids, block: Ids, n: Ids, total: Ids) -> pd.DataFrame:
    groups = found.groups.iloc[group].reset_index(drop=True)
    control = groups["is_control"].to_numpy(dtype=bool)
    name = groups["perturbation"].astype(object).where(~control, CONTROL)
    obs = pd.DataFrame(
        {
            "perturbation": name.astype(str),
            "context": groups["context"].astype(str),
            "batch": found.blocks["batch"].iloc[block].astype(str).to_numpy(),
            "is_control": control,
            "n_cells": n,
            "total_counts": total,
        }
    )
    parts = [obs["perturbation"], obs["context"], obs["batch"]]
    if groups["dose"].notna().any():
        obs.insert(2, "dose", groups["dose"].astype(float))
        parts.insert(2, obs["dose"].map(lambda d: "" if np.isnan(d) else f"{d:g}"))
    obs.index = pd.Index(["|".join(p for p in row if p) for row in zip(*parts, strict=True)])
    if not obs.index.is_unique:
        obs.index = pd.Index([f"{label}|{i}" for i, label in enumerate(obs.index)])
    for column in ("perturbation", "context", "batch"):
        obs[column] = obs[column].astype("category")
    return obs


def _facts(found: Scan, settings: PseudobulkSettings) -> dict[str, Any]:
    return {
        "pertwise": __version__,
        "holds": "sums of raw counts per perturbation, context, dose and batch",
        "source": ", ".join(Path(str(s)).name if isinstance(s, (str, Path)) else "AnnData"
                            for s in found.sources),
        "layout": found.layout.describe(),
        "layer": settings.layer or "",
        "scale_evidence": found.verdict.evidence,
        "control_labels": list(found.layout.control),
        "notes": list(found.notes),
        "simulated": found.simulated,
    }  # fmt: skip
