"""Sums of raw counts per perturbation and batch, written while the cells are read."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

import pertwise
from pertwise.cli.main import app
from pertwise.errors import InputError
from pertwise.screen import PseudobulkSettings, simulate_screen
from pertwise.screen.batchsums import WholeSums

SETTINGS = PseudobulkSettings(n_hvg=10, min_cells=1)


@pytest.fixture(scope="module")
def cells():
    made = simulate_screen(
        3, n_perturbations=9, n_features=24, n_pathways=2, contexts=("A", "B"), mean_cells=12,
        control_cells=50,
    )  # fmt: skip
    return made.cells(1, n_batches=3)


def summed(cells):
    """(perturbation, context, batch) -> (sums, cells), by a plain groupby of the dense table."""
    keys = [cells.obs[c].astype(str).to_numpy() for c in ("perturbation", "cell_line", "batch")]
    table = pd.DataFrame(cells.X.toarray().astype(np.int64))
    grouped = table.groupby(keys)
    n = grouped.size()
    return {key: (row.to_numpy(), n[key]) for key, row in grouped.sum().iterrows()}


def check(path, cells):
    got, expected = anndata.read_h5ad(path), summed(cells)
    assert got.X.dtype == np.int32
    assert sparse.issparse(got.X)
    assert list(got.var_names) == list(cells.var_names)
    assert len(got) == len(expected)
    dense = got.X.toarray()
    for i, row in enumerate(got.obs.itertuples(index=False)):
        sums, n = expected[row.perturbation, row.context, row.batch]
        np.testing.assert_array_equal(dense[i], sums)
        assert row.n_cells == n
        assert row.total_counts == sums.sum()
        assert row.is_control == (row.perturbation == "control")
    assert got.obs_names.is_unique
    return got


@pytest.mark.parametrize("passes", ["one", "two"])
@pytest.mark.parametrize("table", ["whole", "spilled"])
def test_sums_of_counts_equal_a_plain_groupby(cells, tmp_path, monkeypatch, passes, table):
    monkeypatch.setattr("pertwise.screen.cells.BLOCK_ENTRIES", 700)
    if passes == "two":
        monkeypatch.setattr("pertwise.screen.passes.BATCH_BYTES", 0)
    if table == "spilled":
        monkeypatch.setattr("pertwise.screen.countsums.TABLE_BYTES", 4 * 24 * 5)
        monkeypatch.setattr("pertwise.screen.countsums._AT_ONCE", 60)
    out = tmp_path / "counts.h5ad"
    screen = pertwise.pseudobulk(cells, SETTINGS, counts=out)
    got = check(out, cells)
    assert got.uns["simulated"]
    assert got.uns["pertwise"] == pertwise.__version__
    assert "counts" in got.uns["holds"]
    plain = pertwise.pseudobulk(cells, SETTINGS)
    np.testing.assert_array_equal(screen.responses, plain.responses)
    assert screen.obs["n_cells"].sum() == got.obs.loc[~got.obs["is_control"], "n_cells"].sum()


def test_command_line_over_shards_and_workers(cells, tmp_path):
    for i in range(2):
        cells[i::2].copy().write_h5ad(tmp_path / f"{i}.h5ad")
    counts, out = tmp_path / "counts.h5ad", tmp_path / "screen.h5ad"
    files = [str(tmp_path / "0.h5ad"), str(tmp_path / "1.h5ad"), str(out)]
    options = ["--counts", str(counts), "--workers", "2", "--rows-per-task", "90", "--min-cells"]
    done = CliRunner().invoke(app, ["screen", "pseudobulk", *files, *options, "1"])
    assert done.exit_code == 0, done.output
    assert str(counts) in done.output.replace("\n", "")
    check(counts, cells)
    assert not (tmp_path / "screen.h5ad.parts").exists()


def test_raw_counts_beside_logs_are_found_by_their_layer(cells, tmp_path):
    data = cells.copy()
    x = data.X.toarray()
    data.layers["umis"] = data.X.copy()
    data.X = sparse.csr_matrix(np.log1p(x / x.sum(1, keepdims=True) * 1e4))
    with pytest.raises(InputError, match=r"holds log1p .*need raw counts.*--layer"):
        pertwise.pseudobulk(data, SETTINGS, counts=tmp_path / "c.h5ad")
    pertwise.pseudobulk(
        data, PseudobulkSettings(n_hvg=10, min_cells=1, layer="umis"), counts=tmp_path / "c.h5ad"
    )
    check(tmp_path / "c.h5ad", cells)


def test_a_fraction_is_no_count_even_when_the_user_insists(cells, tmp_path):
    data = cells.copy()
    data.X = data.X.astype(np.float32)
    data.X.data[11] = 2.5
    insisted = PseudobulkSettings(n_hvg=None, scale="counts")
    with pytest.raises(InputError, match=r"cell 'simcell\d+' has the value 2.5, which is no count"):
        pertwise.pseudobulk(data, insisted, counts=tmp_path / "c.h5ad")
    assert not (tmp_path / "c.h5ad").exists()


def test_doses_stand_in_a_column_of_their_own(cells, tmp_path):
    data = cells.copy()
    data.obs["dose"] = np.where(np.arange(len(data)) % 2, 0.5, 10.0)
    pertwise.pseudobulk(data, SETTINGS, counts=tmp_path / "c.h5ad")
    got = anndata.read_h5ad(tmp_path / "c.h5ad")
    assert set(got.obs.loc[~got.obs["is_control"], "dose"]) == {0.5, 10.0}
    assert got.obs.loc[got.obs["is_control"], "dose"].isna().all()
    assert got.X.sum() == cells.X.sum()


def test_sums_beyond_32_bits_are_exact(tmp_path):
    counts = np.array([[2**30 + 1, 3, 1, 4, 5, 9]] * 9 + [[1, 2, 3, 4, 5, 6]] * 2, dtype=np.int64)
    data = anndata.AnnData(
        X=sparse.csr_matrix(counts),
        obs=pd.DataFrame(
            {"perturbation": ["A"] * 9 + ["control"] * 2}, index=[f"c{i}" for i in range(11)]
        ),
        var=pd.DataFrame(index=list("PQRSTU")),
    )
    pertwise.pseudobulk(
        data, PseudobulkSettings(n_hvg=None, min_cells=1), counts=tmp_path / "c.h5ad"
    )
    got = anndata.read_h5ad(tmp_path / "c.h5ad")
    assert got.X.dtype == np.int64
    row = got.obs["perturbation"].tolist().index("A")
    assert got.X.toarray()[row].tolist() == (counts[:9].sum(axis=0)).tolist()


@pytest.mark.parametrize("largest", [3, 2**20, 2**29, 2**30 + 7, 2**33])
def test_whole_sums_never_overflow(largest):
    rng = np.random.default_rng(largest % 97)
    sums, expected = WholeSums(3, 5), np.zeros((3, 5))
    for _ in range(6):
        dense = rng.integers(-largest // 2, largest, (8, 5)).astype(float)
        row = rng.integers(0, 3, 8)
        sums.add(sparse.csr_matrix(dense), row)
        np.add.at(expected, row, dense)
    np.testing.assert_array_equal(sums.rows(np.arange(3)), expected)
    again = np.zeros((3, 5))
    sums.stored().add_to(again, np.arange(3))
    np.testing.assert_array_equal(again, expected)
