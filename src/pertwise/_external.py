"""Classes named in a configuration or a flag: found and checked before anything of them is called.

A TOML file and a command line may name a class of one's own, never a function: what they name is
imported, must be a class, and must have the methods of the protocol that it is wanted for.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from pertwise.errors import InputError, unknown_name

#: Attribute under which `pertwise.parts.part` keeps what it is told.
DECLARED = "__part__"


def load_class(
    use: str, protocol: Callable[[Any], type], kind: str, known: Iterable[str] = ()
) -> type[Any]:
    """The class that "module:Class" or "path/to/file.py:Class" names, or a function there that is
    declared as a part (`pertwise.parts.part`).

    Parameters
    ----------
    protocol
        Class found -> `typing.Protocol` whose methods it must have, taking as many arguments.
    kind, known
        What is wanted ("predictor", "strategy") and the built-in names, for messages.

    Raises
    ------
    pertwise.errors.InputError
        No such file, module or name; the module cannot be imported; not a class; or a method of
        the protocol is missing or takes other arguments. Nothing was called then.
    """
    source, _, attribute = use.rpartition(":")
    if not source or not attribute:
        raise unknown_name(
            kind, use, known, "(or give your own class as path/to/file.py:Class or module:Class)"
        )
    module = _imported(source)
    found = vars(module).get(attribute)
    if found is None:
        classes = [n for n, v in vars(module).items() if inspect.isclass(v) and n[:1] != "_"]
        raise unknown_name("class", attribute, classes, f"in {source}")
    check_class(found, use, protocol(found), kind)
    return found  # type: ignore[no-any-return]


def check_class(found: Any, use: str, protocol: type, kind: str) -> None:
    """Refuse what is neither a declared part nor a class of the protocol; nothing is called.

    Raises
    ------
    pertwise.errors.InputError
        As `load_class`.
    """
    if DECLARED in getattr(found, "__dict__", {}) and not inspect.isclass(found):
        return
    if not inspect.isclass(found):
        raise InputError(
            f"{use} is a {type(found).__name__}, not a class: a {kind} is a class with "
            f"{_wanted(protocol)}, or a function declared with @pertwise.parts.part"
        )
    for name, method in methods_of(protocol).items():
        # Every class has the `__call__` of its metaclass; what counts is that of its instances.
        has = any(name in vars(c) for c in found.__mro__)
        own = getattr(found, name, None) if has else None
        wrong = "takes other arguments in" if callable(own) else "has no method"
        if not callable(own) or not _takes(own, method):
            raise InputError(
                f"{use} is no {kind}: the class {wrong} {name!r}; it needs {_wanted(protocol)}"
            )


def methods_of(protocol: type) -> dict[str, Any]:
    """Name -> function of every method that a protocol asks for."""
    return {
        n: m
        for n, m in vars(protocol).items()
        if inspect.isfunction(m) and (n[0] != "_" or n == "__call__")
    }


def _wanted(protocol: type) -> str:
    return " and ".join(
        f"{name}({', '.join(list(inspect.signature(method).parameters)[1:])})"
        for name, method in methods_of(protocol).items()
    )


def _takes(own: Any, wanted: Any) -> bool:
    """Whether all that is handed on by position is taken; keywords of a protocol are options."""
    asked = inspect.signature(wanted).parameters.values()
    try:
        inspect.signature(own).bind(*(p.name for p in asked if p.kind is not p.KEYWORD_ONLY))
    except (TypeError, ValueError):
        return False
    return True


def _imported(source: str) -> ModuleType:
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        path = Path(source)
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        spec = importlib.util.spec_from_file_location(f"_user_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise InputError(f"{path} cannot be imported as Python")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except InputError:
        raise
    # Whatever the code of another does while it is imported is told with the place it comes from.
    except (Exception, SystemExit) as error:
        raise InputError(
            f"cannot import module {source!r}: {type(error).__name__}: {error}"
        ) from error
    return module
