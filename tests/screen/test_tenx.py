"""Cell Ranger's files with guide calls, and MuData."""

import gzip

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from pertwise.errors import InputError
from pertwise.screen import PseudobulkSettings, read_screen
from pertwise.screen.info import describe_screen
from pertwise.screen.shards import pseudobulk_shards

COUNTS = np.random.default_rng(5).poisson(3, (40, 12))
BARCODES = [f"AC{i:02d}-1" for i in range(40)]
GENES = [f"ENSG{i:011d}" for i in range(10)]
SYMBOLS = [f"SYM{i}" for i in range(10)]
GUIDES = ["NT_1", "GATA1_1"]
KINDS = ["Gene Expression"] * 10 + ["CRISPR Guide Capture"] * 2
CALLS = ["NT_1", "GATA1_1", "GATA1_2", "MYC_1", "MYC_2", "GATA1_1|MYC_1", None, "NT_2"]


@pytest.fixture
def calls(tmp_path):
    table = pd.DataFrame(
        {"cell_barcode": BARCODES, "feature_call": [CALLS[i % 8] for i in range(40)]}
    )
    table.insert(1, "num_features", table["feature_call"].str.count("[|]") + 1)
    table.dropna().to_csv(tmp_path / "protospacer_calls_per_cell.csv", index=False)


def write_h5(path):
    x = sparse.csr_matrix(COUNTS)
    with h5py.File(path, "w") as h:
        m = h.create_group("matrix")
        m["data"], m["indices"], m["indptr"], m["shape"] = x.data, x.indices, x.indptr, (12, 40)
        m["barcodes"] = np.array(BARCODES, "S8")
        f = m.create_group("features")
        f["id"], f["name"] = np.array(GENES + GUIDES, "S15"), np.array(SYMBOLS + GUIDES, "S8")
        f["feature_type"] = np.array(KINDS, "S30")


def write_mtx(folder):
    folder.mkdir(exist_ok=True)
    io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(COUNTS.T))
    pd.Series(BARCODES).to_csv(folder / "barcodes.tsv", header=False, index=False)
    features = pd.DataFrame([GENES + GUIDES, SYMBOLS + GUIDES, KINDS]).T
    with gzip.open(folder / "features.tsv.gz", "wt") as out:
        features.to_csv(out, sep="\t", header=False, index=False)


def test_h5_and_mtx_with_calls_are_read_alike(tmp_path, calls):
    write_h5(tmp_path / "filtered_feature_bc_matrix.h5")
    write_mtx(tmp_path / "mtx")
    one = read_screen(tmp_path / "filtered_feature_bc_matrix.h5", pseudobulk=True)
    two = read_screen(tmp_path / "mtx", pseudobulk=True)
    assert one.perturbations == ("GATA1", "MYC")
    assert one.features == tuple(SYMBOLS)
    np.testing.assert_array_equal(one.responses, two.responses)
    assert list(one.obs["n_cells"]) == [10, 10]
    three = pseudobulk_shards(
        [tmp_path / "mtx"], PseudobulkSettings(min_cells=1), workdir=tmp_path / "w"
    )
    np.testing.assert_allclose(three.responses, two.responses, atol=1e-6)
    notes = " ".join(describe_screen(tmp_path / "mtx").notes)
    assert "35 of 40 cells" in notes
    assert "unassigned" in notes


def test_without_calls_one_sentence_says_how_to_get_there(tmp_path):
    write_h5(tmp_path / "x.h5")
    write_mtx(tmp_path / "mtx")
    for path in (tmp_path / "x.h5", tmp_path / "mtx"):
        with pytest.raises(InputError, match=r"protospacer_calls_per_cell\.csv beside it"):
            read_screen(path)


def test_h5mu(tmp_path):
    obs = pd.DataFrame({"perturbation": ["ctrl", "GATA1"] * 20}, index=BARCODES)
    rna = ad.AnnData(COUNTS.astype("f4"), obs=obs)
    path = tmp_path / "x.h5mu"
    for named in (True, False):
        with h5py.File(path, "w") as h:
            modalities = {"rna": rna if named else ad.AnnData(rna.X), "guides": ad.AnnData(rna.X)}
            for name, part in modalities.items():
                ad.io.write_elem(h.require_group("mod"), name, part)
        if named:
            assert read_screen(path, pseudobulk=True).perturbations == ("GATA1",)
        else:
            with pytest.raises(InputError, match="copy the call into it once"):
                read_screen(path)


@pytest.mark.parametrize("where", ["guides", "gdo", "crispr", "obs"])
def test_h5mu_whose_guides_name_the_perturbation(tmp_path, where):
    """Counts of guides are never read as expression; cells are matched by name, in any order."""
    names = [f"F{i}" for i in range(COUNTS.shape[1])]
    rna = ad.AnnData(COUNTS.astype("f4"), obs=pd.DataFrame(index=BARCODES))
    rna.var_names = names
    labels = pd.DataFrame({"perturbation": ["ctrl", "GATA1"] * 20}, index=BARCODES)
    other = labels.iloc[::-1].iloc[:-1]
    path = tmp_path / "x.h5mu"
    with h5py.File(path, "w") as h:
        if where == "obs":
            ad.io.write_elem(h, "obs", other)
        else:
            guides = ad.AnnData(np.full((39, 2), 99, "f4"), obs=other)
            ad.io.write_elem(h.require_group("mod"), where, guides)
        ad.io.write_elem(h.require_group("mod"), "rna", rna)
    found = read_screen(path, pseudobulk=True)
    rna.obs["perturbation"] = labels["perturbation"]
    right = read_screen(rna[1:].copy(), pseudobulk=True)
    assert (found.perturbations, found.features) == (("GATA1",), tuple(names))
    np.testing.assert_array_equal(found.responses, right.responses)
    with h5py.File(path, "a") as h:
        if where == "obs":
            del h["obs"]
        h.move("mod/rna", "mod/protein")
    with pytest.raises(InputError, match="copy the call into it once"):
        read_screen(path)


def test_other_single_cell_formats_are_named(tmp_path):
    with h5py.File(tmp_path / "x.loom", "w") as h:
        h.create_group("row_attrs")
    with pytest.raises(InputError, match="loom"):
        read_screen(tmp_path / "x.loom")


def test_h5_of_cell_ranger_2_is_named(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as h:
        group = h.create_group("GRCh38")
        group["barcodes"] = np.array(BARCODES, "S8")
        group["gene_names"] = np.array(SYMBOLS, "S8")
    with pytest.raises(InputError, match=r"Cell Ranger 2: read it with scanpy\.read_10x_h5"):
        read_screen(tmp_path / "x.h5", pseudobulk=True)
