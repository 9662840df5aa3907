import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pertwise.errors import InputError, UnknownNameError
from pertwise.screen import PseudobulkSettings, Screen, read_screen, simulate_screen
from pertwise.screen.layouts import Keys
from pertwise.screen.pseudobulk import pseudobulk

ALL = PseudobulkSettings(n_hvg=None, min_cells=1)


@pytest.fixture(scope="module")
def cells():
    made = simulate_screen(
        0, n_perturbations=16, n_features=40, n_pathways=2, contexts=("A", "B"),
        n_combinations=3, mean_cells=15, control_cells=60,
    )  # fmt: skip
    return made.cells(1, n_batches=3)


def naive(data, batched=True):
    """Slow, independent: dense arrays and a loop over perturbations."""
    counts = data.X.toarray().astype(float)
    x = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    obs = data.obs.reset_index(drop=True)
    batch = obs["batch"].astype(str) if batched else pd.Series("", index=obs.index)
    out = {}
    for context in obs["cell_line"].unique():
        here = obs["cell_line"] == context
        control = here & (obs["perturbation"] == "control")
        centre = {b: x[control & (batch == b)].mean(0) for b in batch.unique()}
        size = {b: (control & (batch == b)).sum() for b in batch.unique()}
        squares = sum(x[control & (batch == b)].var(0) * size[b] for b in size)
        pooled = squares / (control.sum() - len(size))
        for name in obs["perturbation"].unique():
            mine = np.flatnonzero(here & (obs["perturbation"] == name))
            if name == "control" or not len(mine):
                continue
            y = np.array([x[i] - centre[batch[i]] for i in mine])
            w = batch[mine].value_counts() / len(mine)
            share = sum(v**2 / size[b] for b, v in w.items())
            own = y.var(0, ddof=1) if len(mine) > 1 else pooled
            out[name, context] = (y.mean(0), own / len(mine) + pooled * share, len(mine))
    return out


@pytest.mark.parametrize("batched", [True, False])
def test_against_a_plain_loop(cells, batched):
    settings = ALL if batched else PseudobulkSettings(n_hvg=None, min_cells=1, keys=Keys(batch=""))
    screen = pseudobulk(cells, settings)
    expected = naive(cells, batched)
    assert len(screen) == len(expected)
    for row in range(len(screen)):
        entry = screen.obs.iloc[row]
        delta, variance, n = expected[entry["perturbation"], entry["context"]]
        np.testing.assert_allclose(screen.responses[row], delta, atol=2e-6)
        np.testing.assert_allclose(screen.sampling_variance[row], variance, rtol=1e-4)
        assert entry["n_cells"] == n
        assert entry["sampling_variance"] == pytest.approx(variance.sum(), rel=1e-4)
    assert screen.simulated


def same(a, b):
    np.testing.assert_array_equal(a.responses, b.responses)
    np.testing.assert_array_equal(a.sampling_variance, b.sampling_variance)
    np.testing.assert_array_equal(a.control_mean, b.control_mean)
    pd.testing.assert_frame_equal(a.obs, b.obs)
    assert a.features == b.features


@pytest.mark.parametrize("form", ["csr", "csc", "dense", "zarr", "wide parquet", "shuffled"])
def test_every_form_of_file_gives_the_same_bits(cells, form, tmp_path, monkeypatch):
    monkeypatch.setattr("pertwise.screen.cells.BLOCK_ENTRIES", 500)
    data = cells.copy()
    path = tmp_path / "cells.h5ad"
    if form == "csc":
        data.X = sparse.csc_matrix(data.X)
    elif form == "dense":
        data.X = data.X.toarray()
    elif form == "shuffled":
        data = data[np.random.default_rng(0).permutation(len(data))].copy()
    if form == "zarr":
        pytest.importorskip("zarr")
        path = tmp_path / "cells.zarr"
        data.write_zarr(path)
    elif form == "wide parquet":
        path = tmp_path / "cells.parquet"
        table = pd.DataFrame(data.X.toarray(), columns=list(data.var_names))
        pd.concat([data.obs.reset_index(drop=True), table], axis=1).to_parquet(
            path, row_group_size=97
        )
    else:
        data.write_h5ad(path)
    settings = PseudobulkSettings(n_hvg=25)
    same(pseudobulk(path, settings), pseudobulk(cells, settings))


