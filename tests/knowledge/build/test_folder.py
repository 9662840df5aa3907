"""Building from the public raw formats: every value checked against the files by hand."""

import json
import math
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from knowledge.raw import GAF, HGNC, OBO, write_raw

from pertwise.errors import InputError
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.knowledge.build.readers import recognise
from pertwise.knowledge.build.readers.networks import combine_channels


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def knowledge(raw, tmp_path_factory):
    return Knowledge.open(build_knowledge(raw, tmp_path_factory.mktemp("built") / "k"))


def test_every_raw_file_is_recognised_by_content(raw):
    kinds = {p.name: recognise(p) for p in raw.iterdir() if p.suffix != ".md"}
    assert kinds == {
        "hgnc_complete_set.txt": "hgnc",
        "goa_human.gaf.gz": "gaf",
        "go-basic.obo": "obo",
        "Homo_sapiens.gene_info.gz": "gene_info",
        "gene_summary.gz": "gene_summary",
        "9606.protein.info.v12.0.txt.gz": "string_info",
        "9606.protein.links.detailed.v12.0.txt.gz": "string_links",
        "h.all.v2024.1.Hs.symbols.gmt": "gmt",
        "ReactomePathways.gmt.zip": "gmt",
        "omnipath_interactions.tsv": "omnipath",
        "CollecTRI.csv": "collectri",
        "dorothea.csv": "dorothea",
        "gencode.v46.basic.annotation.gtf.gz": "gtf",
    }


def test_symbols_previous_alias_ensembl_and_case(knowledge):
    names = [
        "AARS",
        "eryf1",
        "ENSG00000256269.9",
        "c1ORF112",
        "PORC",
        "HMBS",
        "OLDGENE",
        "LOC99999",
    ]
    resolution = knowledge.resolve([*names, "SHARED"])
    assert resolution.approved == {
        "AARS": "AARS1",
        "eryf1": "GATA1",
        "ENSG00000256269.9": "HMBS",
        "c1ORF112": "C1orf112",
        "PORC": "HMBS",
        "HMBS": "HMBS",  # also an alias of TAL1: the approved symbol wins
    }
    assert resolution.unknown == ("OLDGENE", "LOC99999")
    assert resolution.ambiguous == {"SHARED": ("GATA1", "UROD")}


def test_annotations_leave_out_not_and_other_species(knowledge):
    table = knowledge.table("gene_go")
    assert "GO:0006783" not in set(table["go"][table["symbol"] == "GATA1"])
    hmbs = table[(table["symbol"] == "HMBS") & (table["go"] == "GO:0006783")]
    assert hmbs["evidence"].tolist() == ["IDA"]  # not the IEA of the mouse row
    left_out = knowledge.manifest["sources"]["goa_human"]["left_out"]
    assert left_out == {"NOT_qualifier": 1, "other_taxon": 1}
    # A high-throughput mutant phenotype is a perturbation screen.
    assert table[table["from_screen"]][["symbol", "go"]].values.tolist() == [["TAL1", "GO:0042168"]]
    assert knowledge.manifest["tables"]["gene_go"]["from_screen"] is True


def test_go_depth_counts_and_card_order(knowledge):
    terms = knowledge.table("go_terms").set_index("id")
    assert "GO:0000005" not in terms.index  # obsolete
    assert terms.loc["GO:0006783", "depth"] == 2
    assert terms.loc["GO:0006783", "n_genes"] == 2  # HMBS, UROD
    assert terms.loc["GO:0042168", "n_genes"] == 3  # with TAL1
    assert terms.loc["GO:0008150", "n_genes"] == 4  # with AARS1 through part_of
    card = knowledge.cards(["UROD"])["UROD"]
    # GO:0042168 is implied by GO:0006783 and left out.
    assert [t.id for t in card.go] == ["GO:0006783"]
    assert card.go[0].namespace == "P"


def test_gene_texts_are_joined_over_sources(knowledge):
    genes = knowledge.table("genes").set_index("symbol")
    assert genes.loc["HMBS", "entrez"] == "3145"
    assert genes.loc["HMBS", "string_id"] == "9606.ENSP01"
    assert genes.loc["HMBS", "refseq_summary"].startswith("This gene encodes the third enzyme")
    assert genes.loc["AARS1", "string_annotation"].startswith("Alanine--tRNA ligase")
    assert "LOC99999" not in genes.index
    assert "NOGENE" not in genes.index
    assert set(genes.loc["HMBS", "source"].split("|")) == {
        "hgnc_complete_set",
        "Homo_sapiens.gene_info",
        "gene_summary",
        "9606.protein.info.v12.0",
    }


