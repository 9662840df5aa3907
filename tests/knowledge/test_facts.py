"""Facts of a user's table, and conditions that are read and never run."""

import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge.facts import FactTable, joined, parse_conditions, read_facts

TABLE = pd.DataFrame(
    {"tpm": [5.0, 0.2, np.nan], "essential": ["yes", "no", None], "log fold": [1.0, -2.0, 0.0]},
    index=["MYC", "KLF1", "GATA1"],
)


def keep(text):
    conditions = parse_conditions(text, TABLE)
    return [n for n in TABLE.index if all(c.holds(TABLE.loc[n, c.column]) for c in conditions)]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_table_is_read_in_three_formats(tmp_path, suffix):
    frame = pd.DataFrame(
        {"Symbol": ["MYC", "KLF1"], "tpm": [12.5, None], "guide ok": [True, False],
         "note": ["strong", " "]}
    )  # fmt: skip
    file = tmp_path / f"f.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(file)
    else:
        frame.to_csv(file, index=False, sep="\t" if suffix == "tsv" else ",")
    facts = read_facts(file)
    assert list(facts.table.index) == ["MYC", "KLF1"]
    assert facts.table.loc["MYC", "tpm"] == 12.5
    assert np.isnan(facts.table.loc["KLF1", "tpm"])
    assert list(facts.table["guide ok"]) == ["yes", "no"]
    assert facts.table.loc["KLF1", "note"] is None
    assert facts.source == file.name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,tpm\nMYC,1\n", r"no column of perturbations .*there are a, tpm"),
        ("gene\nMYC\n", "no fact beside the column 'gene'"),
        ("gene,tpm\nMYC,1\n,2\n", "row 3: no name in the column 'gene'"),
        ("gene,tpm\nMYC,1\nKLF1,1\nMYC,2\n", r"'MYC' stands in several rows \(2, 4\)"),
        ("gene," + ",".join(f"c{i}" for i in range(30)) + "\nMYC" + ",1" * 30, "30 columns"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_row(tmp_path, text, words):
    file = tmp_path / "facts.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        read_facts(file)
    assert "facts.csv" in str(error.value)


def test_another_spelling_of_a_gene_finds_its_facts():
    approved = {"AARS": "AARS1", "AARS1": "AARS1", "MYC": "MYC"}
    table = FactTable(pd.DataFrame({"tpm": [3.0]}, index=["AARS"]))
    found = table.take(["AARS1", "MYC"], approved)
    assert list(found.index) == ["AARS1", "MYC"]
    assert found.loc["AARS1", "tpm"] == 3.0
    assert np.isnan(found.loc["MYC", "tpm"])


def test_two_tables_with_one_fact_are_refused():
    one = FactTable(TABLE[["tpm"]], "a.csv")
    assert list(joined([one, FactTable(TABLE[["essential"]], "b.csv")]).table) == [
        "tpm",
        "essential",
    ]
    with pytest.raises(InputError, match=r"'tpm' stands in a.csv and in b.csv"):
        joined([one, FactTable(TABLE[["tpm"]], "b.csv")])
    assert joined([]) is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("tpm > 1", ["MYC"]),
        ("tpm>=0.2", ["MYC", "KLF1"]),
        ("TPM < 1 and essential = NO", ["KLF1"]),
        ("essential != yes", ["KLF1"]),
        ("'log fold' <= 0", ["KLF1", "GATA1"]),
        ("log fold == -2", ["KLF1"]),
    ],
)
def test_conditions_keep_whom_they_should_and_no_one_without_the_fact(text, names):
    assert keep(text) == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tpm", "'tpm' is no comparison"),
        ("tpm > 1 and", "'' is no comparison"),
        ("> 1", "is no comparison"),
        ("tpm > high", "'tpm' holds numbers, 'high' is none"),
        ("tpm < nan", "'nan' is none"),
        ("essential > 1", "'essential' holds text .* takes = or !="),
        ("'tpm > 1", "a quote ' is not closed"),
        ("__import__('os').system('x') > 1", "unknown fact"),
        ("tpm > 1 or tpm < 0", "is none"),
    ],
)
def test_anything_else_is_an_error_in_words(text, words):
    with pytest.raises(InputError, match=words):
        parse_conditions(text, TABLE)


def test_a_misspelt_fact_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="tpm"):
        parse_conditions("tpn > 1", TABLE)


def test_a_hostile_condition_costs_linear_time():
    with pytest.raises(InputError):
        parse_conditions("and " * 50_000 + "=" * 50_000, TABLE)
