"""Names of predictors -> how to build them; the bench and the command line share this table."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from pertwise.errors import InputError, unknown_name

if TYPE_CHECKING:
    from pertwise.models.base import Predictor

#: name -> "module:attribute" of a class or factory that takes keyword settings.
CATALOGUE: Mapping[str, str] = MappingProxyType(
    {
        "control": "pertwise.models.baselines:ControlPredictor",
        "training mean": "pertwise.models.baselines:TrainingMeanPredictor",
        "graph neighbours": "pertwise.models.recipes:graph_neighbours",
        "rewired graph neighbours": "pertwise.models.recipes:rewired_graph_neighbours",
        "neighbours": "pertwise.models.neighbour_recipes:neighbours",
        "embedding neighbours": "pertwise.models.recipes:embedding_neighbours",
        "ridge on embedding": "pertwise.models.linear:RidgePredictor",
        "bilinear": "pertwise.models.linear:BilinearPredictor",
        "gp text": "pertwise.models.recipes:gp_text",
        "kernel ridge": "pertwise.models.recipes:kernel_ridge",
        "LLMPert": "pertwise.models.llmpert.predictor:LLMPertEnsemble",
        "multi-kernel": "pertwise.models.recipes:multi_kernel",
        "learned neighbours": "pertwise.models.learned:LearnedNeighbourPredictor",
        "additive": "pertwise.models.combinations:additive",
        "kernel vote": "pertwise.models.vote:KernelVotePredictor",
        "radial": "pertwise.models.radial:RadialPredictor",
        "forest": "pertwise.models.forest:ForestPredictor",
        "stacked": "pertwise.models.recipes:stacked",
        "langpert": "pertwise.models.chat_recipes:langpert",
        "graph+edit": "pertwise.models.chat_recipes:graph_edit",
        "langpert (recorded)": "pertwise.models.recipes:recorded_langpert",
        "cross-line transfer": "pertwise.models.recipes:transfer",
        "fused": "pertwise.models.recipes:fused",
        "chat kernel": "pertwise.models.recipes:chat_kernel",
        "context mean": "pertwise.models.context_means:ContextMean",
        "context mean (shrunk)": "pertwise.models.context_means:shrunk_context_mean",
        "perturbation mean": "pertwise.models.context_means:PerturbationMean",
        "additive contexts": "pertwise.models.context_means:AdditiveContexts",
        "PCA + ridge": "pertwise.models.feature_ridge:FeatureRidge",
        "dose": "pertwise.models.dose:DosePredictor",
    }
)


def factory(use: str) -> Callable[..., Any]:
    """The class or factory behind a catalogue name, "module:Class" or "path/to/file.py:Class".

    Raises
    ------
    pertwise.errors.UnknownNameError
        For a name that is none of these; the nearest are suggested.
    pertwise.errors.InputError
        If the file or module cannot be imported, or lacks the class.
    """
    if use in CATALOGUE:
        return factory(CATALOGUE[use])
    source, _, attribute = use.rpartition(":")
    if not source or not attribute:
        raise unknown_name(
            "method", use, CATALOGUE, "(or give your own class as path/to/file.py:ClassName)"
        )
    module = _from_file(Path(source)) if source.endswith(".py") else _from_name(source)
    found = getattr(module, attribute, None)
    if found is None or not callable(found):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise unknown_name("class", attribute, known, f"in {source}")
    return found  # type: ignore[no-any-return]


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
    for needed in ("fit", "predict"):
        if not callable(getattr(model, needed, None)):
            raise InputError(f"{use} has no method {needed!r}, so it is not a predictor")
    return model  # type: ignore[no-any-return]


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(f"_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # any error of the user's own code, told with its file
        raise InputError(f"importing {path} failed: {type(error).__name__}: {error}") from error
    return module


def _from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"cannot import module {name!r}: {error}") from error