def test_sets_are_resolved_and_what_is_not_is_counted(knowledge):
    members = knowledge.table("gene_set_members")
    hallmark = set(members["symbol"][members["name"] == "HALLMARK_HEME_METABOLISM"])
    assert hallmark == {"HMBS", "UROD", "GATA1"}  # GF1 is GATA1
    assert knowledge.manifest["unresolved_names"]["gene_sets"]["examples"] == ["NOTAGENE"]
    sets = knowledge.table("gene_sets").set_index("name")
    assert sets.loc["R-HSA-189451", "title"] == "Heme biosynthesis"
    assert sets.loc["R-HSA-189451", "collection"] == "reactome"
    assert sets.loc["HALLMARK_HEME_METABOLISM", "title"] == "heme metabolism"


def test_string_links_are_mapped_to_genes_once(knowledge):
    edges = knowledge.table("edges_string")
    found = {(a, b): round(float(w), 3) for a, b, w in edges[["a", "b", "weight"]].values}
    assert found == {("HMBS", "UROD"): 0.998, ("AARS1", "UROD"): 0.5}
    left_out = knowledge.manifest["sources"]["9606.protein.links.detailed.v12.0"]["left_out"]
    assert left_out == {"score_below_400": 2, "protein_without_gene_rows": 1}


def test_string_without_text_mining(raw, tmp_path):
    built = build_knowledge(raw, tmp_path / "k", string_text_mining=False)
    edges = Knowledge.open(built).table("edges_string").set_index(["a", "b"])
    p = 0.041
    rest = (1 - (0.6 - p) / (1 - p)) * (1 - (0.9 - p) / (1 - p))
    by_hand = (1 - rest) + p * rest
    assert math.isclose(edges.loc[("HMBS", "UROD"), "weight"], by_hand, rel_tol=1e-6)


def test_one_channel_alone_combines_to_itself():
    assert combine_channels(np.array([[0.5, 0.0]]))[0] == pytest.approx(0.5)
    assert combine_channels(np.array([[0.0, 0.0]]))[0] == 0.0


def test_omnipath_complexes_signs_and_types(knowledge):
    omnipath = knowledge.table("edges_omnipath")
    found = {(a, b): s for a, b, s in omnipath[["a", "b", "sign"]].values}
    assert found == {("JUN", "GATA1"): 1, ("FOS", "TAL1"): -1, ("JUN", "TAL1"): -1}
    regulation = knowledge.table("edges_regulation")
    assert regulation[["a", "b", "sign"]].values.tolist() == [["GATA1", "UROD", 0]]


def test_regulons_split_dimers_and_keep_confident_levels(knowledge):
    collectri = knowledge.table("edges_collectri")
    found = {(a, b): s for a, b, s in collectri[["a", "b", "sign"]].values}
    assert found == {("GATA1", "HMBS"): 1, ("FOS", "TAL1"): -1, ("JUN", "TAL1"): -1}
    dorothea = knowledge.table("edges_dorothea")
    assert dorothea[["a", "b"]].values.tolist() == [["TAL1", "HMBS"]]
    assert knowledge.manifest["sources"]["dorothea"]["left_out"]["confidence_not_ABC"] == 1


def test_omnipath_flags_split_a_table_of_all_data_sets(tmp_path, raw):
    text = (
        "source\ttarget\tsource_genesymbol\ttarget_genesymbol\tis_directed\tomnipath\tcollectri"
        "\tdorothea\tdorothea_level\nP1\tP2\tJUN\tGATA1\tTrue\tTrue\tFalse\tFalse\t\n"
        "P1\tP3\tJUN\tHMBS\tTrue\tFalse\tTrue\tTrue\tA;D\nP1\tP4\tJUN\tUROD\tTrue\tFalse\tFalse"
        "\tTrue\tE\n"
    )
    (tmp_path / "all.tsv").write_text(text)
    built = build_knowledge(
        {"hgnc": raw / "hgnc_complete_set.txt", "omnipath": tmp_path / "all.tsv"}, tmp_path / "k"
    )
    k = Knowledge.open(built)
    for graph, target in (("omnipath", "GATA1"), ("collectri", "HMBS"), ("dorothea", "HMBS")):
        assert k.table(f"edges_{graph}")[["a", "b"]].values.tolist() == [["JUN", target]]


def test_positions_and_shared_promoters(knowledge):
    positions = knowledge.table("positions").set_index("symbol")
    assert positions.loc["JUN", "chr"] == "MT"
    assert positions.loc["HMBS", "ensembl"] == "ENSG00000256269"
    graph = knowledge.graph("shared_promoter")
    # HMBS starts at 119084864 (+), UROD at its end 119084300 (-): 564 bases apart. FOS starts
    # 700 bases from UROD, 136 from HMBS but on the same strand as HMBS.
    assert graph.nodes == ("FOS", "HMBS", "UROD")
    dense = graph.adjacency.toarray()
    assert dense[1, 2] == pytest.approx(1 - 564 / 1001)
    assert dense[0, 2] == pytest.approx(1 - 700 / 1001)
    assert dense[0, 1] == 0


