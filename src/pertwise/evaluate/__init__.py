"""How good is it? Metrics, statistics and benchmarks, each defined once."""

from pertwise.evaluate.metrics import (
    cosine,
    direction_accuracy,
    learning_curve_area,
    mae,
    mse,
    pearson_delta,
    pearson_reference,
    r_squared,
    regression_slope,
    squared_error,
)
from pertwise.evaluate.retrieval import Retrieval, retrieval
from pertwise.evaluate.score import METRICS, Metric, Scores, metric_of, score_predictions

__all__ = [
    "METRICS",
    "Metric",
    "Retrieval",
    "Scores",
    "cosine",
    "direction_accuracy",
    "learning_curve_area",
    "mae",
    "metric_of",
    "mse",
    "pearson_delta",
    "pearson_reference",
    "r_squared",
    "regression_slope",
    "retrieval",
    "score_predictions",
    "squared_error",
]
