"""Tables as spreadsheets, pandas, R and tools of differential expression write them."""

import gzip

import numpy as np
import pandas as pd
import pytest

from pertwise._tables import read_frame
from pertwise.errors import InputError
from pertwise.screen import read_screen
from pertwise.screen.cells import open_cells
from pertwise.screen.info import describe_screen

FRAME = pd.DataFrame(
    {"perturbation": ["ctrl", "KLF1", "MYB"], "F1": [0.0, 0.5, -1.5], "F2": [0.0, 2.25, 3.0]}
)
DELTAS = np.array([[0.5, 2.25], [-1.5, 3.0]], dtype=np.float32)


def check(path):
    screen = read_screen(path)
    assert screen.features == ("F1", "F2")
    assert screen.perturbations == ("KLF1", "MYB")
    np.testing.assert_array_equal(screen.responses, DELTAS)
    return " ".join(screen.meta["notes"])


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.csv.gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_encodings(tmp_path, separator, name, encoding):
    text = FRAME.to_csv(index=False, sep=separator).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    check(tmp_path / name)


def test_decimal_comma(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False, sep=";", decimal=",")
    assert "decimal comma" in check(tmp_path / "t.csv")


@pytest.mark.parametrize("rows", [[0, 1, 2], [4, 7, 9]])
def test_row_numbers_of_to_csv(tmp_path, rows):
    FRAME.set_axis(rows).to_csv(tmp_path / "t.csv")
    assert "row numbers" in check(tmp_path / "t.csv")
    pd.read_csv(tmp_path / "t.csv").to_csv(tmp_path / "twice.csv")
    check(tmp_path / "twice.csv")
    FRAME.set_axis(rows).to_parquet(tmp_path / "t.parquet")
    check(tmp_path / "t.parquet")


def test_names_as_row_names_of_r(tmp_path):
    lines = FRAME.to_csv(index=False, sep="\t").splitlines()
    text = "\n".join([lines[0].removeprefix("perturbation\t"), *lines[1:]])
    (tmp_path / "t.tsv").write_text(text)
    check(tmp_path / "t.tsv")


ABOUT = """n_counts nCount_RNA nFeature_RNA total_counts n_genes n_genes_by_counts pct_counts_mt
    percent.mt percent_mito log1p_total_counts doublet_score S_score leiden size_factor n_cells
    z_gemgroup_UMI core_scale_factor core_adjusted_UMI_count guide_umi"""


def test_columns_that_describe_the_row(tmp_path):
    wide = FRAME.assign(**{name: [10, 20, 30] for name in ABOUT.split()})
    wide.to_csv(tmp_path / "t.csv", index=False)
    assert "pct_counts_mt" in check(tmp_path / "t.csv")
    assert describe_screen(tmp_path / "t.csv").first_features == ("F1", "F2")
    wide.to_parquet(tmp_path / "cells.parquet")
    with open_cells(tmp_path / "cells.parquet") as file:
        assert file.features == ("F1", "F2")


def test_a_copy_that_broke_off(tmp_path):
    whole = FRAME.to_csv(index=False)
    (tmp_path / "t.csv").write_text(whole[:-7])
    with pytest.raises(InputError, match="ends in the middle of a row"):
        read_screen(tmp_path / "t.csv")


def long(**names):
    table = pd.DataFrame(
        {
            "who": ["KLF1", "KLF1", "MYB", "MYB"],
            "gene": ["F1", "F2", "F1", "F2"],
            "effect": [0.5, 2.25, -1.5, 3.0],
            "p": [0.1, 0.2, 0.3, 0.4],
        }
    )
    return table.rename(columns=names)


@pytest.mark.parametrize(
    "names",
    [
        {"who": "contrast", "effect": "log2FoldChange", "p": "padj"},
        {"who": "group", "gene": "names", "effect": "logfoldchanges", "p": "pvals_adj"},
        {"who": "perturbation", "effect": "logFC", "p": "FDR"},
        {"who": "cluster", "effect": "avg_log2FC", "p": "p_val_adj"},
        {"who": "comparison", "effect": "logFC", "p": "adj.P.Val"},
        {"who": "coef", "gene": "ID", "effect": "logFC", "p": "P.Value"},
        {
            "who": "grna_target",
            "gene": "response_id",
            "effect": "log_2_fold_change",
            "p": "p_value",
        },
        {"who": "contrast", "gene": "variable", "effect": "log_fc", "p": "adj_p_value"},
        {"who": "perturbation", "gene": "primerid", "effect": "coef", "p": "fdr"},
    ],
)
def test_tables_of_de_tools_are_pivoted(tmp_path, names):
    table = long(**names).assign(baseMean=7.0, stat=1.0)
    table.to_csv(tmp_path / "t.csv", index=False)
    assert "differential" in check(tmp_path / "t.csv") or names


@pytest.mark.parametrize(
    "form",
    [
        "{}_vs_ctrl",
        "{} vs control",
        "condition_{}_vs_NT",
        "{}-NTC",
        "{} - non-targeting",
        "{}/DMSO",
    ],
)
def test_a_contrast_with_a_control_is_the_perturbation(tmp_path, form):
    table = long(who="contrast", effect="log2FoldChange", p="padj").assign(lfcSE=0.1)
    table["contrast"] = table["contrast"].map(form.format)
    table.to_csv(tmp_path / "t.csv", index=False)
    assert "contrasts with a control" in check(tmp_path / "t.csv")


def test_a_contrast_of_two_perturbations_stays_one(tmp_path):
    table = long(who="contrast", effect="log2FoldChange", p="padj")
    table["contrast"] += "_vs_TAL1"
    table.to_csv(tmp_path / "t.csv", index=False)
    assert read_screen(tmp_path / "t.csv").perturbations == ("KLF1_vs_TAL1", "MYB_vs_TAL1")


