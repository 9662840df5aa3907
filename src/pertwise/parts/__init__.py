"""The one registry: what is there by that name, what does it need, and is it what it claims?

A part is a predictor, strategy, selector, kernel, metric, split, layout, source or task, and is
named the same way in a configuration, on the command line and in Python:

    multi-kernel               a slug: built in, or an entry point of another package
    graph:string,go            a slug with its argument
    path/to/file.py:Class      a class of one's own
    package.module:Class       the same, installed

Look-up slugifies what is given, so "kernel ridge" finds ``kernel-ridge``. Built-in parts stand in
`pertwise.parts.built_in`; packages offer theirs as entry points (``pertwise.predictors``,
``pertwise.strategies`` ...). A class of one's own must have the methods of its kind's protocol
(`KINDS`), which is checked before anything of it is called.

What a part needs and reads it says itself: by the decorator `part`, or, for a class that should
not import pertwise, by the plain class attributes ``needs``, ``reads`` and ``words``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pertwise._external import check_class, load_class, methods_of
from pertwise.errors import InputError, suggest, unknown_name
from pertwise.parts.built_in import BUILT_IN, FORMER
from pertwise.parts.facts import Facts as Facts
from pertwise.parts.facts import facts as facts
from pertwise.parts.facts import part as part

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Kind:
    """A kind of part.

    Attributes
    ----------
    group
        Of the entry points.
    protocol
        "module:Class" of the `typing.Protocol` that a part must follow.
    plain
        A function is the part itself, not a factory of parts.
    other
        Another protocol that will do as well.
    """

    group: str
    protocol: str
    plain: bool = False
    other: str = ""


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "predictor": Kind("pertwise.predictors", "pertwise.models.base:Predictor"),
        "strategy": Kind("pertwise.strategies", "pertwise.acquire.base:Strategy"),
        "selector": Kind("pertwise.selectors", "pertwise.select.base:Selector"),
        "kernel": Kind(
            "pertwise.kernels",
            "pertwise.kernels.genes:KernelSource",
            other="pertwise.kernels.base:Kernel",
        ),
        "metric": Kind("pertwise.metrics", "pertwise.evaluate.metrics:MetricFunction", True),
        "split": Kind("pertwise.splits", "pertwise.evaluate.splits:Splitter", True),
        "layout": Kind("pertwise.layouts", "pertwise.screen.layouts:LayoutPart", True),
        "source": Kind(
            "pertwise.sources", "pertwise.knowledge.build.readers._text:SourceReader", True
        ),
        "task": Kind("pertwise.tasks", "pertwise.benchmark.task:Task", True),
    }
)


@dataclass(frozen=True)
class Part:
    """A part that was found: nothing of it has been called.

    Attributes
    ----------
    name
        Slug, or what was given for a class of one's own.
    found
        Class, factory or function.
    origin
        "pertwise", the distribution of an entry point, or "" for a class of one's own.
    given
        Text after ``slug:``; None without.
    """

    kind: str
    name: str
    found: Any
    facts: Facts
    origin: str = ""
    given: str | None = None

    @property
    def label(self) -> str:
        """Name in tables and on pages."""
        own = self.name.rpartition(":")[2] if self.own else self.name
        return (self.facts.label or own) + (f" ({self.given})" if self.given else "")

    @property
    def about(self) -> str:
        """One line about it."""
        return self.facts.about or _first_sentence(self.found)

    @property
    def own(self) -> bool:
        """Whether it was named by file or module, so that nobody here knows its settings."""
        return not self.origin

    @property
    def file(self) -> str:
        """Path of the Python file that one's own class was named by; "" otherwise."""
        return self.name.rpartition(":")[0] if self.own and is_file(self.name) else ""

    @property
    def use(self) -> str:
        """The name to find it again by, with its argument."""
        return self.name if self.given is None else f"{self.name}:{self.given}"

    @property
    def settings(self) -> dict[str, Any]:
        """What ``slug:argument`` sets.

        Raises
        ------
        pertwise.errors.InputError
            If the part takes no argument.
        """
        if self.given is None:
            return {}
        key = self.facts.argument
        if not key:
            raise InputError(f"the {self.kind} {self.name!r} takes no argument {self.given!r}")
        return {key.rstrip("*"): self.given.split(",") if key.endswith("*") else self.given}

    def load(self, **settings: Any) -> Any:
        """Make it; see `load`."""
        given = {**self.settings, **settings}
        if KINDS[self.kind].plain and not isinstance(self.found, type):
            # The function is the part itself; settings are bound to it.
            return partial(self.found, **given) if given else self.found
        try:
            made = self.found(**given)
        except TypeError as error:
            told = f"does not take the settings {', '.join(given)}: {error}"
            raise InputError(f"the {self.kind} {self.use!r} {told}") from error
        protocol = protocol_of(self.kind, made)
        for name in methods_of(protocol):
            if not callable(getattr(made, name, None)):
                raise InputError(f"{self.use} has no method {name!r}, so it is no {self.kind}")
        for name in getattr(protocol, "__annotations__", {}):
            if not hasattr(made, name):
                raise InputError(f"{self.use} has no attribute {name!r}, so it is no {self.kind}")
        return made

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """What its constructor or function takes."""
        return inspect.signature(self.found).parameters

    def serve(self, **at_hand: Any) -> Any:
        """Make it with what its signature names of `at_hand`."""
        given, taken = {**at_hand, **self.settings}, self.parameters
        return self.load(**{key: value for key, value in given.items() if key in taken})


