import anndata
import numpy as np
import pandas as pd
import pytest

from pertwise.errors import InputError
from pertwise.screen import read_screen, simulate_screen


def means(x, names, **obs):
    return anndata.AnnData(
        X=np.asarray(x, dtype=np.float32),
        obs=pd.DataFrame({"perturbation": names, **obs}, index=[f"r{i}" for i in range(len(x))]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(len(x[0]))]),
    )


def test_means_lose_their_control():
    screen = read_screen(means([[1, 2], [3, 1], [1.5, 2]], ["control", "B", "A"]))
    assert screen.perturbations == ("B", "A")
    np.testing.assert_allclose(screen.responses, [[2, -1], [0.5, 0]])
    np.testing.assert_allclose(screen.control_mean, [[1, 2]])
    assert screen.meta["values"] == "means"


def test_control_row_of_zeros_means_deltas():
    data = means(
        [[0, 0], [3, -1]], ["control", "A"], mean_sampling_variance=[0.1, 0.5], n_cells=[100, 10]
    )
    data.uns["cell_line"] = "K562"
    screen = read_screen(data)
    np.testing.assert_allclose(screen.responses, [[3, -1]])
    assert np.isnan(screen.control_mean).all()
    assert screen.contexts == ("K562",)
    # The control's share of the noise belongs to the difference.
    assert screen.obs["sampling_variance"].tolist() == pytest.approx([0.6])
    assert screen.obs["n_cells"].tolist() == [10]


def test_each_context_has_its_own_control():
    data = means(
        [[1.0], [2.0], [5.0], [7.0]], ["control", "A", "control", "A"],
        cell_line=["x", "x", "y", "y"],
    )  # fmt: skip
    screen = read_screen(data)
    np.testing.assert_allclose(screen.responses, [[1], [2]])
    np.testing.assert_allclose(screen.control_mean, [[1], [5]])
    with pytest.raises(InputError, match="context 'y' has no control row"):
        read_screen(data[[0, 1, 3]].copy())


def test_duplicates_are_named_or_averaged_by_cells():
    data = means([[0.0], [1.0], [5.0], [1.0]], ["control", "A", "A", "B"],
                 n_cells=[9, 1, 3, 1])  # fmt: skip
    with pytest.raises(InputError, match=r"perturbation 'A' has 2 rows.*--duplicates average"):
        read_screen(data)
    screen = read_screen(data, duplicates="average")
    np.testing.assert_allclose(screen.responses, [[4.0], [1.0]])
    assert screen.obs["n_cells"].tolist() == [4, 1]
    assert "1 perturbations had several rows, which were averaged" in screen.meta["notes"]


def test_raw_counts_are_refused():
    data = means([[100, 2], [3000, 10]], ["control", "A"])
    with pytest.raises(InputError, match="whole numbers up to 3000 look like unnormalised counts"):
        read_screen(data)
    assert read_screen(data, values="means").responses[0, 0] == 2900


def test_infinite_values_are_named_or_become_not_measured():
    data = means([[0.0, 1.0], [np.inf, 2.0]], ["control", "A"])
    with pytest.raises(InputError, match=r"1 infinite values \(first: row 'r1', feature 'G0'\)"):
        read_screen(data)
    screen = read_screen(data, infinite="nan")
    assert np.isnan(screen.responses[0, 0])
    assert "1 infinite values taken as not measured" in screen.meta["notes"]


def test_no_control():
    data = means([[0.5], [1.0]], ["A", "B"])
    with pytest.raises(InputError, match=r"no control found.*A, B.*--control.*--values deltas"):
        read_screen(data)
    np.testing.assert_allclose(read_screen(data, values="deltas").responses, [[0.5], [1.0]])


def test_nan_is_kept_as_not_measured():
    screen = read_screen(means([[1, np.nan], [-1, 0]], ["A", "B"]))
    assert np.isnan(screen.responses[0, 1])
    assert "taken as control-subtracted already" in screen.meta["notes"][0]


def test_other_columns_are_kept():
    screen = read_screen(means([[0, 0], [1, -1]], ["control", "A"], guide=["-", "sg1"]))
    assert screen.obs["guide"].tolist() == ["sg1"]


def test_not_hdf5_and_missing(tmp_path):
    (tmp_path / "x.h5ad").write_text("no")
    with pytest.raises(InputError, match=r"x.h5ad is not an h5ad file \(it is not HDF5\)"):
        read_screen(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match=r"no such file: .*y.h5ad; did you mean x.h5ad"):
        read_screen(tmp_path / "y.h5ad")


