"""What a part says about itself: by the decorator `part`, or by plain class attributes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pertwise._external import DECLARED

Made = TypeVar("Made")


@dataclass(frozen=True)
class Facts:
    """What a part says about itself.

    Attributes
    ----------
    label
        Name in tables and on pages; "" = the slug (the class name, for one's own).
    about
        One line; "" = the first sentence of the docstring.
    needs
        What must be at hand: "knowledge", "chat", "truth", "contexts", "torch", "rdkit"; of a
        strategy also "nothing", "uncertainty" or "members".
    reads
        Settings that name a file (or folder) that is read; of a strategy "ratings": the marks of
        the knowledge it is given.
    words
        Settings that hold selectors in words, which may read files and ask a chat model.
    argument
        Setting that ``slug:argument`` fills; with "*" at its end a list, split at commas.
    source
        Paper or origin of the idea.
    more
        What only parts of this kind have to say (a metric: which direction is better); of a class
        that is not declared, its plain class attributes.
    """

    label: str = ""
    about: str = ""
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    argument: str = ""
    source: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


def part(
    *,
    label: str = "",
    about: str = "",
    needs: str | Iterable[str] = (),
    reads: str | Iterable[str] = (),
    words: str | Iterable[str] = (),
    argument: str = "",
    source: str = "",
    **more: Any,
) -> Callable[[Made], Made]:
    """Decorator: what a class or factory says about itself; see `Facts`.

    A function can be named as ``file.py:function`` only when it is declared by this.
    """
    told = Facts(
        label, about, _several(needs), _several(reads), _several(words), argument, source, more
    )

    def declare(found: Made) -> Made:
        setattr(found, DECLARED, told)
        return found

    return declare


def facts(found: Any) -> Facts:
    """What a class, factory or object says about itself.

    A subclass inherits all but the title, and its own plain class attributes count before that.
    """
    own = found if isinstance(found, type) or inspect.isfunction(found) else type(found)
    told = getattr(own, DECLARED, None)
    if isinstance(told, Facts) and DECLARED in vars(own):
        return told
    inherited = isinstance(told, Facts)
    plain = dict(vars(own)) if inherited else {k: getattr(own, k) for k in dir(own)}
    plain |= {} if own is found else getattr(found, "__dict__", {})
    lists = [k for k in ("needs", "reads", "words") if k in plain]
    said: dict[str, Any] = {k: _several(plain[k]) for k in lists}
    said["about"] = plain["about"] if isinstance(plain.get("about"), str) else ""
    more = {k: v for k, v in plain.items() if k[:1] != "_" and isinstance(v, str | int | float)}
    base = replace(told, label="", source="") if isinstance(told, Facts) else Facts()
    return replace(base, **said, more={**base.more, **more})


def _several(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(map(str, value)) if isinstance(value, tuple | list | set | frozenset) else ()
