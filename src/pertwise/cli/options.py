"""Groups of options, each defined once: a command takes a group as one parameter.

    @app.command()
    @grouped
    def predict(screen: Annotated[Path, ...], reading: Reading, facts: Facts, llm: Llm) -> None:

The fields of a group become options of the command. `OptionGroup.given` holds those that the
user said, so that a command can refuse what it would not use (`OptionGroup.refuse`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, get_type_hints

import typer

from pertwise.errors import InputError

#: Options of the running command that the user said: parameter name -> as written.
_SAID: ContextVar[dict[str, str]] = ContextVar("said", default={})  # noqa: B039


@dataclass(frozen=True)
class OptionGroup:
    """Base of the groups: a frozen dataclass whose annotated fields are options.

    Attributes
    ----------
    given
        Names of the fields that were said on the command line.
    """

    #: Field -> the option as a user writes it, where that is not --field-name.
    spelled: ClassVar[dict[str, str]] = {}
    given: frozenset[str] = field(default=frozenset(), kw_only=True)

    @classmethod
    def option(cls, name: str) -> str:
        """A field as the user writes it."""
        return cls.spelled.get(name, "--" + name.replace("_", "-"))

    def refuse(self, why: str, *, but: Iterable[str] = ()) -> Self:
        """Itself, if nothing was given (apart from `but`).

        Raises
        ------
        pertwise.errors.InputError
            Names the options that were given and would not be used, and says why.
        """
        unused = sorted(self.given - set(but))
        if unused:
            names = ", ".join(self.option(n) for n in unused)
            raise InputError(f"{names}: not used here, since {why}; leave it out")
        return self


def refuse_given(names: Iterable[str], why: str) -> None:
    """Refuse single options (by parameter name) of a `grouped` command that would not be used.

    Raises
    ------
    pertwise.errors.InputError
        Names those that were given, and says why.
    """
    said = _SAID.get()
    unused = [said[name] for name in names if name in said]
    if unused:
        raise InputError(f"{', '.join(unused)}: not used here, since {why}; leave it out")


def _said(context: typer.Context) -> dict[str, str]:
    # By name: typer 0.29 carries a click of its own, whose enumeration is another object.
    return {
        str(p.name): max(p.opts, key=len)
        for p in context.command.params
        if getattr(context.get_parameter_source(str(p.name)), "name", "")
        in ("COMMANDLINE", "ENVIRONMENT")
    }


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with every parameter that is an `OptionGroup` taken apart into its options."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[OptionGroup]] = {}
    keyword = inspect.Parameter.KEYWORD_ONLY
    flat = [inspect.Parameter("_context", keyword, annotation=typer.Context)]
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if not (isinstance(kind, type) and issubclass(kind, OptionGroup)):
            flat.append(parameter.replace(annotation=kind, kind=keyword))
            continue
        groups[parameter.name] = kind
        own = get_type_hints(kind, include_extras=True)
        flat += [
            inspect.Parameter(f.name, keyword, default=f.default, annotation=own[f.name])
            for f in fields(kind)
            if f.name != "given"
        ]

    @functools.wraps(command)
    def run(*, _context: typer.Context, **values: Any) -> Any:
        said = _said(_context)
        _SAID.set(said)
        for name, kind in groups.items():
            own = [f.name for f in fields(kind) if f.name != "given"]
            values[name] = kind(
                **{n: values.pop(n) for n in own if n in values},
                given=frozenset(n for n in own if n in said),
            )
        return command(**values)

    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in flat}
    # functools.wraps leaves a road back to the command, whose annotations typer would read.
    del run.__wrapped__
    return run