def test_manifest_names_source_version_licence_and_checksum(knowledge, raw):
    sources = knowledge.manifest["sources"]
    assert sources["goa_human"]["date"] == "2024-06-17T00:00"
    assert sources["go-basic"]["version"] == "releases/2024-06-17"
    assert sources["9606.protein.links.detailed.v12.0"]["version"] == "12.0"
    assert sources["h.all.v2024.1.Hs.symbols"]["version"] == "2024.1.Hs"
    assert sources["gencode.v46.basic.annotation"]["date"] == "2024-03-18"
    for entry in sources.values():
        assert entry["licence"]
        assert entry["from_screen"] is False
    import hashlib

    digest = hashlib.sha256((raw / "go-basic.obo").read_bytes()).hexdigest()
    assert sources["go-basic"]["sha256"] == digest
    assert knowledge.manifest["ignored_files"] == ["README.md"]
    for name in knowledge.table_names():
        used = {i for s in knowledge.table(name)["source"].unique() for i in s.split("|")}
        assert used <= set(sources)
        assert used == set(knowledge.manifest["tables"][name]["sources"])


def test_same_sources_give_the_same_fingerprint(raw, tmp_path, knowledge):
    again = Knowledge.open(build_knowledge(raw, tmp_path / "again"))
    assert again.fingerprint() == knowledge.fingerprint()


def test_a_small_folder_says_what_it_lacks(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "mine.gmt").write_text("SETA\tna\tG1\tG2\tG3\n")
    k = Knowledge.open(build_knowledge(tmp_path / "s", tmp_path / "k"))
    assert k.resolve(["g1"]).approved == {"g1": "G1"}
    assert k.pathway("seta").members == ("G1", "G2", "G3")
    assert k.pathway("seta").modules_from == "none"
    assert k.cards(["G1"])["G1"].go == ()
    assert set(k.manifest["unavailable"]) >= {"gene_go", "edges_string", "positions"}
    with pytest.raises(InputError, match=r"graph 'string' is not available.*protein\.links"):
        k.graph("string")
    with pytest.raises(InputError, match="feature kind 'text' is not available"):
        k.features("text", ["G1"])
    relations = k.relations(["G1", "G9"], k.pathway("SETA"))
    assert [r.kind for r in relations.values()] == ["direct_member", "unknown"]


def test_from_screen_sources_are_flagged_and_can_be_left_out(tmp_path):
    s = tmp_path / "s"
    s.mkdir()
    (s / "collectri.tsv").write_text("source\ttarget\tweight\nA\tB\t1\n")
    (s / "string.tsv").write_text("a\tb\tcombined_score\nA\tB\t900\n")
    built = build_knowledge(s, tmp_path / "k", info={"collectri.tsv": {"from_screen": True}})
    k = Knowledge.open(built)
    assert k.manifest["tables"]["edges_collectri"]["from_screen"] is True
    assert k.graph("collectri").from_screen
    assert k.graph("collectri", exclude_from_screen=True).adjacency.nnz == 0
    assert not k.graph("string").from_screen
    assert k.graph("collectri+string").from_screen


