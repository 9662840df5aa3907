"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """`__getattr__` of the module `package`.

    Parameters
    ----------
    where
        Name -> "module" that holds it, "module:attribute" where it has another name there, or
        "module:" where it is the module itself.

    Raises
    ------
    AttributeError
        If the package has no such name.
    """

    def find(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, renamed, attribute = where[name].partition(":")
        found = importlib.import_module(module)
        if renamed and not attribute:
            return found
        return getattr(found, attribute or name)

    return find