def test_token_parquet_of_tahoe(cells, tmp_path):
    dense = cells.X.toarray()
    table = pd.DataFrame(
        {
            "genes": [[1, *(np.flatnonzero(row) + 3)] for row in dense],
            "expressions": [[-2.0, *row[row > 0]] for row in dense],
            "drug": cells.obs["perturbation"].astype(str).to_numpy(),
            "cell_line": cells.obs["cell_line"].astype(str).to_numpy(),
            "plate": cells.obs["batch"].astype(str).to_numpy(),
        }
    )
    table.to_parquet(tmp_path / "tahoe.parquet", row_group_size=101)
    genes = pd.DataFrame(
        {"token_id": np.arange(3, 3 + cells.n_vars), "gene_symbol": list(cells.var_names)}
    )
    genes.to_parquet(tmp_path / "genes.parquet")
    settings = PseudobulkSettings(
        n_hvg=None, min_cells=1, gene_table=str(tmp_path / "genes.parquet")
    )
    screen = pseudobulk(tmp_path / "tahoe.parquet", settings)
    reference = pseudobulk(cells, ALL)
    np.testing.assert_array_equal(
        np.sort(screen.responses.ravel()), np.sort(reference.responses.ravel())
    )
    with pytest.raises(InputError, match="names genes by token"):
        pseudobulk(tmp_path / "tahoe.parquet", ALL)
    genes.iloc[1:].to_parquet(tmp_path / "genes.parquet")
    with pytest.raises(InputError, match=r"holds gene token 3, which .* does not list"):
        pseudobulk(tmp_path / "tahoe.parquet", settings)


def logged(cells):
    data = cells.copy()
    x = data.X.toarray()
    data.X = sparse.csr_matrix(np.log1p(x / x.sum(1, keepdims=True) * 1e4))
    return data


def test_log_data_are_never_logged_twice(cells):
    untagged, tagged = logged(cells), logged(cells)
    tagged.uns["log1p"] = {"base": None}
    expected = pseudobulk(cells, ALL)
    for data in (untagged, tagged):
        screen = pseudobulk(data, ALL)
        assert screen.meta["scale"] == "log1p"
        np.testing.assert_allclose(screen.responses, expected.responses, atol=2e-6)


def test_counts_layer_is_preferred_and_logs_in_x_are_not_touched(cells):
    data = logged(cells)
    data.layers["counts"] = cells.X.copy()
    screen = pseudobulk(data, ALL)
    assert "layer 'counts'" in screen.meta["scale_evidence"]
    same(screen, pseudobulk(cells, ALL))


def test_counts_with_a_log_tag_are_refused(cells):
    data = cells.copy()
    data.uns["log1p"] = {"base": None}
    with pytest.raises(InputError, match=r"contradicts itself.*--scale counts"):
        pseudobulk(data, ALL)
    same(
        pseudobulk(data, PseudobulkSettings(n_hvg=None, min_cells=1, scale="counts")),
        pseudobulk(cells, ALL),
    )


def test_held_out_cells_do_not_influence_the_features(cells):
    names = sorted({p for p in cells.obs["perturbation"] if "+" not in p and p != "control"})
    held = names[0]
    settings = PseudobulkSettings(n_hvg=12, holdout=(held,))
    disturbed = cells.copy()
    x = disturbed.X.toarray()
    mine = np.array([held in p.split("+") for p in disturbed.obs["perturbation"]])
    rng = np.random.default_rng(0)
    x[mine] = rng.poisson(rng.gamma(0.2, 40, size=x[mine].shape)) + (x[mine] > 0)
    disturbed.X = sparse.csr_matrix(x)
    assert pseudobulk(disturbed, settings).features == pseudobulk(cells, settings).features
    free = PseudobulkSettings(n_hvg=12)
    assert pseudobulk(disturbed, free).features != pseudobulk(cells, free).features
    with pytest.raises(UnknownNameError, match="unknown held-out perturbation 'nobody'"):
        pseudobulk(cells, PseudobulkSettings(n_hvg=12, holdout=("nobody",)))


