"""Finding gene sets, a user's own, curated and computed modules."""

import numpy as np
import pytest
from knowledge.small import LEFT, RIGHT
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score

from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge import build_knowledge, load_pathway
from pertwise.knowledge.genes.curated import CuratedPathway, assign_modules, curated_pathways
from pertwise.knowledge.genes.modules import TermTable, cluster, compute_modules, name_modules
from pertwise.knowledge.store import Knowledge


@pytest.mark.parametrize(
    "name",
    ["HALLMARK_LEFT_SIDE", "left side", "Left_Side", "hallmark left side", " LEFT-SIDE "],
)
def test_names_in_many_spellings(small, name):
    assert small.pathway(name).name == "HALLMARK_LEFT_SIDE"


def test_reactome_by_id_and_title_and_hallmark_first(small):
    assert small.pathway("R-HSA-1").members == tuple(LEFT)
    assert small.pathway("left pathway").name == "R-HSA-1"
    # Reactome has a "Both Sides" too: Hallmark wins, the id still leads to the other.
    assert small.pathway("both sides").name == "HALLMARK_BOTH_SIDES"
    assert small.pathway("R-HSA-2").members == tuple(RIGHT)


def test_go_term_as_pathway_holds_its_narrower_terms(small):
    assert small.pathway("go:0000011").members == tuple(LEFT[:3])
    assert small.pathway("GO:0000010").members == tuple(LEFT)
    assert small.pathway("GO:0000001").members == tuple(sorted(LEFT + RIGHT))
    with pytest.raises(UnknownNameError, match="unknown GO term 'GO:0000012'"):
        small.pathway("GO:0000012")


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("left sied", "HALLMARK_LEFT_SIDE"), ("side", "HALLMARK_LEFT_SIDE"), ("R-HSA-11", "R-HSA-1")],
)
def test_a_misspelt_name_gets_a_suggestion(small, wrong, nearest):
    with pytest.raises(UnknownNameError, match="did you mean") as caught:
        small.pathway(wrong)
    assert nearest in caught.value.suggestions


def test_computed_modules_find_the_two_groups(small):
    pathway = small.pathway("both sides")
    assert pathway.modules_from == "computed"
    assert {frozenset(m) for m in pathway.modules.values()} == {
        frozenset(LEFT),
        frozenset(RIGHT),
        frozenset({"ALONE"}),
    }
    names = list(pathway.modules)
    assert names[-1] == "other"
    by_gene = {g: m for m, genes in pathway.modules.items() for g in genes}
    assert by_gene["LEFT1"] in ("sinister process", "Left pathway")
    assert by_gene["RIGHT1"] in ("dexter process", "Both Sides")


def test_modules_do_not_depend_on_the_order_of_the_genes(small):
    genes = [*LEFT, *RIGHT, "ALONE"]
    one = small.pathway_from_genes("x", genes)
    other = small.pathway_from_genes("x", genes[::-1])
    assert one == other
    placed = [g for m in one.modules.values() for g in m]
    assert sorted(placed) == sorted(genes)


def test_user_genes_unknown_ones_are_listed(small):
    pathway = small.pathway_from_genes("mine", ["sinister1", "LEFT2", "nope", "left2"])
    assert pathway.members == ("LEFT1", "LEFT2")
    assert pathway.unknown == ("nope",)
    with pytest.raises(InputError, match="none of its genes is known"):
        small.pathway_from_genes("mine", ["nope"])


def test_load_pathway_takes_all_forms(small, tmp_path):
    gmt = tmp_path / "mine.gmt"
    gmt.write_text("ONE\tna\tLEFT1\tLEFT2\nTWO\tna\tRIGHT1\tnope\n")
    genes = tmp_path / "genes.txt"
    genes.write_text("gene\n# comment\nLEFT3\n\nRIGHT3,whatever\n")
    assert load_pathway(small, "left side").name == "HALLMARK_LEFT_SIDE"
    assert load_pathway(small, f"{gmt}:TWO").members == ("RIGHT1",)
    assert load_pathway(small, f"{gmt}:TWO").unknown == ("nope",)
    assert load_pathway(small, str(genes)).members == ("LEFT3", "RIGHT3")
    assert load_pathway(small, "LEFT1, right2").members == ("LEFT1", "RIGHT2")
    with pytest.raises(InputError, match=r"holds 2 sets \(ONE, TWO\): choose one"):
        load_pathway(small, str(gmt))
    with pytest.raises(UnknownNameError, match="did you mean 'TWO'"):
        load_pathway(small, f"{gmt}:TWOO")
    with pytest.raises(InputError, match=r"absent\.gmt: no such file"):
        load_pathway(small, str(tmp_path / "absent.gmt"))
    with pytest.raises(InputError, match=r"absent\.txt: no such file"):
        load_pathway(small, "absent.txt")


