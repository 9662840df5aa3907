"""Names of predictors -> how to build them; the bench and the command line share this table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pertwise._external import load_class
from pertwise.errors import InputError
from pertwise.predict.base import Predictor

#: name -> "module:attribute" of a class or factory that takes keyword settings.
CATALOGUE: Mapping[str, str] = MappingProxyType(
    {
        "control": "pertwise.predict.baselines:ControlPredictor",
        "training mean": "pertwise.predict.baselines:TrainingMeanPredictor",
        "graph neighbours": "pertwise.predict.recipes:graph_neighbours",
        "rewired graph neighbours": "pertwise.predict.recipes:rewired_graph_neighbours",
        "neighbours": "pertwise.predict.neighbour_recipes:neighbours",
        "embedding neighbours": "pertwise.predict.recipes:embedding_neighbours",
        "ridge on embedding": "pertwise.predict.linear:RidgePredictor",
        "bilinear": "pertwise.predict.linear:BilinearPredictor",
        "gp text": "pertwise.predict.recipes:gp_text",
        "kernel ridge": "pertwise.predict.recipes:kernel_ridge",
        "LLMPert": "pertwise.predict.llmpert:LLMPertEnsemble",
        "multi-kernel": "pertwise.predict.recipes:multi_kernel",
        "learned neighbours": "pertwise.predict.learned:LearnedNeighbourPredictor",
        "additive": "pertwise.predict.combinations:additive",
        "kernel vote": "pertwise.predict.vote:KernelVotePredictor",
        "radial": "pertwise.predict.radial:RadialPredictor",
        "forest": "pertwise.predict.forest:ForestPredictor",
        "stacked": "pertwise.predict.recipes:stacked",
        "langpert": "pertwise.predict.chat_recipes:langpert",
        "graph+edit": "pertwise.predict.chat_recipes:graph_edit",
        "langpert (recorded)": "pertwise.predict.recipes:recorded_langpert",
        "cross-line transfer": "pertwise.predict.recipes:transfer",
        "fused": "pertwise.predict.recipes:fused",
    }
)


def factory(use: str) -> Callable[..., Any]:
    """The class or factory behind a catalogue name, or the class of "module:Class" or
    "path/to/file.py:Class", checked to be a `Predictor` before anything of it is called.

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a name that is none of these; the nearest are suggested.
    pertwise.errors.InputError
        As `pertwise._external.load_class`.
    """
    path = CATALOGUE.get(use, use)
    if path in CATALOGUE.values():
        module, _, attribute = path.partition(":")
        made: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return made
    return load_class(use, Predictor, "method", CATALOGUE)


def make_predictor(use: str, **settings: Any) -> Predictor:
    """A fresh, unfitted predictor by name.

    Raises
    ------
    pertwise.errors.InputError
        If the name is unknown or the settings are not taken.
    """
    build = factory(use)
    try:
        model = build(**settings)
    except TypeError as error:
        raise InputError(
            f"method {use!r} does not take the settings {settings}: {error}"
        ) from error
    if not isinstance(model, Predictor):
        raise InputError(f"{use} is no predictor: it needs a `name`, fit and predict")
    return model
