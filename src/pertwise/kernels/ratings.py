"""Kernels from marks: perturbations are alike when a judge expects the same of them.

Marks are knowledge about names, made without any response, so they are used like any other kernel.
Two views of one table: profiles that point the same way (linear), and profiles that are near each
other at some length scales (radial), which tells weak perturbations from strong ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from pertwise.arrays.distances import squared_distances
from pertwise.errors import InputError
from pertwise.kernels.base import Floats
from pertwise.kernels.genes import SourceKernel
from pertwise.knowledge.genes.features import unit_rows
from pertwise.knowledge.ratings import SCALE, STRENGTH, Ratings, read_ratings

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

#: Length scales of the radial kernels, in marks / 3.
WIDTHS = (0.5, 1.0, 2.0)
#: A radial kernel between more different profiles than this is one through that many landmarks.
LANDMARKS = 512
#: True: those of the knowledge; a file; several tables; False: none.
GivenRatings = bool | str | os.PathLike[str] | Sequence[Ratings]
Resolve = Callable[[Sequence[str]], Mapping[str, str]]


def radial(a: Floats, b: Floats, width: float) -> Floats:
    """(n_a, n_b) exp(-|a - b|^2 / (2 width^2))."""
    return np.asarray(np.exp(-squared_distances(a, b) / (2.0 * width**2)))


def radial_rows(profiles: Floats, width: float, landmarks: int = LANDMARKS) -> Floats:
    """(n, k <= landmarks) rows whose products are the radial kernel between (n, p) profiles.

    Exact for at most `landmarks` different profiles; else the Nystrom approximation through evenly
    spaced ones in sorted order (Williams & Seeger 2001), so that memory is linear in n.
    """
    points = np.unique(profiles, axis=0)
    if len(points) > landmarks:
        points = points[np.linspace(0, len(points) - 1, landmarks).round().astype(int)]
    to_axes = landmark_axes(points, width)
    out = np.empty((len(profiles), to_axes.shape[1]))
    for start in range(0, len(profiles), 4096):
        rows = slice(start, start + 4096)
        out[rows] = radial(profiles[rows], points, width) @ to_axes
    return out


def landmark_axes(points: Floats, width: float) -> Floats:
    """(p, k) A: rows radial(x, points, width) A have as products the radial kernel of the points,
    and of other x its Nystrom approximation."""
    values, vectors = np.linalg.eigh(radial(points, points, width))
    keep = values > 1e-8 * values[-1]
    return np.asarray(vectors[:, keep] / np.sqrt(values[keep]))


class MarkKernels:
    """Feature rows of perturbations from one table of marks (a `kernels.genes.KernelSource`).

    Parameters
    ----------
    ratings
        The marks. A mark that was not given counts as the mean of its program.
    resolve
        Any spelling -> the name of the knowledge: marks of another name of a perturbation count.
    label
        Before the names of the kernels, to tell tables apart.
    """

    def __init__(
        self, ratings: Ratings, *, resolve: Resolve | None = None, label: str = "marks"
    ) -> None:
        if not len(ratings.names) or not np.isfinite(ratings.marks).any():
            raise InputError(f"{ratings.source}: no mark to build a kernel from")
        self.ratings, self.label = ratings, label
        self.source = f"marks of {ratings.source}" + (
            f" for {ratings.context}" if ratings.context else ""
        )
        self._resolve = resolve
        self._place = {n: i for i, n in enumerate(ratings.names)}
        if resolve is not None:
            for other, name in resolve(ratings.names).items():
                self._place.setdefault(name, self._place[other])
        self._profiles = filled(ratings) / SCALE
        self.kinds = (label, *(f"{label} within {w:g}" for w in WIDTHS))
        self._rows = dict(zip(self.kinds, self._made(), strict=True))

    def _made(self) -> list[Floats]:
        signed = [p != STRENGTH for p in self.ratings.programs]
        directed = self._profiles if not any(signed) else self._profiles[:, signed]
        size = np.linalg.norm(directed, axis=1, keepdims=True)
        unit = np.divide(directed, size, out=np.zeros_like(directed), where=size > 0)
        return [unit, *(radial_rows(self._profiles, w) for w in WIDTHS)]

    def rows(self, kind: str, genes: Sequence[str]) -> csr_matrix:
        """(n_genes, k) unit rows; zero for genes that were not marked."""
        matrix = self._rows[kind]
        where = self.places(genes)
        out = np.zeros((len(genes), matrix.shape[1]), dtype=np.float32)
        known = where >= 0
        out[known] = matrix[where[known]]
        return unit_rows(csr_matrix(out))

    def strength(self, names: Sequence[str]) -> Floats:
        """(n_names,) `Ratings.strength`, under any spelling; NaN for what was not marked."""
        where = self.places(names)
        return np.where(where >= 0, self.ratings.strength[where], np.nan)

    def profiles(self, names: Sequence[str]) -> Floats:
        """(n_names, n_programs) marks / 3; rows of NaN for what was not marked."""
        where = self.places(names)
        return np.where((where >= 0)[:, None], self._profiles[where], np.nan)

    def places(self, names: Sequence[str]) -> np.ndarray:
        """(n_names,) rows of the table; -1 for what was not marked, under no spelling."""
        unknown = [n for n in names if n not in self._place]
        other = {} if self._resolve is None or not unknown else self._resolve(unknown)
        return np.array(
            [self._place.get(n, self._place.get(other.get(n, ""), -1)) for n in names], dtype=int
        )


def filled(ratings: Ratings) -> Floats:
    """(n, p) marks with the mean of a program where none was given; 0 for an unmarked program."""
    given = np.isfinite(ratings.marks)
    count = given.sum(axis=0)
    total = np.where(given, ratings.marks, 0.0).sum(axis=0)
    mean = np.divide(total, count, out=np.zeros(len(count)), where=count > 0)
    return np.where(given, ratings.marks, mean)


def ratings_of(knowledge: Knowledge | None, which: GivenRatings = True) -> tuple[Ratings, ...]:
    """The tables of marks that are meant by `which`.

    Raises
    ------
    pertwise.errors.InputError
        For a file that cannot be read as marks.
    """
    if isinstance(which, bool):
        return knowledge.ratings if which and knowledge is not None else ()
    if isinstance(which, str | os.PathLike):
        return read_ratings(which)
    return tuple(which)


def mark_kernels(
    knowledge: Knowledge | None, which: GivenRatings = True
) -> tuple[MarkKernels, ...]:
    """Kernels of every table; several are told apart by context, then by number."""
    tables = ratings_of(knowledge, which)
    if not tables:
        return ()
    labels: list[str] = []
    for table in tables:
        label = f"marks for {table.context}" if len(tables) > 1 and table.context else "marks"
        same = sum(x == label or x.startswith(f"{label} (") for x in labels)
        labels.append(f"{label} ({same + 1})" if same else label)
    resolve = None if knowledge is None else knowledge.canonical

    def make() -> tuple[MarkKernels, ...]:
        return tuple(
            MarkKernels(t, resolve=resolve, label=label)
            for t, label in zip(tables, labels, strict=True)
        )

    if knowledge is None:
        return make()
    return knowledge.keep(("marks", tuple((t.source, t.fingerprint()) for t in tables)), make)


def profiles_of_marks(
    knowledge: Knowledge | None, which: GivenRatings, names: Sequence[str]
) -> Floats:
    """(n_names, p) marks / 3 of all tables side by side; NaN for what a table does not mark."""
    tables = [m.profiles(names) for m in mark_kernels(knowledge, which)]
    return np.hstack(tables) if tables else np.empty((len(names), 0))


def kernels_of_marks(
    knowledge: Knowledge | None, which: GivenRatings = True
) -> tuple[SourceKernel, ...]:
    """The same as single `Kernel`s."""
    return tuple(SourceKernel(m, kind) for m in mark_kernels(knowledge, which) for kind in m.kinds)
