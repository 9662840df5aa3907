"""Relations of genes to a pathway."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from pertwise.knowledge.genes.graphs import from_edges
from pertwise.knowledge.genes.relations import relate, strongest_links
from pertwise.knowledge.types import Pathway

PATHWAY = Pathway(
    "SET",
    ("M1", "M2", "M3", "M4"),
    modules={"first": ("M1", "M2"), "second": ("M3",), "other": ("M4",)},
)


def graph(name, rows, directed):
    table = pd.DataFrame(rows, columns=["a", "b", "weight", "sign"])
    return from_edges(name, table, directed, False, signed=directed)


DIRECTED = {
    "collectri": graph("collectri", [("TF", "M3", 1.0, 1), ("M1", "OUT", 1.0, -1)], True),
    "omnipath": graph(
        "omnipath",
        [("TF", "M3", 1.0, 0), ("TF", "M1", 1.0, -1), ("TF", "M2", 1.0, 0), ("BOTH", "M4", 1.0, 0),
         ("M4", "BOTH", 1.0, 0), ("M1", "M2", 1.0, 1)],
        True,
    ),
}  # fmt: skip
UNDIRECTED = {
    "string": graph(
        "string",
        [
            ("PPI", "M1", 0.7, 0),
            ("PPI", "M3", 0.95, 0),
            ("TF", "M1", 0.99, 0),
            ("FAR", "PPI", 0.9, 0),
        ],
        False,
    ),
    "string_ge800": graph("string_ge800", [("PPI", "M2", 0.8, 0), ("LONE", "M4", 0.8, 0)], False),
}


def test_each_kind_with_its_evidence():
    genes = ["M1", "TF", "OUT", "BOTH", "PPI", "LONE", "FAR", "NOWHERE"]
    found = dict(zip(genes, relate(genes, PATHWAY, DIRECTED, UNDIRECTED), strict=True))
    assert found["M1"].kind == "direct_member"
    assert found["M1"].module == "first"
    assert found["M1"].weight == 1.0
    tf = found["TF"]
    # M3 is held by both resources; that beats the two members of the module "first".
    assert (tf.kind, tf.module, tf.n_touched, tf.weight) == ("upstream_regulator", "second", 3, 1.0)
    assert tf.evidence == "TF -> M3 (CollecTRI + OmniPath, activation)"
    out = found["OUT"]
    assert (out.kind, out.evidence) == ("downstream_target", "M1 -> OUT (CollecTRI, inhibition)")
    assert out.weight == 0.5
    assert (found["BOTH"].kind, found["BOTH"].module) == ("upstream_regulator", "other")
    ppi = found["PPI"]
    assert (ppi.kind, ppi.evidence) == ("interacting_partner", "STRING PPI-M3 950")
    assert (ppi.module, ppi.n_touched) == ("second", 3)
    assert found["LONE"].evidence == "STRING >= 800 LONE-M4"
    for name in ("FAR", "NOWHERE"):
        assert (found[name].kind, found[name].evidence, found[name].weight) == ("unknown", "", 0.0)


def test_no_graph_at_all_leaves_members_and_unknowns():
    kinds = [r.kind for r in relate(["M1", "TF"], PATHWAY, {}, {})]
    assert kinds == ["direct_member", "unknown"]


def test_equal_links_go_to_the_module_with_most_of_them():
    links = np.array([[1, 0, 1, 1], [0, 0, 0, 0]], dtype=np.float32)
    touch = strongest_links(links, np.array([-1, 1, 0, 0]), 2)
    assert touch.member.tolist() == [2, -1]
    assert touch.n_touched.tolist() == [3, 0]


def test_a_hair_of_strength_does_not_outweigh_the_module():
    links = np.array([[0.999, 0.96, 0.97], [0.999, 0.90, 0.90]], dtype=np.float32)
    touch = strongest_links(links, np.array([0, 1, 1]), 2)
    assert touch.member.tolist() == [2, 0]
    assert touch.strength.tolist() == [np.float32(0.97), np.float32(0.999)]


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.4, 0.9]), min_size=3, max_size=3), min_size=1, max_size=6
    )
)
def test_strongest_link_is_the_maximum(rows):
    links = np.array(rows, dtype=np.float32)
    touch = strongest_links(links, np.array([0, 0, -1]), 1)
    for i, row in enumerate(rows):
        assert touch.strength[i] == np.float32(max(row))
        assert touch.n_touched[i] == sum(v > 0 for v in row)
        if max(row) > 0:
            assert row[touch.member[i]] == max(row)


def test_ten_thousand_genes_keep_their_order():
    genes = [f"X{i}" for i in range(5000)] + ["TF"] + [f"Y{i}" for i in range(5000)]
    found = relate(genes, PATHWAY, DIRECTED, UNDIRECTED)
    assert [r.gene for r in found] == genes
    assert found[5000].kind == "upstream_regulator"