def test_batches_without_controls_use_the_context_and_say_so(cells):
    lost = (
        (cells.obs["perturbation"] == "control")
        & (cells.obs["batch"] == "batch2")
        & (cells.obs["cell_line"] == "A")
    )
    screen = pseudobulk(cells[~lost].copy(), ALL)
    assert any("1 of 3 batches have no control cells" in n for n in screen.meta["notes"])


def test_context_without_controls(cells):
    data = cells[~((cells.obs["perturbation"] == "control") & (cells.obs["cell_line"] == "B"))]
    with pytest.raises(InputError, match=r"context 'B' has no control cells.*--skip-uncontrolled"):
        pseudobulk(data.copy(), ALL)
    screen = pseudobulk(data.copy(), PseudobulkSettings(n_hvg=None, skip_uncontrolled=True))
    assert screen.contexts == ("A",)
    assert any("'B' has no control cells and was left out" in n for n in screen.meta["notes"])


def test_one_context_of_several_alone_and_a_name_for_cells_that_have_none(cells, tmp_path):
    """What is asked of line A is what line A alone gives; the rest is counted."""
    only = pseudobulk(cells, PseudobulkSettings(n_hvg=12, min_cells=1, context="A"))
    here = cells.obs["cell_line"] == "A"
    alone = pseudobulk(cells[here].copy(), PseudobulkSettings(n_hvg=12, min_cells=1))
    same(only, alone)
    assert only.contexts == ("A",)
    assert any(
        n == f"{(~here).sum()} cells of other contexts than 'A' left out"
        for n in only.meta["notes"]
    )
    with pytest.raises(UnknownNameError, match="context 'C'"):
        pseudobulk(cells, PseudobulkSettings(context="C"))
    bare = cells[here].copy()
    del bare.obs["cell_line"]
    named = pseudobulk(bare, PseudobulkSettings(n_hvg=12, min_cells=1, context="HepG2"))
    assert named.contexts == ("HepG2",)
    np.testing.assert_array_equal(named.responses, alone.responses)


def test_files_that_state_different_lines_are_not_put_into_one(cells, tmp_path):
    for name in "AB":
        part = cells[cells.obs["cell_line"] == name].copy()
        del part.obs["cell_line"]
        part.uns["cell_line"] = name
        part.write_h5ad(tmp_path / f"{name}.h5ad")
    with pytest.raises(InputError, match=r"context_name is 'A' in the first and 'B' in the second"):
        pseudobulk([tmp_path / "A.h5ad", tmp_path / "B.h5ad"], ALL)


def test_one_default_of_cells_for_python_and_the_command_line(cells):
    screen = pseudobulk(cells)
    counts = pseudobulk(cells, ALL).obs["n_cells"]
    assert len(screen) == int((counts >= 10).sum()) < len(counts)
    assert any("with fewer than 10 cells set apart" in n for n in screen.meta["notes"])


def test_cells_without_counts_are_left_out_and_counted(cells):
    data = cells.copy()
    x = data.X.toarray()
    victims = np.flatnonzero(data.obs["perturbation"] != "control")[:2]
    x[victims] = 0
    data.X = sparse.csr_matrix(x)
    screen = pseudobulk(data, ALL)
    assert "2 perturbed cells without any count left out" in screen.meta["notes"]
    assert screen.obs["n_cells"].sum() == pseudobulk(cells, ALL).obs["n_cells"].sum() - 2


def test_small_groups_are_left_out_and_counted(cells):
    everything = pseudobulk(cells, ALL)
    screen = pseudobulk(cells, PseudobulkSettings(n_hvg=None, min_cells=12))
    assert (screen.obs["n_cells"] >= 12).all()
    lost = int((everything.obs["n_cells"] < 12).sum())
    assert any(n.startswith(f"{lost} perturbations with fewer") for n in screen.meta["notes"])
    with pytest.raises(InputError, match="no perturbation has 100000 cells"):
        pseudobulk(cells, PseudobulkSettings(min_cells=100_000))


