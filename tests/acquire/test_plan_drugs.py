"""Planning drugs of one line with the functions that plan genes (SIMULATED responses)."""

import numpy as np
import pytest
from drug_example import drug_frame, drug_knowledge, drug_screen
from typer.testing import CliRunner

from pertwise.acquire import plan
from pertwise.acquire.candidates import make_pool
from pertwise.acquire.state import choose_embedding, gene_features, neighbour_weights
from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.knowledge.types import Pathway, Resolution

pytest.importorskip("rdkit")
KNOWN, SCREEN = drug_knowledge(), drug_screen()
UNMEASURED = ["Vorinostat", "Lapatinib", "Aspirin"]


def test_candidates_are_the_drugs_that_this_line_lacks():
    line = SCREEN.in_context("A549").hide([*UNMEASURED, "Salicylic acid"])
    pool = make_pool(list(KNOWN.drugs.cards), "table", line, KNOWN)
    assert sorted(pool.candidates) == sorted(UNMEASURED)
    salts = [r for r in pool.left_out if r.gene == "Salicylic acid"]
    assert salts[0].why == "already measured as Sodium salicylate"


def test_features_and_neighbours_come_from_the_table():
    assert choose_embedding(KNOWN) == "compounds"
    rows, blank = gene_features(KNOWN, ["Vorinostat", "Belinostat", "Ethanol", "Nope"], "compounds")
    assert blank == ("Nope",)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    weights = neighbour_weights(KNOWN, ["Vorinostat", "Belinostat", "Ethanol"]).toarray()
    assert weights[0, 1] > 0.5
    assert weights[0, 2] == 0
    np.testing.assert_array_equal(np.diag(weights), 0)


@pytest.mark.parametrize("strategy", ["typiclust", "random"])
def test_a_panel_of_drugs(strategy):
    made = plan(SCREEN.hide(UNMEASURED), KNOWN, context="A549", batch=2, strategy=strategy)
    genes = [p.gene for p in made.picks]
    assert len(genes) == 2
    assert set(genes) <= set(UNMEASURED)
    assert any("inhibitor" in p.summary for p in made.picks)
    with pytest.raises(InputError, match="choose one with"):
        plan(SCREEN.hide(UNMEASURED), KNOWN, batch=2, strategy="random")


def test_a_drug_stands_to_a_pathway_as_its_closest_target(monkeypatch):
    known, genes = drug_knowledge(), {"EGFR": "EGFR", "ERBB2": "ERBB2"}
    monkeypatch.setattr(known, "resolve", lambda names: Resolution(genes))
    pathway = Pathway("p", ("ERBB2",), modules={"m": ("ERBB2",)})
    found = known.relations(["Lapatinib", "Gefitinib", "Ethanol"], pathway)
    assert (found["Lapatinib"].kind, found["Lapatinib"].module) == ("direct_member", "m")
    assert "target ERBB2" in found["Lapatinib"].evidence
    assert found["Ethanol"].kind == "unknown"


def test_the_command(tmp_path):
    SCREEN.hide(UNMEASURED).save(tmp_path / "screen.h5ad")
    drug_frame().to_parquet(tmp_path / "drugs.parquet")
    done = CliRunner().invoke(
        app,
        ["plan", "make", str(tmp_path / "screen.h5ad"), "--drugs", str(tmp_path / "drugs.parquet"),
         "--context", "A549", "--batch", "2", "--strategy", "typiclust", "--out",
         str(tmp_path / "out")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "plan.html").is_file()
