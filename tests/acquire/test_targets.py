"""Who can be knocked down at all, and what is said about those who can hardly be."""

import gzip

import numpy as np
import pandas as pd
import pytest
from fake_knowledge import FakeEnsemble

from pertwise.acquire import amend, plan
from pertwise.acquire.candidates import list_candidates
from pertwise.acquire.facts import essential_genes, known_facts
from pertwise.acquire.targets import UNDETECTED, describe_targets, detection
from pertwise.knowledge import Knowledge, build_knowledge
from pertwise.knowledge.facts import read_facts
from pertwise.screen import make_screen

HGNC = """hgnc_id\tsymbol\tname\tstatus\talias_symbol\tprev_symbol\tentrez_id\tensembl_gene_id
HGNC:4826\tHBA\themoglobin A\tApproved\t\t\t3039\tENSG00000000001
HGNC:4827\tHBB\themoglobin B\tApproved\tBETA\t\t3043\tENSG00000000002
HGNC:4828\tHBBP\themoglobin pseudogene\tApproved\t\t\t3044\t
HGNC:4829\tLNC1\ta long RNA\tApproved\t\t\t3045\tENSG00000000004
HGNC:4830\tORX\tolfactory receptor\tApproved\t\t\t3046\tENSG00000000005
HGNC:4831\tNEAR\tneighbour of HBA\tApproved\t\t\t3047\tENSG00000000006
HGNC:4832\tDONE1\tmeasured one\tApproved\t\t\t3048\tENSG00000000007
HGNC:4833\tDONE2\tmeasured two\tApproved\t\t\t3049\tENSG00000000008
"""
#: HBA (+, 1000) and NEAR (-, ends 700) start 300 bases apart; ORX (+, 1600) is 600 from HBA.
PLACES = """symbol\tensgene\tchr\tstart\tend\tstrand\tbiotype
HBA\tENSG00000000001\t1\t1000\t5000\t1\tprotein_coding
NEAR\tENSG00000000006\t1\t100\t700\t-1\tprotein_coding
HBB\tENSG00000000002\t2\t1000\t5000\t1\tprotein_coding
LNC1\tENSG00000000004\t3\t1000\t5000\t1\tlncRNA
ORX\tENSG00000000005\t4\t1000\t5000\t1\tprotein_coding
DONE1\tENSG00000000007\t5\t1000\t5000\t1\tprotein_coding
DONE2\tENSG00000000008\t6\t1000\t5000\t1\tprotein_coding
"""
SETS = "ALL_GENES\t\t" + "\t".join(["HBA", "HBB", "HBBP", "LNC1", "ORX", "NEAR", "DONE1", "DONE2"])


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    sources = folder / "sources"
    sources.mkdir()
    (sources / "hgnc_complete_set.txt").write_text(HGNC)
    with gzip.open(sources / "gene_position.tsv.gz", "wt") as handle:
        handle.write(PLACES)
    (sources / "sets.gmt").write_text(SETS + "\n")
    return Knowledge.open(build_knowledge(sources, folder / "knowledge"))


def screen(control=(0.0, 0.5, 2.0, 0.001), unit="log-normalised expression", **meta):
    """Two measured genes, four features; in the controls HBB is there and HBA and ORX are not."""
    return make_screen(
        np.array([[0.1, 0.2, 0.0, 0.3], [0.0, -0.4, 0.1, 0.2]]),
        ["DONE1", "DONE2"],
        ["HBA", "BETA", "OTHER", "ORX"],
        context="K",
        control_mean=np.array([control]),
        meta={"unit": unit, "target_sum": 1e4, **meta},
    )


def test_default_candidates_are_coding_placed_and_there(knowledge):
    names, origin = list_candidates("auto", screen(), knowledge)
    assert names == ["DONE1", "DONE2", "HBB", "NEAR"]  # HBA and ORX are absent from the controls
    assert "(2 are)" in origin
    assert "--candidates all takes all 8" in origin
    without, _ = list_candidates("targetable", None, knowledge)
    assert without == ["DONE1", "DONE2", "HBA", "HBB", "NEAR", "ORX"]
    everyone, _ = list_candidates("all", screen(), knowledge)
    assert {"HBBP", "LNC1", "HBA"} <= set(everyone)


def test_a_library_that_is_in_the_screen_is_taken_whole(knowledge):
    y = np.array([[0.1] * 4, [np.nan] * 4])
    half = make_screen(y, ["DONE1", "LNC1"], ["HBA", "BETA", "OTHER", "ORX"])
    assert list_candidates("auto", half, knowledge)[0] == ["LNC1"]


def test_detection_is_what_the_controls_say_and_nothing_more(knowledge):
    assert detection(screen(), knowledge) == {"HBA": False, "HBB": True, "ORX": False}
    # one count per million is 0.01 in 10,000: log(1.01) = 0.00995
    at_limit = screen(control=(0.0099, 0.0100, 1.0, np.nan))
    assert detection(at_limit, knowledge) == {"HBA": False, "HBB": True}
    assert detection(screen(unit="value as in the file"), knowledge) == {}
    assert detection(None, knowledge) == {}
    listed = screen(**{UNDETECTED: {"K": ["LNC1", "HBB"], "other line": ["NEAR"]}})
    found = detection(listed, knowledge)
    assert found["LNC1"] is False
    assert found["HBB"] is True  # the value that is there counts more than the list
    assert "NEAR" not in found


