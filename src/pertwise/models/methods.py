"""A row of a benchmark: a predictor by name, or a user's own class, with its settings."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pertwise import parts
from pertwise.errors import InputError
from pertwise.kernels.transfer import GivenScreens, open_others, without
from pertwise.provenance import checksum
from pertwise.select.words import asks_a_model, own_files, placed_words, recorded_files

if TYPE_CHECKING:
    from pertwise.knowledge import Knowledge
    from pertwise.models import Predictor

#: A setting of many methods: the SQLite file that exchanges with a chat model are written to.
LEDGER = "ledger"


@dataclass(frozen=True)
class Method:
    """What to build, how, and what it is called.

    Attributes
    ----------
    label
        Name in tables and figures.
    use
        Name of a predictor in any form of `pertwise.parts`.
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

    @property
    def other(self) -> GivenScreens:
        """The other screens that it learns from; empty when there are none."""
        reads = "other" in parts.describe("predictor", self.use).facts.reads
        given: GivenScreens = self.settings.get("other", ()) if reads else ()
        return given

    def build(
        self, hold_out: str = "", hidden: Sequence[str] = (), knowledge: Knowledge | None = None
    ) -> Predictor:
        """A fresh, unfitted predictor.

        Parameters
        ----------
        hold_out
            What the test holds out; given to methods that tune themselves on inner folds (a setting
            of that name), unless their settings say otherwise.
        hidden, knowledge
            Perturbations that are unseen anywhere: the method gets its other screens without them,
            under any name that the knowledge knows them by.

        Raises
        ------
        pertwise.errors.InputError
            If the class cannot be found, refuses the settings, or is no predictor.
        """
        part, settings = parts.describe("predictor", self.use), dict(self.settings)
        if hold_out and "hold_out" in inspect.signature(part.found).parameters:
            settings.setdefault("hold_out", hold_out)
        if hidden and self.other:
            settings["other"] = without(self.other, hidden, knowledge)
        model: Predictor = part.load(**settings)
        return model

    def facts(self) -> dict[str, Any]:
        """For a record: what was built, of which contents."""
        return {
            "name": self.label,
            "use": self.use,
            "settings": dict(self.settings),
            "code_sha256": self.sha256 or None,
            "files_sha256": dict(self.files),
        }


def model(name: str, **settings: Any) -> Predictor:
    """A fresh, unfitted predictor by name: ``model("multi-kernel").fit(screen, knowledge)``.

    Parameters
    ----------
    name
        A slug of `pertwise.parts` ("neighbours:graph:string"), ``path/to/file.py:Class`` or
        ``package.module:Class``.

    Raises
    ------
    pertwise.errors.InputError
        If the name is unknown, the class is no predictor, or the settings are not taken.
    """
    made: Predictor = parts.load("predictor", name, **settings)
    return made


def make_method(use: str, label: str | None = None, **settings: Any) -> Method:
    """A `Method`, checked: the class exists and takes the settings.

    Raises
    ------
    pertwise.errors.InputError
        As `Method.build`; or if the user's file, or one that the settings name, does not exist, or
        a file that the method reads is not named.
    """
    part = parts.describe("predictor", use)
    given = {**part.settings, **settings}
    for key in part.facts.reads:
        taken = part.parameters.get(key)
        if key not in given and taken is not None and taken.default is taken.empty:
            made = ", a file that `pertwise ask` writes" if key == "answers" else ""
            raise InputError(f"the method {use!r} needs the setting {key}=FILE{made}")
    digest = checksum(part.file) if part.file else ""
    method = Method(label or part.label, part.name, given, digest)
    method.build()
    # Read at once (and kept): a file that is no screen is told before anything is fitted.
    open_others(method.other)
    return replace(method, files=file_checksums(part.name, given))


def check_reads(use: str, key: str, does_not: str) -> None:
    """Refuse the setting `key` for a built-in method that would not look at it.

    Parameters
    ----------
    does_not
        What such a method does not do, in words: "use marks".

    Raises
    ------
    pertwise.errors.InputError
        Names the methods that do.
    """
    part = parts.describe("predictor", use)
    if part.own or key in part.facts.reads:
        return
    using = [
        name
        for name in parts.names("predictor", offered=False)
        if key in parts.describe("predictor", name).facts.reads
    ]
    raise InputError(
        f"the method {use!r} does not {does_not}: leave {key} out, or choose one that does "
        f"({', '.join(using)})"
    )


