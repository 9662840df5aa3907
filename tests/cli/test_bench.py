"""`pertwise bench` end to end on small made-up data."""

import pandas as pd
import pytest
from evaluate.test_perturbqa import table
from typer.testing import CliRunner

from pertwise.cli.main import app

runner = CliRunner()


@pytest.fixture
def labels(tmp_path):
    table().to_csv(tmp_path / "k562-de.csv.gz", index=False)
    return tmp_path


def test_perturbqa_prints_a_table_and_writes_csv(labels, tmp_path):
    out = tmp_path / "out"
    result = runner.invoke(
        app,
        ["bench", "perturbqa", str(labels), "--method", "training mean", "--out", str(out)],
    )
    assert result.exit_code == 0, result.output
    assert "gene frequency" in result.output
    summary = pd.read_csv(out / "summary.csv")
    assert list(summary["method"]) == ["gene frequency", "training mean"]
    assert set(pd.read_csv(out / "per_gene.csv")["method"]) == {"gene frequency", "training mean"}
