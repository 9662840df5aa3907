"""Is my part correct? The suites that every part of this package runs through, for yours too.

    from pertwise.testing import check_predictor
    check_predictor(lambda: MyPredictor())

A suite raises AssertionError at the first promise that is broken, with the promise in its words.
`ScriptedServer` speaks the chat protocols on the loopback interface; it is NOT a language model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pertwise.testing.kernels import check_kernel as check_kernel
    from pertwise.testing.metrics import check_metric as check_metric
    from pertwise.testing.predictors import check_predictor as check_predictor
    from pertwise.testing.predictors import example_screen as example_screen
    from pertwise.testing.raters import check_rater as check_rater
    from pertwise.testing.selectors import check_selector as check_selector
    from pertwise.testing.server import ScriptedServer as ScriptedServer
    from pertwise.testing.strategies import check_strategy as check_strategy
    from pertwise.testing.strategies import example_state as example_state

_LAZY = {
    "ScriptedServer": "server",
    "check_kernel": "kernels",
    "check_metric": "metrics",
    "check_predictor": "predictors",
    "check_rater": "raters",
    "check_selector": "selectors",
    "check_strategy": "strategies",
    "example_screen": "predictors",
    "example_state": "strategies",
}

__all__ = [
    "ScriptedServer",
    "check_kernel",
    "check_metric",
    "check_predictor",
    "check_rater",
    "check_selector",
    "check_strategy",
    "example_screen",
    "example_state",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"pertwise.testing.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'pertwise.testing' has no attribute {name!r}")
