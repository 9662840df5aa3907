import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError, UnknownNameError
from pertwise.screen.grouping import check_any, group_rows
from pertwise.screen.layouts import Keys, parse_label, recognise


def groups_of(obs, **keys):
    layout = recognise(obs, Keys(**keys))
    grouping = group_rows(obs, layout)
    labels = grouping.groups.iloc[grouping.codes]
    return (
        layout,
        [
            "control" if c else p
            for c, p in zip(labels["is_control"], labels["perturbation"], strict=True)
        ],
        labels,
    )


def test_gears_names_lose_ctrl_and_keep_combinations():
    obs = pd.DataFrame(
        {
            "condition": ["ctrl", "KLF1+ctrl", "ctrl+KLF1", "KLF1+BAK1", "ctrl+ctrl"],
            "cell_type": "K562",
            "dose_val": ["1", "1+1", "1+1", "1+1", "1+1"],
            "control": [1, 0, 0, 0, 1],
        }
    )
    layout, names, _ = groups_of(obs)
    assert layout.kind == "gears"
    assert layout.context == "cell_type"
    assert layout.dose == ""  # "1+1" counts perturbations; it is no dose
    assert names == ["control", "KLF1", "KLF1", "BAK1+KLF1", "control"]


def test_scperturb_combinations_are_split_by_nperts():
    obs = pd.DataFrame(
        {
            "perturbation": ["control", "CEBPA_KLF1", "HLA_A", "KLF1_control"],
            "nperts": [0, 2, 1, 2],
        }
    )
    layout, names, _ = groups_of(obs)
    assert layout.kind == "scperturb"
    assert names == ["control", "CEBPA+KLF1", "HLA_A", "KLF1"]


def test_replogle_cells():
    obs = pd.DataFrame(
        {
            "gene": ["non-targeting", "AARS", "AARS"],
            "gene_transcript": ["x", "y", "y"],
            "gem_group": [1, 1, 2],
        }
    )
    layout, names, _ = groups_of(obs)
    assert layout.kind == "replogle"
    assert layout.batch == "gem_group"
    assert names == ["control", "AARS", "AARS"]


def test_replogle_bulk_takes_the_gene_from_the_row_name():
    obs = pd.DataFrame(
        {"num_cells_filtered": [10, 20]},
        index=pd.Index(
            ["10005_ZBTB4_P1P2_ENSG1", "1_non-targeting_non-targeting_non-targeting"],
            name="gene_transcript",
        ),
    )
    layout, names, _ = groups_of(obs)
    assert layout.kind == "replogle_bulk"
    assert layout.n_cells == "num_cells_filtered"
    assert names == ["ZBTB4", "control"]


def test_tahoe_label_gives_drug_and_dose_and_the_vehicle_is_the_control():
    obs = pd.DataFrame(
        {
            "drugname_drugconc": [
                "[('DMSO_TF', 0.0, 'uM')]",
                "[('Erdafitinib ', 0.05, 'uM')]",
                "[('Erdafitinib ', 5.0, 'uM')]",
            ],
            "drug": ["DMSO_TF", "Erdafitinib", "Erdafitinib"],
            "cell_line": ["CVCL_0001", "CVCL_0001", "CVCL_0001"],
            "plate": ["plate1", "plate1", "plate1"],
        }
    )
    layout, names, labels = groups_of(obs)
    assert layout.kind == "tahoe"
    assert layout.batch == "plate"
    assert names == ["control", "Erdafitinib", "Erdafitinib"]
    np.testing.assert_array_equal(labels["dose"], [np.nan, 0.05, 5.0])
    # The plain drug name works as an override, too.
    assert recognise(obs, Keys(control=("DMSO_TF",))).control == layout.control


def test_tahoe_label_that_is_no_list():
    obs = pd.DataFrame({"drugname_drugconc": ["[('DMSO_TF', 0.0, 'uM')]", "[broken"]})
    with pytest.raises(InputError, match=r"'\[broken' is not a list of \(drug, concentration"):
        recognise(obs)