def test_ids_and_flags(knowledge):
    told = describe_targets(
        {n: n for n in ("HBA", "HBBP", "LNC1", "HBB")} | {"HBB+LNC1": "HBB+LNC1"},
        screen(),
        knowledge,
    )
    assert told.table.loc["HBA", ["ensembl", "hgnc", "entrez", "full_name"]].tolist() == [
        "ENSG00000000001",
        "HGNC:4826",
        "3039",
        "hemoglobin A",
    ]
    assert told.flags["HBA"] == (
        "not detected in your controls",
        "promoter shared with NEAR (300 bases)",
    )
    assert told.flags["LNC1"] == ("not protein coding: lncRNA",)
    assert "without a known position" in told.flags["HBBP"][0]
    assert "HBB" not in told.flags
    assert told.flags["HBB+LNC1"] == ("not protein coding: lncRNA",)
    assert told.table.loc["HBB+LNC1", "entrez"] == "3043+3045"


def test_a_plan_of_a_given_list_carries_ids_and_warns(knowledge, tmp_path):
    made = plan(
        screen(),
        knowledge,
        candidates=["HBA", "LNC1", "HBB"],
        batch=2,
        strategy="random",
        pin=["LNC1"],
        exclude=["HBB"],
        predictor=FakeEnsemble(),
    )
    assert set(made.genes) == {"HBA", "LNC1"}
    assert any("not protein coding: LNC1" in w for w in made.warnings)
    assert any("not detected in your controls: HBA" in w for w in made.warnings)
    made.save_csv(tmp_path / "plan.csv")
    table = pd.read_csv(tmp_path / "plan.csv", dtype=str).set_index("gene")
    assert table.loc["HBA", ["ensembl", "hgnc", "entrez", "full_name"]].tolist() == [
        "ENSG00000000001",
        "HGNC:4826",
        "3039",
        "hemoglobin A",
    ]
    assert "promoter shared with NEAR (300 bases)" in table.loc["HBA", "flags"]
    assert any(w == "1 of the panel: promoter shared with another gene: HBA" for w in made.warnings)
    assert made.candidate_table.loc["HBA", "detected"] is False
    other = (
        amend(made, replace={"LNC1": "HBA"}, by="A", why="B")
        if "HBA" not in made.genes
        else (amend(amend(made, drop=["HBA"], by="A", why="B"), add=["HBA"], by="A", why="B"))
    )
    again = next(p for p in other.picks if p.gene == "HBA")
    assert (again.hgnc, again.entrez) == ("HGNC:4826", "3039")
    assert "not detected in your controls" in again.flags


def test_common_essential_genes_of_a_users_table_are_flagged_on_any_list(knowledge, tmp_path):
    table = tmp_path / "depmap.csv"
    # the old name of HBB; a fitness score is no yes
    table.write_text("gene,Common Essential,essential\nBETA,TRUE,-1.1\nNEAR,FALSE,0.2\n")
    made = plan(
        screen(),
        knowledge,
        candidates=["HBB", "NEAR", "HBB+NEAR"],
        batch=3,
        strategy="random",
        predictor=FakeEnsemble(),
        facts=str(table),
    )
    assert "3 of the panel" not in " ".join(w for w in made.warnings if "essential" in w)
    assert any("2 of the panel: common essential: HBB" in w for w in made.warnings)
    flags = made.table.set_index("gene")["flags"]
    assert "common essential" in flags["HBB"]
    assert "common essential" in flags["HBB+NEAR"]
    assert "essential" not in flags["NEAR"]
    listed = plan(
        None,
        knowledge,
        candidates=["HBB", "NEAR"],
        batch=1,
        strategy="random",
        facts=str(table),
        require="common essential = no",
    )
    assert listed.genes == ("NEAR",)
    assert "common essential" not in listed.candidate_table["flags"].get("NEAR", "")


def test_yes_in_any_spelling_is_essential_and_a_score_is_not(tmp_path):
    def of(header, *values):
        rows = "".join(f"G{i},{v},x\n" for i, v in enumerate(values))
        (tmp_path / "t.csv").write_text(f"gene,{header},more\n{rows}")
        return sorted(essential_genes(read_facts(tmp_path / "t.csv"), None))

    assert of("common_essential", 1, 0, 1) == ["G0", "G2"]
    assert of("Core-Essential", "yes", "No", "") == ["G0"]
    assert of("essential", "Essential", "non-essential") == ["G0"]
    assert of("essential", 1, -0.4) == []
    assert of("essential in K562", "yes", "yes") == []
    assert essential_genes(None, None) == frozenset()


def test_control_means_say_their_unit(knowledge):
    names = ["HBB", "DONE1"]
    plain = known_facts(names, screen(control=(0, 0.5, 2.0, 0.0)), knowledge)
    assert plain["expression in controls"].iloc[0] == pytest.approx(0.5)
    other = known_facts(names, screen(unit="value as in the file"), knowledge)
    assert list(other.columns) == ["control mean (value as in the file)"]


def test_hgnc_ids_are_names_too(knowledge):
    assert knowledge.resolve(["HGNC:4827", "hgnc:4826"]).approved == {
        "HGNC:4827": "HBB",
        "hgnc:4826": "HBA",
    }
