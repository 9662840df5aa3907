"""Which plus sign joins two perturbations, and which belongs to a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertwise._names import canonical_perturbation, genes_of, is_combination, split_combination


@pytest.mark.parametrize(
    "name",
    [
        "Nutlin (+)",
        "R-(+)-verapamil",
        "(+)-SKF 10047",
        "bupivacaine-(+|-)",
        "tramadol [+]",
        "Ca2+ ionophore",
        "Na+/K+ pump blocker",
        "NAD+",
        "GENE_+_1234.5-P1P2",
        "nitrendipine (+/-)",
        "open (+ bracket",
    ],
)
def test_a_plus_of_the_name_separates_nothing(name):
    assert split_combination(name) == [name]
    assert canonical_perturbation(f"  {name} ") == name


def test_combinations_are_sorted_and_stripped():
    assert canonical_perturbation("TAL1 + LMO2+GATA1") == "GATA1+LMO2+TAL1"
    assert canonical_perturbation("(+)-A + B (+)") == "(+)-A+B (+)"
    assert genes_of(["B+A", "C", "A"]) == ["B", "A", "C"]
    assert is_combination("NADP+GATA1")


@given(st.text(alphabet="aB1+-()[] /_'Ca2", max_size=14))
def test_canonical_form_is_a_fixed_point(name):
    once = canonical_perturbation(name)
    assert canonical_perturbation(once) == once
    assert canonical_perturbation("+".join(reversed(split_combination(once)))) == once


def test_combinations_that_contain_what_is_held_out():
    from pertwise._names import with_parts_of

    names = ["A", "B", "A+B", "B+C", "A+B+C", "C+D"]
    assert with_parts_of(names, ["A"]) == {"A+B", "A+B+C"}
    assert with_parts_of(names, ["A+B"]) == {"A+B+C"}
    assert with_parts_of(names, ["B", "D"]) == {"A+B", "B+C", "A+B+C", "C+D"}
    assert with_parts_of(names, []) == set()
