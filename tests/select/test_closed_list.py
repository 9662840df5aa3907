"""Validation against a closed list, by hand and as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertwise.select.closed_list import ClosedList

GENES = ["MYC", "MAX", "HLA-A", "NKX2-1", "AARS", "TP53"]
APPROVED = {"AARS": "AARS1", "AARS1": "AARS1", "P53": "TP53", "TP53": "TP53", "TTF1": "NKX2-1"}


def resolve(names):
    return {n: APPROVED[n] for n in names if n in APPROVED}


@pytest.mark.parametrize(
    ("name", "entry", "how"),
    [
        ("MYC", "MYC", ""),
        ("myc", "MYC", "case"),
        ("HLAA", "HLA-A", "case"),
        ("hla a", "HLA-A", "case"),
        ("1. MYC", "MYC", "case"),
        ("(2) MYC", "MYC", "case"),
        ("- MYC", "MYC", "case"),
        ('"MYC"', "MYC", "case"),
        ("**MYC**", "MYC", "case"),
        ("MYC (proto-oncogene)", "MYC", "case"),
        ("MYC: a factor", "MYC", "case"),
        ("AARS1", "AARS", "alias"),
        ("P53", "TP53", "alias"),
        ("TTF1", "NKX2-1", "alias"),
        ("TTF1 (thyroid)", "NKX2-1", "alias"),
        ("MYCN", None, "out_of_list"),
        ("M", None, "out_of_list"),
        ("", None, "out_of_list"),
        ("MYC or MAX", None, "out_of_list"),
    ],
)
def test_match(name, entry, how):
    assert ClosedList(GENES, resolve).match(name) == (entry, how)


def test_names_that_could_mean_two_match_none():
    listed = ClosedList(["Abc", "aBC", "MT-1", "MT1"])
    assert listed.match("ABC") == (None, "out_of_list")
    assert listed.match("Abc") == ("Abc", "")
    assert listed.match("mt1") == (None, "out_of_list")
    same_gene = ClosedList(["AARS", "AARS1"], lambda n: dict.fromkeys(n, "AARS1"))
    assert same_gene.match("XX") == (None, "out_of_list")


def test_the_query_is_gone_under_every_name():
    listed = ClosedList(GENES, resolve, subject="AARS1")
    assert listed.excluded == ("AARS",)
    for name in ("AARS1", "aars1", "AARS", "AARS1 (tRNA ligase)"):
        assert listed.match(name) == (None, "query_itself")


def test_drug_names_with_brackets():
    listed = ClosedList(["ABT-199 (GDC-0199)", "ABT737", "AMD-070 (hydrochloride)"])
    assert listed.match("ABT-199 (GDC-0199)")[1] == ""
    assert listed.match("abt 199 (gdc 0199)") == ("ABT-199 (GDC-0199)", "case")
    assert listed.match("ABT-737") == ("ABT737", "case")
    assert listed.match("ABT-199") == (None, "out_of_list")


def test_check_by_hand():
    proposal = ["myc", "MAX", "FOO", "MAX", "AARS1", "TP53", "HLA-A"]
    checked = ClosedList(GENES, resolve).check(proposal, n_min=3, n_max=4)
    assert checked.items == ("MYC", "MAX", "AARS", "TP53")
    assert checked.positions == (0, 1, 4, 5)
    kinds = [(r.kind, r.item) for r in checked.repairs]
    assert kinds == [
        ("case", "myc"),
        ("out_of_list", "FOO"),
        ("duplicate", "MAX"),
        ("alias", "AARS1"),
        ("too_many", "HLA-A"),
    ]
    assert checked.problem == ""


def test_the_problem_names_everything():
    checked = ClosedList(GENES, resolve, "TP53").check(
        ["FOO", "MAX", "MAX", "P53"], n_min=2, n_max=5
    )
    assert checked.problem == (
        "between 2 and 5 valid names are needed, but of the 4 you named only 1 can be used; not "
        "in the list: FOO; named more than once: MAX; that is the query itself: P53"
    )


names = st.text(alphabet="ABab1-_ .()", max_size=6)


@given(
    st.lists(names.filter(str.strip), unique=True, min_size=1, max_size=12),
    st.lists(names, max_size=15),
    st.integers(1, 6),
)
def test_whatever_is_proposed(candidates, proposal, n):
    listed = ClosedList(candidates, subject=candidates[0])
    checked = listed.check(proposal, n_min=n, n_max=n)
    assert set(checked.items) <= set(candidates[1:])
    assert len(set(checked.items)) == len(checked.items) <= n
    assert len(checked.items) == len(checked.positions)
    # Everything proposed is either kept or accounted for.
    dropped = sum(r.action.startswith("dropped") for r in checked.repairs)
    assert dropped + len(checked.items) == len(proposal)
    assert bool(checked.problem) == (len(checked.items) < n)
    # Names that stand in the list exactly are never misread.
    for position, item in zip(checked.positions, checked.items, strict=True):
        if proposal[position] in candidates:
            assert proposal[position] == item
