"""pertwise: which perturbations next, what will they do, and can we trust that?

The front door: every name of `__all__` is loaded when it is first used, so that `import pertwise`
stays fast; docs/api.md says what each is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pertwise import parts as parts
    from pertwise.acquire import Plan as Plan
    from pertwise.acquire import Strategy as Strategy
    from pertwise.acquire import amend as amend
    from pertwise.acquire import plan as plan
    from pertwise.acquire.design import design as design
    from pertwise.benchmark import bench as bench
    from pertwise.errors import InputError as InputError
    from pertwise.errors import PertwiseError as PertwiseError
    from pertwise.evaluate import score_predictions as score
    from pertwise.kernels.base import Kernel as Kernel
    from pertwise.knowledge import Knowledge as Knowledge
    from pertwise.knowledge import add_embedding as add_embedding
    from pertwise.knowledge import add_graph as add_graph
    from pertwise.knowledge import build_knowledge as build_knowledge
    from pertwise.llm import open_chat as chat
    from pertwise.models import Prediction as Prediction
    from pertwise.models import Predictor as Predictor
    from pertwise.models.methods import model as model
    from pertwise.prediction.asking import ask as ask
    from pertwise.prediction.predicting import Predicted as Predicted
    from pertwise.prediction.predicting import predict as predict
    from pertwise.prediction.rated import Rated as Rated
    from pertwise.prediction.rating import rate as rate
    from pertwise.prediction.writing import read_prediction as read_prediction
    from pertwise.prediction.writing import write_prediction as write_prediction
    from pertwise.report import plot as plot
    from pertwise.report import write_plan as write_plan
    from pertwise.screen import PseudobulkSettings as PseudobulkSettings
    from pertwise.screen import Screen as Screen
    from pertwise.screen import read_screen as read_screen
    from pertwise.screen import simulate_screen as simulate
    from pertwise.screen.join import join as join
    from pertwise.screen.pseudobulk import pseudobulk as pseudobulk
    from pertwise.select import Pick as Pick
    from pertwise.select import Query as Query
    from pertwise.select import Selection as Selection
    from pertwise.select import Selector as Selector

#: Name -> where it lives, "module" or "module:attribute".
_LAZY = {
    "InputError": "pertwise.errors:InputError",
    "Kernel": "pertwise.kernels.base:Kernel",
    "Knowledge": "pertwise.knowledge:Knowledge",
    "PertwiseError": "pertwise.errors:PertwiseError",
    "Pick": "pertwise.select:Pick",
    "Plan": "pertwise.acquire:Plan",
    "Predicted": "pertwise.prediction.predicting:Predicted",
    "Prediction": "pertwise.models:Prediction",
    "Predictor": "pertwise.models:Predictor",
    "PseudobulkSettings": "pertwise.screen:PseudobulkSettings",
    "Query": "pertwise.select:Query",
    "Rated": "pertwise.prediction.rated:Rated",
    "Screen": "pertwise.screen:Screen",
    "Selection": "pertwise.select:Selection",
    "Selector": "pertwise.select:Selector",
    "Strategy": "pertwise.acquire:Strategy",
    "add_embedding": "pertwise.knowledge:add_embedding",
    "add_graph": "pertwise.knowledge:add_graph",
    "amend": "pertwise.acquire:amend",
    "ask": "pertwise.prediction.asking:ask",
    "bench": "pertwise.benchmark:bench",
    "build_knowledge": "pertwise.knowledge:build_knowledge",
    "chat": "pertwise.llm:open_chat",
    "design": "pertwise.acquire.design:design",
    "join": "pertwise.screen.join:join",
    "model": "pertwise.models.methods:model",
    "parts": "pertwise.parts",
    "plan": "pertwise.acquire:plan",
    "plot": "pertwise.report.plot",
    "predict": "pertwise.prediction.predicting:predict",
    "pseudobulk": "pertwise.screen.pseudobulk:pseudobulk",
    "rate": "pertwise.prediction.rating:rate",
    "read_prediction": "pertwise.prediction.writing:read_prediction",
    "read_screen": "pertwise.screen:read_screen",
    "score": "pertwise.evaluate:score_predictions",
    "simulate": "pertwise.screen:simulate_screen",
    "write_plan": "pertwise.report:write_plan",
    "write_prediction": "pertwise.prediction.writing:write_prediction",
}

__all__ = [
    "InputError",
    "Kernel",
    "Knowledge",
    "PertwiseError",
    "Pick",
    "Plan",
    "Predicted",
    "Prediction",
    "Predictor",
    "PseudobulkSettings",
    "Query",
    "Rated",
    "Screen",
    "Selection",
    "Selector",
    "Strategy",
    "__version__",
    "add_embedding",
    "add_graph",
    "amend",
    "ask",
    "bench",
    "build_knowledge",
    "chat",
    "design",
    "join",
    "model",
    "parts",
    "plan",
    "plot",
    "predict",
    "pseudobulk",
    "rate",
    "read_prediction",
    "read_screen",
    "score",
    "simulate",
    "write_plan",
    "write_prediction",
]


if not TYPE_CHECKING:
    # A checker sees the names above and no others.
    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            module, _, attribute = _LAZY[name].partition(":")
            found = importlib.import_module(module)
            return getattr(found, attribute) if attribute else found
        raise AttributeError(f"module 'pertwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
