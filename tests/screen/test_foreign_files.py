"""h5ad of old versions and other writers, every type of value, contradictory scales."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pertwise.errors import InputError
from pertwise.screen import PseudobulkSettings, read_screen
from pertwise.screen.anndata_file import feature_names
from pertwise.screen.cells import open_cells
from pertwise.screen.info import describe_screen

GENES = [f"G{i}" for i in range(80)]


def cells(dtype="f4", column="perturbation"):
    rng = np.random.default_rng(3)
    names = np.repeat(np.array(["ctrl", "AAA", "BBB"], dtype=object), 15)
    x = rng.poisson(rng.gamma(2, 2, 80), (45, 80)).astype("f4")
    obs = pd.DataFrame({column: pd.Categorical(names)}, index=[f"c{i}" for i in range(45)])
    return ad.AnnData(x.astype(dtype), obs=obs, var=pd.DataFrame(index=GENES))


def screen_of(path, **settings):
    return read_screen(path, pseudobulk=PseudobulkSettings(**settings))


@pytest.fixture
def right(tmp_path):
    cells().write_h5ad(tmp_path / "right.h5ad")
    return screen_of(tmp_path / "right.h5ad")


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", ">f4", ">f8", "i1", "u1", "i2", ">i2", "i8", "u8"]
)
@pytest.mark.parametrize("form", ["dense", "csr", "csc", "unsorted", "repeated", "int64"])
def test_every_type_and_form_of_the_same_counts(tmp_path, right, dtype, form):
    data = cells()
    data.X = sparse.csr_matrix(data.X) if form != "dense" else data.X
    if form == "csc":
        data.X = data.X.tocsc()
    path = tmp_path / "x.h5ad"
    data.write_h5ad(path)
    with h5py.File(path, "r+") as h:
        if form == "dense":
            values = h["X"][:].astype(dtype)
            attrs = dict(h["X"].attrs)
            del h["X"]
            h["X"] = values
            h["X"].attrs.update(attrs)
        else:
            parts = {k: h["X"][k][:] for k in ("data", "indices", "indptr")}
            if form == "unsorted":
                for lo, hi in zip(parts["indptr"][:-1], parts["indptr"][1:], strict=True):
                    for k in ("data", "indices"):
                        parts[k][lo:hi] = parts[k][lo:hi][::-1].copy()
            if form == "repeated":
                data, indices, pointers = [], [], [0]
                for lo, hi in zip(parts["indptr"][:-1], parts["indptr"][1:], strict=True):
                    first = parts["data"][lo:hi] // 2
                    data += [*first, *(parts["data"][lo:hi] - first)]
                    indices += [*parts["indices"][lo:hi]] * 2
                    pointers.append(len(data))
                parts = {"data": np.array(data), "indices": np.array(indices)}
                parts["indptr"] = np.array(pointers)
            wide = "i8" if form == "int64" else "i4"
            for k, v in parts.items():
                del h["X"][k]
                h["X"][k] = v.astype(dtype if k == "data" else wide)
    np.testing.assert_allclose(screen_of(path).responses, right.responses, atol=1e-5)


def test_values_that_are_no_numbers(tmp_path):
    path = tmp_path / "x.h5ad"
    cells().write_h5ad(path)
    with h5py.File(path, "r+") as h:
        del h["X"]
        h["X"] = np.full((45, 80), b"1")
    with pytest.raises(InputError, match="no numbers"):
        screen_of(path)


def test_damaged_sparse_matrix(tmp_path):
    data = cells()
    data.X = sparse.csr_matrix(data.X)
    for key, change in (("indices", lambda v: v + 80), ("indptr", lambda v: v[::-1].copy())):
        path = tmp_path / f"{key}.h5ad"
        data.write_h5ad(path)
        with h5py.File(path, "r+") as h:
            values = h["X"][key][:]
            del h["X"][key]
            h["X"][key] = change(values)
        with pytest.raises(InputError, match="damaged"):
            screen_of(path)


def test_anndata_06_with_records_and_raw(tmp_path, right):
    a, path = cells(), tmp_path / "old.h5ad"
    codes = a.obs["perturbation"].cat.codes
    with h5py.File(path, "w") as h:
        obs = np.zeros(45, [("index", "S8"), ("perturbation", "i1")])
        obs["index"], obs["perturbation"] = [n.encode() for n in a.obs_names], codes
        var = np.zeros(80, [("index", "S8")])
        var["index"] = [n.encode() for n in GENES]
        h["obs"], h["var"], h["X"] = obs, var, np.log1p(a.X) - 1
        h["raw.X"], h["raw.var"] = a.X, var
        names = [c.encode() for c in a.obs["perturbation"].cat.categories]
        h["uns/perturbation_categories"] = np.array(names)
    np.testing.assert_allclose(screen_of(path, layer="raw").responses, right.responses, atol=1e-5)


@pytest.mark.parametrize("lost", ["encoding-type", "_index", "column-order"])
def test_attributes_that_other_writers_leave_out(tmp_path, right, lost):
    path = tmp_path / "x.h5ad"
    cells().write_h5ad(path)
    with h5py.File(path, "r+") as h:
        for table in ("obs", "var"):
            del h[table].attrs[lost]
    np.testing.assert_array_equal(screen_of(path).responses, right.responses)


def test_parts_that_are_missing(tmp_path):
    for change, words in (
        (lambda h: h["obs"].__delitem__("perturbation"), "lists the column 'perturbation'"),
        (lambda h: h.__delitem__("var"), "no var"),
        (lambda h: h["var"].__delitem__("_index"), "var"),
        (lambda h: h.__delitem__("X"), "no X"),
    ):
        path = tmp_path / "x.h5ad"
        cells().write_h5ad(path)
        with h5py.File(path, "r+") as h:
            change(h)
        with pytest.raises(InputError, match=words):
            screen_of(path)


def test_no_x_but_a_layer_or_raw(tmp_path, right):
    a = cells()
    a.layers["counts"] = a.X
    a.X = None
    a.write_h5ad(tmp_path / "layer.h5ad")
    for source in (a, tmp_path / "layer.h5ad"):
        np.testing.assert_array_equal(screen_of(source).responses, right.responses)
    b = cells()
    b.raw = b.copy()
    b.X = None
    with pytest.raises(InputError, match="raw"):
        screen_of(b)
    np.testing.assert_array_equal(screen_of(b, layer="raw").responses, right.responses)


def test_backed(tmp_path, right):
    cells().write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    np.testing.assert_array_equal(screen_of(backed).responses, right.responses)
    with pytest.raises(InputError, match="path of its file"):
        screen_of(backed[:10])


def logged(base=None):
    a = cells()
    x = a.X / a.X.sum(1, keepdims=True) * 1e4
    a.X = (np.log1p(x) / (np.log(base) if base else 1)).astype("f4")
    return a


@pytest.mark.parametrize("base", [None, 2, 10])
@pytest.mark.parametrize("stated", [True, False])
def test_logarithms_of_any_base(right, base, stated):
    a = logged(base)
    if stated:
        a.uns["log1p"] = {"base": base}
    np.testing.assert_allclose(screen_of(a).responses, right.responses, atol=1e-4)
    if base and stated:
        a.uns["log1p"] = {"base": None}
        with pytest.raises(InputError, match=f"undoing log{base}"):
            screen_of(a)


def test_z_scores_with_the_old_tag_name_the_way_out(right):
    a = logged()
    a.uns["log1p"] = {"base": None}
    a.raw = cells()
    a.X = (a.X - a.X.mean(0)) / a.X.std(0)
    with pytest.raises(InputError, match=r"--layer raw reads \.raw \(counts\)"):
        screen_of(a)
    np.testing.assert_array_equal(screen_of(a, layer="raw").responses, right.responses)
    assert screen_of(a, scale="as-is").meta["unit"] == "value as in the file"


@pytest.mark.parametrize("share", [0.03, 0.1, 0.5, 0.9])
def test_counts_among_logs(tmp_path, share):
    a, b = cells(), logged()
    rows = np.random.default_rng(1).random(45) < share
    rows[7] = True
    a.X = np.where(rows[:, None], b.X, a.X)
    with pytest.raises(InputError, match="mixed"):
        screen_of(a)
    a.write_h5ad(tmp_path / "x.h5ad")
    assert "mixed" in " ".join(describe_screen(tmp_path / "x.h5ad").problems)


def test_one_odd_cell_of_many_is_found(right):
    a = ad.concat([cells()] * 40, index_unique="-")
    a.X[1201] = np.log1p(a.X[1201])
    with pytest.raises(InputError, match="c31-26"):
        screen_of(a)


@pytest.mark.parametrize("names", ["ENSG{:011d}.2", "{}", "ENSMUSG{:011d}"])
@pytest.mark.parametrize("column", ["Symbol", "SYMBOL", "hgnc_symbol", "gene_short_name"])
def test_symbols_beside_ids_or_numbers_are_the_names(names, column):
    var = pd.DataFrame({"n": 1, column: ["KLF1", "MYB", "MYB", None]})
    var.index = pd.Index([names.format(i) for i in range(4)])
    found, notes = feature_names(var, None, Path("x.h5ad"))
    assert found == ("KLF1", names.format(1), names.format(2), names.format(3))
    assert f"var[{column!r}]" in notes[0]
    named = var.set_axis(["A", "B", "C", "D"])
    assert feature_names(named, None, Path("x.h5ad")) == (("A", "B", "C", "D"), ())


@pytest.mark.parametrize(
    ("start", "words"),
    [(b"PK\x03\x04ab", "a zip archive or an Excel workbook"), (b"\x1f\x8bab", "gzipped: unpack")],
)
def test_a_packed_file_called_h5ad_is_named(tmp_path, start, words):
    (tmp_path / "x.h5ad").write_bytes(start)
    with pytest.raises(InputError, match=words), open_cells(tmp_path / "x.h5ad"):
        pass


def test_one_negative_value_among_logs_is_refused_unless_said(tmp_path):
    data = cells()
    data.X = np.log1p(data.X / data.X.sum(axis=1, keepdims=True) * 1e4)
    data = ad.concat([data] * 4, index_unique="-")
    # A row that lies between those of the sample.
    data.X[131, 7] = -0.5
    data.write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match=r"cell 'c41-2' has the value -0.5 for 'G7'.*log1p if"):
        screen_of(tmp_path / "x.h5ad")
    assert screen_of(tmp_path / "x.h5ad", scale="log1p").perturbations == ("AAA", "BBB")


def test_zeros_and_ones_are_not_taken_for_counts(tmp_path):
    data = cells()
    data.X = data.X > 3
    data.write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match="counts, or only what was detected"):
        screen_of(tmp_path / "x.h5ad")
    assert screen_of(tmp_path / "x.h5ad", scale="counts").perturbations == ("AAA", "BBB")
