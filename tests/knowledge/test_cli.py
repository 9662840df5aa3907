"""`pertwise knowledge ...` as a user sees it."""

import numpy as np
import pytest
from knowledge.small import write_small
from typer.testing import CliRunner

from pertwise.cli.main import app
from pertwise.errors import InputError


@pytest.fixture
def run():
    def call(*args):
        result = CliRunner().invoke(app, ["knowledge", *map(str, args)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return call


def test_build_info_gene_pathway(run, tmp_path):
    sources = tmp_path / "s"
    sources.mkdir()
    write_small(sources)
    out = tmp_path / "k"
    built = run("build", sources, "--out", out)
    assert "gene_go" in built
    assert "not in it: positions" in built
    assert "NOTAGENE" in built
    assert "fingerprint" in run("info", out)
    gene = run("gene", "sinister1", "--knowledge", out)
    assert "LEFT1 (asked for: sinister1)  left factor LEFT1" in gene
    assert "GO:0000011 P very sinister process (3 genes)" in gene
    pathway = run("pathway", "both sides", "-k", out)
    assert "HALLMARK_BOTH_SIDES: 17 genes; modules computed" in pathway
    with pytest.raises(InputError, match="unknown gene LEFTT1; did you mean LEFT1"):
        run("gene", "LEFTT1", "-k", out)
    with pytest.raises(InputError, match="unknown pathway 'bth sides'; did you mean"):
        run("pathway", "bth sides", "-k", out)


def test_kind_pairs_and_embedding(run, tmp_path):
    (tmp_path / "any.name").write_text("source\ttarget\tweight\nA\tB\t1\n")
    run("build", f"collectri={tmp_path / 'any.name'}", "--out", tmp_path / "k")
    np.savez(tmp_path / "m.npz", genes=np.array(["A", "Q"]), matrix=np.ones((2, 3)))
    said = run("add-embedding", "mine", tmp_path / "m.npz", "-k", tmp_path / "k")
    assert said.strip() == "mine: 1 genes x 3; left out: 1 unknown, 0 ambiguous, 0 repeated"
    with pytest.raises(InputError, match="KIND=FILE for every source"):
        run("build", f"collectri={tmp_path / 'x'}", tmp_path, "--out", tmp_path / "k2")


def test_fetch_list_shows_addresses_without_network(run, tmp_path):
    said = run("fetch", "--out", tmp_path, "--list")
    assert "goa_human.gaf.gz" in said
    assert list(tmp_path.iterdir()) == []
