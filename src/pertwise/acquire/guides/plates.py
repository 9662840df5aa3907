"""Wells: where every guide goes, controls spread over the plate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pertwise.errors import InputError

Edges = Literal["fill", "empty", "controls"]
#: Wells -> rows and columns.
SHAPES = {96: (8, 12), 384: (16, 24)}


@dataclass(frozen=True)
class Well:
    """A place: plate from 1, row and column from 0."""

    plate: int
    row: int
    column: int

    @property
    def name(self) -> str:
        """ "A1" ... "P24"."""
        return f"{chr(ord('A') + self.row)}{self.column + 1}"


def lay_out(control: Sequence[bool], wells: int = 96, edges: Edges = "fill") -> list[Well]:
    """A well for every item, in the order given.

    Items keep their order down the columns of one plate after the other; the controls are dealt
    evenly to the plates, and on each plate every further control takes the used well that is
    farthest from the controls already there (farthest-point design), so that no corner lacks one.

    Parameters
    ----------
    control
        Which items are controls.
    edges
        "fill" uses every well; "empty" leaves the outer wells free, where medium evaporates;
        "controls" puts nothing but controls into the outer wells.

    Raises
    ------
    pertwise.errors.InputError
        Another number of wells, or rule, than there is.
    """
    if wells not in SHAPES:
        raise InputError(f"a plate has {' or '.join(map(str, SHAPES))} wells, not {wells}")
    if edges not in get_args(Edges):
        raise InputError(f"the edge rule is one of {', '.join(get_args(Edges))}, not {edges!r}")
    rows, columns = SHAPES[wells]
    places = [(r, c) for c in range(columns) for r in range(rows)]
    outer = {p for p in places if p[0] in (0, rows - 1) or p[1] in (0, columns - 1)}
    inner = [p for p in places if p not in outer]
    mixed = places if edges == "fill" else inner
    flags = np.asarray(control, dtype=bool)
    n_controls, n_targets = int(flags.sum()), int((~flags).sum())
    own = len(outer) if edges == "controls" else 0
    room = len(mixed)
    plates = max(1, -(-n_targets // room))
    while plates * (room + own) < n_controls + n_targets:
        plates += 1
    targets = _dealt(n_targets, plates)
    # The other way round: no plate gets both remainders.
    controls = _dealt(n_controls, plates)[::-1]
    found: dict[bool, list[Well]] = {True: [], False: []}
    for plate, (n, k) in enumerate(zip(targets, controls, strict=True), 1):
        outside = min(k, own)
        inside = mixed[: n + k - outside]
        taken = _spread(np.array(sorted(outer)), outside) if outside else []
        at_edge = [sorted(outer)[i] for i in taken]
        among = set(_spread(np.array(inside), k - outside)) if k > outside else set()
        chosen = [*at_edge, *(p for i, p in enumerate(inside) if i in among)]
        found[True] += [Well(plate, *p) for p in chosen]
        found[False] += [Well(plate, *p) for i, p in enumerate(inside) if i not in among]
    queues = {kind: iter(places) for kind, places in found.items()}
    return [next(queues[bool(f)]) for f in flags]


def _dealt(n: int, plates: int) -> list[int]:
    """`n` dealt to plates as evenly as can be, the first ones fuller."""
    return [n // plates + (i < n % plates) for i in range(plates)]


def _spread(points: NDArray[np.int64], k: int) -> list[int]:
    """Positions of `k` of the (n, 2) points, each the farthest from those before it.

    The first is nearest to the middle of a quarter, so that two do not share the plate's centre.
    """
    where = points.astype(float)
    low, high = where.min(axis=0), where.max(axis=0)
    start = np.square(where - (low + (high - low) / 4)).sum(axis=1)
    order = [int(start.argmin())]
    distance = np.square(where - where[order[0]]).sum(axis=1)
    while len(order) < min(k, len(where)):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(where - where[order[-1]]).sum(axis=1))
    return order