# --- wrong input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "goa_human.gaf",
            GAF + "UniProtKB\tP1\tX\n",
            "line 12: 3 fields, a GAF row has at least 15",
        ),
        ("s.gmt", "SET\tna\n", r"s\.gmt, line 1: a gmt line is name, description, genes"),
        ("s.gmt", "SET\tna\tG1\nSET\tna\tG2\n", "line 2: gene set 'SET' appears twice"),
        ("string.tsv", "a\tb\tcombined_score\nA\tB\tx\n", "data row 1: combined_score is 'x'"),
        (
            "string.tsv",
            "a\tb\tcombined_score\nA\tB\t1900\n",
            r"ranges 1900\.\.1900, expected 0\.\.1000",
        ),
        (
            "p.tsv",
            "symbol\tchr\tstart\tend\tstrand\nA\t1\t5\t9\t0\n",
            "strand is 0, expected 1 or -1",
        ),
        ("x.gtf", "chr1\tx\tgene\n", r"x\.gtf, line 1: 3 fields, a gtf row has 9"),
        ("gene_summary", "#tax_id\tGeneID\tSource\tSummary\n10090\t1\tR\tmouse\n", "no human rows"),
    ],
)
def test_a_wrong_file_is_named_with_its_row(tmp_path, name, text, message):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).write_text(text)
    with pytest.raises(InputError, match=message):
        build_knowledge(tmp_path / "s", tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_cyclic_ontology_is_refused(tmp_path):
    cyclic = OBO.replace(
        "name: biological_process\n", "name: biological_process\nis_a: GO:0006783\n"
    )
    (tmp_path / "go.obo").write_text(cyclic)
    with pytest.raises(InputError, match="cycle"):
        build_knowledge([tmp_path / "go.obo"], tmp_path / "k")


def test_string_links_without_names(raw, tmp_path):
    with pytest.raises(InputError, match=r"need protein\.info"):
        build_knowledge(
            {"string_links": raw / "9606.protein.links.detailed.v12.0.txt.gz"}, tmp_path / "k"
        )


def test_wrong_sources(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        build_knowledge([tmp_path / "absent.tsv"], tmp_path / "k")
    with pytest.raises(InputError, match="unknown source 'hngc'; did you mean"):
        build_knowledge({"hngc": tmp_path / "x"}, tmp_path / "k")
    (tmp_path / "odd.tsv").write_text("foo\tbar\n1\t2\n")
    with pytest.raises(InputError, match=r"odd\.tsv: not recognised"):
        build_knowledge([tmp_path / "odd.tsv"], tmp_path / "k")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file that is recognised"):
        build_knowledge(tmp_path / "empty", tmp_path / "k")
    (tmp_path / "cut.gaf.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(InputError, match=r"cut\.gaf\.gz cannot be read"):
        build_knowledge([tmp_path / "cut.gaf.gz"], tmp_path / "k")


def test_no_other_folder_is_overwritten(tmp_path):
    (tmp_path / "s.gmt").write_text("SET\tna\tG1\tG2\n")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data.txt").write_text("keep me")
    with pytest.raises(InputError, match="not a knowledge folder"):
        build_knowledge([tmp_path / "s.gmt"], precious, overwrite=True)
    assert (precious / "data.txt").read_text() == "keep me"
    build_knowledge([tmp_path / "s.gmt"], tmp_path / "k")
    with pytest.raises(InputError, match="--overwrite"):
        build_knowledge([tmp_path / "s.gmt"], tmp_path / "k")
    build_knowledge([tmp_path / "s.gmt"], tmp_path / "k", overwrite=True)
    left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert left == []


def test_opening_what_is_no_knowledge_folder(tmp_path):
    with pytest.raises(InputError, match="no such knowledge folder"):
        Knowledge.open(tmp_path / "absent")
    with pytest.raises(InputError, match="not a knowledge folder"):
        Knowledge.open(tmp_path)
    (tmp_path / "s.gmt").write_text("SET\tna\tG1\tG2\n")
    built = build_knowledge([tmp_path / "s.gmt"], tmp_path / "k")
    manifest = json.loads((built / "manifest.json").read_text())
    manifest["format_version"] = 99
    (built / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="format version 99, this pertwise reads version 1"):
        Knowledge.open(built)
    (built / "manifest.json").write_text("{half")
    with pytest.raises(InputError, match="damaged"):
        Knowledge.open(built)


def test_a_killed_build_leaves_no_folder_that_opens(tmp_path):
    """SIGKILL while tables are being written: the target must not exist afterwards."""
    (tmp_path / "s.gmt").write_text("SET\tna\tG1\tG2\n")
    code = (
        "import sys, time, pertwise.knowledge.build.folder as b\n"
        "write = b.write_table\n"
        "def slow(*args):\n"
        "    entry = write(*args)\n"
        "    print('wrote', flush=True)\n"
        "    time.sleep(60)\n"
        "    return entry\n"
        "b.write_table = slow\n"
        "b.build_knowledge([sys.argv[1]], sys.argv[2])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s.gmt"), str(tmp_path / "k")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "wrote"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    assert not (tmp_path / "k").exists()
    build_knowledge([tmp_path / "s.gmt"], tmp_path / "k")
    assert Knowledge.open(tmp_path / "k").pathway_names() == ("SET",)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["k", "s.gmt"]


def test_a_fetched_file_that_changed_is_refused(tmp_path):
    (tmp_path / "hgnc_complete_set.txt").write_text(HGNC)
    record = {"files": {"hgnc_complete_set.txt": {"sha256": "0" * 64}}}
    (tmp_path / "sources.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="checksum is not the one recorded"):
        build_knowledge(tmp_path, tmp_path / "k")


def test_explicit_kind_for_a_table_with_any_name(tmp_path):
    pd.DataFrame({"source": ["A"], "target": ["B"], "weight": [-1]}).to_csv(
        tmp_path / "mine.csv", index=False
    )
    k = Knowledge.open(build_knowledge({"dorothea": tmp_path / "mine.csv"}, tmp_path / "k"))
    assert k.graph_names() == ("dorothea",)
    graph = k.graph("dorothea")
    assert graph.directed
    assert graph.sign is not None
    assert graph.sign.toarray().tolist() == [[0.0, -1.0], [0.0, 0.0]]
