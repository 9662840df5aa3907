"""Splits in the files of other tools, and the rows that files of predictions hold out."""

import json

import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError
from pertwise.evaluate.split_files import predicted_split, read_splits
from pertwise.evaluate.splits import THREE_SETTINGS, split_three
from pertwise.screen import make_screen

NAMES = ["A", "B", "C", "D", "E", "F"]
SCREEN = make_screen(
    np.random.default_rng(0).normal(size=(18, 4)),
    NAMES * 3,
    list("wxyz"),
    context=np.repeat(["K562", "RPE1", "HepG2"], 6).tolist(),
)


def rows(names, contexts):
    return {f"{n}|{c}" for n in names for c in contexts}


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def test_the_three_settings_of_pie_are_told_by_their_rows(tmp_path):
    """{"dataset.context": names} in train.json, val.json, test.json of a folder a setting."""
    train = {"replogle.rpe1": ["C", "D", "E"], "replogle.hepg2": ["C", "D", "E"]}
    tests = {
        "unseen_pert": {"replogle.rpe1": ["A", "B"], "replogle.hepg2": ["A"]},
        "unseen_ctx": {"replogle.k562": ["C", "D", "E"]},
        "unseen_ctx_pert": {"replogle.k562": ["A", "B", "NOT_MEASURED"]},
    }
    for setting, held in tests.items():
        write(tmp_path / setting / "train.json", train)
        write(tmp_path / setting / "val.json", {"replogle.rpe1": ["F"]})
        write(tmp_path / setting / "test.json", held)
    # A folder, or its test file: the same.
    found = read_splits(
        [tmp_path / "unseen_pert", tmp_path / "unseen_ctx" / "test.json",
         tmp_path / "unseen_ctx_pert"], SCREEN,
    )  # fmt: skip
    assert [s.kind for s in found] == ["compound", "context", "both"]
    assert [s.fold for s in found] == [0, 1, 2]
    for split in found:
        assert set(split.train) == rows("CDE", ["RPE1", "HepG2"])
        assert split.by == "row"
    assert set(found[0].test) == rows("AB", ["RPE1"]) | rows("A", ["HepG2"])
    assert set(found[1].test) == rows("CDE", ["K562"])
    assert set(found[2].test) == rows("AB", ["K562"])


def test_names_by_side_with_cell_types_and_subgroups(tmp_path):
    """The dictionary of TxPert and GEARS; a label may carry its control."""
    file = write(
        tmp_path / "split.json",
        {
            "train": ["C+ctrl", "D"], "val": ["E"], "test": ["A+ctrl", "ctrl+B"],
            "train_cell_types": ["RPE1", "HepG2"], "test_cell_type": "K562",
            "test_subgroup": {"unseen_single": ["A+ctrl"], "other": ["B"]},
        },
    )  # fmt: skip
    (split,) = read_splits([file], SCREEN)
    assert split.kind == "both"
    assert set(split.train) == rows("CD", ["RPE1", "HepG2"])
    assert set(split.test) == rows("AB", ["K562"])
    assert split.strata == {"A": "unseen_single", "B": "other"}


def test_without_a_training_side_the_rest_is_learned_from(tmp_path):
    file = write(tmp_path / "s.json", [{"test": ["A"], "val": ["B"]}, {"test": ["C"]}])
    one, two = read_splits([file], SCREEN)
    assert set(one.train) == rows("CDEF", SCREEN.contexts)
    assert (set(two.train), two.fold) == (rows("ABDEF", SCREEN.contexts), 1)
    pair = write(tmp_path / "p.json", {"test": {"K562": ["A"]}})
    assert read_splits([pair], SCREEN)[0].kind == "pair"


def test_the_toml_of_state_still_reads(tmp_path):
    (tmp_path / "s.toml").write_text('[zeroshot]\n"replogle.K562" = "test"\n')
    (split,) = read_splits([tmp_path / "s.toml"], SCREEN)
    assert set(split.test) == rows(NAMES, ["K562"])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"test": ["NOBODY"]}, "holds out nothing"),
        ({"test": NAMES}, "leaves nothing"),
        ({"test": "A"}, "no lists of names"),
        ({"train": ["A"], "val": ["B"]}, "no lists of names|holds out nothing"),
        ({"test": ["A"], "test_cell_types": 3}, "holds out nothing"),
        ({"test": ["A"], "test_subgroup": ["A"]}, "no lists of names"),
        ({"test": ["A"], "test_subgroup": {"x": 3}}, "no lists of names"),
        ({"test": ["A"], "subgroup": "x", "test_subgroup": {"x": "A"}}, "no lists of names"),
        ([3], "holds no split"),
        ([], "holds no split"),
    ],
)
def test_what_is_no_split_is_told(tmp_path, data, said):
    file = write(tmp_path / "s.json", data)
    with pytest.raises(InputError, match=said):
        read_splits([file], SCREEN)


def test_pickles_are_not_opened(tmp_path):
    (tmp_path / "split.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="can run code"):
        read_splits([tmp_path / "split.pkl"], SCREEN)


def test_what_all_files_predict_is_held_out(tmp_path):
    for name, held in {"one": "ABC", "two": "BCD"}.items():
        frame = pd.DataFrame({"gene": list(held), "cell_line": "RPE1", "w": 1.0})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    split = predicted_split([tmp_path / "one.csv", tmp_path / "two.csv"], SCREEN)
    assert set(split.test) == rows("BC", ["RPE1"])
    assert split.kind == "pair"
    assert len(split.train) == 16
    pd.DataFrame({"gene": ["Q"], "cell_line": "RPE1", "w": [1.0]}).to_csv(
        tmp_path / "none.csv", index=False
    )
    with pytest.raises(InputError, match="predicts nothing"):
        predicted_split([tmp_path / "none.csv"], SCREEN)


def test_three_settings_number_their_folds_through():
    found = split_three(SCREEN, n_folds=3, seed=1)
    assert {s.kind for s in found} == set(THREE_SETTINGS)
    assert [s.fold for s in found] == list(range(len(found)))
