"""A drug is the same drug however its table spells the name."""

import json

import pandas as pd
import pytest

from pertwise.knowledge.drugs.table import DrugTable, fold_name, split_name
from pertwise.knowledge.recorded import read_recording
from pertwise.screen import read_screen

pytest.importorskip("rdkit")
SMILES = "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O"
NAMES = ["ibuprofen (+)", "S-(+)-ibuprofen", "A/B (x) [y]", "Ca2+ blocker", "tegafur + uracil"]


@pytest.mark.parametrize("column", ["drug", "compound", "perturbation", "condition", "pert"])
def test_names_are_alike_in_responses_drug_table_and_lists(tmp_path, column):
    frame = pd.DataFrame({column: ["DMSO", *NAMES], "F1": [0.0, -1, 2, 3, 4, 5]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    screen = read_screen(tmp_path / "t.csv", perturbation_key=column, values="deltas")
    table = DrugTable.from_frame(pd.DataFrame({"drug": NAMES, "smiles": SMILES}))
    assert set(screen.perturbations) == set(table.cards)
    assert all(table.cards[n].structure is not None for n in screen.perturbations)
    lines = [json.dumps({"drug": n, "neighbours": NAMES}) for n in NAMES]
    (tmp_path / "lists.jsonl").write_text("\n".join(lines))
    found = read_recording(tmp_path / "lists.jsonl")
    assert set(found.answers) == set(screen.perturbations)
    assert {x for names, _ in found.answers.values() for x in names} == set(screen.perturbations)


def test_the_sign_of_an_enantiomer_counts_wherever_it_stands():
    assert fold_name("(+)-JQ1") == fold_name("JQ1 (+)") == fold_name("jq1 (plus)")
    assert fold_name("(-)-JQ1") != fold_name("(+)-JQ1")
    assert split_name("S-(+)-ibuprofen (sodium)") == ("S ibuprofen", ())


def test_another_spelling_keeps_its_structure_and_its_compound():
    table = DrugTable.from_frame(
        pd.DataFrame(
            {"drug": ["ibuprofen (+)", "ibuprofen sodium"], "smiles": [SMILES, SMILES + ".[Na]"]}
        )
    )
    found = table.compounds(["(+)-ibuprofen", "Ibuprofen (+) hydrochloride", "ibuprofen (sodium)"])
    assert len(set(found.values())) == 1
    spelt = table.spelt(["(+)-Ibuprofen", "unheard of"])
    assert spelt.cards["(+)-Ibuprofen"].structure is not None
    assert "unheard of" not in spelt
