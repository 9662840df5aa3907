"""Settings from TOML, checked as a whole: errors name the file and every key at fault.

A class of settings is a `Settings`. A field that names a file is a `FileName`: read from a TOML
file it is relative to the folder of that file, and $VARIABLES in it are filled in; given in a call
it stays as it is.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from pertwise.errors import InputError
from pertwise.parts import is_file

#: Bytes; a larger file of settings is a mistake.
LARGEST = 10_000_000
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_SECRET = re.compile(r"(?i)key|token|secret|passw|credential")


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=BaseModel)


def placing(info: ValidationInfo) -> Callable[[str], str]:
    """What turns a file name of the settings being read into a path; in a call: nothing does."""
    place: Callable[[str], str] = (info.context or {}).get("place", str)
    return place


def _placed(value: str, info: ValidationInfo) -> str:
    return placing(info)(value)


def _placed_part(value: str, info: ValidationInfo) -> str:
    return placing(info)(value) if is_file(value) else value


FileName = Annotated[str, AfterValidator(_placed)]
#: Name of a part (`pertwise.parts`): placed when it is ``path/to/file.py:Class``.
PartName = Annotated[str, AfterValidator(_placed_part)]


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a TOML file.

    Raises
    ------
    pertwise.errors.InputError
        If the file is absent, no text, larger than `LARGEST` or not TOML.
    """
    file = Path(path)
    try:
        if file.stat().st_size > LARGEST:
            raise InputError(f"{file} holds more than {LARGEST} bytes: no file of settings")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no such file: {file}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file} is not valid TOML: {error}") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None


def toml_value(text: str) -> Any:
    """One value in TOML ("10", "true", "[1, 2]"); a list of bare words ("[a.csv, b.csv]", which a
    shell makes of a quoted one); any other text as it is.

    Raises
    ------
    pertwise.errors.InputError
        For what begins like a list or table and is none.
    """
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        plain = text.strip()
        if plain[:1] not in ("[", "{"):
            return plain
        inside = plain[1:-1]
        if plain[:1] == "[" and plain[-1:] == "]" and not set(inside) & set("[]{}\"'"):
            return [word.strip() for word in inside.split(",") if word.strip()]
        raise InputError(
            f'{plain!r} is neither a list nor a table in TOML ({error}); write ["a", "b"] or '
            '{ name = "a" }, in quotes for the shell'
        ) from None
    return found["value"] if list(found) == ["value"] else text.strip()


def read_settings(
    path: str | os.PathLike[str], model: type[S], *, folder: str | os.PathLike[str] | None = None
) -> S:
    """Settings of a TOML file; files in it are relative to `folder`, by default that of the file.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and every key at fault.
    """
    base = Path(path).parent if folder is None else Path(folder)
    place = partial(config_path, path, folder=base)
    return check_settings(read_toml(path), model, str(path), place)


def check_settings(
    data: Any, model: type[S], where: str = "settings", place: Callable[[str], str] = str
) -> S:
    """Settings given as a dictionary; errors name `where` and the keys.

    Parameters
    ----------
    place
        Applied to every `FileName`.

    Raises
    ------
    pertwise.errors.InputError
        For a key at fault, or an address with a password or key in it (`refuse_secrets`).
    """
    refuse_secrets(data, where)
    try:
        return model.model_validate(data, context={"place": place})
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'])) or 'settings'}: "
            f"{e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise InputError(f"{where}: " + "; ".join(lines)) from None


def config_path(
    config: str | os.PathLike[str], value: str, folder: str | os.PathLike[str] | None = None
) -> str:
    """A file named in a configuration as an absolute path; $VARIABLES are filled in.

    Parameters
    ----------
    folder
        What the name is relative to; by default the folder of `config`.

    Raises
    ------
    pertwise.errors.InputError
        If a variable is not set, or its name is that of a secret (paths are shown in messages).
    """

    def filled(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if _SECRET.search(name):
            raise InputError(f"{config}: ${name} looks like a secret; a path must not hold one")
        if name not in os.environ:
            raise InputError(f"{config}: {value!r} needs the environment variable {name}; set it")
        return os.environ[name]

    base = Path(config).parent if folder is None else Path(folder)
    return os.path.abspath(base / Path(_VARIABLE.sub(filled, value)).expanduser())


# -- secrets -------------------------------------------------------------------------------------


def query_of(text: str) -> dict[str, str]:
    """Names and values of the query of an address."""
    # Not parse_qsl: it takes the "+" of a pasted key for a space.
    pairs = (pair.partition("=") for pair in text.split("&") if pair)
    return {unquote(name): unquote(value) for name, _, value in pairs}


_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth|sig|code|subscription", re.I)


def is_secret(name: str, value: str) -> bool:
    """Whether a part of a query is better not shown."""
    return bool(_SECRET_NAME.search(name)) or (len(value) >= 8 and name != "api-version")


def refuse_secrets(value: Any, where: str) -> None:
    """Check that no text in settings (nested dicts and lists) is an address with a secret.

    Raises
    ------
    pertwise.errors.InputError
        Names the place, not the secret: settings are stored with results.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            refuse_secrets(inner, f"{where}, {name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            refuse_secrets(inner, where)
    elif isinstance(value, str) and "://" in value:
        rest = value.rpartition("://")[2]
        host, _, query = rest.partition("?")
        if "@" in host.partition("/")[0] or any(is_secret(*p) for p in query_of(query).items()):
            raise InputError(
                f"{where}: the address holds a password or key, and configurations are stored with "
                "the results; put the key into the environment (see docs/llm.md)"
            )


# -- the user's own defaults ---------------------------------------------------------------------


class UserSettings(Settings):
    """Defaults of the command line, for what is needed and was not given.

    Attributes
    ----------
    knowledge
        Knowledge folder of `plan`, `predict`, `ask`, `rate` and `review`.
    llm
        Endpoint (``MODEL@URL``) of the commands that cannot do without a model (`ask`, `rate`); no
        other command asks it.
    theme
        Of pages: "light", "dark", or "auto" (as the reader's browser asks); paper is light.
    """

    knowledge: FileName | None = None
    llm: str | None = None
    theme: Literal["light", "dark", "auto"] = "light"


def user_file() -> Path:
    """$PERTWISE_CONFIG, else pertwise.toml in $XDG_CONFIG_HOME or ~/.config."""
    named = os.environ.get("PERTWISE_CONFIG")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pertwise.toml"


def user_settings() -> UserSettings:
    """What `user_file` says; nothing where there is none.

    Raises
    ------
    pertwise.errors.InputError
        Names the file and every key at fault.
    """
    file = user_file()
    return read_settings(file, UserSettings) if file.is_file() else UserSettings()
