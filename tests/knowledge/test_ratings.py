"""Marks: a table that a person can read, edit and fill in; whatever is wrong is one clear line."""

import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError
from pertwise.knowledge import Knowledge
from pertwise.knowledge.ratings import Ratings, mean_and_spread, read_ratings, write_ratings


def written(tmp_path, text, name="marks.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_table_filled_in_by_hand(tmp_path):
    path = written(tmp_path, "gene;cell cycle;STR\nMYC;-2,5;3\nAURKA;;1\nTP53;1;0\n", "by_hand.csv")
    (found,) = read_ratings(path)
    assert found.names == ("AURKA", "MYC", "TP53")
    assert found.programs == ("cell cycle", "strength")
    np.testing.assert_array_equal(found.marks, [[np.nan, 1], [-2.5, 3], [1, 0]])
    assert found.source == "by_hand.csv"
    np.testing.assert_array_equal(found.strength, [1, 3, 0])


def test_one_table_a_context_and_what_is_written_is_read(tmp_path):
    made = [
        Ratings.from_marks(
            ["B", "A"],
            ["strength", "up"],
            np.array([[1.0, -3.0], [2.0, np.nan]]),
            spread=np.array([[0.5, 1.0], [np.nan, np.nan]]),
            context=cells,
            source="a model",
            reasons={"A": '=HYPERLINK("x")', "B": "because, so"},
        )
        for cells in ("K562", "RPE1")
    ]
    path = tmp_path / "r.csv"
    write_ratings(path, made)
    again = read_ratings(path)
    assert [r.context for r in again] == ["K562", "RPE1"]
    for before, after in zip(made, again, strict=True):
        assert before.names == after.names == ("A", "B")
        assert before.programs == after.programs == ("up", "strength")
        np.testing.assert_array_equal(before.marks, after.marks)
        np.testing.assert_array_equal(before.spread, after.spread)
        assert dict(before.reasons) == dict(after.reasons)
        assert before.fingerprint() == after.fingerprint()
    assert "'=HYPERLINK" in path.read_text()  # a spreadsheet runs nothing


def test_replicates_are_averaged_and_repeats_without_them_refused(tmp_path):
    rows = "perturbation,{}up\nA,{}1\nA,{}3\nB,{}-1\n"
    (found,) = read_ratings(written(tmp_path, rows.format("replicate,", "1,", "2,", "1,")))
    np.testing.assert_array_equal(found.marks[:, 0], [2, -1])
    np.testing.assert_allclose(found.spread[:, 0], [np.sqrt(2), np.nan])
    with pytest.raises(InputError, match=r"'A' is marked twice \(rows 2, 3\).*replicate"):
        read_ratings(written(tmp_path, rows.format("", "", "", "")))


def test_mean_and_spread_leave_out_what_was_not_given():
    mean, spread = mean_and_spread(np.array([[1.0, np.nan, 2.0], [2.0, np.nan, np.nan]]))
    np.testing.assert_allclose(mean, [1.5, np.nan, 2.0])
    np.testing.assert_allclose(spread, [np.sqrt(0.5), np.nan, np.nan])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name,up\nA,4\n", r"marks\.csv: A, up: 4 is outside the scale \(-3 to 3\)"),
        ("name,strength\nA,-1\n", r"A, strength: -1 is outside the scale \(0 to 3\)"),
        ("name,up\nA,1\nB,strong\n", r"row 3 \(B\): 'strong' in the column 'up' is no mark"),
        ("name,up\nA,inf\n", "outside the scale"),
        ("name,up\n,1\n", "row 2: no name in the column 'name'"),
        ("name,reason\nA,x\n", "no column of marks"),
        ("up,down\n1,2\n", "no column of perturbations"),
        ("name,STR,strength\nA,1,1\n", "two columns are the strength"),
    ],
)
def test_what_is_wrong_is_said_with_file_row_and_column(text, match, tmp_path):
    with pytest.raises(InputError, match=match):
        read_ratings(written(tmp_path, text))


def test_ratings_are_knowledge(tmp_path):
    path = written(tmp_path, "gene,up\nA,1\nB,-2\n")
    known = Knowledge.open(ratings=path)
    assert known.ratings[0].names == ("A", "B")
    assert known.fingerprint() != Knowledge().fingerprint()
    other = known.with_ratings(())
    assert other.ratings == ()
    assert other.fingerprint() == Knowledge().fingerprint()
    with pytest.raises(InputError, match="no program 'down'; there are up"):
        known.ratings[0].of(["down"])
    with pytest.raises(InputError, match="nothing to open"):
        Knowledge.open()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="must be"):
        Ratings(("A",), ("up",), np.zeros((2, 1)), np.zeros((2, 1)))
    with pytest.raises(InputError, match="'A' occurs twice"):
        Ratings.from_marks(["A", "A"], ["up"], np.zeros((2, 1)))


def test_the_table_is_plain(tmp_path):
    made = Ratings.from_marks(["A"], ["up"], np.array([[0.5]]), source="someone")
    pd.testing.assert_frame_equal(
        made.table,
        pd.DataFrame({"perturbation": ["A"], "context": [""], "up": [0.5], "source": ["someone"]}),
    )


def test_dealt_marks_are_the_same_profiles_of_others():
    marks = np.arange(12.0).reshape(12, 1) / 4
    made = Ratings.from_marks([f"G{i:02d}" for i in range(12)], ["up"], marks, source="someone")
    dealt = made.dealt(seed=3)
    assert sorted(np.ravel(dealt.marks)) == sorted(np.ravel(made.marks))
    assert (dealt.marks != made.marks).all()
    assert "wrong" in dealt.source
    np.testing.assert_array_equal(dealt.marks, made.dealt(seed=3).marks)


def test_strength_of_a_table_without_it_is_the_size_of_its_marks(recwarn):
    marks = np.array([[3.0, -1.0], [np.nan, 2.0], [np.nan, np.nan]])
    made = Ratings.from_marks(["A", "B", "C"], ["up", "down"], marks)
    np.testing.assert_allclose(made.strength, [np.sqrt(5), 2, np.nan])
    assert not recwarn.list
