"""`pertwise screen ...` as a user types it."""

import json
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

from pertwise.cli.main import main
from pertwise.screen import read_screen


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["pertwise", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        return stop.value.code, out.out, out.err

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A simulated experiment written by the command itself."""
    import subprocess

    out = tmp_path_factory.mktemp("sim") / "out"
    code = (
        "import sys; from pertwise.cli.main import main; sys.argv = ['pertwise', 'screen', "
        f"'simulate', {str(out)!r}, '--cells', '--perturbations', '12', '--features', '30', "
        "'--pathways', '2', '--contexts', 'A,B']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("SIMULATED")
    return out


def test_simulate_writes_everything_and_says_what_it_is(folder):
    assert "do not exist" in (folder / "SIMULATED.txt").read_text()
    assert read_screen(folder / "screen.h5ad").simulated
    assert (folder / "knowledge_sources" / "gene_go.tsv.gz").exists()
    assert len(pd.read_csv(folder / "truth" / "genes.tsv", sep="\t")) > 12


def test_info_of_cells(run, folder):
    code, out, _ = run("screen", "info", folder / "cells.h5ad", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["holds"] == "cells"
    assert found["n_perturbations"] == 12
    assert found["contexts"] == {"A": 12, "B": 12}
    assert found["batches"] == 2
    assert found["control"] == ["control"]
    assert found["simulated"] is True
    assert found["cells"]["min"] >= 5
    data = anndata.read_h5ad(folder / "cells.h5ad", backed="r")
    assert found["control_rows"] == (data.obs["perturbation"] == "control").sum()


def test_info_shows_the_same_as_text(run, folder):
    code, out, _ = run("screen", "info", folder / "cells.h5ad")
    assert code == 0
    for words in ("SIMULATED", "A: 12, B: 12", "cells per perturbation", "counts in X"):
        assert words in out


def test_pseudobulk_then_info(run, folder, tmp_path):
    target = tmp_path / "out.h5ad"
    code, out, _ = run("screen", "pseudobulk", folder / "cells.h5ad", target, "--hvg", 20)
    assert code == 0
    assert "24 rows, 12 perturbations x 20 features" in out
    code, out, _ = run("screen", "info", target, "--json")
    assert json.loads(out)["layout"] == "pertwise screen"


def test_holdout_may_be_a_file(run, folder, tmp_path):
    name = read_screen(folder / "screen.h5ad").perturbations[0]
    (tmp_path / "held.txt").write_text(f"{name}\n")
    target = tmp_path / "out.h5ad"
    code, _, _ = run(
        "screen", "pseudobulk", folder / "cells.h5ad", target, "--hvg", 20, "--holdout",
        tmp_path / "held.txt",
    )  # fmt: skip
    assert code == 0
    assert read_screen(target).meta["hvg_holdout"] == [name]


def cells(names, x=None):
    rng = np.random.default_rng(0)
    values = rng.poisson(3.0, (len(names), 20)).astype(np.float32) if x is None else x
    return anndata.AnnData(
        X=values,
        obs=pd.DataFrame({"perturbation": names}, index=[f"c{i}" for i in range(len(names))]),
        var=pd.DataFrame(index=[f"G{i}" for i in range(values.shape[1])]),
    )


def bad_file(kind, path):
    labels = ["control"] * 10 + ["A"] * 10 + ["B"] * 10
    rng = np.random.default_rng(1)
    if kind == "no control":
        cells(["A"] * 10 + ["B"] * 10).write_h5ad(path)
    elif kind == "empty name":
        cells([*labels[:-1], ""]).write_h5ad(path)
    elif kind == "cannot tell":
        cells(labels, rng.gamma(1, 1, (30, 20)).astype(np.float32)).write_h5ad(path)
    elif kind == "infinite":
        x = rng.poisson(3.0, (30, 20)).astype(np.float32)
        x[3, 4] = np.inf
        cells(labels, x).write_h5ad(path)
    elif kind == "duplicated":
        cells(["control", "A", "A", "B"], np.ones((4, 3), np.float32)).write_h5ad(path)
    elif kind == "raw counts":
        x = rng.poisson(500.0, (3, 5)).astype(np.float32)
        cells(["control", "A", "B"], x).write_h5ad(path)
    elif kind == "not h5ad":
        path.write_text("perturbation")
    elif kind == "unknown control":
        cells(labels).write_h5ad(path)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("not h5ad", "is not an h5ad file"),
        ("no control", "no control found. The most frequent labels are: A, B"),
        ("unknown control", "unknown control label 'contrl'; did you mean 'control'?"),
        ("empty name", "1 rows have an empty perturbation name"),
        ("cannot tell", "cannot tell counts from logs"),
        ("infinite", "has the value inf for 'G4'"),
    ],
)
def test_bad_cells_end_in_one_clear_line(run, tmp_path, kind, words):
    path = tmp_path / "bad.h5ad"
    bad_file(kind, path)
    extra = ["--control", "contrl"] if kind == "unknown control" else []
    extra += ["--scale", "counts"] if kind == "infinite" else []
    code, _, err = run("screen", "pseudobulk", path, tmp_path / "out.h5ad", *extra)
    assert code == 2
    assert err.startswith("error: ")
    assert words in err
    assert "bad.h5ad" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("duplicated", "perturbation 'A' has 2 rows"),
        ("raw counts", "look like unnormalised counts"),
        ("no control", "no control found"),
        ("empty name", "empty perturbation name"),
        ("cannot tell", "cannot tell counts from logs"),
    ],
)
def test_info_lists_problems_and_ends_with_status_2(run, tmp_path, kind, words):
    path = tmp_path / "bad.h5ad"
    bad_file(kind, path)
    code, out, _ = run("screen", "info", path, "--json")
    assert code == 2
    assert words in json.loads(out)["problems"][0]
    code, out, _ = run("screen", "info", path)
    assert "problem: " in out


def test_pseudobulk_needs_an_output(run, folder):
    code, _, err = run("screen", "pseudobulk", folder / "cells.h5ad")
    assert code == 2
    assert "last, the h5ad file to write" in err
    code, _, err = run("screen", "pseudobulk", folder / "cells.h5ad", folder / "x.csv")
    assert "must end in .h5ad" in err
    code, _, err = run("screen", "pseudobulk", folder / "cells.h5ad", folder / "cells.h5ad")
    assert "is one of the inputs" in err


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "rows", "share"),
    [("replogle_k562_pcs50.h5ad", 300, 0.0), ("replogle_k562_programs25.h5ad", 1949, 0.2844)],
)
def test_info_of_real_screens(run, shared_data, name, rows, share):
    code, out, _ = run("screen", "info", shared_data / "screens" / name, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["n_rows"] == rows
    assert found["nan_share"] == pytest.approx(share, abs=1e-4)
    assert found["contexts"] == {"K562": rows}


def test_convert_records_its_repairs(run, tmp_path):
    """The public bulk file of Replogle 2022 has infinite values and several rows per gene."""
    table = pd.DataFrame(
        {"gene": ["non-targeting", "A", "A", "B"], "num_cells_filtered": [50, 3, 1, 2],
         "G1": [0.1, 1.0, -1.0, np.inf], "G2": [0.0, 1.0, 1.0, 2.0]}
    )  # fmt: skip
    table.to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "s.h5ad"
    code, _, err = run("screen", "convert", tmp_path / "t.csv", out)
    assert code == 2
    assert "1 infinite values" in err
    code, text, _ = run(
        "screen", "convert", tmp_path / "t.csv", out, "--infinite", "nan", "--duplicates",
        "average", "--context", "K562",
    )  # fmt: skip
    assert code == 0
    assert "note: 1 infinite values taken as not measured" in text
    screen = read_screen(out)
    assert screen.contexts == ("K562",)
    np.testing.assert_allclose(screen.responses, [[0.4, 1.0], [np.nan, 2.0]], rtol=1e-6)
    code, _, err = run("screen", "convert", tmp_path / "t.csv", out, "--values", "delta")
    assert "--values delta is not one of auto, means, deltas" in err
