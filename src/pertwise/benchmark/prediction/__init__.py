"""The prediction benchmark: every method on the same splits, one honest table."""

from pertwise.benchmark.prediction.config import PredictionConfig, check_config, load_config
from pertwise.benchmark.prediction.run import Inputs, make_splits, open_inputs, run_prediction

__all__ = [
    "Inputs",
    "PredictionConfig",
    "check_config",
    "load_config",
    "make_splits",
    "open_inputs",
    "run_prediction",
]
