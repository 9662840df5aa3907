"""On the real public tables (skipped where they are absent)."""

import numpy as np
import pytest

from pertwise.knowledge import Knowledge, build_knowledge

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def knowledge(shared_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "knowledge"
    return Knowledge.open(build_knowledge(shared_data / "knowledge", out))


def test_old_symbols_are_resolved(knowledge):
    approved = knowledge.resolve(["AARS", "HIST2H2BE", "gata1"]).approved
    assert approved == {"AARS": "AARS1", "HIST2H2BE": "H2BC21", "gata1": "GATA1"}


def test_card_of_a_heme_enzyme(knowledge):
    card = knowledge.cards(["HMBS"])["HMBS"]
    assert card.full_name == "hydroxymethylbilane synthase"
    assert card.go[0].name == "hydroxymethylbilane synthase activity"
    assert 3 <= len(card.summary.split()) <= 20


def test_relations_to_heme_metabolism(knowledge):
    pathway = knowledge.pathway("heme metabolism")
    relations = knowledge.relations(["GATA1", "ZFPM1", "ATF4", "no such gene"], pathway)
    assert relations["GATA1"].kind == "direct_member"
    assert relations["ATF4"].kind == "upstream_regulator"
    assert relations["ATF4"].evidence.startswith("ATF4 -> ")
    assert relations["no such gene"].kind == "unknown"


def test_graphs_are_well_formed(knowledge):
    for name in knowledge.graph_names():
        graph = knowledge.graph(name)
        assert list(graph.nodes) == sorted(set(graph.nodes))
        assert graph.adjacency.shape == (len(graph.nodes),) * 2
        assert graph.adjacency.data.min() > 0
        assert graph.adjacency.data.max() <= 1
        assert graph.adjacency.diagonal().sum() == 0
        if not graph.directed:
            assert abs(graph.adjacency - graph.adjacency.T).max() < 1e-6


def test_text_embedding_puts_like_genes_together(knowledge):
    genes = ["RPL5", "RPL11", "PSMA1", "PSMB2", "AARS"]
    embedding = knowledge.embedding(genes, "text")
    assert embedding.genes == tuple(genes)
    assert embedding.missing == ()
    unit = embedding.matrix / np.linalg.norm(embedding.matrix, axis=1, keepdims=True)
    cosine = unit @ unit.T
    assert cosine[0, 1] > cosine[0, 2]
    assert cosine[2, 3] > cosine[1, 3]
