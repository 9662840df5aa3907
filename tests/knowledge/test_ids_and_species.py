"""Ids resolve whatever file brings them; another species is noticed in every source."""

import gzip

import pandas as pd
import pytest
from knowledge import raw
from typer.testing import CliRunner

from pertwise.acquire.candidates import make_pool
from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.knowledge.genes.species import foreign, species_note, species_of
from pertwise.screen import read_screen
from pertwise.select.chat.selector import knowledge_resolver

GATA1, TP53 = "ENSG00000102145", "ENSG00000141510"
UNIPROT = "P15976"

HGNC = (
    "hgnc_id\tsymbol\tname\tstatus\talias_symbol\tprev_symbol\tentrez_id\tensembl_gene_id\t"
    "uniprot_ids\n"
    f"HGNC:1\tGATA1\tGATA binding protein 1\tApproved\tERYF1\tGF1\t2623\t{GATA1}\t{UNIPROT}\n"
    f"HGNC:2\tTP53\ttumor protein p53\tApproved\tp53\t\t7157\t{TP53}\tP04637|K7PPA8\n"
    "HGNC:3\tH4C1\tH4 clustered histone 1\tApproved\t\t\t8359\t\tP62805\n"
    "HGNC:4\tH4C2\tH4 clustered histone 2\tApproved\t\t\t8366\t\tP62805\n"
)
GAF = raw.GAF_HEAD + "".join(
    f"UniProtKB\t{accession}\t{symbol}\tenables\tGO:0003677\tPMID:1\tIDA\t\tF\t\t\tprotein\t"
    f"taxon:9606\t20240101\tUniProt\t\tUniProtKB:{accession}-2\n"
    for accession, symbol in ((UNIPROT, "GATA1"), ("P04637", "TP53"))
)
GENE_INFO = raw.GENE_INFO.splitlines()[0] + (
    f"\n9606\t2623\tGATA1\t-\tERYF1\tMIM:305371|Ensembl:{GATA1}|Ensembl:ENSG00000999999\tX\tX\t"
    "GATA binding protein 1\tprotein-coding\tGATA1\tGATA\tO\t-\t20240101\t-\n"
)
GENE_TEXT = (
    "symbol\tstring_id\tentrez\tensembl\tfull_name\tuniprot\n"
    f"GATA1\t9606.ENSP00000365858\t2623\t{GATA1}\tGATA binding protein 1\t{UNIPROT}\n"
)
POSITIONS = (
    "symbol\tensgene\tchr\tstart\tend\tstrand\n" + f"GATA1\t{GATA1}.14\tX\t48786590\t48794311\t1\n"
)
GTF = (
    f'chrX\tHAVANA\tgene\t48786590\t48794311\t.\t+\t.\tgene_id "{GATA1}.14"; '
    'gene_type "protein_coding"; gene_name "GATA1";\n'
)
STRING_INFO = (
    "#string_protein_id\tpreferred_name\tprotein_size\tannotation\n"
    "9606.ENSP00000365858\tGATA1\t413\tx\n"
)
STRING_ALIASES = (
    "#string_protein_id\talias\tsource\n"
    "9606.ENSP00000365858\tGATA1\tEnsembl_HGNC_symbol\n"
    f"9606.ENSP00000365858\t{GATA1}\tEnsembl_gene\n"
    f"9606.ENSP00000365858\t{UNIPROT}\tUniProt_AC\n"
)
OMNIPATH = (
    "source\ttarget\tsource_genesymbol\ttarget_genesymbol\tis_directed\n"
    f"{UNIPROT}\tP04637\tGATA1\tTP53\t1\n"
)
ALIAS = f"symbol\tapproved\nGATA1\tGATA1\n{GATA1}.3\tGATA1\n{UNIPROT}\tGATA1\n"
SOURCES = {
    "hgnc_complete_set.txt": (HGNC, (GATA1, UNIPROT)),
    "goa_human.gaf": (GAF, (UNIPROT,)),
    "Homo_sapiens.gene_info": (GENE_INFO, (GATA1, "ENSG00000999999")),
    "gene_summary.tsv": (GENE_TEXT, (GATA1, UNIPROT, "ENSP00000365858")),
    "positions.tsv": (POSITIONS, (GATA1,)),
    "gencode.gtf": (GTF, (GATA1,)),
    "9606.protein.info.txt": (STRING_INFO, ("ENSP00000365858",)),
    "9606.protein.aliases.txt": (STRING_ALIASES, (GATA1, UNIPROT, "ENSP00000365858")),
    "omnipath.tsv": (OMNIPATH, (UNIPROT,)),
    "gene_alias.tsv": (ALIAS, (GATA1, UNIPROT)),
}


