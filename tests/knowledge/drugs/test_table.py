import numpy as np
import pandas as pd
import pytest
from drug_example import cell_table, drug_frame, drug_table

from pertwise.errors import InputError, UnknownNameError
from pertwise.knowledge.drugs.chemistry import cosine, fingerprints, structure, tanimoto
from pertwise.knowledge.drugs.table import DrugCard, DrugTable, fold_name, name_key, split_name
from pertwise.knowledge.lines import CellTable


def test_structure_of_aspirin():
    found = structure("OC(=O)c1ccccc1OC(C)=O")
    assert found.smiles == "CC(=O)Oc1ccccc1C(=O)O"
    assert found.inchikey == "BSYNRYMUTXBXSQ-UHFFFAOYSA-N"
    assert found.compound == "BSYNRYMUTXBXSQ"
    assert found.scaffold == "c1ccccc1"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("OC(=O)c1ccccc1O", "[Na+].[O-]C(=O)c1ccccc1O"),  # salt
        ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"),  # stereoisomers
        ("CN1CCC1", "Cl.CN1CCC1"),  # hydrochloride
        ("OC(=O)c1cc(O)c(O)c(O)c1", "O.OC(=O)c1cc(O)c(O)c(O)c1"),  # hydrate
    ],
)
def test_salts_and_stereoisomers_are_one_compound(one, other):
    assert structure(one).compound == structure(other).compound
    assert structure(one).inchikey != structure(other).inchikey


def test_different_compounds_differ():
    assert structure("CCO").compound != structure("CCCO").compound


@pytest.mark.parametrize(
    ("smiles", "why"),
    [("C1CC", "not SMILES syntax"), ("F(F)F", "valence"), ("", "empty"), ("c1cccc1", "kekul")],
)
def test_rdkit_refusals_say_why(smiles, why):
    with pytest.raises(InputError, match=f"(?i){why}"):
        structure(smiles)


