"""Features and embeddings."""

import numpy as np
import pandas as pd
import pytest
from knowledge.small import GENES, LEFT, RIGHT
from scipy.sparse import csr_matrix

from pertwise.errors import InputError, MissingDependencyError, UnknownNameError
from pertwise.knowledge import Knowledge, add_embedding, add_graph, build_knowledge
from pertwise.knowledge.genes import features as kernels


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("kind", ["text", "go", "reactome", "graph"])
def test_groups_are_near_and_rows_follow_the_question(small, kind):
    names = ["RIGHT2", "SINISTER1", "nope", "LEFT2", "RIGHT3"]
    embedding = small.embedding(names, kind)
    assert embedding.genes == tuple(names)
    assert embedding.matrix.dtype == np.float32
    right, left, nope, left2, right3 = embedding.matrix
    assert not nope.any()
    assert embedding.missing == ("nope",)
    assert cosine(right, right3) > 0.7
    assert cosine(left, left2) > 0.7
    assert cosine(left, right) < 0.5
    # Numbers of a gene do not depend on what else is asked for.
    np.testing.assert_array_equal(small.embedding(["LEFT2"], kind).matrix[0], left2)


def test_svd_keeps_inner_products_when_nothing_is_cut(small):
    tfidf = small.features("text", GENES).toarray()
    full = small.embedding(GENES, "text", dim=1000).matrix
    np.testing.assert_allclose(full @ full.T, tfidf @ tfidf.T, atol=1e-5)


def test_sum_of_blocks_has_unit_rows_in_each(small):
    both = small.embedding(["LEFT1", "ALONE"], "text+graph", dim=4)
    assert both.name == "text+graph"
    np.testing.assert_allclose(np.linalg.norm(both.matrix[0, :4]), 1.0, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(both.matrix[0, 4:]), 1.0, rtol=1e-5)
    assert both.missing == ("ALONE",)


def test_second_use_reads_the_cache_and_gives_the_same(small_folder):
    first = Knowledge.open(small_folder).embedding(GENES, "go", dim=3)
    files = list((small_folder / "cache").glob("go-3-*.npz"))
    assert len(files) == 1
    before = files[0].stat().st_mtime_ns
    second = Knowledge.open(small_folder).embedding(GENES, "go", dim=3)
    assert files[0].stat().st_mtime_ns == before
    np.testing.assert_array_equal(first.matrix, second.matrix)


def test_features_by_hand(small):
    names = small.feature_names("go")
    rows = small.features("go", ["LEFT1", "nope", "RIGHT1"]).toarray()
    assert {n for n, v in zip(names, rows[0], strict=True) if v} == {
        "GO:0000001", "GO:0000010", "GO:0000011",
    }  # fmt: skip
    assert not rows[1].any()
    string = small.features("string", ["LEFT1"])
    columns = small.feature_names("string")
    found = {columns[j]: float(v) for j, v in zip(string.indices, string.data, strict=True)}
    expected = dict.fromkeys(LEFT, 0.9) | {"LEFT1": 1.0, "RIGHT1": 0.4}
    assert found == pytest.approx(expected)
    sets = small.features("reactome", ["RIGHT1"]).toarray()[0]
    assert dict(zip(small.feature_names("reactome"), sets, strict=True)) == {
        "R-HSA-1": 0.0,
        "R-HSA-2": 1.0,
    }
    assert set(small.feature_kinds()) == {"go", "reactome", "string", "sets", "text"}


def test_unknown_kinds_are_named(small):
    with pytest.raises(UnknownNameError, match="did you mean 'text'"):
        small.embedding(["LEFT1"], "txet")
    with pytest.raises(UnknownNameError, match="unknown graph 'strng'; did you mean 'string'"):
        small.features("strng", ["LEFT1"])
    with pytest.raises(InputError, match="dim is 0"):
        small.embedding(["LEFT1"], "text", dim=0)


