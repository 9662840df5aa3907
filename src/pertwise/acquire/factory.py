"""From a name to a strategy. A new one is a class in a file, named here or by "module:Class"."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from pertwise._external import load_class
from pertwise.acquire.base import Strategy
from pertwise.errors import InputError

#: Built-in strategies. Read-only: add your own by path ("mypackage.mine:Mine"), not by mutation.
BUILT_IN: Mapping[str, str] = {
    "random": "pertwise.acquire.random_pick:Random",
    "uncertainty": "pertwise.acquire.uncertainty:Uncertainty",
    "bald": "pertwise.acquire.bald:Bald",
    "batchbald": "pertwise.acquire.batchbald:BatchBald",
    "iterpert": "pertwise.acquire.iterpert:IterPert",
    "coreset": "pertwise.acquire.coreset:CoreSet",
    "typiclust": "pertwise.acquire.typiclust:TypiClust",
    "badge": "pertwise.acquire.badge:Badge",
    "lcmd": "pertwise.acquire.lcmd:Lcmd",
    "variance_reduction": "pertwise.acquire.variance_reduction:VarianceReduction",
    "knowledge": "pertwise.acquire.knowledge_picker:KnowledgePicker",
    "llm": "pertwise.acquire.llm:LlmStrategy",
}


def strategy_names() -> tuple[str, ...]:
    """Names of the built-in strategies."""
    return tuple(BUILT_IN)


def open_strategy(name: str, **settings: Any) -> Strategy:
    """A strategy by built-in name, "module:Class" or "path/to/file.py:Class"; `settings` go to
    its constructor.

    Raises
    ------
    pertwise.errors.InputError
        Unknown name, or a class that does not follow the `Strategy` protocol.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        factory = getattr(importlib.import_module(module), attribute)
    else:
        factory = load_class(name, Strategy, "strategy", BUILT_IN)
    try:
        strategy = factory(**settings)
    except TypeError as error:
        raise InputError(f"strategy {name!r} does not take these settings: {error}") from error
    if not isinstance(strategy, Strategy):
        raise InputError(f"{name!r} is no strategy: it needs a `name` and `choose(state, n)`")
    return strategy
