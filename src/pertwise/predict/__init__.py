"""What will the response be?"""

from pertwise.predict.base import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
