"""Short `repr` and a table in notebooks for results that hold arrays and long lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields
from html import escape
from typing import Any

from pertwise._text import one_line

#: Items of a list, and characters of a value, that are shown; rows of a table in a notebook.
_ITEMS, _SIGNS, _ROWS = 3, 60, 8


def short(value: object) -> str:
    """One line for a value, whatever its size: arrays and tables by shape, lists by their start."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        kind = getattr(value, "dtype", type(value).__name__)
        return f"{kind} ({' x '.join(f'{n:,}' for n in shape)})"
    if isinstance(value, Shown) and type(value).__repr__ is Shown.__repr__:
        return f"{type(value).__name__}(...)"
    if isinstance(value, str):
        return repr(one_line(value, _SIGNS))
    if isinstance(value, Mapping):
        return _listed([one_line(str(k), _SIGNS) for k in list(value)[:_ITEMS]], len(value), "{}")
    if isinstance(value, Set):
        return f"{len(value):,} items"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return _listed([short(v) for v in value[:_ITEMS]], len(value), "()")
    return one_line(repr(value), _SIGNS)


def _listed(start: list[str], n: int, around: str) -> str:
    more = [f"... {n:,} in all"] if n > len(start) else []
    return around[0] + ", ".join([*start, *more]) + around[1]


class Shown:
    """A dataclass that prints in one line and in a notebook as that line and its first rows.

    The rows are those of an attribute `table`, where there is one and it can be made.
    """

    def __repr__(self) -> str:
        told = [
            f"{f.name}={short(getattr(self, f.name))}"
            for f in fields(self)  # type: ignore[arg-type]
            if f.repr and not f.name.startswith("_") and getattr(self, f.name) is not None
        ]
        return f"{type(self).__name__}({', '.join(told)})"

    def _repr_html_(self) -> str:
        head = f"<div><code>{escape(repr(self))}</code></div>"
        try:
            table: Any = getattr(self, "table", None)
        except Exception:  # a notebook must show the rest of an object with a part that fails
            table = None
        if table is None or not hasattr(table, "to_html"):
            return head
        return head + str(table.head(_ROWS).to_html(escape=True, max_cols=12, border=0))
