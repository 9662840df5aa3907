"""A folder of mouse genes from mouse files: symbols as they are written, its taxon told."""

import json
from itertools import pairwise

import pytest
from knowledge import raw
from knowledge.mouse import GAF, MARKER, marker, write_sources
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.knowledge.build.remotes import REMOTES, remotes_of
from pertwise.knowledge.genes.species import foreign, same_species, species_named, taxon_id
from pertwise.knowledge.programs import general_programs

GENES = ["Trp53", "Gata1", "Klf1", "Hba-a1", "H2-K1", "mt-Nd1", "Asns", "Chac1", "Rpl3", "Cdkn1a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("mouse")
    links = list(pairwise(GENES))
    sources = write_sources(place / "src", GENES, {"GO:0000001": GENES[:4]}, links=links)
    return build_knowledge(sources, place / "kb", taxon="mouse")


@pytest.mark.parametrize("text", ["mouse", "10090", "Mus musculus", " Mus_musculus "])
def test_a_taxon_by_any_of_its_names(text):
    assert taxon_id(text) == "10090"


def test_another_taxon_is_refused_by_name(tmp_path):
    with pytest.raises(UnknownNameError, match=r"taxon 'yeast'.*human.*mouse"):
        build_knowledge(tmp_path, tmp_path / "kb", taxon="yeast")


def test_all_mouse_files_are_read_and_the_manifest_says_whose_they_are(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["taxon"] == "10090"
    assert manifest["ignored_files"] == []
    assert manifest["unresolved_names"] == {}
    kinds = {k: v["kind"] for k, v in manifest["sources"].items()}
    assert kinds["MRK_List2"] == "mgi"
    assert manifest["sources"]["MRK_List2"]["left_out"] == {"not_a_gene": 1}
    assert manifest["sources"]["mh.all.v2024.1.Mm.symbols"]["version"] == "2024.1.Mm"
    knowledge = Knowledge.open(folder)
    assert knowledge.species == "mouse"
    assert knowledge.genes() == tuple(sorted(GENES))
    assert set(knowledge.graph("string").nodes) == set(GENES)
    assert knowledge.pathway("p53 pathway").members == tuple(sorted(GENES))


@pytest.mark.parametrize(
    "name", ["Trp53", "TRP53", "trp53", "Trp53old", "syn10000", "MGI:10000", "MGI:MGI:10000",
             "ENSMUSG00000010000", "ENSMUSG00000010000.7", "10090.ENSMUSP00000010000"],
)  # fmt: skip
def test_symbols_stay_as_mgi_writes_them(folder, name):
    knowledge = Knowledge.open(folder)
    assert knowledge.resolve([name]).approved == {name: "Trp53"}
    assert knowledge.cards([name])[name].full_name == "trp53 gene"


def test_curated_modules_and_shipped_programs_get_mouse_symbols(folder):
    knowledge = Knowledge.open(folder)
    programs = {p.key: p for p in general_programs("genes", knowledge)}
    assert programs["mt_encoded"].up == ("mt-Nd1",)
    assert programs["isr"].up == ("Asns", "Chac1")
    human = {p.key: p for p in general_programs("genes")}
    assert human["isr"].up[:2] == ("ASNS", "TRIB3")


def test_human_sources_are_refused_in_a_mouse_folder(tmp_path):
    for name, text in (
        ("hgnc_complete_set.txt", raw.HGNC), ("goa_human.gaf", raw.GAF.replace("10090", "9606")),
        ("h.all.Hs.symbols.gmt", "HALLMARK_X\tna\tGATA1\tTP53\tKLF1\tHBA1\tMT-ND1\n"),
        ("9606.protein.info.txt", "#string_protein_id\tpreferred_name\n9606.ENSP01\tGATA1\n"),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=r"human|mouse") as told:
            build_knowledge([tmp_path / name], tmp_path / "kb", taxon="10090")
        assert name in str(told.value)


def test_withdrawn_markers_and_rows_of_another_species_are_left_out(tmp_path):
    (tmp_path / "MRK_List1.rpt").write_text(
        MARKER
        + marker("Trp53", 1)
        + marker("Gone1", 2, status="W")
        + marker("Klf1-ps", 3, kind="Pseudogene")
    )  # fmt: skip
    row = "UniProtKB\tP1\t{}\tenables\tGO:1\tPMID:1\tIDA\t\tF\t\t\tprotein\ttaxon:{}\t2024\tx\t\t\n"
    (tmp_path / "mgi.gaf").write_text(GAF + row.format("Trp53", 10090) + row.format("TP53", 9606))
    knowledge = Knowledge.open(build_knowledge(tmp_path, tmp_path / "kb", taxon="mouse"))
    assert set(knowledge.table("symbols")["approved"]) == {"Trp53", "Klf1-ps"}
    left = {k: v["left_out"] for k, v in knowledge.manifest["sources"].items()}
    assert left["mgi"] == {"NOT_qualifier": 0, "other_taxon": 1}
    assert left["MRK_List1"] == {"not_a_gene": 1}


def test_files_to_fetch_are_those_of_the_species():
    mouse, human = remotes_of("mouse"), remotes_of()
    assert human == REMOTES
    assert len(mouse) == len(human)
    by_name = {r.name: r for r in mouse}
    assert by_name["string_links"].file == "10090.protein.links.detailed.v12.0.txt.gz"
    assert by_name["gene_info"].url.endswith("Mammalia/Mus_musculus.gene_info.gz")
    assert "organisms=10090" in by_name["collectri"].url
    said = " ".join(r.url + r.file for r in mouse)
    assert not any(word in said for word in ("9606", "Homo", "goa_human", ".Hs.", "hgnc"))
    shown = CliRunner().invoke(
        app, ["knowledge", "fetch", "--out", "x", "--list", "--taxon", "mouse"]
    )
    assert "MRK_List2.rpt" in shown.output


@pytest.mark.parametrize(
    ("names", "species"),
    [(["Trp53", "Gata1", "Klf1"], "mouse"), (["TP53", "GATA1", "KLF1"], "human"),
     (["ENSMUSG00000010000"], "mouse"), (["ENSG00000102145"], "human"), ([], ""),
     ([f"SIM{i:04d}" for i in range(40)], ""), (["G001", "G002", "G003"], ""),
     (["Dasatinib", "Trametinib", "Nutlin-3", "Imatinib"], "")],
)  # fmt: skip
def test_names_tell_their_species_or_nothing(names, species):
    assert species_named(names) == species


def test_mouse_names_are_at_home_in_a_mouse_folder():
    assert foreign(GENES, "mouse") is None
    assert foreign(["TP53", "GATA1", "KLF1"], "mouse") == ("human", ("TP53", "GATA1", "KLF1"))


def test_a_screen_of_the_other_species_is_told_with_its_share(folder, tmp_path):
    mouse = Knowledge.open(folder)
    assert same_species("measured", GENES, mouse) == []
    (told,) = same_species("measured", ["GATA1", "KLF1", "ASNS", "ALPK1"], mouse)
    assert "look like human genes" in told
    assert "knowledge is of mouse genes" in told
    assert "3 of 4" in told
    with pytest.raises(InputError, match=r"human genes.*mouse genes.*--taxon human.*0 of 3"):
        same_species("measured", ["TP73", "ALPK1", "PLEC2"], mouse)
    (tmp_path / "gene_alias.tsv").write_text("symbol\tapproved\nGATA1\tGATA1\nTP53\tTP53\n")
    human = Knowledge.open(build_knowledge(tmp_path, tmp_path / "kb"))
    assert human.species == "human"
    with pytest.raises(InputError, match=r"mouse genes \(Trp53.*human genes.*--taxon mouse"):
        same_species("measured", GENES, human)
