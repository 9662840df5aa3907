"""Walks of a folder's graphs as features of genes."""

import numpy as np
import pytest
from knowledge.small import LEFT, RIGHT

from pertwise.errors import UnknownNameError


def test_features_of_a_folder(small):
    names = ["LEFT2", "SINISTER1", "nope", "RIGHT2", "ALONE"]
    rows = small.features("diffusion:string", names, weighted=True)
    np.testing.assert_allclose(
        np.sqrt(rows.multiply(rows).sum(axis=1)).A1, [1, 1, 0, 1, 0], atol=1e-6
    )
    alike = (rows @ rows.T).toarray()
    assert alike[0, 1] > 0.8
    assert alike[0, 3] < 0.3
    again = small.features("diffusion:string", [*RIGHT[:2], *LEFT[:2]], weighted=True)
    np.testing.assert_array_equal(again[3].toarray(), rows[0].toarray())
    assert not small.features("diffusion:string", []).shape[0]
    with pytest.raises(UnknownNameError, match="nowhere"):
        small.features("diffusion:nowhere", names)
