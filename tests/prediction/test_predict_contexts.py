"""`predict` on screens of several contexts: drugs, genes across lines, both (all SIMULATED)."""

import json

import numpy as np
import pandas as pd
import pytest
from drug_example import drug_frame, drug_knowledge, drug_screen

import pertwise
from pertwise.errors import InputError
from pertwise.prediction.predicting import predict
from pertwise.prediction.writing import write_prediction
from pertwise.report.prediction_page import render_prediction
from pertwise.screen import make_screen
from pertwise.screen.core import Screen, make_obs

SCREEN, KNOWN = drug_screen(), drug_knowledge()


def ask(names, context="A549", **settings):
    return predict(SCREEN, names, knowledge=KNOWN, context=context, **{"folds": 0, **settings})


def test_a_drug_screen_gets_all_that_a_gene_screen_gets(tmp_path):
    found = ask(["erlotinib", "Vorinostat"], folds=3)
    assert found.prediction.perturbations == ("Erlotinib (hydrochloride)", "Vorinostat")
    assert found.context == "A549"
    assert any("in A549: its rows are hidden" in n for n in found.notes)
    assert any("measured in 3 other contexts, which this prediction uses" in n for n in found.notes)
    standing = found.standing
    assert (standing.baseline, standing.decisive) == ("context mean", "pearson_delta")
    assert standing.verdict == "better", "the same drugs were measured in three other lines"
    assert "mse" not in standing.summary.index, "ranks have no magnitude"
    assert "beats the context mean in 3-fold" in standing.sentence
    why = found.explanations[0]
    assert {"Gefitinib", "Lapatinib"} <= set(why.neighbours["neighbour"][:3])
    assert np.isfinite(why.neighbours["cv_cosine"]).any()
    page = render_prediction(found)
    assert "Gefitinib" in page
    assert "SIMULATED" in page.upper()
    paths = write_prediction(found, tmp_path)
    record = json.loads(paths["prediction.json"].read_text())
    assert record["settings"]["contexts_learned"] == ["A549", "HCT116", "MCF7", "K562"]
    assert record["standing"]["verdict"] == "better"
    assert len(pd.read_csv(paths["prediction.csv"])) == 2 * SCREEN.n_features


def test_spellings_salts_and_smiles():
    found = ask(["ONC(=O)CCCCCC(=O)Nc1ccccc1"], method="kernel-ridge")
    assert "nothing but its structure is known" in found.notes[0]
    near = found.prediction.neighbours
    assert "Vorinostat" in set(near["neighbour"][:2])
    salt = ask(["OC(=O)c1ccccc1O"])
    assert salt.record["settings"]["hidden"] == ["Salicylic acid", "Sodium salicylate"]
    with pytest.raises(InputError, match="unknown drug 'Gefitinip'; did you mean 'Gefitinib'"):
        ask(["Gefitinip"])


def test_a_line_that_was_not_measured_is_borrowed_or_refused():
    found = ask(["Aspirin"], context="CVCL_0546", folds=2)
    assert found.context == "SW480"
    assert "context not measured: borrowed from" in found.prediction.support["fallback"].iloc[0]
    assert found.measured is None
    assert found.standing.where == ""
    assert len(found.standing.per_perturbation) == len(SCREEN)
    with pytest.raises(InputError, match="unknown context 'A54'; did you mean 'A549'"):
        ask(["Aspirin"], context="A54")
    with pytest.raises(InputError, match="choose one with --context"):
        ask(["Aspirin"], context=None)


def test_cross_validation_holds_out_what_the_question_does():
    new = ask(["CCOC(=O)c1ccccc1"], folds=3).standing
    assert len(new.per_perturbation) == len(SCREEN.in_context("A549"))
    seen = ask(["Aspirin"], folds=3).standing
    gain = [s.summary.loc["pearson_delta", "difference"] for s in (new, seen)]
    assert gain[1] > gain[0], "easier: the held-out drugs were seen in other lines"


def test_tables_can_be_given_as_files(tmp_path):
    SCREEN.save(tmp_path / "screen.h5ad")
    drug_frame().to_parquet(tmp_path / "drugs.parquet")
    found = pertwise.predict(
        tmp_path / "screen.h5ad", ["Aspirin"], drugs=tmp_path / "drugs.parquet", context="A549",
        folds=0,
    )  # fmt: skip
    assert found.record["inputs"]["drugs"] == {"path": "drugs.parquet"}
    np.testing.assert_array_equal(
        found.prediction.mean,
        predict(SCREEN, ["Aspirin"], knowledge=drug_knowledge(lines=False), context="A549",
                folds=0).prediction.mean,
    )  # fmt: skip


def test_a_method_of_one_context_learns_from_that_one():
    found = ask(["Aspirin"], method="training-mean")
    own = SCREEN.in_context("A549")
    rest = own.take((own.obs["perturbation"] != "Aspirin").to_numpy())
    np.testing.assert_allclose(
        found.prediction.mean[0], np.nanmean(rest.responses, axis=0), atol=1e-5
    )
    assert found.n_train == len(rest)


def test_genes_across_lines_need_no_table():
    rng = np.random.default_rng(0)
    effect = rng.normal(size=(20, 15))
    y = np.vstack([effect + shift + 0.1 * rng.normal(size=effect.shape) for shift in (0.5, -0.5)])
    names = [f"G{i}" for i in range(20)]
    screen = make_screen(y, names * 2, [f"f{i}" for i in range(15)],
                         context=["L1"] * 20 + ["L2"] * 20)  # fmt: skip
    found = predict(screen, ["G3"], method="additive-contexts", context="L2", folds=4)
    assert np.corrcoef(found.prediction.mean[0], effect[3])[0, 1] > 0.9
    assert found.standing.verdict == "better"
    assert found.standing.decisive == "mse"


def test_a_mixed_screen_is_told():
    y = np.random.default_rng(0).normal(size=(4, 60)).astype(np.float32)
    obs = pd.concat([SCREEN.obs.iloc[:12][list(make_obs(["a"]).columns)],
                     make_obs(["EGFR", "TP53", "MYC", "JUN"], context="A549")])  # fmt: skip
    mixed = Screen(
        np.vstack([SCREEN.responses[:12], y]), obs, SCREEN.features,
        np.full((1, 60), np.nan, np.float32),
    )  # fmt: skip
    known = drug_knowledge()
    known.resolve = lambda names: type("R", (), {"approved": {n: n for n in names if n.isupper()}})
    found = predict(mixed, ["Aspirin"], knowledge=known, folds=0)
    assert any("mixed screen: 4 genes and 12 compounds" in n for n in found.notes)