def test_value_that_is_not_finite_names_cell_and_gene(cells):
    data = cells.copy()
    data.X = data.X.copy()
    data.X.data[0] = np.inf
    with pytest.raises(InputError, match=r"cell 'simcell\d+' has the value inf for 'SIM\d+'"):
        pseudobulk(data, PseudobulkSettings(n_hvg=None, min_cells=1, scale="counts"))


def test_negative_count_names_cell_and_gene(cells):
    data = cells.copy()
    data.X = data.X.copy()
    data.X.data[7] = -3
    with pytest.raises(InputError, match=r"cell 'simcell\d+' has the value -3.0 .* not negative"):
        pseudobulk(data, PseudobulkSettings(n_hvg=None, min_cells=1, scale="counts"))


def test_normalised_values_are_logged_but_not_divided_again(cells):
    data = cells.copy()
    x = data.X.toarray()
    data.X = sparse.csr_matrix((x / x.sum(1, keepdims=True) * 1e4).astype(np.float32))
    half = data[:, ::2].copy()
    screen = pseudobulk(half, ALL)
    assert screen.meta["scale"] == "normalised"
    expected = pseudobulk(cells, ALL)
    np.testing.assert_allclose(screen.responses, expected.responses[:, ::2], atol=3e-6)


def test_no_control_lists_the_labels(cells):
    data = cells[cells.obs["perturbation"] != "control"].copy()
    with pytest.raises(InputError, match=r"no control found. The most frequent labels are: SIM"):
        pseudobulk(data, ALL)


def test_shards_give_the_same_bits_as_one_file(cells, tmp_path):
    pieces = np.array_split(np.random.default_rng(0).permutation(len(cells)), 4)
    paths = []
    for i, rows in enumerate(pieces):
        paths.append(tmp_path / f"{i}.h5ad")
        cells[rows].copy().write_h5ad(paths[-1])
    settings = PseudobulkSettings(n_hvg=20)
    same(pseudobulk(paths, settings), pseudobulk(cells, settings))


def test_shards_that_differ_are_refused(cells, tmp_path):
    cells.write_h5ad(tmp_path / "a.h5ad")
    cells[:, ::-1].copy().write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(InputError, match=r"different features.*first difference at position 0"):
        pseudobulk([tmp_path / "a.h5ad", tmp_path / "b.h5ad"], ALL)
    logged(cells).write_h5ad(tmp_path / "c.h5ad")
    with pytest.raises(InputError, match=r"a.h5ad holds counts .*c.h5ad holds log1p"):
        pseudobulk([tmp_path / "a.h5ad", tmp_path / "c.h5ad"], ALL)


def test_result_survives_a_file_and_reading_cells_needs_a_word(cells, tmp_path):
    path = tmp_path / "cells.h5ad"
    cells.write_h5ad(path)
    with pytest.raises(InputError, match=r"holds single cells .* pertwise screen pseudobulk"):
        read_screen(path)
    screen = read_screen(path, pseudobulk=ALL)
    screen.save(tmp_path / "out.h5ad")
    back = read_screen(tmp_path / "out.h5ad")
    assert isinstance(back, Screen)
    same(screen, back)


def test_ensembl_names_give_way_to_symbols_and_repeats_keep_their_id():
    data = anndata.AnnData(
        X=np.arange(12, dtype=np.float32).reshape(4, 3) + 1,
        obs=pd.DataFrame({"gene": ["non-targeting", "non-targeting", "A", "A"]}, list("abcd")),
        var=pd.DataFrame(
            {"gene_name": ["TBCE", "TBCE", "KLF1"]}, ["ENSG001", "ENSG002", "ENSG003"]
        ),
    )
    screen = pseudobulk(data, PseudobulkSettings(n_hvg=None, min_cells=1, scale="counts"))
    assert screen.features == ("ENSG001", "ENSG002", "KLF1")
    assert "2 repeated or empty feature names replaced by row names" in screen.meta["notes"]


