"""What does a person see? Figures, and pages that hold everything in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pertwise._lazy import lazy

if TYPE_CHECKING:
    from pertwise.report.page import render_page as render_page
    from pertwise.report.plan_page import render_plan as render_plan
    from pertwise.report.plan_page import write_plan as write_plan

_LAZY = {
    "render_plan": "pertwise.report.plan_page",
    "render_page": "pertwise.report.page",
    "write_plan": "pertwise.report.plan_page",
}

__all__ = ["render_page", "render_plan", "write_plan"]

__getattr__ = lazy(__name__, _LAZY)
