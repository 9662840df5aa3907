"""Other screens as kernels: what other lines say about who is alike.

Each screen is fitted on its own line first (`kernels.posterior`), so that it says something of
every gene, and needs no feature in common with the line to predict: only the similarity of
responses within it is used. Kernels of a screen, linear and radial, whose weights a model learns:

* *expected*: its posterior means, for every gene;
* *measured*: the measurements, shrunk (the linear one around their mean); zero for genes that it
  did not measure. They help those that are looked up there and harm the others (weights that suit
  the one do not suit the other), so that a model takes them for the former only
  (`models.looked_up`).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from pertwise._names import canonical_perturbation
from pertwise.arrays.distances import squared_distances
from pertwise.errors import InputError
from pertwise.kernels.base import Floats
from pertwise.kernels.genes import SourceKernel
from pertwise.kernels.posterior import LinePosterior, components
from pertwise.kernels.ratings import landmark_axes, radial
from pertwise.knowledge.genes.features import unit_rows
from pertwise.screen import Screen
from pertwise.screen.training import TrainingData

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge

#: A screen, a file that `read_screen` recognises, several of them, or name -> one of them.
GivenScreen = Screen | str | os.PathLike[str]
GivenScreens = GivenScreen | Sequence[GivenScreen] | Mapping[str, GivenScreen]
#: Landmarks of the radial kernels, and their length scale in median distances of two responses.
LANDMARKS, WIDTH = 256, 0.7
#: Fitted screens that are kept (each fold of a benchmark that hides genes has its own).
KEPT = 24


@dataclass(frozen=True)
class _View:
    """One kernel: rows around a centre, or their radial features about landmarks (`centre`)."""

    centre: NDArray[np.float32] | np.float32
    axes: Floats | None = None
    width: float = 1.0

    @classmethod
    def radial(cls, table: NDArray[np.float32]) -> _View:
        some = np.linspace(0, len(table) - 1, min(len(table), LANDMARKS)).round().astype(int)
        points = np.unique(table[some], axis=0)
        apart = squared_distances(points, points)[np.triu_indices(len(points), 1)]
        middle = float(np.sqrt(np.median(apart))) if len(apart) else 0.0
        width = WIDTH * middle if middle > 0 else 1.0
        return cls(points, landmark_axes(points.astype(np.float64), width), width)

    def rows(self, x: NDArray[np.float32]) -> Floats:
        """(n, k) for (n, r) responses in components."""
        if self.axes is None:
            return np.asarray(x - self.centre, dtype=np.float64)
        points = np.asarray(self.centre, dtype=np.float64)
        near = radial(x.astype(np.float64), points, self.width)
        return np.asarray(near @ self.axes)


class OtherScreen:
    """Kernels of one other screen (a `kernels.genes.KernelSource`); see the module.

    Parameters
    ----------
    screen
        One context (slice it, or name it); values in any unit, signs, labels or ranks; gaps count
        as the mean of their feature.
    context
        The line to use when the screen holds several.
    knowledge
        What is expected of genes by. Without a folder of genes there are only the kernels of what
        was measured.
    label
        Before the names of the kernels; by default the context.
    look_up
        With the kernels of what was measured.
    """

    def __init__(
        self,
        screen: Screen,
        context: str | None = None,
        *,
        knowledge: Knowledge | None = None,
        label: str = "",
        exclude_from_screen: bool = True,
        look_up: bool = True,
    ) -> None:
        if context is not None:
            screen = screen.in_context(context)
        data = TrainingData.from_screen(screen, "other screens")
        if len(data.names) < 3:
            raise InputError(
                f"the other screen {label or data.context!r} holds {len(data.names)} "
                "perturbations; at least 3 are needed"
            )
        self.context, self.names = data.context, data.names
        self.label = label or data.context or "another line"
        self.source = f"responses in {self.label}"
        self._place = {n: i for i, n in enumerate(data.names)}
        self._resolve = None if knowledge is None else knowledge.canonical
        if self._resolve is not None:
            for other, name in self._resolve(data.names).items():
                self._place.setdefault(name, self._place[other])
        self._line: LinePosterior | None = None
        if knowledge is not None and knowledge.path:
            self._line = LinePosterior(data, knowledge, exclude_from_screen)
            measured = self._line.kept
        else:
            measured = components(data.y)
        self._measured = measured
        self._guessed: dict[str, NDArray[np.float32]] = {}
        views = {}
        if self._line is not None:
            told = self._line.expected
            views = {"expected": _View(np.float32(0.0)), "expected, near": _View.radial(told)}
        if look_up or self._line is None:
            views["measured"] = _View(measured.mean(axis=0))
            views["measured, near"] = _View.radial(measured)
        self._views = {f"{self.label}: {kind}": view for kind, view in views.items()}
        self.kinds = tuple(self._views)

    def places(self, names: Sequence[str]) -> NDArray[np.intp]:
        """(n_names,) rows of the screen; -1 for what it did not measure, under no spelling."""
        unknown = [n for n in names if n not in self._place]
        other = {} if self._resolve is None or not unknown else self._resolve(unknown)
        found = [self._place.get(n, self._place.get(other.get(n, ""), -1)) for n in names]
        return np.array(found, dtype=np.intp)

    def rows(self, kind: str, genes: Sequence[str]) -> csr_matrix:
        """(n_genes, k) unit rows; of the *measured* kernels zero for what was not measured."""
        view, where = self._views[kind], self.places(genes)
        known: NDArray[np.bool_] = np.greater_equal(where, 0)
        if self._line is not None and kind.startswith(f"{self.label}: expected"):
            told = self._told(self._line, genes, where)
            # Of a gene that nothing is known about, nothing is expected: not the average either.
            anything = np.asarray(told.any(axis=1))[:, None]
            return unit_rows(csr_matrix(view.rows(told) * anything))
        made = view.rows(self._measured[where[known]])
        out = np.zeros((len(genes), made.shape[1]), dtype=np.float32)
        out[known] = made
        return unit_rows(csr_matrix(out))

    def _told(
        self, line: LinePosterior, genes: Sequence[str], where: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """(n_genes, r) posterior means; those of unmeasured genes are made once."""
        new = [g for g, i in zip(genes, where, strict=True) if i < 0 and g not in self._guessed]
        if new:
            self._guessed.update(zip(new, line.predict(new), strict=True))
        out = np.empty((len(genes), self._measured.shape[1]), dtype=np.float32)
        for row, (gene, i) in enumerate(zip(genes, where, strict=True)):
            out[row] = line.expected[i] if i >= 0 else self._guessed[gene]
        return out


# -- what is given ---------------------------------------------------------------------------------


def open_others(given: GivenScreens) -> dict[str, Screen]:
    """Label -> screen of one context, for every context of every screen that was given.

    Labels are the names given, else the contexts, else the names of the files; files are read once.

    Raises
    ------
    pertwise.errors.InputError
        For a file that cannot be read as a screen; names it.
    """
    out: dict[str, Screen] = {}
    for name, one in _named(given):
        screen = one if isinstance(one, Screen) else _read(*_stamp(one))
        stem = "" if isinstance(one, Screen) else Path(one).name.partition(".")[0]
        for context in screen.contexts:
            many = len(screen.contexts) > 1
            label = f"{name} {context}".strip() if name and many else name or context or stem
            label = label or "another line"
            same = sum(x == label or x.startswith(f"{label} (") for x in out)
            part = screen.in_context(context) if many else screen
            out[f"{label} ({same + 1})" if same else label] = part.only_measured()
    return out


def _named(given: GivenScreens) -> list[tuple[str, GivenScreen]]:
    if isinstance(given, Mapping):
        return [(str(name), one) for name, one in given.items()]
    several = [given] if isinstance(given, Screen | str | os.PathLike) else list(given)
    return [("", one) for one in several]


def _stamp(path: str | os.PathLike[str]) -> tuple[str, int, int]:
    file = Path(path)
    if not file.exists():
        raise InputError(f"other screen: no such file: {file}")
    found = file.stat()
    return str(file), found.st_mtime_ns, found.st_size


@lru_cache(maxsize=16)
def _read(path: str, modified: int, size: int) -> Screen:
    from pertwise.screen.read import read_screen

    return read_screen(path)


def without(
    given: GivenScreens, hidden: Iterable[str], knowledge: Knowledge | None = None
) -> dict[str, Screen]:
    """The other screens without the perturbations `hidden`, under any of their names.

    What an evaluation of "unseen anywhere" hands to a method, so that no method has to be trusted
    to look away. A screen of which fewer than three perturbations are left is left out.
    """
    gone = {canonical_perturbation(n) for n in hidden}
    if knowledge is not None:
        gone |= set(knowledge.canonical(sorted(gone)).values())
    out = {}
    for label, screen in open_others(given).items():
        names = screen.perturbations
        same = {} if knowledge is None else knowledge.canonical(names)
        kept = screen.hide([n for n in names if n in gone or same.get(n) in gone])
        kept = kept.only_measured()
        if len(kept) >= 3:
            out[label] = kept
    return out


def measured_in(
    given: GivenScreens, names: Sequence[str], knowledge: Knowledge | None = None
) -> dict[str, frozenset[str]]:
    """Label -> which of `names` that screen measured, under any spelling."""

    def spelt(some: Sequence[str]) -> dict[str, str]:
        known = {} if knowledge is None else knowledge.canonical(some)
        return {n: known.get(n, n) for n in some}

    asked = spelt([canonical_perturbation(n) for n in names])
    found = {}
    for label, screen in open_others(given).items():
        there = set(spelt(screen.perturbations).values())
        found[label] = frozenset(n for n, thing in asked.items() if thing in there)
    return found


def of_line(label: str, line: str) -> bool:
    """Whether another screen, by its label ("K562", "K562 programs"), is of this line itself."""
    words = label.casefold().split()
    return bool(line and words) and line.casefold() in (label.casefold(), words[0])


def other_screens(
    knowledge: Knowledge | None,
    given: GivenScreens,
    *,
    exclude_from_screen: bool = True,
    look_up: bool = True,
) -> tuple[OtherScreen, ...]:
    """Every screen fitted on its own line; kept with the knowledge, the last `KEPT` of them."""
    kept: OrderedDict[Any, OtherScreen] = OrderedDict()
    if knowledge is not None:
        kept = knowledge.keep(("other screens",), lambda: OrderedDict())
    found = []
    for label, screen in open_others(given).items():
        key = (label, screen.digest(), exclude_from_screen, look_up)
        if key not in kept:
            kept[key] = OtherScreen(
                screen,
                knowledge=knowledge,
                label=label,
                exclude_from_screen=exclude_from_screen,
                look_up=look_up,
            )
        kept.move_to_end(key)
        found.append(kept[key])
    while len(kept) > KEPT:
        kept.popitem(last=False)
    return tuple(found)


def kernels_of_others(knowledge: Knowledge | None, given: GivenScreens) -> tuple[SourceKernel, ...]:
    """The same as single `Kernel`s."""
    made = other_screens(knowledge, given)
    return tuple(SourceKernel(o, kind) for o in made for kind in o.kinds)
