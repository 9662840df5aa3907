"""Conditions as Tahoe-100M writes them: ``[('Drug', 5.0, 'uM')]``."""

from __future__ import annotations

import ast
from typing import Any

from pertwise.errors import InputError


def parse_condition(text: str) -> tuple[str, float]:
    """``[('Drug', 5.0, 'uM')]`` -> ("Drug", 5.0); a plain name has dose NaN."""
    if text.startswith("[("):
        try:
            parsed: Any = ast.literal_eval(text)
            return str(parsed[0][0]).strip(), float(parsed[0][1])
        except (ValueError, SyntaxError, IndexError, TypeError) as error:
            raise InputError(
                f"condition {text!r} is not of the form [('Drug', dose, unit)]"
            ) from error
    return text.strip(), float("nan")
