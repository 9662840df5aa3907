import anndata
import numpy as np
import pandas as pd
import pytest

from pertwise.screen.cells import open_cells


@pytest.fixture(scope="module")
def data():
    n = 23
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "label": pd.Categorical(rng.choice(["b", "a"], n), categories=["b", "a", "unused"]),
            "number": rng.integers(0, 9, n),
            "real": rng.normal(size=n),
            "flag": rng.random(n) < 0.5,
            "text": [f"t{i}" for i in range(n)],
            "maybe": pd.array([None, *range(1, n)], dtype="Int64"),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    return anndata.AnnData(X=rng.poisson(2.0, (n, 4)).astype(np.float32), obs=obs)


@pytest.mark.parametrize("form", ["h5ad", "zarr", "memory"])
def test_columns_and_rows_as_pandas_gives_them(data, tmp_path, form):
    source = data
    if form == "h5ad":
        source = tmp_path / "x.h5ad"
        data.write_h5ad(source)
    elif form == "zarr":
        source = tmp_path / "x.zarr"
        data.write_zarr(source)
    with open_cells(source) as file:
        assert set(file.table.columns) == set(data.obs.columns)
        got = file.table.read(["real", "label", "flag", "number", "text", "maybe"], 5, 12)
        assert list(got.index) == list(range(5, 12))
        for column in got:
            expected = data.obs[column].iloc[5:12].tolist()
            assert got[column].tolist() == expected, column
        assert file.table.name(7) == "cell7"
        assert len(file) == 23
        assert list(file.obs.index) == list(data.obs_names)


def test_blocks_cover_every_row_once(data, tmp_path):
    data.write_h5ad(tmp_path / "x.h5ad")
    with open_cells(tmp_path / "x.h5ad") as file:
        blocks = list(file.blocks(3, 20, entries=10))
        assert [lo for lo, _ in blocks] == sorted({lo for lo, _ in blocks})
        assert max(b.shape[0] for _, b in blocks) < 17
        got = np.vstack([b.toarray() for _, b in blocks])
        np.testing.assert_array_equal(got, data.X[3:20])
