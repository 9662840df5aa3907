"""Programs and how far two sets of marks agree."""

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError
from pertwise.knowledge.agreement import agreement, agreement_of, low_agreement
from pertwise.knowledge.programs import (
    checked_programs,
    distinct_keys,
    feature_programs,
    general_programs,
    pathway_programs,
    program_table,
    programs_for,
    read_programs,
    short_key,
    write_programs,
)
from pertwise.knowledge.ratings import Ratings, read_ratings

LINES = ("K562", "RPE1", "HepG2", "Jurkat")


@pytest.mark.parametrize("kind", ["genes", "drugs"])
def test_general_programs_say_what_plus_means(kind):
    programs = checked_programs(general_programs(kind))
    assert programs[-1].name == "strength"
    assert not programs[-1].signed
    for program in programs[:-1]:
        assert program.definition
        assert len(program.up) >= 4, f"{program.name}: name genes that rise"
        assert not set(program.up) & set(program.down)
        assert "rise" in program.plus
    for one, other in combinations(programs[:-1], 2):
        if not (one.contexts or other.contexts):
            assert not {*one.up, *one.down} & {*other.up, *other.down} - {"MCL1"}, (one, other)


def test_each_described_line_has_its_lineage_and_no_other():
    programs = general_programs("genes")
    found = {line: [p.name for p in programs_for(programs, line) if p.contexts] for line in LINES}
    assert [len(v) for v in found.values()] == [1, 1, 1, 1]
    assert found["K562"] == ["erythroid differentiation"]
    assert len({v[0] for v in found.values()}) == 4
    assert programs_for(programs, "k-562") == programs_for(programs, "K562")
    assert [p for p in programs_for(programs, "A549") if p.contexts] == []
    assert len(programs_for(programs, "K562")) == 16
    assert len(general_programs("drugs")) == 20


def test_a_table_of_programs_comes_back_as_written(tmp_path):
    programs = general_programs("drugs")
    write_programs(tmp_path / "p.csv", programs)
    assert read_programs(tmp_path / "p.csv") == programs
    rows = program_table(programs).to_dict("records")
    (tmp_path / "p.json").write_text(json.dumps({"programs": rows}))
    assert read_programs(tmp_path / "p.json") == programs


