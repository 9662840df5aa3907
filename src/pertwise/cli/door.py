"""The door of the terminal: no escape sequence and no key gets out, whoever wrote the text."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from pertwise._text import clean_text
from pertwise.llm.address import Redactor, environment_redactor

if TYPE_CHECKING:
    from rich.console import Console


class _CleanStream:
    """A text stream that writes `clean_text` without the keys of the environment."""

    def __init__(self, stream: TextIO, redact: Redactor) -> None:
        self._stream, self._redact = stream, redact
        # Where rich writes: its own colours must stay; its texts are cleaned in `console`.
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self._stream.write(self._redact.literal(clean_text(text)))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def close_door() -> None:
    """From here on standard output and error are cleaned."""
    redact = environment_redactor()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _CleanStream):
            setattr(sys, name, _CleanStream(stream, redact))


#: Columns of what is written into a pipe or file, at least.
PIPED = 160


def console(**options: Any) -> Console:
    """A rich console whose texts (not its own colours) are cleaned.

    A pipe or file has no width of its own; rich's 80 columns would cut most tables. A smaller
    $COLUMNS is what a parent (readline sets it) found without a terminal, so it does not count.
    """
    from rich.console import Console
    from rich.text import Text

    redact = environment_redactor()

    class Clean(Console):
        def render_str(self, text: str, **given: Any) -> Text:
            return super().render_str(redact.literal(clean_text(text)), **given)

    if not sys.stdout.isatty():
        told = os.environ.get("COLUMNS", "")
        options.setdefault("width", max(PIPED, int(told) if told.isdecimal() else 0))
    return Clean(**options)
