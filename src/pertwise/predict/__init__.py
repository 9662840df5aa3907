"""What will the response be?"""

from pertwise.predict.base import Prediction, Predictor
from pertwise.predict.baselines import ControlPredictor, TrainingMeanPredictor
from pertwise.predict.catalogue import CATALOGUE, make_predictor
from pertwise.predict.kernel_ridge import KernelPredictor
from pertwise.predict.linear import BilinearPredictor, RidgePredictor
from pertwise.predict.llmpert import LLMPertEnsemble
from pertwise.predict.neighbours import NeighbourPredictor

__all__ = [
    "CATALOGUE",
    "BilinearPredictor",
    "ControlPredictor",
    "KernelPredictor",
    "LLMPertEnsemble",
    "NeighbourPredictor",
    "Prediction",
    "Predictor",
    "RidgePredictor",
    "TrainingMeanPredictor",
    "make_predictor",
]
