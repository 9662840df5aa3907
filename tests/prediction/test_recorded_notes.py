"""What is told about a file of recorded answers."""

import json

import numpy as np
import pytest

from pertwise.prediction.recorded_notes import recorded_notes
from pertwise.screen import make_screen


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [
        {"subject": "G000", "context": "K562", "neighbours": ["G001"]},
        {"subject": "G001", "context": "K562", "neighbours": ["G000"]},
        {"subject": "LOST", "context": "K562", "neighbours": [], "repairs": {"refusal": 3}},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def screen(context=""):
    x = np.random.default_rng(0).normal(size=(4, 3))
    return make_screen(x, [f"G00{i}" for i in range(4)], ["a", "b", "c"], context=context)


def test_a_full_file_needs_no_note(file):
    part = screen().of_perturbations(["G000", "G001"])
    assert recorded_notes("fused", {"answers": file}, ["G000"], part) == []
    assert recorded_notes("multi-kernel", {}, ["NEW"], part) == []
    assert recorded_notes("cross-line transfer", {"other": file}, ["NEW"], part) == []


def test_missing_refused_and_few_are_told(file):
    notes = recorded_notes("fused", {"answers": file}, ["NEW+G000", "LOST"], screen("K562"))
    absent, refused, few = notes
    # A combination is looked up gene by gene: G000 is there.
    assert absent.startswith("NEW: no recorded answer in ")
    assert "its prediction rests on the other kernels alone" in absent
    assert refused.startswith("LOST: ")
    assert "no usable answer (refusal 3)" in refused
    assert "2 of 4 measured perturbations" in few


def test_neighbour_methods_look_up_the_combination_itself(file):
    for use, settings in (
        ("langpert (recorded)", {"answers": file}),
        ("neighbours", {"selector": f"graph:string or recorded:{file}"}),
    ):
        (note,) = recorded_notes(use, settings, ["G000", "G000+NEW"], screen())
        assert note.startswith("G000+NEW: no recorded answer")
        assert "has no neighbours from this file" in note


def test_answers_about_other_cells_are_told(file):
    notes = recorded_notes("langpert (recorded)", {"answers": file}, ["G000"], screen("RPE1"))
    assert notes == [f"{file} was asked about K562, but these cells are RPE1"]
    assert recorded_notes("langpert (recorded)", {"answers": file}, ["G000"], screen("K562")) == []
