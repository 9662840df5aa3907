"""Prompts as files: jinja2 templates with a system and a user part, overridable by path."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pertwise._files import read_text
from pertwise._io import sha256_text
from pertwise._text import in_prompt
from pertwise.errors import InputError, unknown_name
from pertwise.llm.base import Message

BUILT_IN = (
    "acquire",
    "acquire-paper",
    "langpert",
    "edit",
    "lgr",
    "judge",
    "gene_summary",
    "rate",
    "perturbqa",
)


@dataclass(frozen=True)
class PromptTemplate:
    """A prompt: jinja2 text with the blocks `system` and `user`.

    Attributes
    ----------
    name
        Built-in name, or the path it was read from (file name only).
    text
        Template source.
    """

    name: str
    text: str

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the source: goes into provenance."""
        return sha256_text(self.text)[:16]

    def render(self, **values: Any) -> tuple[Message, ...]:
        """Fill in, every text made one line without tags; an empty system part is left out.

        Raises
        ------
        pertwise.errors.InputError
            When the template is not valid jinja2, lacks the block `user` or uses a variable that
            this prompt does not have.
        """
        import jinja2

        try:
            template = _compiled(self.text)
            if "user" not in template.blocks:
                raise InputError(f"prompt {self.name}: there is no {{% block user %}}")
            parts = {}
            for part in ("system", "user"):
                block = template.blocks.get(part)
                context = template.new_context(_one_lined(values))
                parts[part] = "".join(block(context)).strip() if block else ""
        # An expression in a template can fail in any way, as can the template of another person.
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            if isinstance(error, InputError):
                raise
            line = getattr(error, "lineno", None)
            where = f", line {line}" if line else ""
            raise InputError(
                f"prompt {self.name}{where}: {error}; variables of this prompt: {sorted(values)}"
            ) from None
        roles = [("system", parts["system"]), ("user", parts["user"])]
        return tuple(
            Message(role=role, content=content)  # type: ignore[arg-type]
            for role, content in roles
            if content
        )


def _one_lined(value: Any) -> Any:
    """The value with `in_prompt` on every text in it, keys included."""
    if isinstance(value, str):
        return in_prompt(value)
    if isinstance(value, Mapping):
        return {_one_lined(k): _one_lined(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_one_lined(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _one_lined(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


@functools.lru_cache(maxsize=64)
def _compiled(text: str) -> Any:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # A prompt may come from another person: it fills in words and reaches nothing else.
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    return environment.from_string(text)


def load_prompt(name_or_path: str | os.PathLike[str]) -> PromptTemplate:
    """A built-in prompt by name, or a user's own by path (anything with a suffix or a slash).

    Raises
    ------
    pertwise.errors.InputError
        When the file does not exist or the name is unknown.
    """
    text = os.fspath(name_or_path)
    if text in BUILT_IN:
        folder = resources.files("pertwise.llm").joinpath("prompts")
        source = folder.joinpath(f"{text}.j2").read_text(encoding="utf-8")
        return PromptTemplate(text, source)
    path = Path(text)
    if path.suffix or len(path.parts) > 1:
        if not path.is_file():
            raise InputError(f"prompt file {path} does not exist")
        return PromptTemplate(path.name, read_text(path, "a prompt"))
    raise unknown_name("prompt", text, BUILT_IN, "(or give the path of a template file)")
