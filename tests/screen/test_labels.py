"""Controls, non-calls and guides among the labels of a file."""

import time

import pandas as pd
import pytest

from pertwise.errors import InputError
from pertwise.screen.grouping import group_rows
from pertwise.screen.labels import control_kind, guide_gene, is_uncalled, numbered_gene
from pertwise.screen.layouts import Keys, recognise

_CONTROLS = """ctrl control CTRL negCtrl NegCtrl12 NT NT_1 NT-23 NTC NTC_4 non-targeting
    non_targeting_0001 nontargeting safe-targeting safe_targeting_3 scramble scrambled_2 NTg4
    sgNT_1 neg_control_9 unperturbed DMSO DMSO_TF vehicle intergenic_7 mock NON_TARGET-1 NO_SITE_12
    sgAAVS1 ONE_NON-GENE_SITE_7
    Non-Targeting_Human_CRISPRi_00042 NonTargetingControlGuideForHuman_0001
    hg38_nontargeting_0012 nt_ctrl_3 p_INTERGENIC393453 siNC shScr AAVS1_1 ROSA26 LacZ eGFP_2 PBS
    uninfected non-cutting_3 NegCtrl10_NegCtrl0__NegCtrl10_NegCtrl0 nontargeting-sgRNA-1
    NTC_ACGTACGTACGTACGTACGT non-targeting_P1"""
CONTROLS = [*_CONTROLS.split(), "DMSO 0.1%", "vehicle (DMSO)", "no treatment", "Negative Control 2"]
_GENES = """GATA1 NT5E NTS NTSR1 CTRB1 CTRC WT1 SAFB HLA-A NKX2-1 MT-ND1 KRTAP4-8 H2BC12 H1-4 SGK1
    SH2B1 SCRIB MOCS1 NTN1 RNF4 ERVK3-1 AC012345.1 ENSG00000102145.13 KO1 NT3
    NT5C2 SCRG1 GFPT1 NCL LUC7L RNASEH1 SITE SHH SI UNK NC1 SGCA"""
GENES = _GENES.split()
GUIDES = {
    "TAL1_sg2": "TAL1",
    "TAL1-sgRNA-1": "TAL1",
    "TAL1_g3": "TAL1",
    "TAL1g1": "TAL1",
    "sgTAL1_2": "TAL1",
    "sgNKX2-1": "NKX2-1",
    "HLA-A_P1P2|ENSG00000206503": "HLA-A",
    "TAL1_P2": "TAL1",
    "77_TAL1_P1P2_ENSG00000162367": "TAL1",
    "TAL1_+_47232220.23-P1P2": "TAL1",
    "TAL1_ACGTACGTACGTACGTACGT": "TAL1",
    "TAL1-g1": "TAL1",
    "TAL1 sgRNA #2": "TAL1",
    "TAL1 (sg1)": "TAL1",
    "TAL1_sgA": "TAL1",
    "TAL1__sg1": "TAL1",
    "TAL1-sg1-rep2": "TAL1",
    "TAL1_rep2": "TAL1",
    "sg2_TAL1": "TAL1",
    "sgRNA1-TAL1": "TAL1",
    "sgRNASEH1_1": "RNASEH1",
    "siTAL1_2": "TAL1",
    "p_sgTAL1_2": "TAL1",
    "TAL1_pDS353": "TAL1",
    "TAL1_2_ACGTACGTACGTACGTACGT": "TAL1",
    "TAL1.ENSG00000162367": "TAL1",
}


UNCALLED = ["unassigned", "Multiplet", "doublet", "None", "NaN ", "ambiguous", "2 guides"]
UNCALLED += ["No sgRNA detected", "multi_sgRNA", ">1 guide", "Not_Assigned", "Empty droplet"]


def meaning(found, features=(), **keys):
    obs = pd.DataFrame({"perturbation": found})
    layout = recognise(obs, Keys(**keys), features=features)
    groups = group_rows(obs, layout).groups
    return set(groups.loc[~groups["is_control"], "perturbation"]), layout


