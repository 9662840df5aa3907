"""What will the response be?"""

from pertwise.models.base import Prediction, Predictor
from pertwise.models.baselines import ControlPredictor, TrainingMeanPredictor
from pertwise.models.kernel_ridge import KernelPredictor
from pertwise.models.linear import BilinearPredictor, RidgePredictor
from pertwise.models.llmpert.predictor import LLMPertEnsemble
from pertwise.models.neighbours import NeighbourPredictor

__all__ = [
    "BilinearPredictor",
    "ControlPredictor",
    "KernelPredictor",
    "LLMPertEnsemble",
    "NeighbourPredictor",
    "Prediction",
    "Predictor",
    "RidgePredictor",
    "TrainingMeanPredictor",
]
