"""Grouped AUROC against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pertwise.errors import InputError
from pertwise.evaluate.auroc import auroc, grouped_auroc


def test_ties_count_half():
    assert auroc([1, 1, 1, 1], [0, 1, 0, 1]) == 0.5
    assert auroc([0, 1, 1, 2], [0, 0, 1, 1]) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert np.isnan(auroc([1, 2], [1, 1]))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 9999), n=st.integers(1, 60), k=st.integers(1, 5))
def test_equals_sklearn_per_group(seed, n, k):
    rng = np.random.default_rng(seed)
    s, y, g = rng.integers(0, 4, n), rng.integers(0, 2, n), rng.integers(0, k, n)
    got = grouped_auroc(s, y, g, k)
    for j in range(k):
        chosen = g == j
        if len(set(y[chosen])) == 2:
            assert got[j] == pytest.approx(roc_auc_score(y[chosen], s[chosen]))
        else:
            assert np.isnan(got[j])


def test_bad_input():
    with pytest.raises(InputError, match="1 of 2 scores are NaN"):
        auroc([np.nan, 1], [0, 1])
    with pytest.raises(InputError, match="0 or 1"):
        auroc([0.0, 1], [0, 2])
    with pytest.raises(InputError, match="1-D"):
        auroc([0.0, 1], [0])