@pytest.mark.parametrize("label", CONTROLS)
def test_every_form_of_control(label):
    assert control_kind(label)
    assert meaning(["GATA1", f"GATA1+{label}", f"{label}+MYC", label])[0] == {"GATA1", "MYC"}


@pytest.mark.parametrize("label", GENES)
def test_genes_stay_what_they_are(label):
    assert not control_kind(label)
    assert not is_uncalled(label)
    assert not guide_gene(label)
    assert label in meaning(["NT", "TAL1", "LMO2", label])[0]


@pytest.mark.parametrize("label", UNCALLED)
def test_a_cell_without_a_call_is_told_and_no_perturbation(label):
    got, layout = meaning(["NT", "GATA1", label])
    assert got == {"GATA1"}
    assert any(repr(label) in note for note in layout.notes)
    assert label.strip() in meaning(["NT", "GATA1", label], labels="as-is")[0]


def test_controls_that_are_not_used_are_left_out_and_told():
    got, layout = meaning(["NT", "NT_1", "safe-targeting", "GATA1"])
    assert got == {"GATA1"}
    assert layout.control == ("NT",)
    assert "'NT_1', 'safe-targeting'" in " ".join(layout.notes)
    assert meaning(["NT", "NT_1", "MYC"], control=("NT", "NT_1"))[1].control == ("NT", "NT_1")


def test_numbered_controls_alone_are_the_control():
    got, layout = meaning(["NT_1", "NT_2", "NT_2", "safe_1", "GATA1"])
    assert (got, set(layout.control)) == ({"GATA1"}, {"NT_1", "NT_2"})


@pytest.mark.parametrize(("label", "gene"), GUIDES.items())
def test_guides_are_folded_said_and_kept_on_demand(label, gene):
    assert guide_gene(label) == gene
    got, layout = meaning(["ctrl", label])
    assert got == {gene}
    assert "--labels as-is" in " ".join(layout.notes)
    assert meaning(["ctrl", label], labels="as-is")[0] == {label}


@pytest.mark.parametrize("mark", ["_", "-", "."])
def test_numbered_guides_are_folded_when_they_count(mark):
    labels = [f"{gene}{mark}{i}" for gene in ("GATA1", "MYC", "NKX2-1") for i in (1, 2, 3)]
    assert meaning(["ctrl", *labels])[0] >= {"GATA1", "MYC"}


def test_symbols_that_end_in_a_number_are_no_guides():
    genes = [
        "NKX2-1",
        "NKX2-5",
        "NKX6-1",
        "KRTAP4-8",
        "KRTAP4-9",
        "H1-4",
        "H1-5",
        "HLA-A",
        "MT-ND1",
    ]
    assert meaning(["ctrl", *genes])[0] == set(genes)
    assert meaning(["ctrl", "ABC-1", "ABC-2"], features=["ABC-1", "ABC-2"])[0] == {"ABC-1", "ABC-2"}
    assert meaning(["ctrl", *[f"gene_{i}" for i in range(30)]])[0] == {
        f"gene_{i}" for i in range(30)
    }
    assert numbered_gene("MYC-1") == "MYC"


def test_few_guides_among_genes_are_told_only():
    labels = ["ctrl", "GATA1", "MYC", "TAL1_sg1"]
    got, layout = meaning(labels)
    assert got == {"GATA1", "MYC", "TAL1_sg1"}
    assert "TAL1_sg1" in " ".join(layout.notes)
    assert meaning(labels, labels="genes")[0] == {
        "GATA1",
        "MYC",
        "TAL1",
    }
    with pytest.raises(InputError, match="auto, genes, as-is"):
        meaning(["ctrl", "A"], labels="yes")