def built(tmp_path, **files):
    folder = tmp_path / "src"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return Knowledge.open(build_knowledge(folder, tmp_path / "kb"))


def spellings(name):
    """The ways in which tables and other programs write an id."""
    yield from (name, name.lower(), f" {name} ", f"{name}.14")
    if name[:3] != "ENS":
        yield from (f"{name}-2", f"{name}-12", f"UniProtKB:{name}")
    if name[:4] == "ENSP":
        yield f"9606.{name}"


@pytest.mark.parametrize("with_authority", [False, True])
@pytest.mark.parametrize("file", SOURCES)
def test_ids_resolve_whatever_file_brings_them(file, with_authority, tmp_path):
    text, ids = SOURCES[file]
    files = {file: text}
    if with_authority:
        # Names of genes only: the ids still come from the other file.
        files.setdefault("gene_alias.tsv", "symbol\tapproved\nGATA1\tGATA1\nTP53\tTP53\n")
    knowledge = built(tmp_path, **files)
    for name in (s for i in ids for s in spellings(i)):
        assert knowledge.resolve([name]).approved == {name: "GATA1"}, name
        assert knowledge.cards([name])[name].symbol == "GATA1"


def test_the_symbol_of_an_id_may_be_an_old_one(tmp_path):
    old = POSITIONS.replace("GATA1", "GF1")
    hgnc = HGNC.replace(GATA1, "").replace(UNIPROT, "")
    knowledge = built(tmp_path, **{"hgnc_complete_set.txt": hgnc, "positions.tsv": old})
    assert knowledge.resolve([f"{GATA1}.2"]).approved == {f"{GATA1}.2": "GATA1"}


def test_hgnc_wins_over_a_file_that_gives_the_id_to_another_gene(tmp_path):
    wrong = POSITIONS.replace("GATA1\t", "TP53\t")
    knowledge = built(tmp_path, **{"hgnc_complete_set.txt": HGNC, "positions.tsv": wrong})
    assert knowledge.resolve([GATA1]).approved == {GATA1: "GATA1"}


def test_an_accession_of_several_genes_is_ambiguous(tmp_path):
    knowledge = built(tmp_path, **{"hgnc_complete_set.txt": HGNC})
    assert knowledge.resolve(["P62805"]).ambiguous == {"P62805": ("H4C1", "H4C2")}
    assert knowledge.resolve(["P04637-3", "K7PPA8"]).approved == {
        "P04637-3": "TP53",
        "K7PPA8": "TP53",
    }


def test_a_symbol_that_looks_like_an_accession_stays_a_symbol(tmp_path):
    table = "symbol\tapproved\nP2RY12\tP2RY12\nGATA1\tGATA1\nO3FAR1\tGATA1\n"
    text = "symbol\tfull_name\tuniprot\nGATA1\tx\tP2RY12\n"
    knowledge = built(tmp_path, **{"gene_alias.tsv": table, "gene_summary.tsv": text})
    assert knowledge.resolve(["P2RY12", "O3FAR1"]).approved == {
        "P2RY12": "P2RY12",
        "O3FAR1": "GATA1",
    }


def test_measured_ids_are_their_genes_in_a_plan(tmp_path):
    knowledge = built(tmp_path, **{"hgnc_complete_set.txt": HGNC})
    screen = read_screen(screen_of([f"{GATA1}.7"], tmp_path / "means.csv"))
    pool = make_pool(["GATA1", "TP53"], "a list", screen, knowledge)
    assert pool.candidates == ("TP53",)


# --- another species --------------------------------------------------------------------------

MOUSE = ["Trp53", "Gata1", "Klf1", "Hba-a1", "B2m"]
ENSMUSG = [f"ENSMUSG000000{i}" for i in range(31162, 31167)]


def mouse(columns, *values):
    lines = ["\t".join(columns)]
    lines += ["\t".join(v) for v in zip(*values, strict=True)]
    return "\n".join(lines) + "\n"