def test_sentence_transformers_missing_names_its_install_line(small, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pertwise\[text\]'"):
        small.embedding(["LEFT1"], "sentence-transformers:any")


# --- registered matrices -------------------------------------------------------------------------


@pytest.fixture
def writable(tmp_path):
    (tmp_path / "s.gmt").write_text("SET\tna\tG1\tG2\tG3\n")
    return build_knowledge([tmp_path / "s.gmt"], tmp_path / "k")


@pytest.mark.parametrize("form", ["npz", "npz per gene", "parquet", "parquet index", "csv"])
def test_registered_matrices_in_every_form(writable, tmp_path, form):
    genes, matrix = ["g1", "G3", "nope", "G1"], np.arange(8, dtype=np.float64).reshape(4, 2)
    if form == "npz":
        np.savez(tmp_path / "m.npz", genes=np.array(genes), embeddings=matrix)
    elif form == "npz per gene":
        np.savez(tmp_path / "m.npz", **dict(zip(genes, matrix, strict=True)))
    elif form == "parquet":
        table = pd.DataFrame(matrix, columns=["x", "y"]).assign(gene=genes)
        table.to_parquet(tmp_path / "m.parquet")
    elif form == "parquet index":
        pd.DataFrame(matrix, index=genes, columns=["x", "y"]).to_parquet(tmp_path / "m.parquet")
    else:
        pd.DataFrame(matrix, index=genes, columns=["x", "y"]).to_csv(tmp_path / "m.csv")
    path = next(tmp_path.glob("m.*"))
    entry = add_embedding(writable, "genept", path, from_screen=False)
    assert entry["left_out"] == {"unknown": 1, "ambiguous": 0, "repeated": 1}
    k = Knowledge.open(writable)
    assert "genept" in k.embedding_kinds()
    embedding = k.embedding(["G1", "G2", "G3"], "genept")
    # Of two rows of G1 the one named by the approved symbol itself wins.
    np.testing.assert_array_equal(embedding.matrix, [[6, 7], [0, 0], [2, 3]])
    assert embedding.missing == ("G2",)


def test_a_new_matrix_changes_the_fingerprint_and_survives_a_rebuild(writable, tmp_path):
    before = Knowledge.open(writable).fingerprint()
    np.savez(tmp_path / "m.npz", genes=np.array(["G1"]), matrix=np.ones((1, 2)))
    add_embedding(writable, "esm", tmp_path / "m.npz")
    after = Knowledge.open(writable).fingerprint()
    assert after != before
    build_knowledge([tmp_path / "s.gmt"], writable, overwrite=True)
    again = Knowledge.open(writable)
    assert again.fingerprint() == after
    assert again.embedding(["G1"], "esm").matrix.tolist() == [[1.0, 1.0]]


def test_wrong_matrices(writable, tmp_path):
    np.savez(tmp_path / "bad.npz", genes=np.array(["G1", "G2"]), matrix=np.ones((3, 2)))
    with pytest.raises(InputError, match=r"2 names but a matrix of shape \(3, 2\)"):
        add_embedding(writable, "a", tmp_path / "bad.npz")
    np.savez(tmp_path / "nan.npz", genes=np.array(["G1"]), matrix=np.array([[np.nan]]))
    with pytest.raises(InputError, match="values of 'G1' are not all finite"):
        add_embedding(writable, "a", tmp_path / "nan.npz")
    np.savez(tmp_path / "no.npz", genes=np.array(["X"]), matrix=np.ones((1, 1)))
    with pytest.raises(InputError, match="none of its 1 names"):
        add_embedding(writable, "a", tmp_path / "no.npz")
    np.savez(tmp_path / "obj.npz", genes=np.array(["G1", 2], dtype=object), matrix=np.ones((2, 1)))
    with pytest.raises(InputError, match="cannot be read as a plain npz"):
        add_embedding(writable, "a", tmp_path / "obj.npz")
    (tmp_path / "x.pickle").write_bytes(b"x")
    with pytest.raises(InputError, match="pickles are not opened"):
        add_embedding(writable, "a", tmp_path / "x.pickle")
    with pytest.raises(InputError, match="'text' cannot be used as a name"):
        add_embedding(writable, "text", tmp_path / "nan.npz")


def test_user_graph_from_a_screen(writable, tmp_path):
    edges = pd.DataFrame({"a": ["G1", "G2", "G1"], "b": ["g2", "nope", "G3"], "weight": 0.5})
    entry = add_graph(writable, "mine", edges, from_screen=True)
    assert entry["rows"] == 2
    k = Knowledge.open(writable)
    graph = k.graph("mine")
    assert graph.from_screen
    assert not graph.directed
    assert graph.adjacency.toarray().tolist() == [[0, 0.5, 0.5], [0.5, 0, 0], [0.5, 0, 0]]
    assert k.manifest["sources"]["mine"]["left_out"] == {"edges_of_unknown_genes": 1}
    assert k.graph("mine", exclude_from_screen=True).adjacency.nnz == 0


# --- kernels -------------------------------------------------------------------------------------


def test_take_rows_equals_fancy_indexing():
    matrix = csr_matrix(np.arange(6, dtype=np.float32).reshape(3, 2))
    rows = kernels.take_rows(matrix, ["a", "b", "c"], ["c", "zz", "a", "c"]).toarray()
    assert rows.tolist() == [[4, 5], [0, 0], [0, 1], [4, 5]]


def test_idf_unit_rows_by_hand():
    matrix = csr_matrix(np.array([[1, 1], [1, 0], [1, 0], [0, 0]], dtype=np.float32))
    got = kernels.idf_unit_rows(matrix).toarray()
    # Three genes have something: the first column (3 of 3) weighs log 1 = 0, the second log 3.
    assert got.tolist() == [[0, 1], [0, 0], [0, 0], [0, 0]]


def test_right_side_is_complete(small):
    assert set(RIGHT) <= set(small.genes())