def test_guide_mixes_are_left_out():
    got, layout = meaning(["NT", "GATA1", "GATA1_1|NT_2", "GATA1_sg1;MYC_sg2", "KLF1_NegCtrl0"])
    assert got == {"GATA1", "KLF1"}
    assert "mix" in " ".join(layout.notes)


@pytest.mark.parametrize(
    "flags",
    [
        ["TRUE", "False", "no"],
        [1, 0, 0],
        [1.0, 0.0, float("nan")],
        ["Yes", "n", None],
        pd.array([True, False, None], dtype="boolean"),
        pd.Categorical(["True", "False", "False"]),
        ["1", "0", ""],
    ],
)
def test_is_control_in_every_way_people_write_it(flags):
    obs = pd.DataFrame({"perturbation": ["base", "GATA1", "MYC"], "is_control": flags})
    assert recognise(obs).control == ("base",)


def test_is_control_that_contradicts_itself():
    obs = pd.DataFrame({"perturbation": ["a", "a", "b"], "is_control": ["yes", "no", "no"]})
    with pytest.raises(InputError, match="some rows of 'a'"):
        recognise(obs)
    with pytest.raises(InputError, match="'perhaps', which is neither yes nor no"):
        recognise(obs.assign(is_control="perhaps"))
    with pytest.raises(InputError, match="every row"):
        recognise(obs.assign(is_control="T"))


def test_numbers_and_letters_of_guides_that_run():
    for form in ("{}_{}", "{}-{}", "{}.{}", "{} #{}", "{}_00{}"):
        labels = [form.format(gene, i) for gene in ("TAL1", "LMO2", "MYC") for i in (1, 2)]
        assert meaning(["NTC", *labels])[0] == {"TAL1", "LMO2", "MYC"}, form
    letters = [f"{gene}_{x}" for gene in ("TAL1", "LMO2", "MYC") for x in "AB"]
    assert meaning(["NTC", *letters])[0] == {"TAL1", "LMO2", "MYC"}
    ids = ["ENSG00000102145_1", "ENSG00000102145_2", "ENSG00000162367_1", "ENSG00000162367_2"]
    assert meaning(["NTC", *ids])[0] == {"ENSG00000102145", "ENSG00000162367"}
    assert meaning(["NTC", "APOBEC3A_B", "MYC"])[0] == {"APOBEC3A_B", "MYC"}


def test_a_vector_of_two_guides_names_both_genes():
    found = [
        "TAL1_LMO2__TAL1_LMO2",
        "MYC_NegCtrl0__MYC_NegCtrl0",
        "NegCtrl0_NegCtrl0__NegCtrl0_NegCtrl0",
    ]
    got, layout = meaning(found)
    assert got == {"LMO2+TAL1", "MYC"}
    assert layout.control == (found[2],)


@pytest.mark.parametrize(
    "part", ["neg", "ntc", "safe", "targeting", "cells", "sg", "TAL1_", "sg1_"]
)
def test_no_label_takes_long(part):
    start = time.perf_counter()
    for label in (part * 12 + "!", (part * 40)[:60], part * 50 + "q"):
        control_kind(label), is_uncalled(label), guide_gene(label), numbered_gene(label)
    assert time.perf_counter() - start < 0.5


def test_names_of_compounds_are_no_controls_of_guides():
    names = ["NT-157", "SCR-7", "Tram; 34", "Mito_NT", "LY2109761, hydrochloride"]
    obs = pd.DataFrame({"drug": ["DMSO", "vehicle", "saline", *names]})
    layout = recognise(obs, Keys())
    groups = group_rows(obs, layout).groups
    assert set(groups.loc[~groups["is_control"], "perturbation"]) == set(names)


