import numpy as np
import pytest
from drug_example import DRUGS, LINES, cell_table, drug_knowledge, drug_screen, drug_table

from pertwise.errors import InputError
from pertwise.evaluate.given import read_toml_split
from pertwise.evaluate.splits import Split, check_leaks, split_rows
from pertwise.knowledge import Knowledge
from pertwise.screen import make_screen
from pertwise.screen.conditions import parse_condition
from pertwise.screen.core import Screen, make_obs
from pertwise.screen.effects import read_effect_table

TABLE, KNOWN = drug_table(), drug_knowledge()
SCREEN = drug_screen()
REGIMES = ["perturbation", "compound", "context", "pair", "scaffold"]


@pytest.mark.parametrize("regime", REGIMES)
def test_every_row_is_held_out_once_and_nothing_leaks(regime):
    splits = split_rows(SCREEN, regime, KNOWN, n_folds=3, seed=1)
    held = [name for s in splits for name in s.test]
    assert sorted(held) == sorted(SCREEN.obs.index)
    for split in splits:
        assert not set(split.train) & set(split.test)
        assert len(split.train) + len(split.test) == len(SCREEN)
        check_leaks(split, SCREEN, KNOWN)
    order = np.random.default_rng(0).permutation(len(SCREEN))
    again = split_rows(SCREEN.take(order), regime, KNOWN, n_folds=3, seed=1)
    assert [set(s.test) for s in again] == [set(s.test) for s in splits]
    other = split_rows(SCREEN, regime, KNOWN, n_folds=3, seed=2)
    assert [set(s.test) for s in other] != [set(s.test) for s in splits]


def test_what_each_regime_holds_out():
    for split in split_rows(SCREEN, "compound", KNOWN, n_folds=4):
        train, test = split.of(SCREEN)
        assert not set(train.perturbations) & set(test.perturbations)
        both = {"Salicylic acid", "Sodium salicylate"}
        assert both <= set(test.perturbations) or not both & set(test.perturbations)
    for split in split_rows(SCREEN, "context", KNOWN, n_folds=4):
        train, test = split.of(SCREEN)
        assert not set(train.contexts) & set(test.contexts)
    for split in split_rows(SCREEN, "scaffold", KNOWN, n_folds=4):
        train, test = split.of(SCREEN)
        scaffolds = [{TABLE.cards[d].scaffold for d in s.perturbations} for s in (train, test)]
        assert not scaffolds[0] & scaffolds[1]
    open_world = split_rows(SCREEN, "pair", KNOWN, n_folds=4)[0].of(SCREEN)
    assert set(open_world[0].perturbations) & set(open_world[1].perturbations)


def leaky(test_names, regime):
    rows = SCREEN.obs.index
    test = tuple(r for r in rows if SCREEN.obs.loc[r, "perturbation"] in test_names)
    return Split(regime, 0, 0, tuple(r for r in rows if r not in test), test, by="row")


def test_a_salt_on_the_other_side_is_a_leak():
    with pytest.raises(InputError, match=r"\['Sodium salicylate'\] in training, \['Salicylic"):
        check_leaks(leaky({"Salicylic acid"}, "compound"), SCREEN, KNOWN)
    check_leaks(leaky({"Salicylic acid", "Sodium salicylate"}, "compound"), SCREEN, KNOWN)
    with pytest.raises(InputError, match="is on both sides"):
        check_leaks(leaky({"Salicylic acid"}, "pair"), SCREEN, KNOWN)
    same = Split("compound", 0, 0, tuple(SCREEN.obs.index), (SCREEN.obs.index[0],), by="row")
    with pytest.raises(InputError, match="in both training and test"):
        check_leaks(same, SCREEN, KNOWN)


def test_ungrouped_splits_let_salts_apart_to_compare():
    apart = 0
    for seed in range(4):
        for split in split_rows(SCREEN, "perturbation", KNOWN, seed=seed):
            held = set(split.of(SCREEN)[1].perturbations)
            apart += len(held & {"Salicylic acid", "Sodium salicylate"}) == 1
    assert apart > 0


def test_wrong_regimes():
    with pytest.raises(InputError, match="unknown regime"):
        split_rows(SCREEN, "unseen", KNOWN)
    with pytest.raises(InputError, match="11 groups are too few for 12"):
        split_rows(SCREEN, "compound", KNOWN, n_folds=12)
    assert len(split_rows(SCREEN, "context", KNOWN, n_folds=9)) == len(LINES)
    with pytest.raises(InputError, match="1 groups are too few"):
        split_rows(SCREEN.in_context("A549"), "context", KNOWN)
    with pytest.raises(InputError, match="measured at two doses"):
        split_rows(SCREEN, "dose", KNOWN)


def test_toml_by_identifier_name_and_condition(tmp_path):
    path = tmp_path / "split.toml"
    path.write_text(
        '[datasets]\ntahoe = "x"\n[zeroshot]\n"tahoe.CVCL_0031" = "test"\n'
        '[fewshot."tahoe.K562"]\n'
        "test = [\"[('Aspirin', 1.0, 'uM')]\", \"Caffeine\"]\n"
        "val = [\"[('Ethanol', 9.0, 'uM')]\"]\n"
    )
    split = read_toml_split(path, SCREEN, cell_table())
    test = split.of(SCREEN)[1]
    assert set(test.contexts) == {"MCF7", "K562"}
    assert set(test.in_context("K562").perturbations) == {"Aspirin", "Caffeine"}
    assert len(test.in_context("MCF7")) == len(DRUGS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not toml [", "not valid TOML"),
        ("[training]\nx = 1\n", "neither"),
        ('[zeroshot]\n"tahoe.NOPE" = "test"\n', "none of its lines"),
        ("[zeroshot]\n" + "".join(f'"x.{c}" = "test"\n' for c in LINES), "every row"),
    ],
)
def test_wrong_toml(tmp_path, text, message):
    path = tmp_path / "split.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_toml_split(path, SCREEN, cell_table())
    with pytest.raises(InputError, match="no such file"):
        read_toml_split(tmp_path / "none.toml", SCREEN)


