"""What will the response be?"""

from pertwise.predict.base import Prediction, Predictor
from pertwise.predict.baselines import ControlPredictor, TrainingMeanPredictor

__all__ = ["ControlPredictor", "Prediction", "Predictor", "TrainingMeanPredictor"]
