"""Walks of a folder's graphs as features of genes."""

import numpy as np
import pytest
from knowledge.small import LEFT, RIGHT

from pertwise.errors import UnknownNameError
from pertwise.knowledge import Knowledge
from pertwise.knowledge.genes import walks


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


def test_walks_and_words_are_kept_in_the_folder(small_folder, monkeypatch):
    monkeypatch.setattr(walks, "WORTH_STORING", 2)
    first = Knowledge.open(small_folder)
    names = [*LEFT[:3], "nope", *RIGHT[:2]]
    wanted = first.features("diffusion:string", names)
    text, words = first.features("text", names), first.feature_names("text")

    def not_again(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(walks, "walk_rows", not_again)
    monkeypatch.setattr("pertwise.knowledge.genes.features.tf_idf", not_again)
    again = Knowledge.open(small_folder)
    found = again.features("diffusion:string", names[::-1])
    np.testing.assert_array_equal(found.toarray()[::-1], wanted.toarray())
    np.testing.assert_array_equal(again.features("text", names).toarray(), text.toarray())
    assert again.feature_names("text") == words
    monkeypatch.undo()
    for kept in (small_folder / "cache").glob("walks-*"):
        kept.write_bytes(b"damaged")
    healed = Knowledge.open(small_folder).features("diffusion:string", names)
    np.testing.assert_array_equal(healed.toarray(), wanted.toarray())