def test_conditions_and_effect_table(tmp_path):
    assert parse_condition("[('A, b', 0.05, 'uM')]") == ("A, b", 0.05)
    assert np.isnan(parse_condition("plain")[1])
    with pytest.raises(InputError, match="not of the form"):
        parse_condition("[('broken'")
    path = tmp_path / "e.tsv"
    path.write_text(
        "cell_line\t[('a', 0.5, 'uM')]\t[('a', 5.0, 'uM')]\nX\t0.5\t4.0\nY\t-0.1\t2.0\n"
    )
    screen = read_effect_table(path)
    np.testing.assert_allclose(screen.responses, [[-1, 1], [2, 1]])
    split = split_rows(screen, "dose", KNOWN)[0]
    assert screen.obs.loc[list(split.test), "dose"].tolist() == [5.0]
    path.write_text("cell_line\tplain\nX\t1.0\n")
    with pytest.raises(InputError, match="'plain' is not of the form"):
        read_effect_table(path)


def test_dose_split_holds_out_only_what_has_a_lower_dose():
    obs = make_obs(["a", "a", "b"], context="X", dose=[1.0, 5.0, 5.0])
    screen = Screen(
        np.ones((3, 2), np.float32), obs, ("f", "g"), np.full((1, 2), np.nan, np.float32)
    )
    split = split_rows(screen, "dose", KNOWN)[0]
    assert screen.obs.loc[list(split.test), "perturbation"].tolist() == ["a"]
    assert len(split.train) == 2


@pytest.mark.shared
def test_the_published_split(shared_data):
    from pertwise.knowledge.lines import CellTable
    from pertwise.screen.signatures import read_signatures

    folder = shared_data / "drugs"
    screen = read_signatures(
        folder / "tahoe_rank_z_int8.npz", folder / "tahoe_rank_obs.parquet",
        where={"plates": "plate6+plate14"}, drop="suspect", effect="edist_5uM", min_effect=0.8,
    )  # fmt: skip
    assert len(screen) == 1064
    cells = CellTable.read(folder / "tahoe_cell_line_metadata.parquet")
    split = read_toml_split(folder / "tahoe_zeroshot_split.toml", screen, cells)
    held = split.of(screen)[1].contexts
    assert 1 <= len(held) <= 5


def genes_in_lines():
    names, lines = ["A", "B", "C", "D"], ["L1", "L2", "L3"]
    y = np.random.default_rng(0).normal(size=(12, 3))
    return make_screen(y, names * 3, ["f", "g", "h"], context=[c for c in lines for _ in names])


def test_both_holds_out_perturbations_and_contexts_and_learns_from_neither():
    screen = genes_in_lines()
    splits = split_rows(screen, "both", n_folds=2, seed=3)
    held = [row for s in splits for row in s.test]
    assert sorted(held) == sorted(screen.obs.index)
    for split in splits:
        train, test = split.of(screen)
        assert not set(train.perturbations) & set(test.perturbations)
        assert not set(train.contexts) & set(test.contexts)
        assert split.hold_out == "perturbation"
    with pytest.raises(InputError, match="at least two contexts"):
        split_rows(screen.in_context("L1"), "both", n_folds=2)


def test_genes_need_no_table_and_aliases_are_one_thing(monkeypatch):
    screen = genes_in_lines()
    known = Knowledge()
    monkeypatch.setattr(known, "identity", lambda names: {n: "A" if n == "B" else n for n in names})
    for split in split_rows(screen, "compound", known, n_folds=3):
        held = set(split.of(screen)[1].perturbations)
        assert len(held & {"A", "B"}) in (0, 2)
    by_name = split_rows(screen, "perturbation", known, n_folds=4)
    assert {len(s.of(screen)[1].perturbations) for s in by_name} == {1}
    assert split_rows(screen, "pair", n_folds=3)[0].hold_out == "pair"


def test_rows_of_combinations_are_hidden_with_their_genes():
    import numpy as np

    from pertwise.errors import InputError
    from pertwise.evaluate.splits import Split, check_leaks, split_rows
    from pertwise.screen import make_screen

    names = [f"G{i}" for i in range(8)] + ["G0+G1", "G2+G3"]
    screen = make_screen(np.ones((20, 2)), names * 2, ["f", "g"],
                         context=["K"] * 10 + ["R"] * 10)  # fmt: skip
    for regime in ("perturbation", "compound", "both"):
        for split in split_rows(screen, regime, n_folds=4):
            held = set(screen.obs.loc[list(split.test), "perturbation"])
            train = set(screen.obs.loc[list(split.train), "perturbation"])
            assert not any("+" in n and set(n.split("+")) & held for n in train)
    one, two = ("G0|K",), ("G0+G1|K", "G5|K")
    with pytest.raises(InputError, match=r"'G0\+G1' in training contains a held-out"):
        check_leaks(Split("compound", 0, 0, two, one, by="row"), screen)