def test_a_table_by_hand_may_leave_out_what_can_be_made(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("name;definition;up;signed\nMy program;what it is;MYC, NPM1;\nload;size;;no\n")
    mine, load, strength = read_programs(file)
    assert (mine.key, mine.up, mine.signed) == ("my_program", ("MYC", "NPM1"), True)
    assert (load.signed, load.low, strength.name) == (False, 0.0, "strength")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,up\nA,B\n", "p.csv: a table of programs has the columns"),
        ("name,definition\nA,\n", "program 'A' has no definition"),
        ("name,definition\n,x\n", "program 1 has no name"),
        ("name,definition\nA,x\na,y\n", "name or key in common"),
        ("name,definition\ncontext,x\n", "'context' cannot be"),
        ("name,definition\nA spread,x\n", "'A spread' cannot be"),
        ("key,name,definition\na|b,A,x\n", "no short word"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=message.replace("|", "\\|")):
        read_programs(tmp_path / "p.csv")


def test_keys_are_short_and_apart():
    assert short_key("10-unfolded protein response and mTORC1 signaling") == "unfolded_protein"
    assert short_key("name") == "name_"
    assert short_key("---") == "program"
    names = ["18-cell cycle", "20-cell cycle", "cell_cycle"]
    programs = distinct_keys(feature_programs(names, pd.DataFrame()))
    assert [p.name for p in programs] == names
    assert len(checked_programs(programs)) == 4


def test_features_take_their_genes_from_the_table_of_features():
    table = pd.DataFrame(
        {"markers": ["HBG1 HBG2", None], "down": ["SPI1", ""], "definition": ["globins", None]},
        index=["erythroid", "other"],
    )
    first, second = feature_programs(["erythroid", "other"], table)
    assert (first.up, first.down) == (("HBG1", "HBG2"), ("SPI1",))
    assert first.plus == "HBG1, HBG2 rise; SPI1 fall"
    assert first.definition == "globins"
    assert second.plus == ""


def test_pathways_show_some_of_their_genes(simulated):
    _, knowledge = simulated
    name = knowledge.pathway_names()[0]
    (program,) = pathway_programs(knowledge, [name])
    members = set(knowledge.pathway(name).members)
    assert program.name == name
    assert 0 < len(program.up) <= 12
    assert set(program.up) <= members


# -- agreement -------------------------------------------------------------------------------


def ratings(marks, programs=("a", "b", "strength"), names="ABCDE", source="x"):
    return Ratings.from_marks(list(names), list(programs), np.array(marks, float), source=source)


ONE = [[0, 1, 0], [1, 1, 1], [2, 1, 2], [3, 1, 3], [-1, 1, 0]]


def test_agreement_is_a_rank_correlation_over_what_both_marked():
    other = [[0, 0, 3], [2, 1, 2], [2.5, 2, 1], [np.nan, 3, 0], [-3, 0, 3]]
    table = agreement(ratings(ONE), ratings(other)).set_index("program")
    # a: ranks 2 3 4 1 in both; b: one of the two is constant; strength: exactly opposite.
    assert table["n"].to_dict() == {"a": 4, "b": 5, "strength": 5}
    assert table.loc["a", "spearman"] == pytest.approx(1)
    assert table.loc["b", "spearman"] == 0
    assert table.loc["strength", "spearman"] == pytest.approx(-1)
    assert table.loc["a", "mean_difference"] == pytest.approx((0 + 1 + 0.5 - 2) / 4)
    assert table.loc["a", "mean_absolute_difference"] == pytest.approx(3.5 / 4)


def test_programs_and_names_are_matched_by_name():
    other = ratings([[3, 0], [2, 0], [1, 1]], ["strength", "c"], "EDC")
    table = agreement(ratings(ONE), other)
    assert table["program"].tolist() == ["strength"]
    assert table["n"].tolist() == [3]
    with pytest.raises(InputError, match="share no program"):
        agreement(ratings(ONE), ratings([[1]], ["z"], "A"))
    with pytest.raises(InputError, match="share no perturbation"):
        agreement(ratings(ONE), ratings([[1]], ["a"], "Z"))


def test_too_few_or_no_variation_says_nothing():
    few = agreement(ratings([[0, 1, 0], [1, 2, 3]], names="AB"), ratings(ONE))
    assert few["spearman"].isna().all()
    same = agreement(ratings(np.ones((5, 3))), ratings(np.ones((5, 3))))
    assert same["spearman"].isna().all()
    assert low_agreement(same, 0.5) == []


def test_replicates_agree_by_the_mean_over_pairs():
    flipped = np.array(ONE, float) * [-1, 1, 1]
    table = agreement_of([ratings(ONE), ratings(ONE), ratings(flipped)]).set_index("program")
    assert table.loc["a", "spearman"] == pytest.approx((1 - 1 - 1) / 3)
    assert table.loc["strength", "spearman"] == pytest.approx(1)
    assert low_agreement(table.reset_index(), 0.5) == ["a"]
    assert agreement_of([ratings(ONE)]).empty


def test_recorded_instances_took_opposite_signs_for_the_ribosome(shared_data):
    """The two askings of one model that this guards against (Spearman as in their README)."""
    folder = shared_data / "llm"
    pairs = {"k562": (0.92, 0.95, -0.45), "rpe1": (0.91, 0.90, -0.41)}
    for line, expected in pairs.items():
        (first,) = read_ratings(folder / f"ratings_{line}.csv.gz")
        (second,) = read_ratings(folder / f"ratings_{line}_second.csv.gz")
        table = agreement(first, second).set_index("program")["spearman"]
        assert table[["strength", "SPL", "RIB"]].tolist() == pytest.approx(expected, abs=0.006)
