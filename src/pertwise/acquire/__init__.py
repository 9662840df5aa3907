"""What should be measured next?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pertwise._lazy import lazy
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

__getattr__ = lazy(__name__, _LAZY)
