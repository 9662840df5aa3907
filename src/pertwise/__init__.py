"""pertwise: which perturbations next, what will they do, and can we trust that?

The front door: every name of `__all__` is loaded when it is first used, so that `import pertwise`
stays fast; docs/api.md says what each is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pertwise._lazy import lazy

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

#: Name -> where it lives: see `_lazy.lazy`.
_LAZY = {
    "InputError": "pertwise.errors",
    "Kernel": "pertwise.kernels.base",
    "Knowledge": "pertwise.knowledge",
    "PertwiseError": "pertwise.errors",
    "Pick": "pertwise.select",
    "Plan": "pertwise.acquire",
    "Predicted": "pertwise.prediction.predicting",
    "Prediction": "pertwise.models",
    "Predictor": "pertwise.models",
    "PseudobulkSettings": "pertwise.screen",
    "Query": "pertwise.select",
    "Rated": "pertwise.prediction.rated",
    "Screen": "pertwise.screen",
    "Selection": "pertwise.select",
    "Selector": "pertwise.select",
    "Strategy": "pertwise.acquire",
    "add_embedding": "pertwise.knowledge",
    "add_graph": "pertwise.knowledge",
    "amend": "pertwise.acquire",
    "ask": "pertwise.prediction.asking",
    "bench": "pertwise.benchmark",
    "build_knowledge": "pertwise.knowledge",
    "chat": "pertwise.llm:open_chat",
    "design": "pertwise.acquire.design",
    "join": "pertwise.screen.join",
    "model": "pertwise.models.methods",
    "parts": "pertwise.parts:",
    "plan": "pertwise.acquire",
    "plot": "pertwise.report.plot:",
    "predict": "pertwise.prediction.predicting",
    "pseudobulk": "pertwise.screen.pseudobulk",
    "rate": "pertwise.prediction.rating",
    "read_prediction": "pertwise.prediction.writing",
    "read_screen": "pertwise.screen",
    "score": "pertwise.evaluate:score_predictions",
    "simulate": "pertwise.screen:simulate_screen",
    "write_plan": "pertwise.report",
    "write_prediction": "pertwise.prediction.writing",
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
    __getattr__ = lazy(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
