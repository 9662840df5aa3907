"""STRING's evidence channels become graphs of their own."""

import gzip

import numpy as np

from pertwise.knowledge import Knowledge, build_knowledge


def test_channels_of_a_symbol_table(tmp_path):
    file = tmp_path / "string_weighted.tsv.gz"
    with gzip.open(file, "wt") as out:
        out.write("a\tb\tcoexpression\texperiments\tdatabase\tcombined_score\n")
        out.write("A1\tB1\t100\t0\t900\t910\nB1\tC1\t0\t500\t0\t510\n")
    knowledge = Knowledge.open(build_knowledge({"string": file}, tmp_path / "k"))
    graph = knowledge.graph("string_experiments")
    assert not graph.directed
    assert graph.nodes == ("B1", "C1")
    np.testing.assert_allclose(graph.adjacency.toarray(), [[0, 0.5], [0.5, 0]])
    assert knowledge.graph("string_database").adjacency.max() == np.float32(0.9)
    assert knowledge.graph("string").adjacency.nnz == 4


def test_channels_of_protein_files(tmp_path):
    links = tmp_path / "9606.protein.links.detailed.v12.0.txt"
    links.write_text(
        "protein1 protein2 coexpression experimental database textmining combined_score\n"
        "9606.P1 9606.P2 0 700 0 300 800\n9606.P2 9606.P1 0 700 0 300 800\n"
    )
    info = tmp_path / "9606.protein.info.v12.0.txt"
    info.write_text(
        "#string_protein_id\tpreferred_name\tprotein_size\tannotation\n"
        "9606.P1\tA1\t10\tx\n9606.P2\tB1\t10\ty\n"
    )
    knowledge = Knowledge.open(build_knowledge([links, info], tmp_path / "k"))
    graph = knowledge.graph("string_experiments")
    assert graph.nodes == ("A1", "B1")
    np.testing.assert_allclose(graph.adjacency.toarray()[0, 1], 0.7, rtol=1e-6)
    assert "string_coexpression" not in knowledge.graph_names()
