"""Guides for a panel: layouts of libraries, hostile files, controls, plates, the order."""

import itertools
import json

import pandas as pd
import pytest
from fake_knowledge import FakeEnsemble, FakeKnowledge
from typer.testing import CliRunner

from pertwise.acquire import Plan, amend, plan
from pertwise.acquire.guides.choose import choose_guides
from pertwise.acquire.guides.library import LibraryColumns, read_library
from pertwise.acquire.guides.order import write_order
from pertwise.acquire.guides.plates import lay_out
from pertwise.cli.main import app
from pertwise.errors import InputError, UnknownNameError
from pertwise.report import write_plan
from pertwise.screen import make_screen


def spacer(i, length=20):
    """A different sequence for every number."""
    return "".join("ACGT"[(i >> (2 * k)) & 3] for k in range(length))[::-1].replace("AAAA", "AGAC")


def panel(**kwargs):
    import numpy as np

    y = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    y[::2] = np.nan
    screen = make_screen(
        y, [f"G{i:03d}" for i in range(12)], ["f1", "f2", "f3"], meta={"simulated": True}
    )
    return plan(screen, FakeKnowledge(), predictor=FakeEnsemble(), **({"batch": 3} | kwargs))


def rows(genes, n=4, start=0):
    """(gene, sequence) of `n` guides each, then three controls."""
    count = itertools.count(start * 1000)
    out = [(g, spacer(next(count) * 7 + 1)) for g in genes for _ in range(n)]
    return out + [("non-targeting", spacer(next(count) * 7 + 1)) for _ in range(3)]


def table(path, genes, **more):
    pd.DataFrame(rows(genes, **more), columns=["gene", "sequence"]).to_csv(path, index=False)
    return path


GENES = [f"G{i:03d}" for i in range(12)]

