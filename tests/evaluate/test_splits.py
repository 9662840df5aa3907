"""Splits: disjoint, complete, nested, independent of the order of rows."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertwise.errors import InputError
from pertwise.evaluate.given import read_recorded_folds, split_given
from pertwise.evaluate.splits import split_doubles, split_folds, split_growing

NAMES = [f"G{i:02d}" for i in range(23)]


@given(n=st.integers(5, 30), k=st.integers(2, 5), seed=st.integers(0, 99))
def test_folds_hold_out_everything_once_per_shuffle(n, k, seed):
    names = [f"g{i}" for i in range(n)]
    splits = split_folds(names, k, 2, seed)
    assert len(splits) == 2 * k
    for shuffle in (0, 1):
        tests = [x for s in splits if s.seed == shuffle for x in s.test]
        assert sorted(tests) == sorted(names)
    for s in splits:
        assert sorted((*s.train, *s.test)) == sorted(names)
        assert abs(len(s.test) - n / k) < 1


def test_order_of_rows_and_number_of_shuffles_change_nothing():
    assert split_folds(NAMES, 5, 2, 0) == split_folds(NAMES[::-1], 5, 2, 0)
    assert split_folds(NAMES, 5, 3, 0)[:10] == split_folds(NAMES, 5, 2, 0)
    assert split_folds(NAMES, 5, 1, 1) != split_folds(NAMES, 5, 1, 0)


def test_growing_sets_are_nested_with_one_test_set():
    splits = split_growing(NAMES, [3, 10, 999], 2, 0, test_share=0.2)
    assert [len(s.train) for s in splits] == [3, 10, 18] * 2
    for repeat in (0, 1):
        a, b, c = (s for s in splits if s.seed == repeat)
        assert set(a.train) < set(b.train) < set(c.train)
        assert a.test == b.test == c.test
        assert not set(c.train) & set(c.test)
    assert splits[0].test != splits[3].test


def test_doubles_by_the_definition():
    singles = [f"G{i}" for i in range(8)]
    doubles = [f"G{i}+G{j}" for i in range(8) for j in range(i + 1, 8)]
    for split in split_doubles(singles + doubles, 3, 0):
        assert set(split.train) | set(split.test) == set(singles + doubles)
        assert not set(split.train) & set(split.test)
        seen = {g for n in split.train for g in n.split("+")}
        unseen = set(singles) - set(split.train)
        assert len(unseen) == 2
        assert not unseen & seen, "nothing with an unseen gene is trained on"
        for name in split.test:
            parts = name.split("+")
            k = sum(p not in unseen for p in parts)
            want = "single, unseen" if len(parts) == 1 else f"{k} of 2 seen"
            assert split.strata[name] == want
        assert set(split.strata.values()) == {
            "single, unseen", "0 of 2 seen", "1 of 2 seen", "2 of 2 seen"
        }  # fmt: skip


def recorded(path, folds):
    path.write_bytes(gzip.compress(json.dumps({"folds": folds}).encode()))
    return path


def test_given_folds(tmp_path):
    fold = {"available_genes": ["G01", "G00"], "answers": {"G02": {"kNN": ["G01"], "reason": "r"}}}
    path = recorded(tmp_path / "x.json.gz", [fold])
    (split,) = split_given(["G00", "G01", "G02", "G03"], path)
    assert split.train == ("G00", "G01")
    assert split.test == ("G02", "G03")  # held out although no answer was recorded for G03
    (one,) = read_recorded_folds(path)
    assert one.neighbours == {"G02": ("G01",)}
    assert one.reasons == {"G02": "r"}


def test_mistakes(tmp_path):
    with pytest.raises(InputError, match="too few"):
        split_folds(["a", "b"], 3, 1, 0)
    with pytest.raises(InputError, match="at least 2 folds"):
        split_folds(NAMES, 1, 1, 0)
    with pytest.raises(InputError, match="no combination"):
        split_doubles(NAMES, 1, 0)
    with pytest.raises(InputError, match="must be positive"):
        split_growing(NAMES, [0], 1, 0)
    with pytest.raises(InputError, match="no such file"):
        read_recorded_folds(tmp_path / "absent")
    (tmp_path / "bad.json").write_text('{"folds": [{"answers": []}]}')
    with pytest.raises(InputError, match="not a file of recorded answers"):
        read_recorded_folds(tmp_path / "bad.json")
    for number, (text, told) in enumerate({
        '[1]': "holds a list, not an object with the key 'folds'",
        '{"answers": {}}': "has no key 'folds'; it has 'answers'",
        '{"folds": {}}': "'folds' is a dict, not a list",
        '{"folds": [{"answers": {}}]}': "fold 0 has no key 'available_genes'; it has 'answers'",
        '{"folds": [{"available_genes": "AB", "answers": {}}]}': "'available_genes' is a str",
        '{"folds": [{"available_genes": ["A"], "train": 1}]}': "fold 0 has no key 'answers'",
        '{"folds": [{"available_genes": ["A"], "answers": {"B": ["A"]}}]}': "answer for 'B' is no",
    }.items()):  # fmt: skip
        bad = tmp_path / f"bad{number}.json"
        bad.write_text(text)
        with pytest.raises(InputError, match=told) as error:
            split_given(NAMES, bad)
        assert bad.name in str(error.value)
    path = recorded(tmp_path / "y.gz", [{"available_genes": ["ZZ"], "answers": {}}])
    with pytest.raises(InputError, match="trains on 'ZZ'"):
        split_given(NAMES, path)


@pytest.mark.shared
def test_real_recorded_answers_can_be_read(shared_data):
    folds = read_recorded_folds(shared_data / "llm" / "langpert_k562.json.gz")
    assert len(folds) == 5
    for fold in folds:
        assert len(fold.available) == 240
        assert len(fold.neighbours) == 60
        assert all(set(n) <= set(fold.available) for n in fold.neighbours.values())


def test_combinations_with_a_held_out_gene_are_not_trained_on():
    names = [f"G{i}" for i in range(10)] + ["G0+G1", "G2+G3", "X+Y"]
    for split in split_folds(names, 5, 2, 0):
        held = set(split.test)
        for name in split.train:
            parts = set(name.split("+"))
            assert not any(set(h.split("+")) < parts for h in held), (name, held)
        # nothing else is left out
        left = set(names) - held - set(split.train)
        assert all("+" in n and (set(n.split("+")) & held) for n in left)
    for split in split_growing(names, [4, 50], 2, 0):
        held = set(split.test)
        assert not any("+" in n and set(n.split("+")) & held for n in split.train)