@pytest.mark.parametrize("who", ["drug", "compound", "treatment", "gene_perturbed", "pert"])
def test_beside_another_name_the_gene_is_what_was_measured(tmp_path, who):
    long(who=who, effect="value").drop(columns="p").to_csv(tmp_path / "t.csv", index=False)
    check(tmp_path / "t.csv")


def test_blanks_of_r_and_comments(tmp_path):
    lines = [line.replace(",", " ") for line in FRAME.to_csv(index=False, quoting=2).splitlines()]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    check(tmp_path / "t.txt")
    rows = "\n".join([lines[0].removeprefix('"perturbation" '), *lines[1:]])
    (tmp_path / "t.txt").write_text(rows)
    check(tmp_path / "t.txt")
    (tmp_path / "t.csv").write_text("# made by a tool, 2024\n#\n" + FRAME.to_csv(index=False))
    check(tmp_path / "t.csv")
    text = "#" + FRAME.to_csv(index=False, sep="\t")
    (tmp_path / "t.tsv").write_text(text)
    assert read_screen(tmp_path / "t.tsv", values="means").perturbations == ("KLF1", "MYB")


def test_blanks_within_names_separate_nothing(tmp_path):
    text = "drug name\nacetylsalicylic acid\nvitamin C 2\n"
    (tmp_path / "t.txt").write_text(text)
    assert read_frame(tmp_path / "t.txt")["drug name"].tolist() == text.splitlines()[1:]


def test_de_tables_that_lack_something(tmp_path):
    path = tmp_path / "t.csv"
    one = long(effect="log2FoldChange", p="padj").drop(columns="who").iloc[:2]
    one.to_csv(path, index=False)
    with pytest.raises(InputError, match="of one comparison"):
        read_screen(path)
    one.set_index("gene").to_csv(path, index_label=False)
    with pytest.raises(InputError, match="of one comparison"):
        read_screen(path)
    long(who="group", effect="mean", p="pvalue").to_csv(path, index=False)
    with pytest.raises(InputError, match="no column of log fold changes"):
        read_screen(path)
    pd.DataFrame({"id": ["A"], "num": [4], "neg|score": [0.1], "neg|lfc": [-1.0]}).to_csv(
        path, index=False
    )
    with pytest.raises(InputError, match="MAGeCK"):
        read_screen(path)
    long(who="pert").assign(score=1.0, z=2.0).drop(columns="p").to_csv(path, index=False)
    with pytest.raises(InputError, match="columns of values"):
        read_screen(path)


def test_guides_in_a_table_are_averaged_to_genes(tmp_path):
    table = pd.DataFrame({"perturbation": ["ctrl", "KLF1_sg1", "KLF1_sg2"], "F": [0.0, 1, 3]})
    table.to_csv(tmp_path / "t.csv", index=False)
    screen = read_screen(tmp_path / "t.csv", values="deltas")
    assert screen.perturbations == ("KLF1",)
    np.testing.assert_allclose(screen.responses, [[2.0]])
    assert len(read_screen(tmp_path / "t.csv", values="deltas", labels="as-is")) == 2


HEAD = "perturbation,F1,F2\nctrl,0,0\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # Two columns of three would have been left out without a word.
        (HEAD + 'KLF1,"1,234.5",2\nMYB,"2,000.0",1\n', "F1': '1,234.5' is not a number"),
        (HEAD + "KLF1,.,2\nMYB,-,1\n", "F1': '.' is not a number"),
        (HEAD + "KLF1,12%,2\nMYB,7%,1\n", "'12%' is not a number"),
        ("perturbation;F1\nctrl;0\nKLF1;1.234,5\nMYB;2,5\n", "'1.234,5' is not a number"),
        # pandas fills up what is missing, or takes the first field for a row name and shifts.
        (HEAD + "KLF1,1.5\nMYB,-1,2\n", "line 3 has 2 of 3 fields"),
        (HEAD.replace("0\n", "0,\n") + "KLF1,1,2,\nMYB,3,4,\n", "one field more than the header"),
        # Genes as rows.
        ("gene,control,KLF1,MYB\nF1,0,.5,-1.5\nF2,0,2.25,3\n", "turn the table round"),
        (",NT,KLF1,MYB\nF1,1.5,.5,-1.5\nF2,2,2.25,3\n", "turn the table round"),
    ],
)
def test_what_would_be_misread_is_refused(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_screen(tmp_path / "t.csv")
    assert "t.csv" in str(caught.value)


def test_words_are_said_to_be_left_out_and_reporters_may_be_measured(tmp_path):
    text = "perturbation,F1,F2,who\nctrl,0,0,x\nKLF1,0.5,2.25,y\nMYB,-1.5,3,z 3\n"
    (tmp_path / "t.csv").write_text(text)
    assert "columns of words, not features: who" in check(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("perturbation,F1,EGFP\nKLF1,0.5,2.25\nMYB,-1.5,3\n")
    assert read_screen(tmp_path / "t.csv").features == ("F1", "EGFP")


def test_text_of_another_encoding_and_packed_text_without_its_ending_are_named(tmp_path):
    (tmp_path / "t.csv").write_bytes((HEAD + "KLF1é,1,2\n").encode("latin-1"))
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 0xe9\); save it as UTF-8"):
        read_screen(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(gzip.compress(HEAD.encode()))
    with pytest.raises(InputError, match=r"it is gzipped; name it t\.csv\.gz"):
        read_screen(tmp_path / "t.csv")


def test_a_power_of_ten_is_no_combination(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + "2.31E+13,1,-2\nMYB,3,4\n")
    assert read_screen(tmp_path / "t.csv").perturbations == ("2.31E+13", "MYB")
