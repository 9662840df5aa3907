"""A row of a benchmark: a predictor of the catalogue, or a user's own class, with its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pertwise._io import sha256_file
from pertwise.errors import InputError
from pertwise.predict.catalogue import make_predictor

if TYPE_CHECKING:
    from pertwise.predict import Predictor


@dataclass(frozen=True)
class Method:
    """What to build, how, and what it is called.

    Attributes
    ----------
    label
        Name in tables and figures.
    use
        A name of `pertwise.predict.catalogue.CATALOGUE`, ``package.module:Class`` or
        ``path/to/file.py:Class``.
    settings
        Keyword arguments of the class.
    sha256
        Of the user's file, so that a result says which version of it was scored ("" otherwise).
    """

    label: str
    use: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def build(self) -> Predictor:
        """A fresh, unfitted predictor.

        Raises
        ------
        pertwise.errors.InputError
            If the class cannot be found, refuses the settings, or is no predictor.
        """
        return make_predictor(self.use, **dict(self.settings))


def make_method(use: str, label: str | None = None, **settings: Any) -> Method:
    """A `Method`, checked: the class exists and takes the settings.

    Raises
    ------
    pertwise.errors.InputError
        As `Method.build`; or if the user's file does not exist.
    """
    source, _, attribute = use.rpartition(":")
    digest = ""
    if source.endswith(".py"):
        if not Path(source).is_file():
            raise InputError(f"no such file: {source}")
        digest = sha256_file(source)
    method = Method(label or (attribute if source else use), use, settings, digest)
    method.build()
    return method
