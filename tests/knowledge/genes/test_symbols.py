"""Names to approved symbols."""

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from pertwise.knowledge.genes.symbols import SymbolIndex

TABLE = pd.DataFrame(
    [
        ("AAA1", "AAA1", "approved"),
        ("BBB1", "BBB1", "approved"),
        ("C1orf1", "C1orf1", "approved"),
        ("OLD", "AAA1", "previous"),
        ("BBB1", "AAA1", "alias"),
        ("TWO", "AAA1", "alias"),
        ("TWO", "BBB1", "previous"),
        ("Mixed", "AAA1", "alias"),
        ("MIXED", "BBB1", "alias"),
    ],
    columns=["name", "approved", "kind"],
)
INDEX = SymbolIndex.from_table(TABLE)


def test_trust_goes_approved_then_alias_then_case():
    resolution = INDEX.resolve(["BBB1", "bbb1", "old", "TWO", "Mixed", "mixed", "c1ORF1", " AAA1 "])
    assert resolution.approved == {
        "BBB1": "BBB1",
        "bbb1": "BBB1",
        "old": "AAA1",
        "Mixed": "AAA1",
        "c1ORF1": "C1orf1",
        " AAA1 ": "AAA1",
    }
    assert resolution.ambiguous == {"TWO": ("AAA1", "BBB1"), "mixed": ("AAA1", "BBB1")}
    assert resolution.unknown == ()


@given(st.lists(st.sampled_from([*TABLE["name"], "nope", "", "aaa1", "ENSG00000000001"])))
def test_every_name_lands_in_exactly_one_place_and_order_does_not_matter(names):
    one, other = INDEX.resolve(names), INDEX.resolve(names[::-1])
    for name in names:
        assert (name in one.approved) + (name in one.ambiguous) + (name in one.unknown) == 1
    assert one.approved == other.approved
    assert one.ambiguous == other.ambiguous
    assert set(one.unknown) == set(other.unknown)
    assert set(one.approved.values()) <= INDEX.approved


@given(st.sampled_from(sorted(INDEX.approved)), st.randoms())
def test_letter_case_of_an_approved_symbol_is_free(symbol, random):
    name = "".join(random.choice((c.lower(), c.upper())) for c in symbol)
    assert INDEX.resolve([name]).approved == {name: symbol}
