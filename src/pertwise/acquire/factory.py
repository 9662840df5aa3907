"""From a name to a strategy. A new one is a class in a file, named here or by "module:Class"."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pertwise.acquire.base import Strategy
from pertwise.errors import InputError, unknown_name

#: Built-in strategies. Read-only: add your own by path ("mypackage.mine:Mine"), not by mutation.
BUILT_IN: Mapping[str, str] = {
    "random": "pertwise.acquire.strategies.random:Random",
    "uncertainty": "pertwise.acquire.strategies.uncertainty:Uncertainty",
    "bald": "pertwise.acquire.strategies.bald:Bald",
    "batchbald": "pertwise.acquire.strategies.batchbald:BatchBald",
    "iterpert": "pertwise.acquire.strategies.iterpert:IterPert",
    "coreset": "pertwise.acquire.strategies.coreset:CoreSet",
    "typiclust": "pertwise.acquire.strategies.typiclust:TypiClust",
    "badge": "pertwise.acquire.strategies.badge:Badge",
    "lcmd": "pertwise.acquire.strategies.lcmd:Lcmd",
    "variance_reduction": "pertwise.acquire.strategies.variance_reduction:VarianceReduction",
    "knowledge": "pertwise.acquire.strategies.knowledge:KnowledgePicker",
    "llm": "pertwise.acquire.strategies.llm:LlmStrategy",
}


def strategy_names() -> tuple[str, ...]:
    """Names of the built-in strategies."""
    return tuple(BUILT_IN)


def open_strategy(name: str, **settings: Any) -> Strategy:
    """A strategy by built-in name or by "module:Class"; `settings` go to its constructor.

    Raises
    ------
    pertwise.errors.InputError
        Unknown name, or a class that does not follow the `Strategy` protocol.
    """
    path = BUILT_IN.get(name, name)
    if ":" not in path:
        raise unknown_name(
            "strategy", name, BUILT_IN, f"(known: {', '.join(BUILT_IN)}; or 'module:Class')"
        )
    module_name, _, class_name = path.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot load the strategy {name!r}: {error}") from error
    try:
        strategy = factory(**settings)
    except TypeError as error:
        raise InputError(f"strategy {name!r} does not take these settings: {error}") from error
    if not isinstance(strategy, Strategy):
        raise InputError(f"{name!r} is no strategy: it needs a `name` and `choose(state, n)`")
    return strategy
