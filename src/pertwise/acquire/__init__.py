"""What should be measured next?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pertwise.acquire.base import AcquisitionState, Strategy, Target

if TYPE_CHECKING:
    from pertwise.acquire.amendment import amend as amend
    from pertwise.acquire.panel import Plan as Plan
    from pertwise.acquire.planning import plan as plan

_LAZY = {
    "Plan": "pertwise.acquire.panel",
    "amend": "pertwise.acquire.amendment",
    "plan": "pertwise.acquire.planning",
}

__all__ = [
    "AcquisitionState",
    "Plan",
    "Strategy",
    "Target",
    "amend",
    "plan",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pertwise.acquire' has no attribute {name!r}")
