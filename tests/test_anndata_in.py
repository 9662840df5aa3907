"""An AnnData goes wherever a screen or the path of one does, and gives the same."""

import numpy as np
import pytest

import pertwise as pw


@pytest.fixture(scope="module")
def given(simulated):
    screen, knowledge = simulated
    return screen, screen.to_anndata(), knowledge


def test_predict(given):
    screen, data, _ = given
    names = screen.perturbations[:2]
    one, two = (pw.predict(s, names, method="training-mean", folds=0) for s in (screen, data))
    np.testing.assert_array_equal(one.prediction.mean, two.prediction.mean)
    assert two.simulated


def test_plan(given):
    screen, _, knowledge = given
    left = list(screen.perturbations[40:])
    hidden = screen.hide(left)
    settings = {"candidates": left, "batch": 3, "strategy": "typiclust", "seed": 0}
    one, two = (pw.plan(s, knowledge, **settings) for s in (hidden, hidden.to_anndata()))
    assert one.genes == two.genes
    assert two.inputs["screen"]["note"] == "an AnnData object given in the call"


def test_design_and_join(given):
    screen, data, _ = given
    assert repr(pw.design(data)) == repr(pw.design(screen))
    rows = pw.join({"first": data, "second": data}, duplicates="average")
    assert set(rows.perturbations) == set(screen.perturbations)


def test_questions(given, scripted_llm):
    screen, data, knowledge = given
    chat = pw.chat(scripted_llm.openai("scripted"))
    try:
        names = screen.perturbations[:2]
        asked = [pw.ask(s, names, llm=chat, knowledge=knowledge) for s in (screen, data)]
        rated = pw.rate(data, names=names, llm=chat)
    finally:
        chat.shutdown()
    assert repr(asked[0]) == repr(asked[1])
    assert set(rated.table["perturbation"]) == set(names)


def test_a_plan_lies_where_scanpy_looks(given):
    screen, _, knowledge = given
    names = list(screen.perturbations)
    data = screen.to_anndata()
    hidden = screen.hide(names[40:])
    made = pw.plan(hidden, knowledge, candidates=names[40:], batch=3, strategy="typiclust", seed=0)
    assert made.to_anndata(into=data) is data
    told = data.obs["pertwise"]
    assert set(told.index[told == "picked"]) == set(made.genes)
    assert (told[names[:40]] == "measured").all()
    assert int((told == "candidate").sum()) == len(names) - 43
    table = made.candidate_table.loc[made.genes[0]]
    row = data.obs_names.get_loc(made.genes[0])
    np.testing.assert_allclose(data.obsm["X_pertwise"][row], table[["x", "y"]].astype(float))
    assert pw.Plan.model_validate_json(data.uns["pertwise_plan"]).genes == made.genes
    data.obs["context"] = "another line"
    with pytest.raises(pw.InputError, match="no row of the AnnData"):
        made.to_anndata(into=data)
    data.obs["context"] = screen.contexts[0]
    # it stays a screen that is read, and a file that anndata writes
    assert pw.read_screen(data).perturbations == screen.perturbations
    alone = made.to_anndata()
    assert set(alone.obs_names) == set(names)


def test_a_plan_and_a_prediction_go_to_the_cells_of_their_perturbations(tmp_path):
    sim = pw.simulate(3, n_perturbations=20, n_features=24, n_pathways=2)
    cells = sim.cells(1)
    found = pw.predict(sim.screen, sim.screen.perturbations[:2], method="training-mean", folds=0)
    one, two = found.prediction.perturbations
    found.to_anndata(into=cells)
    table = cells.obsm["pertwise_predicted"]
    assert list(table.columns) == list(found.prediction.features)
    label = cells.obs["perturbation"].astype(str)
    np.testing.assert_allclose(
        table[(label == two).to_numpy()].drop_duplicates().to_numpy(), found.prediction.mean[1:2]
    )
    assert table[~label.isin([one, two]).to_numpy()].isna().all(axis=None)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    import anndata

    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert again.obsm["pertwise_predicted"].shape == (len(cells), sim.screen.n_features)
    with pytest.raises(pw.InputError, match=r"no row of the AnnData is one of the 2 perturb.*key="):
        found.to_anndata(into=cells[~label.isin([one, two]).to_numpy()].copy())


def test_scanpy_draws_the_map_of_a_plan(given):
    scanpy = pytest.importorskip("scanpy", reason="needs scanpy")
    screen, _, knowledge = given
    left = list(screen.perturbations[40:])
    hidden = screen.hide(left)
    made = pw.plan(hidden, knowledge, candidates=left, batch=3, strategy="typiclust", seed=0)
    data = screen.to_anndata()
    ax = scanpy.pl.embedding(made.to_anndata(into=data), "pertwise", color="pertwise", show=False)
    assert ax.get_xlabel().startswith("pertwise")