# --- kernels -------------------------------------------------------------------------------------


def test_cluster_recovers_blocks_and_marks_the_unknown():
    kernel = np.zeros((13, 13))
    for start in (0, 4, 8):
        kernel[start : start + 4, start : start + 4] = 0.8
    kernel[:12, :12] += 0.1
    np.fill_diagonal(kernel[:12, :12], 1.0)
    labels = cluster(kernel, 3)
    assert labels[12] == -1
    assert adjusted_rand_score(np.repeat([0, 1, 2], 4), labels[:12]) == 1.0
    order = np.random.default_rng(0).permutation(13)
    moved = cluster(kernel[np.ix_(order, order)], 3)
    assert adjusted_rand_score(labels[order], moved) == 1.0


def test_few_members_make_one_module():
    assert cluster(np.eye(4)).tolist() == [0, 0, 0, 0]
    assert cluster(np.zeros((2, 2))).tolist() == [-1, -1]


def test_names_are_unique_and_specific():
    labels = np.array([0, 0, 0, 1, 1, 1])
    member = np.array(
        [[1, 1, 0], [1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1], [1, 0, 0]], dtype=np.float32
    )
    terms = TermTable(["shared", "left", "right"], csr_matrix(member), np.array([6, 3, 2]), 100)
    assert name_modules(labels, terms, list("abcdef")) == {0: "left", 1: "right"}
    only = TermTable(["shared"], csr_matrix(member[:, :1]), np.array([6]), 100)
    names = name_modules(labels, only, list("abcdef"))
    assert sorted(names.values()) == ["module of d, e, f", "shared"]


def test_no_members_or_nothing_known():
    assert compute_modules([], [], None) == {}
    assert compute_modules(["A"], [], None) == {}


# --- curated -------------------------------------------------------------------------------------


def test_curated_pathways_are_sound():
    found = curated_pathways()
    assert set(found) == {
        "HALLMARK_HEME_METABOLISM",
        "HALLMARK_G2M_CHECKPOINT",
        "HALLMARK_APOPTOSIS",
        "HALLMARK_INTERFERON_GAMMA_RESPONSE",
        "RIBOSOME",
    }
    for curated in found.values():
        genes = [g for m in curated.modules.values() for g in m]
        assert len(genes) == len(set(genes)), curated.name
        assert 25 <= len(curated.description.split()) <= 90
        assert curated.reference


def test_assign_modules_puts_the_rest_into_other_and_knows_new_symbols():
    curated = CuratedPathway("X", "", "", {"one": ("A", "B"), "two": ("C",), "other": ("D",)})
    assert assign_modules(curated, ["A", "C2", "Z", "D"], {"C": "C2"}) == {
        "one": ("A",),
        "two": ("C2",),
        "other": ("D", "Z"),
    }
    # Another set of the same name: fewer than half of its genes are curated.
    assert assign_modules(curated, ["A", "X", "Y", "Z"], {}) is None


def test_ribosome_is_made_from_reactome_or_go(tmp_path):
    (tmp_path / "reactome.gmt").write_text(
        "R-HSA-156902\tPeptide chain elongation\tRPL5\tRPL11\tRPS3\tEEF2\tRPLP0\n"
    )
    (tmp_path / "gene_go.tsv").write_text("symbol\tgo\nRPS10\tGO:0022627\nMYC\tGO:0022627\n")
    k = Knowledge.open(build_knowledge(tmp_path, tmp_path / "k"))
    pathway = k.pathway("ribosome")
    assert pathway.members == ("RPL11", "RPL5", "RPLP0", "RPS10", "RPS3")
    assert pathway.modules_from == "curated"
    assert pathway.modules["60S central protuberance and 5S RNP"] == ("RPL11", "RPL5")


def test_what_half_of_all_genes_share_names_no_module(small):
    """The root and "all process" cover every gene of this folder."""
    for genes in (LEFT, RIGHT, [*LEFT[:4], *RIGHT[:4], "ALONE"]):
        modules = small.pathway_from_genes("x", genes).modules
        assert not {"biological_process", "all process"} & set(modules)
