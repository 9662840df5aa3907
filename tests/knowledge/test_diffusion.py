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


@pytest.mark.parametrize("key", ["which", "genes", "shape", "indices", "indptr", "matrix"])
@pytest.mark.parametrize("wrong", ["gone", "short", "beyond"])
def test_arrays_in_the_cache_that_do_not_fit_are_made_again(small_folder, monkeypatch, key, wrong):
    monkeypatch.setattr(walks, "WORTH_STORING", 2)
    names = [*LEFT[:3], *RIGHT[:2]]

    def look():
        opened = Knowledge.open(small_folder)
        rows = [opened.features(k, names).toarray() for k in ("diffusion:string", "text")]
        return [*rows, opened.embedding(names, "text", dim=2).matrix]

    wanted = look()
    for file in (small_folder / "cache").glob("*.npz"):
        with np.load(file) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if key not in arrays:
            continue
        value = arrays.pop(key)
        if wrong == "short":
            arrays[key] = value[:-1]
        elif wrong == "beyond":
            arrays[key] = value + 10**6 if value.dtype.kind in "iu" else value[:0]
        np.savez(file, **arrays)
    for found, right in zip(look(), wanted, strict=True):
        np.testing.assert_array_equal(found, right)