def slugify(name: str) -> str:
    """ "Kernel ridge" -> "kernel-ridge": letters and digits in lower case, the rest one hyphen."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def is_file(name: str) -> bool:
    """Whether a name is of the form ``path/to/file.py:Class``."""
    return _is_path(name.partition(":")[0]) and name.rpartition(":")[0].endswith(".py")


def _is_path(head: str) -> bool:
    """Whether what stands before the first colon is part of a path or module, not a slug; a
    single letter is a drive."""
    return len(head) == 1 or any(sign in head for sign in "./\\")


def names(kind: str, *, offered: bool = True) -> tuple[str, ...]:
    """Slugs of a kind: built-in parts, then (`offered`) entry points. Nothing is imported."""
    return (*_built_in(kind), *(_offered(kind) if offered else ()))


def describe(kind: str, name: str) -> Part:
    """Find a part by any of the four forms, and what it says about itself; nothing is called.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a name that is none; the nearest are suggested.
    pertwise.errors.InputError
        If the file, module or entry point cannot be imported or is no part of this kind.
    """
    built_in = _built_in(kind)
    head, colon, argument = str(name).partition(":")
    given = argument or None
    slug = slugify(head)
    slug = FORMER.get(kind, {}).get(slug, slug)
    if not _is_path(head):
        if slug in built_in:
            found = _attribute(built_in[slug])
            return Part(kind, slug, found, facts(found), "pertwise", given)
        offered = _offered(kind)
        if slug in offered:
            found = _opened(kind, offered[slug])
            return Part(kind, slug, found, facts(found), _distribution(offered[slug]), given)
        if not colon or (suggest(slug, names(kind)) and not _importable(head)):
            raise _unknown(kind, str(name))
    found = load_class(str(name), partial(protocol_of, kind), kind, names(kind))
    return Part(kind, str(name), found, facts(found))


def label(kind: str, name: str) -> str:
    """Name in tables of a part that need not exist yet: a class of one's own is not looked for."""
    slug = slugify(name.partition(":")[0])
    known = slug in FORMER.get(kind, ()) or slug in names(kind)
    return describe(kind, name).label if known else name.rpartition(":")[2]


def find(kind: str, name: str) -> Any:
    """The class, factory or function behind a name; nothing is called. See `describe`."""
    return describe(kind, name).found


def load(kind: str, name: str, /, **settings: Any) -> Any:
    """A fresh part by name, made with `settings`.

    Raises
    ------
    pertwise.errors.InputError
        As `describe`, or if the settings are not taken.
    """
    return describe(kind, name).load(**settings)


def table(kind: str | None = None) -> pd.DataFrame:
    """All parts (of one kind): kind, name, about, needs, reads, source, origin.

    The modules of the parts are imported; an entry point that cannot be is told in ``about``.
    """
    import pandas as pd

    rows = []
    for one in KINDS if kind is None else (kind,):
        for name in names(one):
            try:
                found = describe(one, name)
            except (InputError, ImportError) as error:
                entry = _offered(one).get(name)
                origin = "pertwise" if entry is None else _distribution(entry)
                rows.append((one, name, f"cannot be loaded: {error}", "", "", "", origin))
                continue
            told = found.facts
            needs, reads = ", ".join(told.needs), ", ".join((*told.reads, *told.words))
            rows.append((one, name, found.about, needs, reads, told.source, found.origin))
    columns = ["kind", "name", "about", "needs", "reads", "source", "origin"]
    return pd.DataFrame(rows, columns=columns)


def protocol_of(kind: str, part: Any = None) -> type:
    """The protocol of a kind; of a part (or its class), the other one if it has its methods."""
    one = _kind(kind)
    other: type | None = _attribute(one.other) if one.other else None
    if other is not None and all(hasattr(part, name) for name in methods_of(other)):
        return other
    found: type = _attribute(one.protocol)
    return found


def _kind(kind: str) -> Kind:
    if kind not in KINDS:
        raise unknown_name("kind of part", kind, KINDS, f"(known: {', '.join(KINDS)})")
    return KINDS[kind]


def _built_in(kind: str) -> Mapping[str, str]:
    _kind(kind)
    return BUILT_IN[kind]


@cache
def _offered(kind: str) -> Mapping[str, EntryPoint]:
    """Slug -> entry point of other packages; names that are built in are never replaced."""
    found = entry_points(group=_kind(kind).group)
    return {s: e for e in found if (s := slugify(e.name)) not in BUILT_IN[kind]}


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _opened(kind: str, entry: EntryPoint) -> Any:
    try:
        found = entry.load()
    # Whatever the code of another does while it is imported is told with the place it comes from.
    except (Exception, SystemExit) as error:
        raise InputError(
            f"the {kind} {entry.name!r} of {_distribution(entry)} ({entry.value}) cannot be "
            f"imported: {type(error).__name__}: {error}"
        ) from error
    check_class(found, entry.value, protocol_of(kind, found), kind)
    return found


def _attribute(path: str) -> Any:
    """What "module:attribute" names, or "module:TABLE.key" an entry of a mapping."""
    module, _, attribute = path.partition(":")
    name, _, key = attribute.partition(".")
    found = getattr(importlib.import_module(module), name)
    return found[key] if key else found


def _importable(name: str) -> bool:
    return name.isidentifier() and importlib.util.find_spec(name) is not None


def _unknown(kind: str, name: str) -> InputError:
    known = names(kind)
    slug = slugify(name.partition(":")[0])
    hint = "(or your own class as path/to/file.py:Class or package.module:Class)"
    if not suggest(slug, known):
        hint = f"(known: {', '.join(known)}) {hint}"
    found = unknown_name(kind, slug, known, hint)
    return type(found)(str(found).replace(repr(slug), repr(name), 1), found.suggestions)


def _first_sentence(found: Any) -> str:
    text = " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())
    sentences = text.replace("al. ", "al.\0").partition(". ")[0]
    return sentences.replace("\0", " ").rstrip(".")
