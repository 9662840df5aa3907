"""Who is better? Units, resume, tables; one module or folder a task."""

from __future__ import annotations

from typing import Any, Protocol


class Task(Protocol):
    """A benchmark that can be named: run with its configuration, it writes into a folder."""

    def __call__(self, config: Any, out: Any) -> Any:
        """Run what is missing and return what was made."""
        ...
