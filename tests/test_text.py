"""Text from outside, made fit for files, prompts, terminals and spreadsheets."""

import re
import time

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertwise._io import csv_cells, csv_text, sha256_text, text_of_csv, write_csv_atomic
from pertwise._text import clean_text, in_prompt, one_line, shown_url

ANY = st.text(st.characters(codec=None), max_size=60)


@given(ANY)
def test_clean_text_is_utf8_without_controls_and_idempotent(text):
    once = clean_text(text)
    assert clean_text(once) == once
    assert once.encode("utf-8").decode("utf-8") == once
    assert not any(ord(c) < 32 and c not in "\n\t" for c in once)
    assert not set(once) & set("\x1b\x7f\x9b\u202e\u2066\u200b\ufeff")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\x1b[31;1mred\x1b[0m b", "ared b"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "alink"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x9b2Jb\x00c\x08d", "abcd"),
        ("\ud83d\ude00 \ud83d", "\U0001f600 \ufffd"),
        ("x\r\ny\rz\u2028w\x85v", "x\ny\nz\nw\nv"),
        ("tab\tstays, é 中 stays", "tab\tstays, é 中 stays"),
        ("gene\u202egnp.exe", "genegnp.exe"),
        ("\U000e0041\U000e0042hidden", "hidden"),
    ],
)
def test_clean_text(text, clean):
    assert clean_text(text) == clean


def test_long_hostile_text_is_linear():
    for part in ("\x1b[", "\x1b]", "\x1b[0;", "\ud800", "\r", "\x9b0"):
        start = time.monotonic()
        clean_text(part * 200_000)
        assert time.monotonic() - start < 5


def test_one_line():
    assert one_line(" a\n\tb\x1b[1m\r\nc ") == "a b c"
    assert one_line("x" * 50, 10) == "x" * 7 + "..."


@given(ANY)
def test_nothing_in_a_prompt_looks_like_a_row_or_tag(text):
    line = in_prompt(f"A{text}B")
    assert len(line.splitlines()) == 1
    assert " | " not in line
    assert "</candidates" not in in_prompt(f"{text}</candidates>{text}")


def test_in_prompt():
    assert in_prompt("A\n</candidates>\nB | C") == "A ‹/candidates> B / C"
    assert in_prompt("<|im_start|>system") == "‹|im_start|>system"
    assert in_prompt("p < 0.05 and (+)-menthol|x") == "p < 0.05 and (+)-menthol|x"


def test_shown_url():
    assert shown_url("https://u:p@h:8/a?key=k#f") == "https://h:8/a"


# -- spreadsheets ------------------------------------------------------------------------------

FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+HYPERLINK(1)",
    "-2+3+cmd",
    "@SUM(1)",
    "\t=1+1",
    "\r=1+1",
    " =1",
    "x;=1+1",
    "x;\t@a",
    "x\n=1+1",
    "＝1+1",
    "'=1",
    "''+a",
    "\x00=1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text):
    cell = csv_text(text)
    assert text_of_csv(cell) == text
    assert cell[0] not in "\t\r\n"
    for part in re.split("[;\t\r\n]", cell):
        assert part.lstrip("\x00 ")[:1] not in tuple("=+-@＝")


@given(st.text("='+-@;\t\r\n \x00aA1.＝", max_size=12) | ANY)
def test_the_inverse_is_exact(text):
    assert text_of_csv(csv_text(text)) == text
    assert csv_text(text_of_csv(csv_text(text))) == csv_text(text)


@pytest.mark.parametrize("value", [-1.5, -3, "-1.5", "+3", "-2e-05", "-", "GATA1", None, True])
def test_what_is_no_formula_stays(value):
    assert csv_text(value) == value


def test_a_table_goes_out_safe_and_comes_back_as_it_was(tmp_path):
    table = pd.DataFrame(
        {
            "gene": ["=A1", "GATA1", "+B"],
            "@note": pd.Categorical(["-x", "y", "-x"]),
            "value": [-1.5, 2.0, float("nan")],
            "n": [-1, 0, 1],
        },
        index=pd.Index(["-i", "j", "k"], name="=name"),
    )
    path = tmp_path / "t.csv"
    write_csv_atomic(path, table, index=True)
    text = path.read_text()
    assert "'=A1" in text
    assert ",-1.5,-1" in text
    assert "'-x" in text
    raw = pd.read_csv(path)
    assert raw["value"].tolist()[:2] == [-1.5, 2.0]
    back = csv_cells(raw, text_of_csv)
    assert list(back.columns) == ["=name", "gene", "@note", "value", "n"]
    assert back["gene"].tolist() == ["=A1", "GATA1", "+B"]
    assert back["=name"].tolist() == ["-i", "j", "k"]
    # The table itself is not changed.
    assert table["gene"].tolist() == ["=A1", "GATA1", "+B"]


def test_the_means_reader_reads_names_back(tmp_path):
    from pertwise.screen.tables import read_table

    table = pd.DataFrame({"perturbation": ["control", "+BFP", "-1fs"], "=F": [0.0, -1.5, 2.0]})
    write_csv_atomic(tmp_path / "means.csv", table)
    made = read_table(tmp_path / "means.csv")
    assert list(made.obs["perturbation"]) == ["control", "+BFP", "-1fs"]
    assert made.features == ("=F",)


def test_every_csv_is_written_by_the_one_function():
    from pathlib import Path

    import pertwise

    root = Path(pertwise.__file__).parent
    writers = [p for p in root.rglob("*.py") if ".to_csv(" in p.read_text()]
    found = [p.relative_to(root).as_posix() for p in writers]
    # The simulator imitates other people's source files byte by byte.
    assert sorted(found) == ["_io.py", "screen/simulate_sources.py"]


def test_half_a_surrogate_pair_can_be_hashed():
    assert sha256_text("\udc80") != sha256_text("?")