def test_hdf5_that_is_no_anndata(tmp_path):
    import h5py

    with h5py.File(tmp_path / "x.h5ad", "w") as handle:
        handle["a"] = 1
    with pytest.raises(InputError, match="is not an h5ad file: it has no X and no obs and no var"):
        read_screen(tmp_path / "x.h5ad")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "parquet"])
def test_wide_tables(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    table = pd.DataFrame(
        {"gene": ["control", "KLF1", "B+A"], "n_cells": [50, 3, 4], "G1": [1.0, 2.0, 1.0],
         "G2": [0.0, 3.0, np.nan], "comment": ["x", "y", "z"]}
    )  # fmt: skip
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if "tsv" in suffix else ",", index=False)
    screen = read_screen(path)
    assert screen.perturbations == ("KLF1", "A+B")
    assert screen.features == ("G1", "G2")
    np.testing.assert_allclose(screen.responses, [[1, 3], [0, np.nan]])
    assert screen.obs["n_cells"].tolist() == [3, 4]


def test_unnamed_first_column_and_parquet_index(tmp_path):
    table = pd.DataFrame([[1.0, -2.0]], index=["KLF1"], columns=["G1", "G2"])
    table.to_csv(tmp_path / "t.csv")
    table.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        screen = read_screen(tmp_path / name)
        assert screen.perturbations == ("KLF1",)
        np.testing.assert_allclose(screen.responses, [[1, -2]])


def test_own_column_name_of_a_table(tmp_path):
    (tmp_path / "t.csv").write_text("id,sgrna_target,G1\nr1,KLF1,-1\n")
    assert read_screen(tmp_path / "t.csv", perturbation_key="sgrna_target").perturbations == (
        "KLF1",
    )


def test_long_table_has_nan_where_a_pair_is_absent(tmp_path):
    (tmp_path / "t.csv").write_text("pert,gene,label\nA,G1,1\nA,G2,0\nB,G2,1\n")
    screen = read_screen(tmp_path / "t.csv", values="deltas")
    np.testing.assert_allclose(screen.responses, [[1, 0], [np.nan, 1]])
    (tmp_path / "t.csv").write_text("pert,gene,label\nA,G1,1\nA,G1,0\n")
    with pytest.raises(InputError, match="'A' and 'G1' occur together twice"):
        read_screen(tmp_path / "t.csv", values="deltas")


def test_ranked_signatures(tmp_path):
    (tmp_path / "t.tsv").write_text("pert\ttop3_ranked\nA\tG3,G1,G2\nB\tG4,G3,G1\n")
    screen = read_screen(tmp_path / "t.tsv")
    assert screen.features == ("G1", "G2", "G3", "G4")
    np.testing.assert_allclose(
        screen.responses, [[0.5, 1 / 6, 5 / 6, 0], [1 / 6, 0, 0.5, 5 / 6]], rtol=1e-6
    )
    assert "no magnitude" in screen.meta["unit"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g,A,A\nx,1,2\n", "column 'A' occurs twice"),
        ("g,A\nx,1\ny,2\nz,abc\n", "'z', column 'A': 'abc' is not a number"),
        ("g,note\nx,hello\n", "no numeric column"),
        ("1,2\n3,4\n", "the first column '1' holds numbers"),
        ("", "is empty: it cannot be read as a table"),
        ("perturbation,A\ncontrol,0\n,2\n", "1 rows have an empty perturbation name"),
        ("perturbation,A\ncontrol,0\nX,inf\n", "1 infinite values"),
    ],
)
def test_bad_tables(tmp_path, text, words):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        read_screen(path)
    assert str(path) in str(error.value)


def test_own_file_round_trip(tmp_path):
    screen = simulate_screen(0, n_perturbations=10, n_features=12, n_pathways=2).screen
    screen.save(tmp_path / "s.h5ad")
    back = read_screen(tmp_path / "s.h5ad")
    np.testing.assert_array_equal(back.responses, screen.responses)
    assert back.simulated


@pytest.mark.shared
def test_real_files(shared_data):
    folder = shared_data / "screens"
    pcs = read_screen(folder / "replogle_k562_pcs50.h5ad")
    assert len(pcs) == 300
    assert pcs.contexts == ("K562",)
    raw = anndata.read_h5ad(folder / "replogle_k562_pcs50.h5ad")
    np.testing.assert_array_equal(pcs.responses, raw.X[1:])
    programs = read_screen(folder / "replogle_k562_programs25.h5ad")
    assert len(programs) == 1949
    assert np.isnan(programs.responses).mean() == pytest.approx(0.2844, abs=1e-3)
    ranked = read_screen(folder / "replogle_rpe1_up1000.tsv.gz", context="RPE1")
    assert len(ranked) == 585
    assert ranked.contexts == ("RPE1",)
