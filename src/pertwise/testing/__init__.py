"""Is my part correct? The suites that every part of this package runs through, for yours too.

    from pertwise.testing import check_predictor
    check_predictor(lambda: MyPredictor())

A suite raises AssertionError at the first promise that is broken, with the promise in its words.
`ScriptedServer` speaks the chat protocols on the loopback interface; it is NOT a language model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pertwise._lazy import lazy

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
    "ScriptedServer": "pertwise.testing.server",
    "check_kernel": "pertwise.testing.kernels",
    "check_metric": "pertwise.testing.metrics",
    "check_predictor": "pertwise.testing.predictors",
    "check_rater": "pertwise.testing.raters",
    "check_selector": "pertwise.testing.selectors",
    "check_strategy": "pertwise.testing.strategies",
    "example_screen": "pertwise.testing.predictors",
    "example_state": "pertwise.testing.strategies",
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

__getattr__ = lazy(__name__, _LAZY)
