"""Two candidates that differ by rounding alone are told apart by names, not by the machine."""

import numpy as np

from pertwise.acquire.common import arg_best

TIES = np.array([2, 0, 1])


def test_rounding_does_not_decide():
    everyone = np.ones(3, dtype=bool)
    assert arg_best(np.array([0.849282254, 0.849282248, 0.5]), TIES, everyone) == 1
    assert arg_best(np.array([0.8493, 0.8492, 0.5]), TIES, everyone) == 0
    assert arg_best(np.array([-1e-9, -2e-9, -1e-9]), TIES, everyone) == 2
    assert arg_best(np.array([0.9, 0.9, 0.9]), TIES, np.array([True, False, True])) == 2


def test_endless_scores_are_equal():
    assert arg_best(np.array([np.inf, np.inf, 1.0]), TIES, np.ones(3, dtype=bool)) == 1
