"""Kernel votes by hand, sharing between features, and tables with gaps."""

import numpy as np
import pytest

from pertwise.errors import InputError
from pertwise.kernels.transfer import OtherScreen
from pertwise.knowledge.ratings import Ratings
from pertwise.models.vote import (
    KernelVotePredictor,
    mean_feature_correlation,
    related_features,
    vote,
)
from pertwise.screen import make_screen


def test_votes_by_hand():
    weights = np.array([[2.0, 1.0]])
    residual = np.array([[1.0, 0.0], [-1.0, 0.5]])
    measured = np.array([[1.0, 0.0], [1.0, 1.0]])
    got = vote(weights, residual, measured, 1.0)
    np.testing.assert_allclose(got, [[(2 - 1) / 4, 0.5 / 2]])


def test_correlation_over_measured_values_only():
    truth = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, 5.0], [4.0, 6.0], [5.0, 2.0], [7.0, 1.0]])
    predicted = np.array([[1.0, 0], [2.0, 99], [3.0, 0], [4.0, 1], [5.0, 1], [0.0, 3]])
    one = np.corrcoef(predicted[:, 0], truth[:, 0])[0, 1]
    rows = [0, 2, 3, 4, 5]
    two = np.corrcoef(predicted[rows, 1], truth[rows, 1])[0, 1]
    assert mean_feature_correlation(predicted, truth) == pytest.approx((one + two) / 2)
    assert mean_feature_correlation(predicted[:2], truth[:2]) == 0.0


def test_related_features_keep_the_strongest():
    gram = np.array([[1.0, 0.5, 0.2], [0.5, 1.0, -0.3], [0.2, -0.3, 1.0]])
    share = related_features(gram, 1).toarray()
    np.testing.assert_allclose(share, [[1, 0.25, 0], [0.25, 1, 0], [0.04, 0, 1]])
    assert related_features(np.ones((1, 1))).toarray() == [[1.0]]


def test_sparse_labels_are_learned_from_alike_perturbations(simulated):
    screen, knowledge = simulated
    rng = np.random.default_rng(0)
    names = list(screen.perturbations)
    groups = rng.integers(0, 4, len(names))
    labels = (rng.random((4, 30)) < 0.4)[groups].astype(np.float32)
    gaps = rng.random(labels.shape) < 0.6
    data = make_screen(np.where(gaps, np.nan, labels), names, [f"f{i}" for i in range(30)])
    # A second screen knows the groups; the rest of the knowledge does not.
    other = make_screen(rng.normal(size=(4, 8))[groups], names, [f"g{i}" for i in range(8)])
    held = names[:15]
    model = KernelVotePredictor((), sources=(OtherScreen(other),), related=False)
    p = model.fit(data.hide(held), knowledge).predict(held)
    known = ~gaps[:15]
    hit = (p.mean > 0.5) == (labels[:15] > 0.5)
    assert hit[known].mean() > 0.9
    assert len(model.tried) == 16
    with pytest.raises(InputError, match="needs a knowledge folder"):
        KernelVotePredictor().fit(data)


def test_marks_count_as_far_as_they_help(simulated):
    screen, knowledge = simulated
    rng = np.random.default_rng(2)
    names = list(screen.perturbations)
    groups = rng.integers(0, 4, len(names))
    labels = (rng.random((4, 30)) < 0.4)[groups].astype(np.float32)
    gaps = rng.random(labels.shape) < 0.6
    data = make_screen(np.where(gaps, np.nan, labels), names, [f"f{i}" for i in range(30)])
    profile = np.eye(4)[groups] * 6 - 3
    truth = Ratings.from_marks(names, list("abcd"), profile)
    held = names[:15]
    known = ~gaps[:15]

    def hits(ratings):
        model = KernelVotePredictor(("go",), ratings=ratings, related=False)
        found = model.fit(data.hide(held), knowledge).predict(held)
        right = (found.mean > 0.5) == (labels[:15] > 0.5)
        return right[known].mean(), found.provenance["share_of_marks"]

    without, none = hits(False)
    good, share = hits((truth,))
    wrong, _ = hits((truth.dealt(1),))
    assert none == 0
    assert good > max(0.9, without + 0.1)
    assert share >= 0.5
    assert without - 0.15 < wrong < good - 0.1
    # Without knowledge kernels the marks are all there is.
    alone = KernelVotePredictor((), ratings=(truth,), related=False).fit(data.hide(held), knowledge)
    assert alone.predict(held).provenance["share_of_marks"] == 1
