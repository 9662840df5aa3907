"""One set of broken files for every reader: one line that names the file, never a traceback."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError, PertwiseError
from pertwise.knowledge.drugs.table import DrugTable
from pertwise.knowledge.lines import CellTable
from pertwise.knowledge.recorded import read_recording
from pertwise.screen import read_screen
from pertwise.screen.cells import open_cells
from pertwise.screen.cells_parquet import open_parquet
from pertwise.screen.info import describe_screen
from pertwise.screen.pseudobulk import pseudobulk
from pertwise.screen.shards import pseudobulk_shards
from pertwise.screen.signatures import read_signatures


def h5ad(folder):
    obs = pd.DataFrame({"perturbation": ["ctrl", "A"] * 20}, index=[f"c{i}" for i in range(40)])
    ad.AnnData(np.ones((40, 9), "f4"), obs=obs).write_h5ad(folder / "whole.h5ad")
    return (folder / "whole.h5ad").read_bytes()


def parquet(folder):
    pd.DataFrame({"perturbation": ["ctrl", "A"], "F": [0.0, 1]}).to_parquet(
        folder / "whole.parquet"
    )
    return (folder / "whole.parquet").read_bytes()


BROKEN = {
    "empty": lambda folder, suffix: b"",
    "random": lambda folder, suffix: np.random.default_rng(1).bytes(4000),
    "zeros": lambda folder, suffix: bytes(4000),
    "cut h5ad": lambda folder, suffix: h5ad(folder)[:-2000],
    "head of an h5ad": lambda folder, suffix: h5ad(folder)[:700],
    "cut parquet": lambda folder, suffix: parquet(folder)[:-30],
    "zip": lambda folder, suffix: b"PK\x03\x04" + bytes(100),
    "web page": lambda folder, suffix: b"<!DOCTYPE html><html>404</html>",
    "cut gzip": lambda folder, suffix: b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + bytes(5),
    "not utf-8": lambda folder, suffix: b"perturbation,A\n\xff\xfe\xe9,1\n",
    "pointer": lambda folder, suffix: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}
SUFFIXES = [".h5ad", ".csv", ".tsv.gz", ".parquet", ".npz", ".json"]


def opened(path):
    with open_cells(path) as file:
        file.rows(0, len(file))


READERS = {
    "screen": read_screen,
    "info": describe_screen,
    "cells": opened,
    "pseudobulk": pseudobulk,
    "tokens": lambda path: open_parquet(path, None),
    "gene table": lambda path: open_parquet(path, path),
    "shards": lambda path: pseudobulk_shards([path], workdir=path.parent / "w"),
    "signatures": lambda path: read_signatures(path, path),
    "drugs": DrugTable.read,
    "lines": CellTable.read,
    "recorded": read_recording,
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_reader_refuses_in_one_line(tmp_path, kind, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(BROKEN[kind](tmp_path, suffix))
    said = {}
    for name, read in READERS.items():
        try:
            read(path)
        except PertwiseError as error:
            said[name] = str(error)
    for name, text in said.items():
        assert "\n" not in text, name
        assert path.name in text, name
    # A cut parquet read as csv, and the like: whatever can be read may be; the others said why.
    assert len(said) >= len(READERS) - 1


@pytest.mark.parametrize("command", ["info", "pseudobulk", "convert"])
def test_a_copy_that_broke_off_says_how_much_is_there(tmp_path, command):
    whole = h5ad(tmp_path)
    (tmp_path / "x.h5ad").write_bytes(whole[: len(whole) // 2])
    asked = ["screen", command, str(tmp_path / "x.h5ad")]
    result = CliRunner().invoke(
        app, asked + ([] if command == "info" else [str(tmp_path / "o.h5ad")])
    )
    assert isinstance(result.exception, InputError)
    assert f"of {len(whole):,} bytes): copy it again" in str(result.exception)


def test_folders_where_files_are_expected(tmp_path):
    for suffix in SUFFIXES:
        (tmp_path / f"d{suffix}").mkdir()
        for name, read in READERS.items():
            if name not in ("tokens", "gene table"):
                with pytest.raises(PertwiseError, match="d"):
                    read(tmp_path / f"d{suffix}")


def test_an_output_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    from pertwise.cli import main

    (tmp_path / "file").write_text("x")
    pd.DataFrame({"perturbation": ["A"], "F": [-1.0]}).to_csv(tmp_path / "t.csv", index=False)
    asked = [
        "pertwise",
        "screen",
        "convert",
        str(tmp_path / "t.csv"),
        str(tmp_path / "file/o.h5ad"),
    ]
    monkeypatch.setattr("sys.argv", asked)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