def test_tahoe_cells_end_to_end(cells):
    """Drug and dose in one column, lines in another, plates as batches, vehicle as control."""
    data = cells.copy()
    label = data.obs["perturbation"].astype(str)
    dose = np.where(np.arange(len(data)) % 2, 0.5, 5.0)
    data.obs = pd.DataFrame(
        {
            "drugname_drugconc": [
                "[('DMSO_TF', 0.0, 'uM')]" if name == "control" else f"[('{name} x', {d}, 'uM')]"
                for name, d in zip(label.str.replace("+", "-"), dose, strict=True)
            ],
            "cell_line": data.obs["cell_line"].astype(str),
            "plate": data.obs["batch"].astype(str).str.replace("batch", "plate"),
        },
        index=data.obs_names,
    )
    screen = pseudobulk(data, ALL)
    assert set(screen.obs["dose"]) == {0.5, 5.0}
    assert screen.meta["matched_by"] == "plate"
    single = sorted({n for n in label if "+" not in n and n != "control"})[0]
    mine = ((label == single) & (cells.obs["cell_line"] == "A")).to_numpy() & (dose == 5.0)
    row = screen.obs.index[
        (screen.obs["perturbation"] == f"{single} x")
        & (screen.obs["context"] == "A")
        & (screen.obs["dose"] == 5.0)
    ]
    assert screen.obs.loc[row, "n_cells"].tolist() == [mine.sum()]


def test_gears_file_of_logs_end_to_end(cells):
    """GEARS: condition "A+ctrl", X log-normalised and cut to some genes, cell_type as context."""
    data = logged(cells)[:, ::2].copy()
    label = cells.obs["perturbation"].astype(str)
    data.obs = pd.DataFrame(
        {
            "condition": [
                "ctrl" if n == "control" else n if "+" in n else f"{n}+ctrl" for n in label
            ],
            "cell_type": cells.obs["cell_line"].astype(str),
        },
        index=cells.obs_names,
    )
    screen = pseudobulk(data, ALL)
    assert screen.meta["scale"] == "log1p"
    reference = pseudobulk(cells, PseudobulkSettings(n_hvg=None, min_cells=1, keys=Keys(batch="")))
    assert list(screen.obs.index) == list(reference.obs.index)
    np.testing.assert_allclose(screen.responses, reference.responses[:, ::2], atol=2e-6)


def test_small_groups_stand_in_a_table_of_their_own(cells, tmp_path):
    from typer.testing import CliRunner

    from pertwise.cli.main import app

    screen = pseudobulk(cells, PseudobulkSettings(n_hvg=None, min_cells=12))
    apart = screen.meta["set_apart"]
    counts = pseudobulk(cells, ALL).obs
    assert len(apart) == int((counts["n_cells"] < 12).sum())
    assert all(row["n_cells"] < 12 and row["perturbation"] for row in apart)
    cells.write_h5ad(tmp_path / "cells.h5ad")
    out = tmp_path / "screen.h5ad"
    run = CliRunner().invoke(
        app, ["screen", "pseudobulk", str(tmp_path / "cells.h5ad"), str(out), "--hvg", "0"]
    )
    assert run.exit_code == 0, run.output
    few = int((counts["n_cells"] < 10).sum())
    if few:
        assert f"{few} perturbations with fewer than 10 cells set apart" in run.output
        table = pd.read_csv(tmp_path / "screen.set_apart.csv")
        assert (table["n_cells"] < 10).all()


@pytest.mark.parametrize("words", [(True, False), ("doublet", "singlet"), ("DBL", "SNG")])
def test_doublets_are_told_and_left_out_unless_asked(cells, words):
    data = cells.copy()
    several = np.arange(len(data)) % 7 == 0
    data.obs["predicted_doublet"] = np.where(several, *words)
    screen = pseudobulk(data, ALL)
    n = int(several.sum())
    assert (
        f"{n} cells called doublets in 'predicted_doublet' left out (--keep-doublets)"
        in (screen.meta["notes"])
    )
    alone = pseudobulk(cells[~several].copy(), ALL)
    np.testing.assert_array_equal(screen.responses, alone.responses)
    kept = pseudobulk(data, PseudobulkSettings(n_hvg=None, min_cells=1, keys=Keys(doublet="")))
    np.testing.assert_array_equal(kept.responses, pseudobulk(cells, ALL).responses)
    data.obs["predicted_doublet"] = "perhaps"
    with pytest.raises(InputError, match="'perhaps' in the column of doublets"):
        pseudobulk(data, ALL)