def test_similarities_by_hand():
    a, b = np.array([[1, 1, 0, 0]]), np.array([[1, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(tanimoto(a, b), [[1 / 3, 0]])
    np.testing.assert_allclose(cosine(a, b), [[0.5, 0]])
    np.testing.assert_allclose(tanimoto([[2, 1]], [[1, 3]]), [[2 / 5]])


def test_fingerprints_against_rdkit_and_settings():
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    smiles = ["CC(=O)Oc1ccccc1C(=O)O", "OC(=O)c1ccccc1O"]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    bits = [generator.GetFingerprint(Chem.MolFromSmiles(s)) for s in smiles]
    ours = fingerprints(smiles, size=1024)
    assert ours.shape == (2, 1024)
    expected = DataStructs.TanimotoSimilarity(*bits)
    assert tanimoto(ours[:1], ours[1:])[0, 0] == pytest.approx(expected)
    assert fingerprints(smiles, counts=True).max() > 1
    assert (fingerprints(smiles, radius=1).sum(1) < fingerprints(smiles, radius=3).sum(1)).all()
    salt = fingerprints(["[Na+].[O-]C(=O)c1ccccc1O", smiles[1]])
    np.testing.assert_array_equal(salt[0], salt[1])
    with pytest.raises(InputError, match="radius"):
        fingerprints(smiles, radius=-1)


@pytest.mark.parametrize(
    ("name", "base", "others"),
    [
        ("Neratinib (maleate)", "Neratinib", ()),
        ("ABT-199 (GDC-0199)", "ABT-199", ("GDC-0199",)),
        ("Riluzole hydrochloride", "Riluzole", ()),
        ("Dapagliflozin ((2S)-1,2-propanediol, hydrate)", "Dapagliflozin", ()),
        ("(R)-Verapamil (hydrochloride)", "(R)-Verapamil", ()),
        ("Sodium Salicylate", "Salicylate", ()),
        ("Folic acid", "Folic acid", ()),
    ],
)
def test_salt_and_synonym_are_read_from_the_name(name, base, others):
    assert split_name(name) == (base, others)


def test_folding():
    assert fold_name("BX 912") == fold_name("bx-912") == "bx912"
    assert fold_name("18β-Glycyrrhetinic acid") == "18betaglycyrrhetinicacid"
    assert name_key("Erlotinib (hydrochloride)") == "erlotinib"


def test_resolve_spellings_salts_and_synonyms():
    table = drug_table()
    found = table.resolve(["aspirin", "erlotinib", "Gefitinib hydrochloride", "NoSuchDrug"])
    assert found.approved == {
        "aspirin": "Aspirin",
        "erlotinib": "Erlotinib (hydrochloride)",
        "Gefitinib hydrochloride": "Gefitinib",
    }
    assert found.unknown == ("NoSuchDrug",)


def test_an_ambiguous_name_is_told_and_one_compound_is_not_ambiguous():
    table = DrugTable.from_cards(
        [
            DrugCard("X-1", structure=structure("CCO"), synonyms=("magic",)),
            DrugCard("X-2", structure=structure("CCN"), synonyms=("magic",)),
            DrugCard("Y (sodium)", structure=structure("[Na+].CC(=O)[O-]")),
            DrugCard("Y (potassium)", structure=structure("[K+].CC(=O)[O-]")),
        ]
    )
    assert table.resolve(["magic"]).ambiguous == {"magic": ("X-1", "X-2")}
    with pytest.raises(UnknownNameError, match="could mean 'X-1', 'X-2'"):
        table.card("magic")
    assert table.resolve(["Y"]).approved == {"Y": "Y (potassium)"}


def test_duplicates_labels_and_problems():
    frame = drug_frame()
    frame.loc[len(frame)] = ["Broken", "C1CC", "", "x"]
    table = DrugTable.from_frame(frame)
    assert table.duplicates(list(table.cards)) == [("Salicylic acid", "Sodium salicylate")]
    assert table.cards["Caffeine"].mechanism == ""
    assert table.cards["Ethanol"].targets == ()
    assert table.cards["Lapatinib"].targets == ("EGFR", "ERBB2")
    assert "not SMILES syntax" in table.problems["Broken"]
    assert table.cards["Broken"].compound == "name:broken"
    assert table.cards["Ethanol"].scaffold == table.cards["Ethanol"].compound


def test_tables_complete_each_other(tmp_path):
    drug_frame()[["drug", "moa"]].to_csv(tmp_path / "a.csv", index=False)
    extra = pd.DataFrame(
        {"drug": ["Aspirin"], "canonical_smiles": ["CC(=O)Oc1ccccc1C(=O)O"],
         "moa-fine": ["other label"], "human-approved": ["yes"], "targets": ["PTGS1|PTGS2"]}
    )  # fmt: skip
    extra.to_parquet(tmp_path / "b.parquet")
    card = DrugTable.read(tmp_path / "a.csv", tmp_path / "b.parquet").card("ASPIRIN")
    assert card.mechanism == "Cyclooxygenase inhibitor"
    assert card.structure is not None
    assert card.problem == ""
    assert card.approved is True
    assert card.targets == ("PTGS1", "PTGS2")
    with pytest.raises(InputError, match="no such file"):
        DrugTable.read(tmp_path / "c.csv")
    with pytest.raises(InputError, match="no column of drug names"):
        DrugTable.from_frame(pd.DataFrame({"x": [1]}), "t")


def test_salts_share_what_is_known_and_stereoisomers_do_not():
    frame = pd.DataFrame(
        {"drug": ["A", "A (sodium)", "(S)-B", "(R)-B"],
         "smiles": ["CC(=O)O", "[Na+].CC(=O)[O-]", "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"],
         "targets": ["X1", "", "Y1", ""], "moa": ["", "some inhibitor", "", ""]}
    )  # fmt: skip
    cards = DrugTable.from_frame(frame).cards
    assert cards["A (sodium)"].targets == ("X1",)
    assert cards["A"].mechanism == "some inhibitor"
    assert cards["(R)-B"].targets == ()
    assert cards["(R)-B"].compound == cards["(S)-B"].compound


def test_identify_names_and_smiles():
    table = drug_table()
    assert table.identify("aspirin")[0].name == "Aspirin"
    card, how = table.identify("O=C(C)Oc1ccccc1C(=O)O")
    assert (card.name, how) == ("Aspirin", "same structure as 'Aspirin'")
    card, how = table.identify("[K+].CC(=O)Oc1ccccc1C(=O)[O-]")
    assert card.name == "Aspirin"
    assert "salt or stereoisomer" in how
    card, how = table.identify("CCCCCN")
    assert (card.name, how) == ("CCCCCN", "new SMILES")
    with pytest.raises(UnknownNameError, match=r"did you mean 'Gefitinib'.*Nor is it a SMILES"):
        table.identify("Gefitinip")


def test_cell_facts(tmp_path):
    table = cell_table()
    assert table.line("a-549").text() == "A549: lung; drivers: KRAS p.G12S (GoF)"
    assert table.resolve("CVCL_0023") == "A549"
    assert table.related("SW480", ["A549", "MCF7", "HCT116"], 2) == (("HCT116", 1.0), ("A549", 0.5))
    k = table.similarity(["A549", "odd"], ["A549", "HCT116", "odd"])
    np.testing.assert_allclose(k, [[1, 0.5, 0], [0, 0, 1]])
    names = list(table.lines)
    assert np.linalg.eigvalsh(table.similarity(names, names)).min() > -1e-9
    with pytest.raises(UnknownNameError, match="MCF7"):
        table.line("MCF-77")
    frame = pd.DataFrame(
        {"cell_name": ["X", "X"], "Organ": ["Skin", "Skin"], "Cell_ID_Cellosaur": ["C1", "C1"],
         "Driver_Gene_Symbol": ["BRAF", "CDKN2A"], "Driver_VarType": ["Missense", "Deletion"],
         "Driver_ProtEffect_or_CdnaEffect": ["p.V600E", "DEL"],
         "Driver_Mech_InferDM": ["GoF", "LoF"]}
    )  # fmt: skip
    frame.to_csv(tmp_path / "cells.csv", index=False)
    read = CellTable.read(tmp_path / "cells.csv")
    assert read.line("C1").text() == "X: skin; drivers: BRAF p.V600E (GoF), CDKN2A deletion (LoF)"
    frame.drop(columns="cell_name").to_csv(tmp_path / "bad.csv")
    with pytest.raises(InputError, match="no column 'cell_name'"):
        CellTable.read(tmp_path / "bad.csv")


@pytest.mark.shared
def test_real_tables(shared_data):
    table = DrugTable.read(shared_data / "drugs" / "tahoe_drug_metadata.parquet")
    assert len(table) == 379
    assert set(table.problems) == {"Sacubitril/Valsartan", "Verteporfin"}
    rows = pd.read_parquet(shared_data / "drugs" / "tahoe_rank_obs.parquet")
    pairs = table.duplicates(rows["drug"].unique().tolist())
    assert len(pairs) == 6
    assert ("Tofacitinib", "Tofacitinib (citrate)") in pairs
    cells = CellTable.read(shared_data / "drugs" / "tahoe_cell_line_metadata.parquet")
    assert "KRAS p.G12S (GoF)" in cells.line("CVCL_0023").text()