HEADERS = {
    # the eleven columns of Addgene's broadgpp-brunello-library-contents.txt
    "Brunello": (
        "Target Gene ID\tTarget Gene Symbol\tTarget Transcript\tGenomic Sequence\t"
        "Position of Base After Cut (1-based)\tStrand\tsgRNA Target Sequence\t"
        "Target Context Sequence\tPAM Sequence\tExon Number\tRule Set 2 score",
        [
            f"1\tG000\tNM_1\tNC_1\t5\tsense\t{'ACGT' * 4}ACGA\tTTTT\tTGG\t2\t0.4",
            f"1\tG000\tNM_1\tNC_1\t9\tsense\t{'ACGT' * 4}ACGC\tTTTT\tTGG\t2\t0.9",
            f"\tNon-Targeting Control\t\t\t\t\t{'ACGT' * 4}ACGG\t\t\t\t",
        ],
        "ACGTACGTACGTACGTACGC",
    ),
    # what CRISPick hands out for a list of genes
    "CRISPick": (
        "Input\tTarget Gene ID\tTarget Gene Symbol\tTarget Transcript\tReference Sequence\t"
        "sgRNA Sequence\tsgRNA Context Sequence\tPAM Sequence\tOn-Target Efficacy Score\t"
        "Combined Rank\tPick Order\tPicking Notes",
        [
            f"G000\t1\tG000\tNM_1\tNC_1\t{'ACGT' * 4}ACGA\tTT\tTGG\t0.4\t7\t2\t",
            f"G000\t1\tG000\tNM_1\tNC_1\t{'ACGT' * 4}ACGC\tTT\tTGG\t0.9\t3\t1\t",
            f"\t\tNO_SITE_3\t\t\t{'ACGT' * 4}ACGG\t\t\t\t\t1\t",
        ],
        "ACGTACGTACGTACGTACGC",
    ),
    "Dolcetto": (
        "sgRNA Sequence\tAnnotated Gene Symbol\tAnnotated Gene ID",
        [
            "ACGTACGTACGTACGTACGA\tG000\t1",
            "ACGTACGTACGTACGTACGC\tG000\t1",
            "ACGTACGTACGTACGTACGG\tNO_CURRENT_12\tNO_CURRENT_12",
        ],
        "ACGTACGTACGTACGTACGA",
    ),
    "Horlbeck": (
        "sgID\tSublibrary\tgene\ttranscript\tprotospacer sequence\tselection rank\t"
        "predicted score\tempirical score\toff-target stringency\tSublibrary half",
        [
            "G000_+_1.23-P1\th1\tG000\tP1\tACGTACGTACGTACGTACGA\t2\t0.9\t\t0\tTop5",
            "G000_-_2.23-P1\th1\tG000\tP1\tacgtacgtacgtacgtacgc\t1\t0.5\t\t0\tTop5",
            "non-targeting_00001\th1\tnegative_control\tna\tACGTACGTACGTACGTACGG\t\t\t\t0\tTop5",
        ],
        "ACGTACGTACGTACGTACGC",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_published_layouts_are_recognised_by_their_header(tmp_path, name):
    header, body, first = HEADERS[name]
    file = tmp_path / "library.txt"
    file.write_text("\n".join([header, *body]) + "\n")
    library = read_library(file)
    assert name in library.layout
    assert list(library.table["gene"]) == ["G000", "G000"]
    assert library.table["sequence_a"].iloc[0] == first  # the best ranked guide
    assert list(library.controls["sequence_a"]) == ["ACGTACGTACGTACGTACGG"]
    assert not library.dual


@pytest.mark.parametrize(
    ("header", "first"),
    [
        # the table of the K562 and RPE1 libraries, as csv that a German Excel wrote
        (
            "unique sgRNA pair ID;gene;transcript;ensembl gene id;sgID_A;targeting sequence A;"
            "sgID_B;targeting sequence B;duplicated guide pair?;either guide duplicated?",
            "0_G000_P1_ENSG1;G000;P1;ENSG1;a;{a};b;{b};False;False",
        ),
        # the library file of the protocol: a column of row numbers without a name
        (
            ",gene,transcript,sgID_A,protospacer_A,sgID_B,protospacer_B,sgID_AB",
            "0,G000,P1,a,{a},b,{b},a|b",
        ),
    ],
)
def test_dual_libraries_as_published(tmp_path, header, first):
    a, b = spacer(5), spacer(11)
    control = first.format(a=b, b=a).replace("G000", "non-targeting")
    if not header.startswith("unique"):
        control = control.replace("non-targeting", "negative_control").replace("0,", "1,", 1)
    file = tmp_path / "dual.csv"
    file.write_text("\n".join([header, first.format(a=a, b=b), control]) + "\n")
    library = read_library(file)
    assert "Replogle" in library.layout
    assert library.table[["gene", "sequence_a", "sequence_b"]].values.tolist() == [["G000", a, b]]
    assert library.table["id"].iloc[0] in ("0_G000_P1_ENSG1", "a|b")
    assert len(library.controls) == 1


def test_a_workbook_of_two_sets_says_which_one_was_read(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "SetA raw reads"
    book.active.append(["Supplementary Data 3. Dolcetto CRISPRi screening data"])
    for name, end in (("SetA sgRNA annotations", "A"), ("SetB sgRNA annotations", "C")):
        sheet = book.create_sheet(name)
        sheet.append(["sgRNA Sequence", "Annotated Gene Symbol", "Annotated Gene ID"])
        sheet.append(["ACGT" * 4 + "ACG" + end, "G000", 1])
        sheet.append(["ACGT" * 4 + "ACT" + end, "CONTROL", "CONTROL"])
        sheet.append(["ACGT" * 4 + "AGT" + end, "NO-TARGET", "UNKNOWN_NO-TARGET"])
    book.save(tmp_path / "dolcetto.xlsx")
    library = read_library(tmp_path / "dolcetto.xlsx")
    assert "Dolcetto" in library.layout
    assert "sheet 'SetA sgRNA annotations' (not 'SetB" in library.layout
    assert list(library.table["sequence_a"]) == ["ACGT" * 4 + "ACGA"]
    assert len(library.controls) == 2
    other = read_library(tmp_path / "dolcetto.xlsx", LibraryColumns(sheet="SetB sgRNA annotations"))
    assert list(other.table["sequence_a"]) == ["ACGT" * 4 + "ACGC"]
    assert "--library-sheet" not in other.layout


def test_dual_guides_are_one_element_with_two_spacers(tmp_path):
    file = tmp_path / "dual.csv"
    file.write_text(
        "sgID_AB,gene,transcript,sgID_A,protospacer_A,sgID_B,protospacer_B\n"
        "a|b,G000,P1,a,ACGTACGTACGTACGTACGA,b,CCGTACGTACGTACGTACGA\n"
        "c|d,non-targeting,na,c,GGGTACGTACGTACGTACGA,d,TTGTACGTACGTACGTACGA\n"
    )
    library = read_library(file)
    assert "Replogle" in library.layout
    assert library.dual
    made = panel(candidates=["G000"], batch=1)
    chosen = choose_guides(made, library, per_gene=1)
    assert list(chosen.table["sequence_b"]) == ["CCGTACGTACGTACGTACGA", "TTGTACGTACGTACGTACGA"]
    paths = write_order(chosen, tmp_path / "out", file)
    order = pd.read_csv(paths["order"])
    assert list(order["Name"]) == [
        "G000_g1_A",
        "G000_g1_B",
        "non-targeting_1_A",
        "non-targeting_1_B",
    ]
    assert order["Well Position"].nunique() == 2  # both spacers of an element share a well


def test_any_columns_by_name_and_ranking(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text(
        "wer;was;gut\nG000;ACGTACGTACGTACGTACGA;1\nG000;ACGTACGTACGTACGTACGC;5\n"
        "leer;ACGTACGTACGTACGTACGG;0\n"
    )
    with pytest.raises(InputError, match=r"no layout.*wer, was, gut.*--library-gene"):
        read_library(file)
    columns = LibraryColumns(gene="wer", sequence=("was",), rank="-gut", controls=("leer",))
    library = read_library(file, columns)
    assert list(library.table["sequence_a"]) == ["ACGTACGTACGTACGTACGC", "ACGTACGTACGTACGTACGA"]
    assert len(library.controls) == 1
    with pytest.raises(UnknownNameError, match=r"control label 'leeer'.*leer"):
        read_library(file, LibraryColumns(gene="wer", sequence=("was",), controls=("leeer",)))
    with pytest.raises(UnknownNameError, match="column 'wem'"):
        read_library(file, LibraryColumns(gene="wem", sequence=("was",)))


def test_a_file_of_two_layouts_is_refused_until_the_columns_are_named(tmp_path):
    file = tmp_path / "two.tsv"
    file.write_text(
        "gene\tprotospacer sequence\tTarget Gene Symbol\tsgRNA Target Sequence\n"
        "G000\tACGTACGTACGTACGTACGA\tG001\tACGTACGTACGTACGTACGC\n"
    )
    with pytest.raises(InputError, match=r"two layouts, Horlbeck.*Brunello"):
        read_library(file)
    named = LibraryColumns(gene="gene", sequence=("protospacer sequence",))
    assert list(read_library(file, named).table["gene"]) == ["G000"]


def test_guides_per_gene_controls_and_missing_genes(tmp_path):
    made = panel(batch=4)
    without = made.genes[1]
    short = made.genes[2]
    listed = [g for g in made.genes if g not in (without, short)]
    file = tmp_path / "library.csv"
    body = rows(listed) + rows([short], n=1, start=9)[:1]
    pd.DataFrame(body, columns=["gene", "sequence"]).to_csv(file, index=False)
    chosen = choose_guides(made, read_library(file), per_gene=2, controls=2)
    assert chosen.missing == {without: 0, short: 1}
    counts = chosen.table["gene"].value_counts()
    assert all(counts[g] == 2 for g in listed)
    assert counts["non-targeting"] == 2
    assert any(without in n for n in chosen.notes)
    assert any(f"{short} (1)" in n for n in chosen.notes)
    with pytest.raises(InputError, match="has 3 non-targeting controls and --controls asks for 4"):
        choose_guides(made, read_library(file), controls=4)
    assert sum(choose_guides(made, read_library(file)).table["kind"] == "control") == 3


def test_missing_genes_are_replaced_by_the_next_candidate_with_guides(tmp_path):
    made = panel(batch=2)
    spare = [g for g in made.candidate_table["utility"].sort_values(ascending=False).index
             if g not in made.genes]  # fmt: skip
    # the next in line has no guides either
    file = table(tmp_path / "library.csv", [made.genes[0], spare[1], spare[2]])
    chosen = choose_guides(made, read_library(file), replace_missing=True)
    assert chosen.replaced == {made.genes[1]: spare[1]}
    assert chosen.plan.genes == (made.genes[0], spare[1])
    assert chosen.plan.revision == made.revision + 1
    assert chosen.plan.decisions[-1].by == "pertwise guides"
    assert chosen.missing == {}
    held = amend(made, replace={made.genes[1]: spare[0]}, by="A. Curie", why="mine")
    kept = choose_guides(held, read_library(file), replace_missing=True)
    assert kept.replaced == {}  # what a person chose is told, not taken away
    assert kept.missing == {spare[0]: 0}


def test_genes_are_found_by_id_and_under_former_symbols(tmp_path):
    made = panel(candidates=["G000", "G002"], batch=2)
    picks = [p.model_copy(update={"entrez": "77"}) if p.gene == "G002" else p for p in made.picks]
    made = made.model_copy(update={"picks": picks})
    file = tmp_path / "library.tsv"
    file.write_text(
        "Target Gene ID\tTarget Gene Symbol\tsgRNA Target Sequence\n"
        "5\tOLD000\tACGTACGTACGTACGTACGA\n77\tANCIENT\tACGTACGTACGTACGTACGC\n"
    )
    plain = choose_guides(made, read_library(file), per_gene=1)
    assert plain.missing == {"G000": 0}
    known = choose_guides(made, read_library(file), per_gene=1, knowledge=FakeKnowledge())
    assert known.missing == {}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("ACGTACGTACGNACGTACGT", "'N', which is none of A, C, G, T"),
        ("=cmd|' /C calc'!A0", "none of A, C, G, T"),
        ("ACGTACGT", "8 bases; a spacer has 17 to 25"),
        ("ACGT" * 10, "40 bases"),
        ("", "has no sequence"),
    ],
)
def test_guides_that_cannot_be_ordered_are_named(tmp_path, bad, words):
    made = panel(candidates=["G000"], batch=1)
    file = tmp_path / "library.csv"
    body = [("G000", spacer(1)), ("G000", bad), ("non-targeting", spacer(999))]
    pd.DataFrame(body, columns=["gene", "sequence"]).to_csv(file, index=False)
    with pytest.raises(InputError) as caught:
        choose_guides(made, read_library(file))
    assert words in str(caught.value)
    assert "row 3 (G000)" in str(caught.value)
    assert "--skip-bad-guides" in str(caught.value)
    left = choose_guides(made, read_library(file), skip_bad=True)
    assert sum(left.table["kind"] == "target") == 1
    assert any("1 unusable guides left out" in n for n in left.notes)


def test_repeated_guides_are_named_and_shared_ones_come_last(tmp_path):
    made = panel(candidates=["G000"], batch=1)
    file = tmp_path / "library.csv"
    body = [("G000", spacer(1)), ("G000", spacer(2)), ("G004", spacer(1)), ("G000", spacer(3))]
    pd.DataFrame(body, columns=["gene", "sequence"]).to_csv(file, index=False)
    chosen = choose_guides(made, read_library(file), controls=0)
    assert list(chosen.table["sequence_a"]) == [spacer(2), spacer(3), spacer(1)]
    assert chosen.table["notes"].iloc[2] == "also listed for G004"
    body.append(("G000", spacer(2)))
    pd.DataFrame(body, columns=["gene", "sequence"]).to_csv(file, index=False)
    with pytest.raises(InputError, match=r"row 6 .*repeats row 3"):
        choose_guides(made, read_library(file), controls=0)


def test_cells_that_begin_a_formula_are_escaped(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    made = panel(candidates=["G000"], batch=1)
    file = tmp_path / "library.csv"
    file.write_text(
        "gene,sequence,id\n"
        f'G000,{spacer(1)},"=HYPERLINK(""http://x"")"\n'
        f"G000,{spacer(2)},@sum\nG000,{spacer(3)},+1+2\n"
    )
    chosen = choose_guides(made, read_library(file), controls=0)
    paths = write_order(chosen, tmp_path / "out", file, workbook=True)
    raw = paths["csv"].read_text()
    assert "'=HYPERLINK" in raw
    assert "'@sum" in raw
    assert "'+1+2" in raw
    book = openpyxl.load_workbook(paths["xlsx"])
    assert book.sheetnames == ["guides", "order", "plates"]
    cells = [c for row in book["guides"].iter_rows() for c in row]
    assert not any(c.data_type == "f" for c in cells)
    assert any(str(c.value).startswith("'=HYPERLINK") for c in cells)


def test_a_workbook_is_read_like_a_table(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "read me"
    book.active.append(["This file holds the library"])
    sheet = book.create_sheet("guides")
    sheet.append(["Supplementary table"])
    sheet.append(["gene", "transcript", "protospacer sequence", "selection rank"])
    sheet.append(["G000", "P1", spacer(1), 2])
    sheet.append(["G000", "P1", spacer(2), 1])
    book.save(tmp_path / "library.xlsx")
    library = read_library(tmp_path / "library.xlsx")
    assert "Horlbeck" in library.layout
    assert list(library.table["sequence_a"]) == [spacer(2), spacer(1)]
    assert list(library.table["row"]) == [4, 3]
    (tmp_path / "broken.xlsx").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"broken\.xlsx"):
        read_library(tmp_path / "broken.xlsx")
    with pytest.raises(UnknownNameError, match=r"sheet 'gides'.*guides"):
        read_library(tmp_path / "library.xlsx", LibraryColumns(sheet="gides"))


@pytest.mark.parametrize(("wells", "edges"), list(itertools.product((96, 384), ("fill", "empty"))))
def test_every_item_has_a_well_of_its_own_and_controls_are_spread(wells, edges):
    flags = [False] * 130 + [True] * 14
    places = lay_out(flags, wells, edges)
    assert len({(w.plate, w.row, w.column) for w in places}) == len(flags)
    rows_, columns = {96: (8, 12), 384: (16, 24)}[wells]
    if edges == "empty":
        assert all(0 < w.row < rows_ - 1 and 0 < w.column < columns - 1 for w in places)
    plates = {w.plate for w in places}
    on_plate = [sum(w.plate == p for w, c in zip(places, flags, strict=True) if c) for p in plates]
    assert max(on_plate) - min(on_plate) <= 1
    for p in plates:
        used = [(w.row, w.column) for w in places if w.plate == p]
        own = [(w.row, w.column) for w, c in zip(places, flags, strict=True) if c and w.plate == p]
        middle = sorted(c for _, c in used)[len(used) // 2]
        # both halves of what is used hold controls
        assert any(c < middle for _, c in own)
        assert any(c >= middle for _, c in own)


def test_edges_for_controls_hold_nothing_else():
    places = lay_out([False] * 60 + [True] * 10, 96, "controls")
    assert {w.plate for w in places} == {1}
    outer = [w.row in (0, 7) or w.column in (0, 11) for w in places]
    assert not any(outer[:60])
    assert all(outer[60:])
    with pytest.raises(InputError, match="96 or 384 wells, not 24"):
        lay_out([False], 24)
    with pytest.raises(InputError, match="edge rule"):
        lay_out([False], 96, "some")


def test_annealing_pairs_carry_overhangs_and_the_first_g(tmp_path):
    made = panel(candidates=["G000"], batch=1)
    file = tmp_path / "library.csv"
    file.write_text("gene,sequence\nG000,ACGTACGTACGTACGTACCT\nG000,GCGTACGTACGTACGTACCT\n")
    chosen = choose_guides(made, read_library(file), per_gene=2, controls=0)
    paths = write_order(chosen, tmp_path / "out", file, overhangs=("CACC", "AAAC"))
    order = pd.read_csv(paths["order"]).set_index("Name")["Sequence"]
    assert order["G000_g1_F"] == "CACCGACGTACGTACGTACGTACCT"
    assert order["G000_g1_R"] == "AAACAGGTACGTACGTACGTACGTC"
    assert order["G000_g2_F"] == "CACCGCGTACGTACGTACGTACCT"


def test_commands_order_a_plan_and_an_amended_plan(tmp_path):
    made = panel(batch=2)
    write_plan(made, tmp_path / "round1")
    file = table(tmp_path / "library.csv", GENES)
    run = CliRunner().invoke(
        app, ["guides", str(tmp_path / "round1"), "--library", str(file), "--plate", "384"]
    )
    assert run.exit_code == 0, run.output
    guides = pd.read_csv(tmp_path / "round1" / "guides.csv")
    assert guides["kind"].value_counts().to_dict() == {"target": 6, "control": 3}
    assert set(guides["data"]) == {"simulated"}
    record = json.loads((tmp_path / "round1" / "guides.json").read_text())
    assert record["plan"]["genes"] == list(made.genes)
    assert record["settings"]["wells"] == 384
    grid = pd.read_csv(tmp_path / "round1" / "plates.csv")
    assert len(grid) == 16
    few = table(tmp_path / "few.csv", [g for g in GENES if g != made.genes[0]])
    run = CliRunner().invoke(
        app,
        ["guides", str(tmp_path / "round1"), "--library", str(few), "--replace-missing"],
    )
    assert run.exit_code == 0, run.output
    assert f"replaced {made.genes[0]} by" in run.output
    after = Plan.load(tmp_path / "round1")
    assert after.revision == 2
    assert made.genes[0] not in after.genes
    assert set(pd.read_csv(tmp_path / "round1" / "guides.csv")["pick"].dropna()) == set(after.genes)