@pytest.mark.parametrize("mark", ["|", ";", ",", " & ", "/", "_", " | "])
def test_joined_names_of_the_same_file_are_combinations(mark):
    both = f"KLF1{mark}GATA1"
    layout = recognise(pd.DataFrame({"perturbation": ["ctrl", "GATA1", "KLF1", both, "MYB_X"]}))
    assert layout.rename == {both: "GATA1+KLF1"}
    assert "read as combinations (--labels as-is" in " ".join(layout.notes)
    kept = recognise(pd.DataFrame({"perturbation": ["ctrl", "GATA1", both]}), Keys(labels="as-is"))
    assert kept.rename == {}
    alone = pd.DataFrame({"perturbation": ["ctrl", "GATA1", both]})
    assert recognise(alone).rename == {}, "a part that nothing knows"
    assert recognise(alone, features=["KLF1"]).rename == {both: "GATA1+KLF1"}
    assert recognise(alone, features=["KLF1", both]).rename == {}, "the whole is measured"


def test_names_of_drugs_are_not_taken_apart_at_slash_comma_or_bar():
    names = ["DMSO", "A", "B", "A/B", "A,B", "A_B", "A & B"]
    layout = recognise(pd.DataFrame({"drug": names}))
    assert layout.rename == {"A & B": "A+B"}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["GATA1", "Gata1"], "'GATA1', 'Gata1': differ only in letter case"),
        (["1-Mar", "Sep-02"], "'1-Mar', 'Sep-02': dates, as a spreadsheet makes of MARCH1"),
        (["Mar-01", "Mar-02"], "dates, as a spreadsheet"),
        (["TP53", "BP1", "TP53-BP1"], "'TP53-BP1': taken as one name"),
        (["JQ1_1uM", "JQ1 (0.5 µM)"], ": end in a dose, which is"),
    ],
)
def test_names_that_may_be_wrong_are_said_and_kept(names, said):
    layout = recognise(pd.DataFrame({"perturbation": ["ctrl", *names]}))
    assert said in " ".join(layout.notes)
    assert not layout.rename
    assert not layout.left_out


def test_dates_among_the_features_are_said():
    layout = recognise(pd.DataFrame({"perturbation": ["ctrl", "A1"]}), features=["MYC", "2-Sep"])
    assert "'2-Sep': dates" in " ".join(layout.notes)


def test_numbers_that_became_floats_are_whole_names():
    frame = pd.DataFrame({"gene": [0.0, 2623.0, 0.5, None]})
    layout = recognise(frame, Keys(control=("0",)))
    made = group_rows(frame, layout, drop_empty=True)
    assert made.groups["perturbation"].tolist() == ["", "0.5", "2623"]


def doses(unit, dose=(0.0, 1.0, 500.0), key=None):
    frame = pd.DataFrame({"drug": ["DMSO", "X", "X"], "dose": dose, "dose_unit": unit})
    layout = recognise(frame, Keys(dose=key))
    return layout, group_rows(frame, layout).groups["dose"].tolist()[1:]


def test_doses_of_several_units_are_not_compared_as_numbers():
    with pytest.raises(InputError, match=r"different units \('dose_unit': nM, uM\)"):
        doses(["%", "uM", "nM"])
    assert len(doses(["%", "uM", "nM"], key="")[1]) == 1, "no doses are compared"
    layout, found = doses([None, "uM", "µM"])
    assert found == [1.0, 500.0]
    assert layout.describe().endswith("doses in µM")
    assert doses([None, "nM", "nM"], dose=(-666, 1, 5))[1] == [1.0, 5.0], "a control may say so"


@pytest.mark.parametrize(
    ("dose", "words"),
    [
        ((0, -6, -5), "dose -6 .* negative; give concentrations"),
        (("0", "1 uM", "2"), "in one unit"),
    ],
)
def test_doses_that_are_no_amounts_are_refused(dose, words):
    with pytest.raises(InputError, match=words):
        doses("uM", dose)


def test_the_unit_inside_a_label_is_read():
    frame = pd.DataFrame({"drugname_drugconc": ["[('DMSO_TF', 0.0, 'uM')]", "[('X', 5.0, 'nM')]"]})
    with pytest.raises(InputError, match="in nM, not in uM"):
        recognise(frame)
