"""pertwise: which perturbations next, what will they do, and can we trust that?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pertwise.screen import Screen as Screen

# Names offered at the top level, loaded on first use so that `import pertwise` stays fast.
_LAZY = {
    "Screen": "pertwise.screen",
    "read_screen": "pertwise.screen",
    "Knowledge": "pertwise.knowledge",
    "plan": "pertwise.acquire",
    "predict": "pertwise.prediction.predicting",
}

__all__ = ["Knowledge", "Screen", "__version__", "plan", "predict", "read_screen"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pertwise' has no attribute {name!r}")