def asks_chat(use: str, settings: Mapping[str, Any]) -> bool:
    """Whether a method asks a chat model per perturbation, itself or by a selector in words."""
    part = parts.describe("predictor", use)
    given = {**part.settings, **settings}
    return "chat" in part.facts.needs or any(map(asks_a_model, _words(part, given)))


def answer_files(use: str, settings: Mapping[str, Any]) -> list[str]:
    """Paths of the recorded answers that a method reads."""
    part = parts.describe("predictor", use)
    given = {**part.settings, **settings}
    named = [given["answers"]] if "answers" in part.facts.reads and "answers" in given else []
    listed = [file for words in _words(part, given) for file in recorded_files(words)]
    return list(dict.fromkeys(map(str, (*named, *listed))))


def _words(part: parts.Part, settings: Mapping[str, Any]) -> list[str]:
    """Every selector in words among the settings."""
    found: list[Any] = []
    for key in part.facts.words:
        value = settings.get(key)
        found += [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [str(words) for words in found if words]


def setting_files(use: str, settings: Mapping[str, Any]) -> list[str]:
    """Paths that the settings of a method read from.

    Those that its part says it reads, and the files of selectors in words: recorded answers, and
    code of one's own. Of a user's own class that says nothing: every text that is an existing file.
    Ledgers are written to, so they are none of them.
    """
    part = parts.describe("predictor", use)
    if part.own and not (part.facts.reads or part.facts.words):
        return [
            str(text)
            for key, value in settings.items()
            for text in (value if isinstance(value, list | tuple) else (value,))
            if key != LEDGER and isinstance(text, str | os.PathLike) and Path(text).is_file()
        ]
    found = [
        str(text)
        for key in part.facts.reads
        for text in _texts(settings.get(key))
        if isinstance(text, str | os.PathLike)
    ]
    for words in _words(part, settings):
        found += [*recorded_files(words), *own_files(words)]
    for key, value in settings.items():
        texts = value if isinstance(value, list | tuple) else (value,)
        if key not in part.facts.words:
            found += [t.rpartition(":")[0] for t in texts if _is_code(t)]
    return list(dict.fromkeys(found))


def placed_settings(
    use: str, settings: Mapping[str, Any], place: Callable[[str], str]
) -> dict[str, Any]:
    """The settings with `place` applied to every path in them that `setting_files` would name, and
    to that of a ledger; those of a user's own class that says nothing of them as they are."""
    out = dict(settings)
    part = parts.describe("predictor", use)
    if part.own and not (part.facts.reads or part.facts.words):
        return out
    for key in (*part.facts.reads, LEDGER):
        if key in out:
            out[key] = _each(out[key], place)
    for key, value in out.items():
        if key in part.facts.words:
            out[key] = _each(value, lambda text: placed_words(text, place))
        elif key not in part.facts.reads:
            out[key] = _each(value, lambda text: place(text) if _is_code(text) else text)
    return out


def _is_code(text: Any) -> bool:
    """Whether a setting names a class in a file (a kernel of one's own)."""
    return isinstance(text, str) and parts.is_file(text)


def _texts(value: Any) -> list[Any]:
    """One value, or those of a list or table."""
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else [value]


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """`change` applied to a text, or to every text of a list or table."""
    if isinstance(value, list):
        return [change(v) if isinstance(v, str) else v for v in value]
    if isinstance(value, dict):
        return {k: change(v) if isinstance(v, str) else v for k, v in value.items()}
    return change(value) if isinstance(value, str) else value


def file_checksums(use: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """path -> sha256 of `setting_files`; of a folder, over the names and contents of its files.

    Raises
    ------
    pertwise.errors.InputError
        If one of them does not exist.
    """
    where = f"the settings of {use!r}"
    return {path: checksum(path, where) for path in setting_files(use, settings)}
