"""Files of rows written without anndata are those that it writes."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from pertwise._hdf5 import write_content_atomic, write_h5ad_atomic


def content(**columns):
    n = 4
    obs = {
        "label": ["a", "b", "c", "control"],
        "kind": ["y", "x", "y", ""],
        "flag": [True, False, False, True],
        "count": np.arange(n),
        "level": [0.5, np.nan, np.inf, -0.0],
        **columns,
    }
    return {
        "X": np.array([[0.1, -0.0, np.nan]] * n, dtype=np.float32),
        "obs": pd.DataFrame(obs, index=pd.Index(["a", "b", "c", "ünï"])),
        "var": pd.DataFrame(index=pd.Index(["G1", "G2", "G3"])),
        "uns": {"text": "ä\n{}", "empty": "", "yes": True},
        "layers": {"spread": np.ones((n, 3), dtype=np.float32)},
    }


def both(tmp_path, made):
    write_content_atomic(tmp_path / "a.h5ad", **made)
    write_h5ad_atomic(tmp_path / "b.h5ad", anndata.AnnData(**made))
    return anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_h5ad(tmp_path / "b.h5ad")


def equal(a, b):
    assert a.X.tobytes() == b.X.tobytes()
    assert a.X.dtype == b.X.dtype
    assert list(a.layers) == list(b.layers)
    # anndata 0.13 lists X among the layers, and X holds a NaN.
    for name in a.layers:
        np.testing.assert_array_equal(a.layers[name], b.layers[name])
    pd.testing.assert_frame_equal(a.obs, b.obs, check_exact=True)
    pd.testing.assert_frame_equal(a.var, b.var, check_exact=True)
    assert dict(a.uns) == dict(b.uns)


def test_it_reads_as_what_anndata_writes(tmp_path):
    equal(*both(tmp_path, content()))
    with h5py.File(tmp_path / "a.h5ad") as a, h5py.File(tmp_path / "b.h5ad") as b:
        there = []
        a.visit(there.append)
        for name in there:
            if b[name].attrs["encoding-type"] == "nullable-string-array":
                # anndata 0.13 with pandas 3; the plain form is read by older ones, too.
                assert a[name].attrs["encoding-type"] == "string-array", name
                continue
            assert a[name].attrs["encoding-type"] == b[name].attrs["encoding-type"], name
            assert a[name].attrs["encoding-version"] == b[name].attrs["encoding-version"], name


@pytest.mark.parametrize(
    "odd",
    [
        {"odd": pd.Categorical(["p", "q", "p", "q"], categories=["q", "p", "r"])},
        {"odd": pd.array([1, None, 2, 3], dtype="Int64")},
        {"odd": pd.array(["s", "t", "s", "s"], dtype="string")},
    ],
)
def test_other_columns_are_left_to_anndata(tmp_path, odd):
    equal(*both(tmp_path, content(**odd)))


def test_without_layers_and_rows(tmp_path):
    made = content()
    made |= {"X": made["X"][:0], "obs": made["obs"].iloc[:0], "layers": {}}
    a, b = both(tmp_path, made)
    assert a.shape == b.shape == (0, 3)
    assert list(a.obs) == list(b.obs)