def test_plus_in_a_drug_name_is_no_combination():
    obs = pd.DataFrame({"drug": ["DMSO", "(+)-JQ1", "X+Y salt"], "dose": [0, 1, 1]})
    layout = recognise(obs)
    for name in ("(+)-JQ1", "S-(+)-ibuprofen", "atenolol-(+/-)", "Ca2+ ionophore", "VEGF+"):
        assert parse_label(name, layout)[0] == name
    assert parse_label("Y + X salt", layout)[0] == "X salt+Y"


def test_group_order_does_not_depend_on_row_order():
    obs = pd.DataFrame(
        {"perturbation": ["B", "control", "A", "B"], "cell_line": ["z", "z", "y", "y"]}
    )
    layout = recognise(obs)
    one = group_rows(obs, layout)
    two = group_rows(obs.iloc[::-1], layout)
    pd.testing.assert_frame_equal(one.groups, two.groups)
    np.testing.assert_array_equal(one.codes, two.codes[::-1])


def test_no_column_recognised_lists_what_there_is():
    with pytest.raises(InputError, match=r"Columns are: guide, x.*--perturbation-key"):
        recognise(pd.DataFrame({"guide": ["a"], "x": [1]}))


def test_unknown_control_label_suggests_and_lists():
    obs = pd.DataFrame({"perturbation": ["control", "A", "A"]})
    with pytest.raises(UnknownNameError, match=r"'contrl'; did you mean 'control'.*frequent") as e:
        recognise(obs, Keys(control=("contrl",)))
    assert e.value.suggestions == ("control",)


def test_unknown_column_suggests():
    with pytest.raises(UnknownNameError, match="'perturbatio'; did you mean 'perturbation'"):
        recognise(pd.DataFrame({"perturbation": ["a"]}), Keys(perturbation="perturbatio"))


def test_empty_names_are_refused_with_the_row_then_dropped_and_counted():
    obs = pd.DataFrame({"perturbation": ["control", "A", None, " ", "nan"]}, index=list("abcde"))
    layout = recognise(obs)
    with pytest.raises(InputError, match=r"3 rows have an empty perturbation name.*row 'c'"):
        group_rows(obs, layout)
    grouping = group_rows(obs, layout, drop_empty=True)
    assert grouping.n_empty == 3
    assert list(grouping.codes) == [0, 1, -1, -1, -1]


def test_no_name_at_all():
    obs = pd.DataFrame({"perturbation": [None, None]})
    groups = group_rows(obs, recognise(obs), drop_empty=True).groups
    with pytest.raises(InputError, match="no row has the name of a perturbation"):
        check_any(groups, "the file")


def test_categories_without_rows_do_not_matter():
    names = pd.Categorical(["A", "control"], categories=["A", "control", "", "unused"])
    obs = pd.DataFrame({"perturbation": names})
    assert group_rows(obs, recognise(obs)).n_empty == 0


def test_dose_that_is_no_number():
    obs = pd.DataFrame({"perturbation": ["control", "A"], "dose": ["", "high"]})
    with pytest.raises(InputError, match=r"dose .* in column 'dose' is not a number"):
        group_rows(obs, recognise(obs))
    assert not recognise(obs, Keys(dose="")).dose


def test_missing_context_names_the_row():
    obs = pd.DataFrame({"perturbation": ["control", "A"], "cell_line": ["K562", None]}, list("xy"))
    with pytest.raises(InputError, match=r"'cell_line' is empty in 1 rows \(first: 'y'\)"):
        group_rows(obs, recognise(obs))


def test_is_control_column_decides():
    obs = pd.DataFrame({"perturbation": ["mock", "A"], "is_control": [True, False]})
    assert recognise(obs).control == ("mock",)


def test_second_control_like_label_is_noted():
    obs = pd.DataFrame({"gene": ["non-targeting", "safe-targeting", "A"]})
    layout = recognise(obs)
    assert layout.control == ("non-targeting",)
    assert "safe-targeting" in layout.notes[0]


def test_a_condition_column_that_is_not_of_gears_gives_way():
    obs = pd.DataFrame({"condition": ["healthy"] * 2, "perturbation": ["control", "A"]})
    assert recognise(obs).kind == "scperturb"
    assert recognise(obs[["condition"]]).kind == "gears"
