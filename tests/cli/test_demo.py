"""The demo: two rounds, simulated and saying so, the second knowing what the first measured."""

import sys

import pytest

from pertwise.acquire import Plan
from pertwise.cli.main import main


def test_demo_makes_two_pages(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    args = ["demo", "--out", str(tmp_path), "--batch", "5", "--genes", "60"]
    monkeypatch.setattr(sys, "argv", ["pertwise", *args])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "SIMULATED" in out
    assert "What to look at" in out
    one, two = Plan.load(tmp_path / "round1"), Plan.load(tmp_path / "round2")
    assert one.simulated
    assert two.simulated
    assert len(one.picks) == len(two.picks) == 5
    assert not set(one.genes) & set(two.genes)
    assert set(one.genes) <= set(two.measured["gene"])
    for number in (1, 2):
        page = (tmp_path / f"round{number}" / "plan.html").read_text()
        assert "Simulated data" in page
    assert str(tmp_path / "round1" / "plan.html") in out.replace("\n", "")
