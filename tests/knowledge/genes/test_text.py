"""One sentence of at most 20 words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertwise.knowledge.genes.text import one_sentence, sentences, strip_attribution, tidy


def test_attribution_and_cut_marks_are_stripped():
    text = "Does a thing (PubMed 123). [provided by RefSeq, Jul 2008]"
    assert strip_attribution(text) == "Does a thing."
    assert strip_attribution("Acts as a trans [...] ") == "Acts as a trans"


def test_abbreviations_do_not_end_a_sentence():
    text = "It is like E. coli RecA, e.g. Binds DNA. Second one."
    assert sentences(text) == ["It is like E. coli RecA, e.g. Binds DNA.", "Second one."]


def test_function_wins_over_family_splicing_and_disease():
    refseq = (
        "This gene encodes a member of the widget family. Alternatively spliced transcript "
        "variants have been described. Mutations in this gene cause widget disease. The encoded "
        "protein catalyzes the first step of widget synthesis in mitochondria."
    )
    assert one_sentence(refseq) == ("Catalyzes the first step of widget synthesis in mitochondria.")


def test_uniprot_function_is_preferred_and_its_name_dropped():
    text = "Widgetase; Catalyzes the folding of widgets (By similarity). Belongs to the W family."
    assert one_sentence("", text) == "Catalyzes the folding of widgets."


def test_long_sentences_are_cut_at_a_clause():
    words = " ".join(f"w{i}" for i in range(14))
    text = tidy(f"Catalyzes {words}, which then leads to many more words that nobody reads here.")
    assert text == f"Catalyzes {words}."


def test_a_nucleotide_pattern_in_brackets_is_kept():
    assert tidy("Binds the site 5'-CAC[GA]TG-3' of promoters.") == (
        "Binds the site 5'-CAC[GA]TG-3' of promoters."
    )


def test_without_text_the_name_is_the_answer():
    assert one_sentence("", "", "widget domain containing 1") == "Widget domain containing 1."
    assert one_sentence("", "", "") == ""


@pytest.mark.parametrize("limit", [5, 20])
@given(
    st.text(alphabet="abcAB ,.;()[]-'", max_size=300),
    st.text(alphabet="abcAB ,.;()", max_size=200),
    st.text(max_size=30),
)
def test_never_longer_than_asked_and_never_fails(limit, refseq, annotation, name):
    assert len(one_sentence(refseq, annotation, name, limit).split()) <= limit