n = len(MOUSE)
FOREIGN = {
    "hgnc_complete_set.txt": mouse(
        ["hgnc_id", "symbol", "name", "alias_symbol", "prev_symbol", "ensembl_gene_id"],
        ["1"] * n, MOUSE, ["x"] * n, [""] * n, [""] * n, ENSMUSG,
    ),
    "gene_alias.tsv": mouse(["symbol", "approved"], MOUSE, MOUSE),
    "Mus_musculus.gene_info": raw.GENE_INFO.splitlines()[0] + "\n" + raw.GENE_INFO.splitlines()[3],
    "gene_summary": raw.GENE_SUMMARY.splitlines()[0] + "\n" + raw.GENE_SUMMARY.splitlines()[3],
    "gene_summary.tsv": mouse(["symbol", "ensembl", "full_name"], MOUSE, ENSMUSG, ["x"] * n),
    "mgi.gaf": raw.GAF_HEAD + raw.gaf_row("Gata1", "enables", "GO:1", "IDA", taxon="taxon:10090"),
    "gene_go.tsv": mouse(["symbol", "go"], MOUSE, ["GO:0003677"] * n),
    "mh.all.Mm.symbols.gmt": "\t".join(["HALLMARK_X", "na", *MOUSE]) + "\n",
    "ids.gmt": "\t".join(["SET", "na", *ENSMUSG]) + "\n",
    "ReactomePathways.gmt": "Heme\tR-MMU-189451\tHMBS\tUROD\n",
    "10090.protein.info.txt": "#string_protein_id\tpreferred_name\n10090.ENSMUSP01\tGata1\n",
    "10090.protein.links.txt": (
        "protein1 protein2 combined_score\n10090.ENSMUSP01 10090.ENSMUSP02 900\n"
    ),
    "10090.protein.aliases.txt": (
        "#string_protein_id\talias\tsource\n10090.ENSMUSP01\tGata1\tEnsembl_HGNC_symbol\n"
    ),
    "string.tsv": mouse(["a", "b", "combined_score"], MOUSE, MOUSE[::-1], ["900"] * n),
    "string_ge800.tsv": mouse(["a", "b"], MOUSE, MOUSE[::-1]),
    "omnipath.tsv": mouse(["source_genesymbol", "target_genesymbol"], MOUSE, MOUSE[::-1]),
    "collectri.tsv": mouse(["source", "target", "weight"], MOUSE, MOUSE[::-1], ["1"] * n),
    "dorothea.tsv": mouse(["source", "target", "confidence"], MOUSE, MOUSE[::-1], ["A"] * n),
    "regulation.tsv": mouse(["source", "target"], MOUSE, MOUSE[::-1]),
    "positions.tsv": mouse(
        ["symbol", "ensgene", "chr", "start", "end", "strand"],
        MOUSE, ENSMUSG, ["1"] * n, ["1"] * n, ["9"] * n, ["1"] * n,
    ),
    "gencode.vM35.gtf": "".join(
        f'chr1\tHAVANA\tgene\t1\t9\t.\t+\t.\tgene_id "{e}.3"; gene_name "{g}";\n'
        for g, e in zip(MOUSE, ENSMUSG, strict=True)
    ),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("file", FOREIGN)
def test_a_source_of_another_species_is_refused(file, packed, tmp_path):
    path = tmp_path / (file + ".gz" if packed else file)
    text = FOREIGN[file].encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(InputError, match=r"mouse|human") as told:
        build_knowledge([path], tmp_path / "kb")
    assert str(path) in str(told.value)
    assert not (tmp_path / "kb").exists()


def test_rows_of_another_species_are_left_out_and_counted(tmp_path):
    gtf = GTF + f'chr1\tx\tgene\t1\t9\t.\t+\t.\tgene_id "{ENSMUSG[0]}.3"; gene_name "Trp53";\n'
    sets = "A\tR-HSA-1\tGATA1\tTP53\nB\tR-MMU-1\tGATA1\tTP53\n"
    knowledge = built(tmp_path, **{"a.gtf": gtf, "reactome.gmt": sets})
    left = {k: v["left_out"] for k, v in knowledge.manifest["sources"].items()}
    assert left["a"]["other_species"] >= 1
    assert left["reactome"]["other_species"] == 3  # one set, two members
    assert knowledge.pathway_names() == ("R-HSA-1",)


@pytest.mark.parametrize(
    ("name", "species"),
    [("ENSG00000102145.14", "human"), ("ENSMUSG00000031162", "mouse"),
     ("ENSRNOG00000012345", "rat"),
     ("ENSDARG00000013477", "zebrafish"), ("9606.ENSP01", "human"), ("10090.ENSMUSP01", "mouse"),
     ("R-HSA-12", "human"), ("R-XTR-12", "another species"), ("FBgn0003996", "fruit fly"),
     ("C1orf112", ""), ("TP53", ""), ("", "")],
)  # fmt: skip
def test_ids_state_their_species(name, species):
    assert species_of(name) == species


def test_human_names_are_not_taken_for_others():
    human = ["GATA1", "C1orf112", "C9orf72", "TP53", "HLA-A", "MT-CO1", "Gata1"]
    assert foreign(human) is None
    assert foreign(["C1orf112", "C9orf72", "CXorf21"]) is None
    assert foreign([f"Gene{i}" for i in range(30)]) is None
    assert foreign([]) is None
    assert foreign(["Trp53", "Gata1"]) == ("mouse", ("Trp53", "Gata1"))


@pytest.mark.shared
def test_a_real_alias_table_is_human(shared_data):
    table = pd.read_csv(shared_data / "knowledge" / "gene_alias.tsv.gz", sep="\t", dtype=str)
    assert species_note(table["approved"].astype(str)) == ""


def screen_of(names, path):
    rows = [f"{g},{i},{-i},{i % 3}" for i, g in enumerate(names, 1)]
    path.write_text("\n".join(["perturbation,F1,F2,F3", "control,0,0,0", *rows]) + "\n")
    return path


@pytest.mark.parametrize("names", [MOUSE, ENSMUSG])
def test_a_screen_of_another_species_is_told(names, tmp_path):
    hgnc = HGNC + "".join(f"HGNC:{i}\tKLF{i}\tx\tApproved\t\t\t{i}\t\t\n" for i in range(1, 20))
    built(tmp_path, **{"hgnc_complete_set.txt": hgnc})
    screen = screen_of(names, tmp_path / "means.csv")
    common = ["--knowledge", str(tmp_path / "kb")]
    plan = ["plan", str(screen), *common, "--out", str(tmp_path / "plan"), "--batch", "3"]
    for given in ([*plan, "--strategy", "random", "--dry-run"],
                  ["predict", str(screen), *common, "--genes", "KLF3", "--method",
                   "training mean", "--out", str(tmp_path / "p")]):  # fmt: skip
        result = CliRunner().invoke(app, ["-q", *given])
        assert isinstance(result.exception, InputError)
        assert "mouse genes" in str(result.exception)
        assert "are found in it" in str(result.exception)
    result = CliRunner().invoke(app, ["knowledge", "gene", names[0], *common])
    assert (names is MOUSE) or "mouse" in str(result.exception)


@pytest.mark.parametrize("text", [HGNC, GENE_TEXT, GENE_INFO])
def test_entrez_ids_resolve_and_small_numbers_do_not(tmp_path, text):
    (tmp_path / "src").mkdir()
    name = "hgnc_complete_set.txt" if text == HGNC else "gene_summary.tsv"
    name = "Homo_sapiens.gene_info" if text == GENE_INFO else name
    (tmp_path / "src" / name).write_text(text)
    if text == GENE_TEXT:
        (tmp_path / "src" / "alias.tsv").write_text("symbol\tapproved\nGATA1\tGATA1\n")
    (tmp_path / "src" / "sets.gmt").write_text("A\tx\t2623\nB\tx\tGATA1\n")
    build_knowledge(tmp_path / "src", tmp_path / "kb")
    kb = Knowledge.open(tmp_path / "kb")
    asked = ["2623", "2623.0", "GeneID:2623", "entrez:2623", "26", "2623.5", "262"]
    assert kb.canonical(asked) == dict.fromkeys(asked[:4], "GATA1")
    members = pd.read_parquet(tmp_path / "kb" / "gene_set_members.parquet")
    assert sorted(members["symbol"]) == ["GATA1", "GATA1"]


def test_a_number_in_an_answer_of_a_model_is_no_gene(tmp_path):
    (tmp_path / "hgnc_complete_set.txt").write_text(HGNC)
    build_knowledge(tmp_path / "hgnc_complete_set.txt", tmp_path / "kb")
    resolve = knowledge_resolver(Knowledge.open(tmp_path / "kb"))
    assert resolve(["2623", "GF1"]) == {"GF1": "GATA1"}


@pytest.mark.parametrize("name", ["hgnc_complete_set.txt", "alias.tsv", "edges.tsv"])
def test_a_header_without_rows_is_refused(tmp_path, name):
    heads = {"alias.tsv": "symbol\tapproved\n", "edges.tsv": "source\ttarget\tweight\n"}
    (tmp_path / name).write_text(heads.get(name, HGNC.splitlines()[0] + "\n"))
    with pytest.raises(InputError, match=f"{name}: there is a header but no row below it"):
        build_knowledge(tmp_path / name, tmp_path / "kb")
