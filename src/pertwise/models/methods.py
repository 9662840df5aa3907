"""A row of a benchmark: a predictor of the catalogue, or a user's own class, with its settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pertwise.errors import InputError
from pertwise.models.catalogue import CATALOGUE, make_predictor
from pertwise.provenance import checksum
from pertwise.select.words import placed_words, recorded_files

if TYPE_CHECKING:
    from pertwise.models import Predictor

#: Settings that name a file to read, by method of the catalogue.
FILE_SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fused": ("answers",),
        "langpert (recorded)": ("answers",),
        "cross-line transfer": ("other",),
    }
)
#: Settings that hold selectors in words, some of which read a file.
WORD_SETTINGS = ("selector", "fallbacks", "prefilter")
LEDGER = "ledger"


@dataclass(frozen=True)
class Method:
    """What to build, how, and what it is called.

    Attributes
    ----------
    label
        Name in tables and figures.
    use
        A name of `pertwise.models.catalogue.CATALOGUE`, ``package.module:Class`` or
        ``path/to/file.py:Class``.
    settings
        Keyword arguments of the class.
    sha256
        Of the user's file, so that a result says which version of it was scored ("" otherwise).
    files
        path -> sha256 of every file that the settings name (`setting_files`): recorded answers,
        another screen.
    """

    label: str
    use: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def build(self) -> Predictor:
        """A fresh, unfitted predictor.

        Raises
        ------
        pertwise.errors.InputError
            If the class cannot be found, refuses the settings, or is no predictor.
        """
        return make_predictor(self.use, **dict(self.settings))

    def facts(self) -> dict[str, Any]:
        """For a record: what was built, of which contents."""
        return {
            "name": self.label,
            "use": self.use,
            "settings": dict(self.settings),
            "code_sha256": self.sha256 or None,
            "files_sha256": dict(self.files),
        }


def make_method(use: str, label: str | None = None, **settings: Any) -> Method:
    """A `Method`, checked: the class exists and takes the settings.

    Raises
    ------
    pertwise.errors.InputError
        As `Method.build`; or if the user's file, or one that the settings name, does not exist, or
        a file that the method reads is not named.
    """
    source, _, attribute = use.rpartition(":")
    digest = ""
    if source.endswith(".py"):
        if not Path(source).is_file():
            raise InputError(f"no such file: {source}")
        digest = checksum(source)
    for key in FILE_SETTINGS.get(use, ()):
        if key not in settings:
            made = ", a file that `pertwise langpert` writes" if key == "answers" else ""
            raise InputError(f"the method {use!r} needs the setting {key}=FILE{made}")
    name = label or (attribute if source else use)
    Method(name, use, settings, digest).build()
    return Method(name, use, settings, digest, file_checksums(use, settings))


def setting_files(use: str, settings: Mapping[str, Any]) -> list[str]:
    """Paths that the settings of a method read from.

    Of a method of the catalogue: `FILE_SETTINGS`, and the recorded answers that selectors in words
    name. Of a user's own class, whose settings nobody here knows: every text that is an existing
    file. Ledgers are written to, so they are none of them.
    """
    if use not in CATALOGUE:
        return [
            str(text)
            for key, value in settings.items()
            for text in (value if isinstance(value, list | tuple) else (value,))
            if key != LEDGER and isinstance(text, str | os.PathLike) and Path(text).is_file()
        ]
    found = [
        str(settings[key])
        for key in FILE_SETTINGS.get(use, ())
        if isinstance(settings.get(key), str | os.PathLike)
    ]
    for key in WORD_SETTINGS:
        value = settings.get(key)
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        for words in texts:
            found += recorded_files(str(words))
    return list(dict.fromkeys(found))


def placed_settings(
    use: str, settings: Mapping[str, Any], place: Callable[[str], str]
) -> dict[str, Any]:
    """The settings with `place` applied to every path in them that `setting_files` would name, and
    to that of a ledger; those of a user's own class as they are."""
    out = dict(settings)
    if use not in CATALOGUE:
        return out
    for key in (*FILE_SETTINGS.get(use, ()), LEDGER):
        if isinstance(out.get(key), str):
            out[key] = place(out[key])
    for key in WORD_SETTINGS:
        if isinstance(out.get(key), str):
            out[key] = placed_words(out[key], place)
        elif isinstance(out.get(key), list):
            out[key] = [placed_words(w, place) if isinstance(w, str) else w for w in out[key]]
    return out


def file_checksums(use: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """path -> sha256 of `setting_files`; of a folder, over the names and contents of its files.

    Raises
    ------
    pertwise.errors.InputError
        If one of them does not exist.
    """
    where = f"the settings of {use!r}"
    return {path: checksum(path, where) for path in setting_files(use, settings)}
