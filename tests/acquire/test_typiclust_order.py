"""TypiClust visits the least touched of the large clusters."""

import numpy as np

from pertwise.acquire.strategies.typiclust import typiclust_order


def test_visits_go_to_the_least_touched_then_the_largest_cluster():
    x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [9.0]])
    labels = np.array([0, 0, 0, 1, 1, 2])
    order = typiclust_order(x, labels, np.array([0, 0, 1]), np.arange(6))
    # Two untouched clusters first, the larger before the other; then all three have one.
    assert [int(labels[i]) for i in order] == [0, 1, 0, 1, 2, 0]
    assert order[0] == 1, "the middle one is most typical"
