"""What will the response be?"""

from pertwise.predict.base import Prediction, Predictor
from pertwise.predict.baselines import ControlPredictor, TrainingMeanPredictor
from pertwise.predict.llmpert import LLMPertEnsemble

__all__ = [
    "ControlPredictor",
    "LLMPertEnsemble",
    "Prediction",
    "Predictor",
    "TrainingMeanPredictor",
]