def test_genes_that_controls_lack_are_listed_beyond_the_features(cells):
    data = cells.copy()
    x = data.X.toarray() if hasattr(data.X, "toarray") else np.array(data.X)
    x[:, 3] = 0
    data.X = x
    screen = pseudobulk(data, PseudobulkSettings(n_hvg=12))
    silent = str(data.var_names[3])
    assert silent not in screen.features
    for context in screen.contexts:
        assert silent in screen.meta["undetected_in_controls"][context]
    assert not set(screen.features) & set(screen.meta["undetected_in_controls"][context])
    assert "undetected_in_controls" not in pseudobulk(data, ALL).meta


def guided_cells(rng):
    """Counts: A_1 takes 90 % off A and lowers f0-f9, A_2 80 %, A_3 does nothing."""
    n, genes = 40, ["A", "B", *[f"f{i}" for i in range(30)]]
    rate = np.full(len(genes), 20.0)
    labels, guides, rows = [], [], []
    plan = [("control", "nt", 1.0, 1.0)] + [
        ("A", f"A_{i}", left, effect)
        for i, left, effect in ((1, 0.1, 0.4), (2, 0.2, 0.4), (3, 1.0, 1.0))
    ]
    for label, guide, left, effect in plan:
        for _ in range(n * (4 if label == "control" else 1)):
            own = rate.copy()
            own[0] *= left
            own[2:12] *= effect
            rows.append(rng.poisson(own))
            labels.append(label)
            guides.append(guide)
    obs = pd.DataFrame({"perturbation": labels, "guide_id": guides})
    obs.index = [f"c{i}" for i in range(len(obs))]
    return anndata.AnnData(
        X=sparse.csr_matrix(np.array(rows, dtype=np.float32)),
        obs=obs,
        var=pd.DataFrame(index=genes),
    )


def test_guides_are_judged_one_by_one():
    data = guided_cells(np.random.default_rng(3))
    screen = pseudobulk(data, ALL)
    table = pd.DataFrame(screen.meta["guides"]).set_index("guide")
    assert list(table.index) == ["A_1", "A_2", "A_3"]
    # the rest of the cell is poorer, too, so the share of A in it is a little higher
    assert table.loc["A_1", "knockdown"] == pytest.approx(0.88, abs=0.03)
    assert table.loc["A_2", "knockdown"] == pytest.approx(0.76, abs=0.03)
    assert abs(table.loc["A_3", "knockdown"]) < 0.1
    assert table.loc["A_1", "flag"] == table.loc["A_2", "flag"] == ""
    assert "weak" in table.loc["A_3", "flag"]
    assert table.loc["A_1", "agreement"] > 0.8
    row = screen.obs.loc["A"]
    assert row["n_guides"] == 3
    assert row["bad_guides"] == "A_3"
    assert row["knockdown"] == pytest.approx(table["knockdown"].mean(), abs=1e-3)
    assert any("1 guides are doubtful: A_3 (weak" in n for n in screen.meta["notes"])
    none = pseudobulk(data, PseudobulkSettings(n_hvg=None, keys=Keys(guide="")))
    assert "guides" not in none.meta
    assert "n_guides" not in none.obs
    # labels that are guides themselves say the same
    folded = data.copy()
    folded.obs["perturbation"] = (
        folded.obs["guide_id"]
        .replace("nt", "control")
        .replace({f"A_{i}": f"A_sg{i}" for i in (1, 2, 3)})
    )
    folded.obs = folded.obs.drop(columns="guide_id")
    again = pd.DataFrame(pseudobulk(folded, ALL).meta["guides"])
    assert again["knockdown"].tolist() == table["knockdown"].tolist()
