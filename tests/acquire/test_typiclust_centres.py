"""The first centres of TypiClust are those of scikit-learn's k-means++."""

import numpy as np
import pytest
from sklearn.cluster import KMeans, kmeans_plusplus

from pertwise.acquire.strategies.typiclust import first_centres, typiclust_order


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_first_centres_are_those_of_scikit_learn(kind, k):
    x = np.random.default_rng(k).normal(size=(200, 12)).astype(kind)
    own = first_centres(x, k, 5)
    theirs = kmeans_plusplus(x - x.mean(axis=0), k, random_state=5)[1]
    np.testing.assert_array_equal(own, x[theirs])
    labels = KMeans(k, n_init=1, random_state=5).fit(x).labels_
    np.testing.assert_array_equal(
        KMeans(k, init=own, n_init=1, random_state=5).fit(x).labels_, labels
    )


def test_visits_go_to_the_least_touched_then_the_largest_cluster():
    x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [9.0]])
    labels = np.array([0, 0, 0, 1, 1, 2])
    order = typiclust_order(x, labels, np.array([0, 0, 1]), np.arange(6))
    # Two untouched clusters first, the larger before the other; then all three have one.
    assert [int(labels[i]) for i in order] == [0, 1, 0, 1, 2, 0]
    assert order[0] == 1, "the middle one is most typical"
